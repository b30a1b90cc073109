"""What a killed process leaves behind, others finish."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest

from oncetask import Client, TaskStatus
from tests.integration.processes.conftest import Crew
from tests.integration.processes.program import Job, Killer, Patient

_TASKS = 2_000
_KILLS = 8


@pytest.mark.timeout(150)
async def test_two_workers_of_which_one_is_killed_again_and_again(connected: Client, crew: Crew) -> None:
    """2,000 tasks complete, none is lost, while kill -9 hits one of two workers at random."""
    receipts = await connected.enqueue_many([Job(number=number) for number in range(_TASKS)])
    workers = [await crew.start(), await crew.start()]
    for receipt in receipts[:: _TASKS // _KILLS]:
        await connected.wait(receipt.task_id)
        victim = random.randrange(2)  # noqa: S311  # any will do
        workers[victim].kill()
        await workers[victim].wait()
        workers[victim] = await crew.start()
    await _all_done(connected, [receipt.task_id for receipt in receipts])
    assert (await connected.stats()).counts == {"job": {TaskStatus.DONE_COMPLETED: _TASKS}}
    assert set(crew.runs()) == {str(number) for number in range(_TASKS)}


async def test_a_task_that_kills_its_worker_ends(connected: Client, crew: Crew) -> None:
    """A task that takes its worker down each time ends done-failed, and another one completes."""
    killer = await connected.enqueue(Killer())
    worker = await crew.start()
    for _ in range(2):
        assert await worker.wait() == 9
        worker = await crew.start()
    ended = await connected.wait(killer.task_id, timeout=30)
    assert (ended.status, ended.attempts) == (TaskStatus.DONE_FAILED, 2)
    assert {error.type for error in ended.errors} == {"LeaseLost"}
    assert crew.runs()["killer"] == 2
    job = await connected.enqueue(Job(number=1))
    assert (await connected.wait(job.task_id, timeout=30)).status is TaskStatus.DONE_COMPLETED


async def test_sigterm_gives_back_what_runs(connected: Client, crew: Crew) -> None:
    """At SIGTERM a worker ends with 0, and leaves its tasks as if it had never taken them."""
    receipts = await connected.enqueue_many([Patient(number=number) for number in range(8)])
    worker = await crew.start()
    async with asyncio.timeout(30):
        for receipt in receipts:
            async for task in connected.watch(receipt.task_id):
                if task.status is TaskStatus.LEASED:
                    break
    worker.send_signal(signal.SIGTERM)
    assert await worker.wait() == 0
    left = await connected.get_tasks_by_ids(receipt.task_id for receipt in receipts)
    assert {(task.status, task.attempts, task.lease_owner) for task in left} == {(TaskStatus.PENDING, 0, None)}
    assert [task.wait_until for task in left] == [task.created_at for task in left]


@pytest.mark.timeout(120)
async def test_sigterm_under_load_leaves_nothing_leased(connected: Client, crew: Crew) -> None:
    """A busy worker ends with 0: what it did not finish is free, with every attempt given back."""
    await connected.enqueue_many([Patient(number=-number) for number in range(1, 5)])
    receipts = await connected.enqueue_many([Job(number=number) for number in range(1_000)])
    worker = await crew.start()
    await connected.wait(receipts[50].task_id)
    worker.terminate()
    assert await worker.wait() == 0
    left = [task async for task in connected.iter_tasks() if not task.status.is_done]
    assert {(task.status, task.attempts, task.lease_owner) for task in left} == {(TaskStatus.PENDING, 0, None)}
    counts = (await connected.stats()).counts
    assert counts["patient"] == {TaskStatus.PENDING: 4}
    assert sum(counts["job"].values()) == 1_000
    assert counts["job"][TaskStatus.DONE_COMPLETED] <= len([line for line in crew.runs() if int(line) >= 0])


async def _all_done(client: Client, ids: list[str]) -> None:
    """Wait until all of these are done; the test's own time limit is the bound."""
    while left := [task.id for task in await client.get_tasks_by_ids(ids) if not task.status.is_done]:
        ids = left
        await client.wait(left[0])
