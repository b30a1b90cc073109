"""`oncetask worker` is told to stop (SIGTERM) while every slot of it is taken and a long line waits."""

from __future__ import annotations

import asyncio
import os

import pytest

from oncetask import Client, Task, TaskStatus, Worker
from tests.integration.faults.busy import LONG, QUICK, Long, Quick, Stubborn, app
from tests.integration.faults.processes import LIMIT, Program, Programs, eventually
from tests.integration.places import Place
from tests.support import Shift

_COMMAND = ("oncetask", "worker", "tests.integration.faults.busy:app", "--json", "--concurrency", "32", "--grace", "2")
_PROMISED_SECONDS = 10.0


async def _started(programs: Programs) -> Program:
    worker = await programs.start(*_COMMAND, PYTHONPATH=os.curdir)
    assert (await worker.told())["event"] == "started"
    return worker


async def _is_busy(client: Client) -> None:
    """Wait until the slots that long tasks can have are taken, and some of the others are done."""

    async def is_so() -> bool:
        counts = (await client.stats()).counts
        running = counts["long"].get(TaskStatus.LEASED, 0) + counts["stubborn"].get(TaskStatus.LEASED, 0)
        return running == LONG + 1 and counts["quick"].get(TaskStatus.DONE_COMPLETED, 0) > QUICK // 10

    await eventually(is_so)


@pytest.mark.timeout(90)
async def test_it_stops_in_time_and_leaves_nothing_undone(connected: Client, programs: Programs, place: Place) -> None:
    """Within ten seconds it has ended with 0; what it gave back is unspent and free, and another one does the rest."""
    await connected.enqueue(Stubborn(), task_id="stubborn")
    await connected.enqueue_many([Long(n=n) for n in range(LONG)])
    await connected.enqueue_many([Quick(n=n) for n in range(QUICK)])
    worker = await _started(programs)
    await _is_busy(connected)

    worker.process.terminate()
    async with asyncio.timeout(_PROMISED_SECONDS):
        assert await worker.ended() == 0

    tasks = await _all(connected)
    stubborn = tasks.pop("stubborn")
    assert (stubborn.status, stubborn.attempts) == (TaskStatus.LEASED, 0)  # it may run on, as far as anybody knows
    assert {task.status for task in tasks.values()} <= {TaskStatus.PENDING, TaskStatus.DONE_COMPLETED}
    left = [task for task in tasks.values() if not task.status.is_done]
    assert len([task for task in left if task.kind == "long"]) == LONG
    assert {(task.attempts, task.lease_owner, task.leased_until, task.errors) for task in left} == {(0, None, None, ())}

    await _finished(connected, place, programs)
    assert {(task.status, task.attempts) for task in (await _all(connected)).values()} == {
        (TaskStatus.DONE_COMPLETED, 1)
    }


async def _all(client: Client) -> dict[str, Task]:
    return {task.id: task async for task in client.iter_tasks()}


async def _finished(client: Client, place: Place, programs: Programs) -> None:
    """Let another process do all that may be done now, and a worker for whom the lease has ended the rest."""
    another = await programs.start(*_COMMAND, PYTHONPATH=os.curdir, LONG_TASKS_END="yes")
    await another.told()

    async def only_one_is_left() -> bool:
        return await client.pending_count() == 1

    await eventually(only_one_is_left)
    late, last = Shift(), place.connect()
    await last.store.open()
    late.of(last.store)
    late.advance(120)
    async with Worker(app, last):
        await client.wait("stubborn", LIMIT)
    assert await another.terminated() == 0
