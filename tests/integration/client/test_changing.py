"""Reset and delete."""

from __future__ import annotations

import asyncio

import pytest

from oncetask import Client, TaskNotFound, TaskStatus
from tests.integration.client.support import Note, claimed, completed, failed, populate
from tests.integration.places import Place
from tests.integration.stores import EVERYWHERE

pytestmark = EVERYWHERE


async def test_a_done_task_begins_anew(connected: Client) -> None:
    """A reset clears counts, errors, result and instants of the last life, and gives a new place in the line."""
    first = await connected.enqueue(Note(n=1), owner="me", resource_key="key", timeout=9)
    before = await failed(connected, first.task_id)
    assert await connected.reset_task(first.task_id)
    after = await connected.get_task(first.task_id)
    assert (after.status, after.attempts, after.errors, after.result) == (TaskStatus.PENDING, 0, (), None)
    assert (after.started_at, after.done_at, after.leased_until, after.lease_owner, after.outcome) == (None,) * 5
    assert (after.data, after.owner, after.resource_key, after.timeout) == ({"n": 1}, "me", "key", 9)
    assert after.created_at == before.created_at
    assert after.wait_until > before.wait_until
    again = await completed(connected, first.task_id, result="second life")
    assert (again.attempts, again.result) == (1, "second life")


async def test_what_is_not_done_is_not_reset(connected: Client) -> None:
    """Resetting a task that waits or runs answers False and leaves it as it is; an unknown id raises."""
    expected = await populate(connected)
    for task_id, status in expected.items():
        assert await connected.reset_task(task_id) is status.is_done
    with pytest.raises(TaskNotFound):
        await connected.reset_task("nobody")
    assert (await connected.list_tasks(status="leased")).tasks[0].attempts == 1


async def test_tasks_are_reset_together(connected: Client) -> None:
    """The bulk verb counts what it reset; unknown ids, open tasks and repetitions count nothing."""
    expected = await populate(connected)
    ids = [*expected, *expected, "nobody"]
    assert await connected.reset_tasks_by_ids(ids) == 3
    assert await connected.reset_tasks_by_ids(ids) == 0
    assert await connected.reset_tasks_by_ids([]) == 0


async def test_a_leased_task_is_not_deleted(connected: Client) -> None:
    """Deleting what runs answers False; once its lease has ended, or it is free or done, it goes."""
    expected = await populate(connected)
    for task_id, status in expected.items():
        assert await connected.delete_task(task_id) is (status is not TaskStatus.LEASED)
    assert {task.status for task in (await connected.list_tasks()).tasks} == {TaskStatus.LEASED}
    with pytest.raises(TaskNotFound):
        await connected.delete_task("nobody")
    lapsed = await connected.enqueue(Note())
    await claimed(connected, lapsed.task_id, seconds=-60)
    assert await connected.delete_task(lapsed.task_id)


async def test_tasks_are_deleted_together(connected: Client) -> None:
    """Hundreds of tasks go in one call, and the count is theirs."""
    ids = [f"t-{n}" for n in range(1_100)]
    await connected.enqueue_many([Note() for _ in ids], task_ids=ids)
    await claimed(connected, "t-0")
    assert await connected.delete_tasks_by_ids([*ids, "nobody", "t-5"]) == 1_099
    assert [task.id for task in (await connected.list_tasks()).tasks] == ["t-0"]
    assert (await connected.enqueue(Note(), task_id="t-1")).created


async def test_one_of_many_wins(connected: Client, place: Place) -> None:
    """Of concurrent resets of a task one counts, and of concurrent deletions one."""
    receipt = await connected.enqueue(Note())
    await completed(connected, receipt.task_id)
    resets = await asyncio.gather(*(connected.reset_tasks_by_ids([receipt.task_id]) for _ in range(8)))
    assert sum(resets) == 1
    deletions = await asyncio.gather(*(connected.delete_tasks_by_ids([receipt.task_id]) for _ in range(8)))
    assert sum(deletions) == 1
