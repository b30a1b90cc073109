"""A cancel from one process, a handler in another."""

from __future__ import annotations

import asyncio

import pytest

from oncetask import Client, TaskStatus
from tests.integration.processes.conftest import Crew
from tests.integration.processes.program import Guarded, GuardedThread


@pytest.mark.parametrize("payload", [Guarded(), GuardedThread()], ids=["coroutine", "thread"])
async def test_a_cancel_reaches_a_handler_in_another_process(connected: Client, crew: Crew, payload: Guarded) -> None:
    """The handler is told within its process, whatever it is, and the cleanup runs there."""
    receipt = await connected.enqueue(payload)
    await crew.start()
    await _leased(connected, receipt.task_id)
    assert await connected.cancel_task(receipt.task_id)
    task = await connected.wait(receipt.task_id, timeout=20)
    assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 1, 1)
    assert dict(crew.runs()) == {"guarding": 1, "stopped-cancelled": 1, "cleanup-1": 1}


async def test_many_are_cancelled_by_their_key(connected: Client, crew: Crew) -> None:
    """Running and waiting tasks of one key are cancelled in one call, and each is cleaned up once."""
    receipts = await connected.enqueue_many([Guarded() for _ in range(24)], resource_key="user:1")
    other = await connected.enqueue(Guarded(), resource_key="user:2")
    await crew.start()
    await _leased(connected, receipts[0].task_id)
    assert await connected.cancel_tasks_by_resource_key(Guarded, "user:1") == 24
    tasks = await asyncio.gather(*(connected.wait(receipt.task_id, timeout=30) for receipt in receipts))
    assert {task.status for task in tasks} == {TaskStatus.DONE_CANCELLED}
    assert crew.runs()["cleanup-1"] == 24
    assert not (await connected.get_task(other.task_id)).is_cancelled


async def test_the_cleanup_of_a_killed_workers_task_runs_elsewhere(connected: Client, crew: Crew) -> None:
    """After kill -9 another process cleans up, once the dead one's lease has ended."""
    receipt = await connected.enqueue(Guarded())
    doomed = await crew.start()
    await _leased(connected, receipt.task_id)
    doomed.kill()
    await doomed.wait()
    assert await connected.cancel_task(receipt.task_id)
    await crew.start()
    task = await connected.wait(receipt.task_id, timeout=30)
    assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 1, 1)
    assert crew.runs()["cleanup-1"] == 1
    assert crew.runs()["stopped-cancelled"] == 0


async def _leased(client: Client, task_id: str) -> None:
    async with asyncio.timeout(30):
        async for task in client.watch(task_id):
            if task.status is TaskStatus.LEASED:
                return
