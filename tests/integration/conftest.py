"""The stores on which worker and client are tested, each test on one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from oncetask import Client
from tests.integration.places import FilePlace, FirestorePlace, MemoryPlace, Place


@pytest.fixture(scope="session")
def _grpc() -> Iterator[None]:
    """Keeps grpc's poller, which ends when its last channel is collected: in some later test, whose loop it blocks."""

    async def start() -> None:
        grpc.aio.init_grpc_aio()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    loop.close()
    yield
    grpc.aio.shutdown_grpc_aio()


@pytest.fixture(params=["sqlite", pytest.param("firestore", marks=pytest.mark.emulator)])
def _opened_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return FilePlace(tmp_path)
    if request.param == "memory":
        return MemoryPlace()
    request.getfixturevalue("_grpc")
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", request.getfixturevalue("emulator_host"))
    return FirestorePlace(request.getfixturevalue("project_id"))


@pytest.fixture
async def place(_opened_place: Place) -> AsyncIterator[Place]:
    """Where this test's tasks are; clients that it gives are closed at the end."""
    yield _opened_place
    await _opened_place.aclose()


@pytest.fixture
async def connected(place: Place) -> Client:
    """A fresh client, open."""
    client = place.connect()
    await client.store.open()
    return client
