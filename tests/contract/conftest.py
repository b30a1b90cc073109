"""Every test of the contract runs once for each backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from oncetask.store import TaskStore
from tests.contract.backends import Backend, Coded, FirestoreBackend, InMemory, SqliteFile, SqliteMemory
from tests.contract.places import EVERYWHERE


@pytest.fixture(scope="session")
def _grpc() -> Iterator[None]:
    """Keeps grpc's poller, which ends when its last channel is collected: in some later test, whose loop it blocks."""

    async def start() -> None:
        grpc.aio.init_grpc_aio()

    with asyncio.Runner() as runner:
        runner.run(start())
    yield
    grpc.aio.shutdown_grpc_aio()


@pytest.fixture(params=EVERYWHERE)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Backend:
    """One place for the data of one test."""
    if request.param == "sqlite-file":
        return SqliteFile(tmp_path)
    if request.param == "sqlite-memory":
        return SqliteMemory()
    if request.param == "memory":
        return InMemory()
    if request.param == "coded":
        return Coded(tmp_path)
    request.getfixturevalue("_grpc")
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", request.getfixturevalue("emulator_host"))
    return FirestoreBackend(request.getfixturevalue("project_id"))


@pytest.fixture
async def backend(place: Backend) -> AsyncIterator[Backend]:
    """Where the data are, and how another program would write them."""
    yield place
    await place.aclose()


@pytest.fixture
def store(backend: Backend) -> TaskStore:
    """The store under test."""
    return backend.open_store()


@pytest.fixture
def open_store(backend: Backend, store: TaskStore) -> Callable[[], TaskStore]:
    """Opens further stores on the data of `store`; where they are private to it, gives itself again."""
    return backend.open_store
