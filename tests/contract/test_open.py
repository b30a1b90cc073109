"""Opening, closing, environments, and the store's time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from oncetask import lifecycle
from oncetask.store import TaskFilter, TaskStore
from tests.contract.backends import Backend
from tests.contract.places import FIRESTORE, SQLITE_FILE, only
from tests.support import T0, a_task, at, exactly, fetch, stored

FIRST_USES = {
    "open": lambda store: store.open(),
    "create": lambda store: store.create([a_task()]),
    "get": lambda store: store.get(["a"]),
    "due": lambda store: store.due(["greet"], now=T0, limit=1),
    "due without": lambda store: store.due(["greet"], now=T0, limit=1, without=["k"]),
    "line": lambda store: store.line(["k"], now=T0, limit=1),
    "locks": lambda store: store.locks(["k"]),
    "delete": lambda store: store.delete([a_task(version=1)]),
    "find": lambda store: store.find(TaskFilter(), limit=1),
    "count": lambda store: store.count(TaskFilter()),
    "stats": lambda store: store.stats(),
    "apply": lambda store: store.apply([lifecycle.renew(a_task(version=1), until=at(1))]),
    "commit": lambda store: store.commit([lifecycle.renew(a_task(version=1), until=at(1))], [], None),
}


@pytest.mark.parametrize("use", FIRST_USES)
async def test_the_first_use_opens(store: TaskStore, use: str) -> None:
    """Whatever is awaited first opens the store; from then on the store's time is known."""
    await FIRST_USES[use](store)

    now = store.clock.now()
    assert now.earliest <= now.latest
    assert now.latest - now.earliest < timedelta(minutes=1)


async def test_many_first_uses_at_once(store: TaskStore) -> None:
    """A store that is used by many before it is open opens once, for all of them."""
    written = await asyncio.gather(*(store.create([a_task(f"t{n}")]) for n in range(20)))

    assert all(one.applied for (one,) in written)


async def test_opening_is_idempotent(store: TaskStore) -> None:
    """Opening twice is as good as once."""
    await store.open()
    await store.open()

    assert await store.get(["a"]) == [None]


async def test_a_closed_store_opens_again(backend: Backend, store: TaskStore) -> None:
    """After closing, twice even, the next use opens the store; what was stored outside of its memory is there."""
    await stored(store, a_task())

    await store.aclose()
    await store.aclose()

    (found,) = await store.get(["greet:1"])
    assert (found is not None) == backend.shared
    assert [one.applied for one in await store.create([a_task("again")])] == [True]


async def test_closing_what_was_never_open(store: TaskStore) -> None:
    """A store that was never used may be closed."""
    await store.aclose()


@only(SQLITE_FILE, FIRESTORE)
async def test_closing_loses_nothing_that_is_under_way(store: TaskStore) -> None:
    """Writes that were begun before the store was closed are finished."""
    await store.open()
    writing = [asyncio.create_task(store.create([a_task(f"t{n}")])) for n in range(20)]
    await asyncio.sleep(0)  # they have begun

    await store.aclose()

    assert all(one.applied for (one,) in await asyncio.gather(*writing))
    assert None not in await store.get([f"t{n}" for n in range(20)])


@only(SQLITE_FILE, FIRESTORE)
async def test_environments_do_not_see_each_other(backend: Backend, store: TaskStore) -> None:
    """The same id in another environment is another task, for every verb."""
    other = backend.open_store("staging")
    (ours,) = await stored(store, a_task(create_id="ours"))

    assert await other.get(["greet:1"]) == [None]
    assert await other.due(["greet"], now=T0, limit=5) == []
    assert await other.find(TaskFilter(), limit=5) == []
    assert await other.count(TaskFilter()) == 0
    assert await other.stats() == {}
    assert [one.applied for one in await other.delete([ours])] == [False]
    assert [one.applied for one in await other.apply([lifecycle.renew(ours, until=at(1))])] == [False]
    assert [one.applied for one in await other.create([a_task(create_id="theirs")])] == [True]
    assert (await fetch(store, "greet:1")).create_id == "ours"
    async with other.watch_tasks(["greet:1"]) as feed, asyncio.timeout(20):
        (found,) = await feed.get()
    assert found is not None
    assert found.create_id == "theirs"


async def test_the_stores_time_is_one_for_all(backend: Backend, store: TaskStore) -> None:
    """Two stores on the same data agree about the time, as closely as their bounds tell."""
    other = backend.open_store()
    first, second, third = await store.now(), await other.now(), await store.now()

    assert first.earliest <= second.latest
    assert second.earliest <= third.latest


async def test_a_use_that_is_cancelled_harms_nobody(store: TaskStore) -> None:
    """Cancelling one caller leaves the store usable for the others, also while it opens."""
    for _ in range(3):
        impatient = asyncio.create_task(store.get(["a"]))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await store.get(["b"]) == [None]
        await asyncio.wait({impatient})

    (task,) = await stored(store, a_task())
    claim = asyncio.create_task(store.apply([lifecycle.claim(task, lease_id="l1", until=at(60), now=exactly(T0))]))
    await asyncio.sleep(0)
    claim.cancel()
    await asyncio.wait({claim})
    assert (await fetch(store, "greet:1")).lease_owner in {None, "l1"}
    assert [one.applied for one in await store.create([a_task("next")])] == [True]
