"""The listener: one stream for everything that is watched, mended when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.cloud.firestore import AsyncClient

from oncetask.errors import StoreUnavailable
from oncetask.lifecycle import renew
from oncetask.store.document import encode
from oncetask.store.firestore import FirestoreStore
from oncetask.task import Task
from tests.integration.firestore.conftest import MakeStore
from tests.integration.firestore.proxy import Proxy
from tests.integration.firestore.support import (
    after,
    claimed,
    completed,
    failing,
    read,
    session_of,
    soon,
    stored,
    until,
)
from tests.support import T0, a_task, at

pytestmark = pytest.mark.emulator


def open_streams(store: FirestoreStore) -> list[Any]:
    """Give the calls that the listener opens from now on."""
    listener = session_of(store).listener
    open_stream = listener._open_stream
    calls: list[Any] = []

    @contextmanager
    def recorded() -> Iterator[Any]:
        with open_stream() as call:
            calls.append(call)
            yield call

    listener._open_stream = recorded
    return calls


def _version(tasks: list[Task | None]) -> int | None:
    (task,) = tasks
    return None if task is None else task.version


async def test_one_stream(store: FirestoreStore) -> None:
    """All that is watched is on one stream, which ends with the last watch."""
    calls = open_streams(store)
    async with AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(store.watch_tasks([f"t{n}"])) for n in range(20)]
        line = await stack.enter_async_context(store.watch_due(["greet"], limit=5))
        assert [await soon(feed) for feed in feeds] == [[None]] * 20
        assert await soon(line) == []
        await store.create([a_task("t7")])
        (found,) = await until(feeds[7], any)
        assert found is not None
        assert found.version == (await read(store, "t7")).version
        assert [task.id for task in await until(line, bool)] == ["t7"]
        (call,) = calls
    assert call._call.done()
    assert session_of(store).listener._task is None


async def test_a_target_for_each(store: FirestoreStore) -> None:
    """Each task that is watched is a target, however often it is named."""
    async with store.watch_tasks(["b", "a", "b"]) as feed:
        assert await soon(feed) == [None] * 3
        targets = session_of(store).listener._targets.values()
        names = [list(target.request.documents.documents) for target in targets]
        assert sorted(name.rpartition("/")[2] for (name,) in names) == ["a", "b"]


async def test_no_tasks(store: FirestoreStore) -> None:
    """Watching no tasks opens no stream."""
    async with store.watch_tasks([]) as feed:
        assert await soon(feed) == []
    assert "Listen" not in store.counters.rpcs


async def test_opens_again(store: FirestoreStore) -> None:
    """A watch after the last one opens the stream again."""
    for task_id in ("a", "b"):
        async with store.watch_tasks([task_id]) as feed:
            assert await soon(feed) == [None]
    assert store.counters.rpcs["Listen"] == 2


async def test_broken_stream(store: FirestoreStore) -> None:
    """A stream that breaks is opened again, with everything that is watched; what changed meanwhile is told."""
    calls = open_streams(store)
    async with store.watch_tasks(["a"]) as one, store.watch_due(["greet"], limit=5) as line:
        assert (await soon(one), await soon(line)) == ([None], [])
        calls[0]._call.cancel()
        await store.create([a_task("a")])
        (found,) = await until(one, any)
        assert found is not None
        assert found.id == "a"
        assert [task.id for task in await until(line, bool)] == ["a"]
        assert len(calls) == 2


async def test_fresh_value_after_break(store: FirestoreStore) -> None:
    """After a break the state is told again, also where it is the same."""
    calls = open_streams(store)
    async with store.watch_tasks(["a"]) as feed:
        assert await soon(feed) == [None]
        calls[0]._call.cancel()
        assert await soon(feed) == [None]


async def test_broken_connection(make_store: MakeStore, emulator_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that breaks all connections ends neither a watch nor a write."""
    async with Proxy(emulator_host) as proxy:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
        store = make_store()
        task = await stored(store, a_task("a"))
        async with store.watch_tasks(["a"]) as feed:
            await soon(feed)
            proxy.cut()
            change = renew(task, until=at(5))
            (written,) = await store.apply([change])
            assert written.version is not None
            assert await until(feed, lambda found: _version(found) == written.version)
        await store.aclose()


async def test_every_kind(store: FirestoreStore) -> None:
    """More than thirty kinds are watched by several targets, and told as one line."""
    kinds = [f"k{number:02}" for number in range(45)]
    await store.create([a_task(f"t{n}", kind=kinds[n], wait_until=at(-n)) for n in (0, 40, 44)])
    async with store.watch_due(kinds, limit=2) as feed:
        assert [task.id for task in await soon(feed)] == ["t44", "t40"]
        await store.create([a_task("first", kind="k10", wait_until=at(-100))])
        assert [task.id for task in await soon(feed)] == ["first", "t44"]


