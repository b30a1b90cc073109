"""Every test of the contract runs once for each backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from oncetask.store import TaskStore
from tests.contract.backends import Backend, FirestoreBackend, SqliteFile, SqliteMemory


@pytest.fixture(params=["sqlite-file", "sqlite-memory", pytest.param("firestore", marks=pytest.mark.emulator)])
def _place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Backend:
    if request.param == "sqlite-file":
        return SqliteFile(tmp_path)
    if request.param == "sqlite-memory":
        return SqliteMemory()
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", request.getfixturevalue("emulator_host"))
    return FirestoreBackend(request.getfixturevalue("project_id"))


@pytest.fixture
async def backend(_place: Backend) -> AsyncIterator[Backend]:
    """Where the data are, and how another program would write them."""
    yield _place
    await _place.aclose()


@pytest.fixture
def store(backend: Backend) -> TaskStore:
    """The store under test."""
    return backend.open_store()


@pytest.fixture
def open_store(backend: Backend, store: TaskStore) -> Callable[[], TaskStore]:
    """Opens further stores on the data of `store`; where they are private to it, gives itself again."""
    return backend.open_store
