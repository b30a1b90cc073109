"""A project that has the rules of this repository and some documents, and users who ask for them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rules.callers import Caller, Project
from tests.rules.documents import DOCUMENTS

_RULES = Path(__file__).parents[2] / "firestore.rules"


@pytest.fixture(scope="module")
def project(emulator_host: str) -> Iterator[Project]:
    """A project of this module's own, with the rules and the documents."""
    with Project(emulator_host, f"rules-{uuid.uuid4().hex[:20]}") as project:
        project.load(_RULES.read_text())
        for path, fields in DOCUMENTS.items():
            project.admin.put(path, fields).raise_for_status()
        yield project


@pytest.fixture
def ada(project: Project) -> Caller:
    """A user to whom tasks belong."""
    return project.user("ada")


@pytest.fixture
def eve(project: Project) -> Caller:
    """A user to whom no task belongs."""
    return project.user("eve")