async def test_no_kinds(store: FirestoreStore) -> None:
    """A line of no kinds is empty, and opens no stream."""
    async with store.watch_due([], limit=2) as feed:
        assert await soon(feed) == []
    assert "Listen" not in store.counters.rpcs


async def test_rubbish_does_not_silence(store: FirestoreStore, native: AsyncClient) -> None:
    """Documents without an instant in `dueAt` take no places of the doorbell."""
    for number, rubbish in enumerate([None, 0, False, None]):
        document = {**encode(a_task()), "dueAt": rubbish}
        await native.document(f"oncetask/test/onceTasks/r{number}").set(document)
    async with store.watch_due(["greet"], limit=2) as feed:
        assert await soon(feed) == []
        await store.create([a_task("sound")])
        assert [task.id for task in await soon(feed)] == ["sound"]


async def test_other_writes_are_silent(store: FirestoreStore) -> None:
    """What does not change the head of the line is not told."""
    await store.create([a_task("first", wait_until=at(-10))])
    async with store.watch_due(["greet"], limit=1) as line, store.watch_tasks(["later"]) as later:
        await soon(line)
        await store.create([a_task("later"), a_task("another", kind="sync")])
        await until(later, any)
        await store.create([a_task("head", wait_until=at(-20))])
        assert [task.id for task in await soon(line)] == ["head"]


async def test_deleted(store: FirestoreStore) -> None:
    """A task that was deleted is told as None."""
    task = await stored(store, a_task("a"))
    async with store.watch_tasks(["a"]) as feed:
        await until(feed, any)
        await store.delete([task])
        assert await soon(feed) == [None]


async def test_read_at(store: FirestoreStore) -> None:
    """What is told is as of the snapshot, which is not before the write."""
    task = await stored(store, a_task("a"))
    async with store.watch_tasks(["a"]) as feed:
        (found,) = await soon(feed)
    assert found is not None
    assert found.version == task.version
    assert found.read_at > T0.replace(year=2020)
    assert int(found.read_at.timestamp() * 1e6) >= found.version - 1


async def test_billed(store: FirestoreStore) -> None:
    """A task that comes, is claimed and ends costs each listener on the head of the line three reads."""
    session_of(store).listener._ask_twice = False  # which is for the emulator only, and costs as well
    async with store.watch_due(["greet"], limit=3) as line:
        assert await soon(line) == []
        task = await stored(store, a_task("a"))
        await until(line, bool)
        (written,) = await store.apply([(claiming := claimed(task))])
        await until(line, lambda tasks: tasks[0].lease_owner is not None)
        await store.apply([completed(after(claiming, written))])
        await until(line, lambda tasks: not tasks)
        assert store.counters.listen_documents == 3


async def test_permission(store: FirestoreStore) -> None:
    """A stream that is not allowed ends the watches with what would help; later ones try again."""
    listener = session_of(store).listener
    open_stream = listener._open_stream

    @contextmanager
    def refused() -> Iterator[Any]:
        raise failing("Listen", grpc.StatusCode.PERMISSION_DENIED, "Missing or insufficient permissions.")
        yield

    listener._open_stream = refused
    async with store.watch_tasks(["a"]) as feed:
        with pytest.raises(StoreUnavailable, match=r"roles/datastore\.user"):
            await soon(feed)
    listener._open_stream = open_stream
    async with store.watch_tasks(["a"]) as feed:
        assert await soon(feed) == [None]


async def test_closed_while_watched(store: FirestoreStore) -> None:
    """Closing the store ends its watches loudly, and leaves no task behind."""
    async with store.watch_tasks(["a"]) as feed:
        await soon(feed)
        await store.aclose()
        with pytest.raises(StoreUnavailable, match="closed while it was watched"):
            await soon(feed)
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("oncetask")] == []


async def test_cancelled_watcher(store: FirestoreStore) -> None:
    """A watcher that is cancelled leaves no target and no task behind."""
    watching = asyncio.Event()

    async def watch() -> None:
        async with store.watch_tasks(["a"]) as feed:
            await feed.get()
            watching.set()
            await feed.get()

    task = asyncio.create_task(watch())
    async with asyncio.timeout(20):
        await watching.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert session_of(store).listener._task is None
    assert session_of(store).listener._targets == {}


async def test_many_changes(store: FirestoreStore) -> None:
    """Of many changes in a row the last one is told in any case."""
    task = await stored(store, a_task("a"))
    async with store.watch_tasks(["a"]) as feed:
        for second in range(50):
            change = renew(task, until=at(second))
            (written,) = await store.apply([change])
            task = after(change, written)
        await until(feed, lambda found: _version(found) == task.version)
