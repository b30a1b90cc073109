"""Opening and closing: clients, loops, and what the clock learns."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.cloud.firestore import AsyncClient

from oncetask.clock import StoreClock, SystemClock
from oncetask.errors import StoreUnavailable, Unsupported
from oncetask.lifecycle import realign
from oncetask.store.firestore import FirestoreStore
from oncetask.store.firestore.rpc import Rpc
from tests.integration.firestore.conftest import MakeStore
from tests.integration.firestore.support import claimed, failing, lose_answer, record, session_of, soon, stored
from tests.support import FakeClock, a_task

pytestmark = pytest.mark.emulator


class WrongClock(SystemClock):
    """A machine that believes to live in another year."""

    def wall(self) -> datetime:
        """Give a time of day that is far off."""
        return datetime(2001, 1, 1, tzinfo=UTC)


async def test_nothing_at_construction(make_store: MakeStore) -> None:
    """Making a store asks nothing of anybody; its clock is this machine's until it is opened."""
    store = make_store(clock=WrongClock())
    assert not store.clock.known
    assert not store.counters.rpcs
    await store.aclose()
    assert not store.counters.rpcs


async def test_clock(make_store: MakeStore) -> None:
    """Opening learns the server's time, whatever this machine believes."""
    store = make_store(clock=WrongClock())
    now = await store.now()
    assert abs(now.latest - datetime.now(UTC)) < timedelta(minutes=1)
    assert now.earliest <= now.latest
    assert store.counters.rpcs == {"BatchGetDocuments": 1}


async def test_clock_of_writes(make_store: MakeStore) -> None:
    """A write that is new tells the time, also to a clock that has stood still since the question."""
    clock = FakeClock()
    store = make_store(clock=clock)
    task = await stored(store, a_task())
    now = store.clock.now()
    assert now.earliest == now.latest
    assert int(now.latest.timestamp() * 1e6) >= task.version - 1


async def test_clock_of_old_writes(make_store: MakeStore) -> None:
    """A write that changes nothing, and one whose answer got lost, tell no time of theirs."""
    clock = FakeClock()
    store = make_store(clock=clock)
    task = await stored(store, a_task())
    clock.advance(3_600)
    observed = observed_by(store.clock)
    await store.apply([realign(task)])
    assert observed == []
    lose_answer(store, "batch_write")
    (written,) = await store.apply([claimed(task)])
    (looked_up,) = observed
    assert written.version is not None
    assert int(looked_up.timestamp() * 1e6) > written.version


async def test_clock_of_empty_query(make_store: MakeStore) -> None:
    """A query that finds nothing tells the time, too."""
    store = make_store()
    await store.open()
    observed = observed_by(store.clock)
    await store.due(["greet"], now=datetime.now(UTC), limit=1)
    assert len(observed) == 1


async def test_opens_once(make_store: MakeStore) -> None:
    """However many come first, the store is opened once."""
    store = make_store()
    await asyncio.gather(*(store.get(["x"]) for _ in range(10)), store.open())
    assert store.counters.rpcs["BatchGetDocuments"] == 11


async def test_closes_and_opens(make_store: MakeStore) -> None:
    """A closed store opens again at the next use; closing twice is closing."""
    store = make_store()
    await store.create([a_task()])
    await store.aclose()
    await store.aclose()
    assert await store.get(["greet:1"]) != [None]


async def test_closing_waits(make_store: MakeStore) -> None:
    """Writes of thousands that were begun before the store was closed are finished."""
    store = make_store()
    await store.open()
    writing = asyncio.create_task(store.create([a_task(f"t{number}") for number in range(6_000)]))
    await asyncio.sleep(0)  # it has begun
    await store.aclose()
    assert all(one.applied for one in await writing)


