"""Stores on the emulator, each test in a project of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from google.cloud.firestore import AsyncClient

from oncetask.store.firestore import FirestoreStore

MakeStore = Callable[..., FirestoreStore]


@pytest.fixture(autouse=True)
def _emulator(emulator_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)


@pytest.fixture
async def make_store(project_id: str) -> AsyncIterator[MakeStore]:
    """Makes stores on this test's project, and closes them."""
    made: list[FirestoreStore] = []

    def make(**options: object) -> FirestoreStore:
        store = FirestoreStore(**{"project": project_id, "env": "test", **options})  # type: ignore[arg-type]  # as the test says
        made.append(store)
        return store

    yield make
    for store in made:
        await store.aclose()


@pytest.fixture
async def store(make_store: MakeStore) -> FirestoreStore:
    """A store that is open."""
    store = make_store()
    await store.open()
    return store


@pytest.fixture
async def native(project_id: str) -> AsyncIterator[AsyncClient]:
    """Google's own client on the same project, for what somebody else writes and sees."""
    client = AsyncClient(project=project_id)
    yield client
    await client._firestore_api.transport.close()
