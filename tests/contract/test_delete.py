"""Deleting: each by itself, if nobody has written since."""

from __future__ import annotations

from oncetask import lifecycle
from oncetask.store import TaskStore
from tests.support import a_task, at, follow, stored


async def test_deleted_tasks_are_gone(store: TaskStore) -> None:
    """What was deleted is neither read nor found nor counted any more."""
    a, b, c = await stored(store, a_task("a"), a_task("b"), a_task("c"))

    written = await store.delete([a, c])

    assert [one.applied for one in written] == [True, True]
    assert await store.get(["a", "c"]) == [None, None]
    assert [task.id for task in await store.due(["greet"], now=at(0), limit=10)] == [b.id]


async def test_a_newer_record_is_not_deleted(store: TaskStore) -> None:
    """Each is refused where its record is not the newest, and the others are deleted."""
    a, b, c = await stored(store, a_task("a"), a_task("b"), a_task("c"))
    await follow(store, lifecycle.renew(b, until=at(1)))

    written = await store.delete([a, b, c])

    assert [(one.applied, one.error) for one in written] == [(True, None), (False, None), (True, None)]
    assert [task and task.id for task in await store.get(["a", "b", "c"])] == [None, "b", None]


async def test_nothing_to_delete(store: TaskStore) -> None:
    """No tasks are no problem."""
    assert await store.delete([]) == []


async def test_a_deleted_task_can_be_created_again(store: TaskStore) -> None:
    """An id is free once its task is gone."""
    (task,) = await stored(store, a_task())
    await store.delete([task])

    assert [one.applied for one in await store.create([a_task(create_id="again")])] == [True]
