"""The stores on which worker and client are tested, each test on one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oncetask import Client
from tests.integration.places import FilePlace, FirestorePlace, MemoryPlace, Place


@pytest.fixture(params=["sqlite", pytest.param("firestore", marks=pytest.mark.emulator)])
def opened_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    """Where the tasks are, for tests that run without a loop or make their own."""
    if request.param == "sqlite":
        return FilePlace(tmp_path)
    if request.param == "memory":
        return MemoryPlace()
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", request.getfixturevalue("emulator_host"))
    return FirestorePlace(request.getfixturevalue("project_id"))


@pytest.fixture
async def place(opened_place: Place) -> AsyncIterator[Place]:
    """Where this test's tasks are; clients that it gives are closed at the end."""
    yield opened_place
    await opened_place.aclose()


@pytest.fixture
async def connected(place: Place) -> Client:
    """A fresh client, open."""
    client = place.connect()
    await client.store.open()
    return client