async def test_failed_opening(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An opening that fails leaves nothing behind, and the next one may succeed."""
    store = make_store(patience=0.2)

    async def fail(_self: Rpc, _names: list[str]) -> list[Any]:
        raise failing("BatchGetDocuments")

    with monkeypatch.context() as patch:
        patch.setattr(Rpc, "batch_get", fail)
        with pytest.raises(StoreUnavailable, match="opening the store failed"):
            await store.open()
    await store.open()


async def test_unreachable(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens the error names the place."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:9")
    with pytest.raises(
        StoreUnavailable, match=r"projects/test-.*/databases/\(default\) at 127\.0\.0\.1:9: .*UNAVAILABLE"
    ):
        await make_store(patience=0.2).open()


async def test_no_credentials(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials and without an emulator the error says what to do."""
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST")
    with pytest.raises(StoreUnavailable, match="gcloud auth application-default login"):
        await make_store().open()


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, r"roles/datastore\.user"),
        (grpc.StatusCode.UNAUTHENTICATED, "application-default login"),
        (grpc.StatusCode.NOT_FOUND, "gcloud firestore databases create"),
    ],
)
async def test_advice(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode, advice: str
) -> None:
    """What a person can mend is not tried again, and the error says how."""
    tried = []

    async def fail(_self: Rpc, _names: list[str]) -> list[Any]:
        tried.append(1)
        raise failing("BatchGetDocuments", code, "no")

    monkeypatch.setattr(Rpc, "batch_get", fail)
    with pytest.raises(StoreUnavailable, match=advice):
        await make_store().open()
    assert len(tried) == 1


async def test_own_client(project_id: str, native: AsyncClient) -> None:
    """A client that was passed in is used, and left open."""
    store = FirestoreStore(client=native, env="test")
    async with store.watch_tasks(["greet:1"]) as feed:
        assert await soon(feed) == [None]
    await store.create([a_task()])
    assert session_of(store).client is native
    await store.aclose()
    assert (await native.document("oncetask/test/onceTasks/greet:1").get()).exists


async def test_batch_of_closed_store(make_store: MakeStore) -> None:
    """A write batch needs an open store."""
    with pytest.raises(StoreUnavailable, match=r"open"):
        make_store().new_batch()


async def test_batch_used_directly(store: FirestoreStore) -> None:
    """A batch that its user commits himself works, and what it opened is closed with the store."""
    batch = store.new_batch()
    batch.set(session_of(store).client.document("users/1"), {})
    await batch.commit()


def observed_by(clock: StoreClock) -> list[datetime]:
    """Give the times that a clock is told from now on."""
    told: list[datetime] = []

    def observe(store_time: datetime, *, asked: float) -> None:
        assert asked <= clock.monotonic()
        told.append(store_time)

    clock.observe = observe  # type: ignore[method-assign]  # to see it
    return told


def elsewhere(work: Coroutine[Any, Any, Any]) -> BaseException | None:
    """Run something on a loop of its own in another thread, and give what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # noqa: BLE001  # it is what the test wants to see
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


async def test_another_loop(store: FirestoreStore) -> None:
    """Using an open store on another loop says what to do."""
    error = await asyncio.to_thread(elsewhere, store.get(["x"]))
    assert isinstance(error, Unsupported)
    assert "a client for each loop" in str(error)
    assert isinstance(await asyncio.to_thread(elsewhere, store.aclose()), Unsupported)
    assert await store.get(["x"]) == [None]


async def test_own_client_of_another_loop(native: AsyncClient) -> None:
    """A client that was used on another loop is refused."""
    await native.document("users/1").get()
    error = await asyncio.to_thread(elsewhere, FirestoreStore(client=native).open())
    assert isinstance(error, Unsupported)


def test_loops_after_each_other(project_id: str) -> None:
    """A store that was closed opens on the next loop, crowded or not."""
    store = FirestoreStore(project=project_id)

    async def use() -> None:
        await asyncio.gather(*(store.get(["x"]) for _ in range(3)))
        await store.aclose()

    for _ in range(3):
        asyncio.run(use())
    assert store.counters.documents_read == 12


async def test_deadline(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is waited for no longer than the limit of a request."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreUnavailable, match=r"DEADLINE_EXCEEDED|UNAVAILABLE"):
            await make_store(patience=0, rpc_timeout=0.2).open()


async def test_environments(make_store: MakeStore) -> None:
    """Documents are where the design says, in the environment of the store."""
    store = make_store(env="staging")
    await store.open()
    calls = record(store, "batch_write")
    await store.create([a_task()])
    assert calls[0][0].update.name.endswith("/documents/oncetask/staging/onceTasks/greet:1")
