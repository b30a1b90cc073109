"""One follower looks for all who watch, and reads no more than it has to."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from oncetask.lifecycle import renew
from oncetask.store import Feed
from oncetask.store.sqlite import SqliteStore, watches
from oncetask.task import Task
from tests.support import a_task, at, follow, stored, until


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    """An open store in memory."""
    store = SqliteStore(":memory:")
    await store.open()
    yield store
    await store.aclose()


def looks_of(store: SqliteStore) -> list[object]:
    """Give the looks that the follower takes from now on."""
    submit = store._connection._submit
    looks: list[object] = []

    def recorded(job: Any, **how: Any) -> Any:
        if isinstance(job, partial) and job.func == store._watches._look:
            looks.append(job)
        return submit(job, **how)

    store._connection._submit = recorded  # type: ignore[method-assign]  # records, and passes on
    return looks


def fail_once(monkeypatch: pytest.MonkeyPatch, store: SqliteStore, method: str, error: Exception) -> None:
    """Let the next call of this method of the reader raise."""
    works = getattr(store._reader, method)

    def fail(*_: object, **__: object) -> None:
        monkeypatch.setattr(store._reader, method, works)
        raise error

    monkeypatch.setattr(store._reader, method, fail)


def at_version(version: int) -> Callable[[list[Task | None]], bool]:
    """Give the condition that the only task has this version."""
    return lambda tasks: [task and task.version for task in tasks] == [version]


async def all_told(*feeds: Feed[Any]) -> None:
    """Wait for one value of each feed."""
    for feed in feeds:
        await until(feed, lambda _: True)


async def test_one_look_for_all(tmp_path: Path) -> None:
    """A commit of somebody else makes one read, however many watch."""
    store, other = SqliteStore(str(tmp_path / "tasks.db")), SqliteStore(str(tmp_path / "tasks.db"))
    tasks = await stored(other, *(a_task(f"t{n}") for n in range(20)))
    async with AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(store.watch_tasks([task.id])) for task in tasks]
        line = await stack.enter_async_context(store.watch_due(["greet"], limit=1))
        await all_told(*feeds, line)
        looks = looks_of(store)
        changed = await follow(other, renew(tasks[0], until=at(1)))
        await until(feeds[0], at_version(changed.version))
        await all_told(line)
        assert len(looks) == 1
    await store.aclose()
    await other.aclose()


async def test_rings_during_a_look(store: SqliteStore) -> None:
    """Whatever rings while a look is under way makes just one more."""
    gate = threading.Event()
    async with store.watch_tasks(["a"]) as feed:
        await all_told(feed)
        looks = looks_of(store)
        held = asyncio.create_task(store._connection.read(lambda _: gate.wait(20)))
        for _ in range(20):
            store._watches._bell.heard()
            await asyncio.sleep(0)  # the follower has its turn
        gate.set()
        assert await held
        await store.get([])  # the first look is over, so the second one is asked for
        await store.get([])
        assert len(looks) == 2


async def test_rows_of_other_versions_only(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many tasks only the one that was written is read whole."""
    tasks = await stored(store, *(a_task(f"t{n}") for n in range(10)))
    async with store.watch_tasks([task.id for task in tasks]) as feed, store.watch_due(["greet"], limit=3) as line:
        await all_told(feed, line)
        get, read = store._reader._get, list[str]()

        def recorded(sql: sqlite3.Connection, ids: Collection[str], read_at: datetime) -> list[Task | None]:
            read.extend(ids)
            return get(sql, ids, read_at)

        monkeypatch.setattr(store._reader, "_get", recorded)
        await follow(store, renew(tasks[7], until=at(60)))
        await all_told(feed)
        assert read == ["t7"]


async def test_a_look_that_fails(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A look that the disk refuses is logged and taken again, for all who watch."""
    monkeypatch.setattr(watches, "_LATER_SECONDS", 0)
    fail_once(monkeypatch, store, "versions", sqlite3.OperationalError("disk I/O error"))
    (task,) = await stored(store, a_task())
    async with store.watch_tasks(["greet:1"]) as feed, store.watch_due(["greet"], limit=1) as line:
        await until(feed, at_version(task.version))
        await all_told(line)
    assert "disk I/O error" in caplog.text
    assert "trying again" in caplog.text


async def test_a_look_that_cannot_succeed(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no fault of the disk's is raised by the feed, and does not end the watches that come later."""
    fail_once(monkeypatch, store, "versions", ValueError("surrogates"))
    async with store.watch_tasks(["a"]) as feed:
        with pytest.raises(ValueError, match="surrogates"):
            await all_told(feed)
        async with store.watch_tasks(["a"]) as later:
            await all_told(later)


async def test_nobody_watches(store: SqliteStore) -> None:
    """The last one to leave takes the follower with it, and the ear at the bell."""
    async with store.watch_tasks(["a"]), store.watch_due(["greet"], limit=1):
        assert store._watches._following is not None
    assert store._watches._following is None
    assert store._watches._bell._ears == set()
    looks = looks_of(store)
    await stored(store, a_task())
    assert looks == []
