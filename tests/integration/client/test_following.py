"""Waiting for a task, and watching it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from oncetask import Client, Task, TaskNotFound, TaskStatus, lifecycle
from tests.integration.client.support import LIMIT, Note, apply, claimed, completed
from tests.integration.places import Place


async def _next(changes: AsyncIterator[Task]) -> Task:
    return await asyncio.wait_for(anext(changes), LIMIT)


async def test_waiting_ends_with_the_task(connected: Client, place: Place) -> None:
    """`wait` gives the done task, whoever completed it; a task that is done already is given at once."""
    receipt = await connected.enqueue(Note())
    waiting = asyncio.create_task(connected.wait(receipt.task_id, LIMIT))
    await asyncio.sleep(0)
    await completed(place.connect(), receipt.task_id, result=[1])
    task = await waiting
    assert (task.status, task.result) == (TaskStatus.DONE_COMPLETED, [1])
    assert (await connected.wait(receipt.task_id)).result == [1]


async def test_waiting_has_a_limit(connected: Client) -> None:
    """`wait` raises `TimeoutError` at its limit, also at once with none, and leaves the task alone."""
    receipt = await connected.enqueue(Note())
    for limit in (0, 0.05):
        with pytest.raises(TimeoutError):
            await connected.wait(receipt.task_id, limit)
    assert (await connected.get_task(receipt.task_id)).status is TaskStatus.PENDING
    with pytest.raises(ValueError, match=r"timeout .*-1"):
        await connected.wait(receipt.task_id, -1)


async def test_nobody_waits_for_nothing(connected: Client) -> None:
    """`wait` and `watch` raise where no task has the id."""
    with pytest.raises(TaskNotFound, match="'nobody'"):
        await connected.wait("nobody", LIMIT)
    with pytest.raises(TaskNotFound, match="'nobody'"):
        await _next(connected.watch("nobody"))


async def test_every_step_is_seen(connected: Client, place: Place) -> None:
    """`watch` gives the task as it is, then each change of anybody, and ends when it is done."""
    other = place.connect()
    receipt = await connected.enqueue(Note())
    changes = connected.watch(receipt.task_id)
    assert (await _next(changes)).status is TaskStatus.PENDING
    held = await claimed(other, receipt.task_id)
    assert (await _next(changes)).lease_owner == held.lease_owner
    await apply(other, lifecycle.complete(held, result=None, now=await other.store.now()))
    assert (await _next(changes)).status is TaskStatus.DONE_COMPLETED
    with pytest.raises(StopAsyncIteration):
        await _next(changes)


async def test_a_deletion_ends_the_watch(connected: Client, place: Place) -> None:
    """A task that is deleted while it is watched or waited for raises `TaskNotFound`."""
    receipt = await connected.enqueue(Note())
    changes = connected.watch(receipt.task_id)
    await _next(changes)
    waiting = asyncio.create_task(connected.wait(receipt.task_id, LIMIT))
    await place.connect().delete_task(receipt.task_id)
    with pytest.raises(TaskNotFound):
        await _next(changes)
    with pytest.raises(TaskNotFound):
        await waiting


async def test_many_are_waited_for_at_once(connected: Client, place: Place) -> None:
    """Fifty waits on one client all end."""
    receipts = await connected.enqueue_many([Note(n=n) for n in range(50)])
    ids = [receipt.task_id for receipt in receipts]
    waiting = asyncio.gather(*(connected.wait(task_id, LIMIT) for task_id in ids))
    other = place.connect()
    await asyncio.gather(*(completed(other, task_id) for task_id in ids))
    assert {task.status for task in await waiting} == {TaskStatus.DONE_COMPLETED}


async def test_a_watch_may_be_left(connected: Client) -> None:
    """Leaving a watch early harms nothing: the client closes, and opens again."""
    receipt = await connected.enqueue(Note())
    async for task in connected.watch(receipt.task_id):
        assert task.id == receipt.task_id
        break
    await connected.aclose()
    assert (await connected.get_task(receipt.task_id)).status is TaskStatus.PENDING
