"""Reading by id."""

from __future__ import annotations

from oncetask.store import TaskStore
from oncetask.task import TaskStatus
from tests.support import a_task, at, fetch, stored


async def test_records_come_in_the_order_of_the_ids(store: TaskStore) -> None:
    """Each id is answered in its place, None where there is no such task, twice where it was asked for twice."""
    await stored(store, a_task("a"), a_task("b"))

    found = await store.get(["b", "none", "a", "b"])

    assert [task and task.id for task in found] == ["b", None, "a", "b"]


async def test_no_ids(store: TaskStore) -> None:
    """Nothing asked, nothing answered."""
    assert await store.get([]) == []


async def test_more_ids_than_one_call_takes(store: TaskStore) -> None:
    """Hundreds of ids are read, however many calls that takes."""
    await stored(store, *(a_task(f"t{n}") for n in range(700)))

    found = await store.get([f"t{n}" for n in range(699, -1, -1)])

    assert [task and task.id for task in found] == [f"t{n}" for n in range(699, -1, -1)]


async def test_a_record_carries_the_stores_time(store: TaskStore) -> None:
    """A record knows when it was read, by the store's clock, and so its status."""
    before = (await store.now()).earliest
    await stored(store, a_task("past", wait_until=at(-(10**9))), a_task("future", wait_until=at(10**9)))

    past, future = await fetch(store, "past"), await fetch(store, "future")

    after = (await store.now()).latest
    assert before <= past.read_at <= after
    assert (past.status, future.status) == (TaskStatus.PENDING, TaskStatus.WAITING)
