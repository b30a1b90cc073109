"""A change together with new tasks: all of it, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from oncetask import lifecycle
from oncetask.errors import OncetaskError
from oncetask.store import TaskStore
from oncetask.task import Outcome, Task
from tests.contract.backends import Backend
from tests.support import T0, a_task, at, exactly, fetch, follow, stored

NOW = exactly(T0)


async def running(store: TaskStore, task_id: str = "parent") -> Task:
    """Give a stored task that a worker holds."""
    (task,) = await stored(store, a_task(task_id))
    return await follow(store, lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW))


async def test_change_and_new_tasks_are_stored_together(store: TaskStore) -> None:
    """The task is completed, and what its handler enqueued is there."""
    task = await running(store)

    written = await store.commit(lifecycle.complete(task, result=1, now=NOW), [a_task("a"), a_task("b")], None)

    parent, a, b = await store.get(["parent", "a", "b"])
    assert parent is not None
    assert a is not None
    assert b is not None
    assert (parent.outcome, parent.version) == (Outcome.COMPLETED, written.version)
    assert written.version is not None
    assert written.version > task.version


async def test_a_refused_change_creates_nothing(store: TaskStore) -> None:
    """A worker that lost its task leaves nothing of what its handler enqueued."""
    old = await running(store)
    new = await follow(store, lifecycle.renew(old, until=at(99)))

    written = await store.commit(lifecycle.complete(old, result=1, now=NOW), [a_task("a"), a_task("b")], None)

    assert (written.applied, written.error) == (False, None)
    assert await store.get(["a", "b"]) == [None, None]
    assert replace(await fetch(store, "parent"), read_at=new.read_at) == new


async def test_a_change_of_a_deleted_task_creates_nothing(store: TaskStore) -> None:
    """The same holds where the task is gone."""
    task = await running(store)
    await store.delete([task])

    written = await store.commit(lifecycle.complete(task, result=1, now=NOW), [a_task("a")], None)

    assert (written.applied, written.error) == (False, None)
    assert await store.get(["parent", "a"]) == [None, None]


async def test_a_new_task_that_exists_is_left_out(store: TaskStore) -> None:
    """What exists already stays as it is, and everything else is stored."""
    task = await running(store)
    await stored(store, a_task("b", create_id="earlier", data={"n": 1}))

    written = await store.commit(
        lifecycle.complete(task, result=1, now=NOW), [a_task("a"), a_task("b"), a_task("c")], None
    )

    assert written.applied
    a, b, c = await store.get(["a", "b", "c"])
    assert a is not None
    assert c is not None
    assert b is not None
    assert (b.create_id, b.data) == ("earlier", {"n": 1})
    assert (await fetch(store, "parent")).outcome is Outcome.COMPLETED


async def test_all_new_tasks_exist(store: TaskStore) -> None:
    """Where nothing is left to create, the change is stored all the same."""
    task = await running(store)
    await stored(store, a_task("a"), a_task("b"))

    assert (await store.commit(lifecycle.complete(task, result=1, now=NOW), [a_task("a"), a_task("b")], None)).applied
    assert (await fetch(store, "parent")).outcome is Outcome.COMPLETED


async def test_refused_and_existing_together(store: TaskStore) -> None:
    """A refused change is refused, whether or not its new tasks exist."""
    old = await running(store)
    await follow(store, lifecycle.renew(old, until=at(99)))
    await stored(store, a_task("a"))

    written = await store.commit(lifecycle.complete(old, result=1, now=NOW), [a_task("a"), a_task("b")], None)

    assert (written.applied, written.error) == (False, None)
    assert await store.get(["b"]) == [None]


async def test_nothing_to_create(store: TaskStore) -> None:
    """A commit without new tasks is a change."""
    task = await running(store)

    assert (await store.commit(lifecycle.complete(task, result=1, now=NOW), [], None)).applied


async def test_of_racing_commits_one_is_stored(store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
    """Of many that end the same task, one does, and only its new tasks are there."""
    task = await running(store)
    stores = [store, open_store()]

    written = await asyncio.gather(
        *(
            stores[n % 2].commit(lifecycle.complete(task, result=n, now=NOW), [a_task(f"child {n}")], None)
            for n in range(10)
        )
    )

    (winner,) = [n for n, one in enumerate(written) if one.applied]
    assert (await fetch(store, "parent")).result == winner
    children = await store.get([f"child {n}" for n in range(10)])
    assert [n for n, child in enumerate(children) if child is not None] == [winner]


async def test_racing_commits_that_create_the_same_task(store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
    """Different tasks that enqueue the same new one are all completed, and it is there once."""
    tasks = [await running(store, f"parent {n}") for n in range(8)]
    stores = [store, open_store()]

    written = await asyncio.gather(
        *(
            stores[n % 2].commit(
                lifecycle.complete(task, result=n, now=NOW), [a_task("child", create_id=f"by {n}")], None
            )
            for n, task in enumerate(tasks)
        )
    )

    assert all(one.applied for one in written)
    assert (await fetch(store, "child")).create_id in {f"by {n}" for n in range(8)}


async def test_a_new_task_that_is_too_large_stops_it_all(backend: Backend, store: TaskStore) -> None:
    """Where one part cannot be stored, nothing is, and the answer says why; the task can still be ended."""
    task = await running(store)
    large = a_task("large", data={"x": "x" * 1_200_000})

    written = await store.commit(lifecycle.complete(task, result=1, now=NOW), [a_task("a"), large], None)

    if backend.largest_document is None:
        assert written.applied
    else:
        assert written.error is not None
        assert await store.get(["a", "large"]) == [None, None]
        assert (await follow(store, lifecycle.fail(task, written.error, delay=None, now=NOW))).outcome is Outcome.FAILED


@pytest.mark.parametrize("part", ["change", "new task"])
async def test_a_part_that_is_no_document_stops_it_all(store: TaskStore, part: str) -> None:
    """Where one part is what no store can hold, nothing is stored, and the answer says why."""
    task = await running(store)
    broken = object() if part == "change" else 1
    child = a_task("b", owner="\ud800" if part == "new task" else None)

    written = await store.commit(lifecycle.complete(task, result=broken, now=NOW), [a_task("a"), child], None)

    assert isinstance(written.error, OncetaskError)
    assert await store.get(["a", "b"]) == [None, None]
    assert (await fetch(store, "parent")).outcome is None
