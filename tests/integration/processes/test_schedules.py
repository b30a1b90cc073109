"""Schedules that are kept by processes, which are killed."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from oncetask import Client, Recurrence, TaskStatus
from tests.integration.processes.conftest import Crew
from tests.integration.processes.program import Job

_INSTANTS = 7


@pytest.mark.timeout(120)
async def test_workers_that_keep_schedules_are_killed(connected: Client, crew: Crew) -> None:
    """Twenty schedules, due every second, while kill -9 hits one worker after the other: every instant once."""
    now = (await connected.store.now()).latest
    rule = Recurrence(f"FREQ=SECONDLY;COUNT={_INSTANTS}", now, catch_up="all")
    ids = [f"g{number}" for number in range(20)]
    workers = [await crew.start(), await crew.start()]
    await connected.enqueue_many([Job(number=number) for number in range(20)], task_ids=ids, recurrence=rule)
    for n in range(_INSTANTS - 2):
        await _spawned(connected, ids[n], now.replace(microsecond=0) + timedelta(seconds=n))
        workers[n % 2].kill()
        await workers[n % 2].wait()
        workers[n % 2] = await crew.start()
    for task_id in ids:
        assert (await connected.wait(task_id, timeout=60)).status is TaskStatus.DONE_COMPLETED
        occurrences = [task async for task in connected.iter_tasks(parent=task_id)]
        instants = sorted(task.occurrence_timestamp for task in occurrences if task.occurrence_timestamp)
        assert instants == [now.replace(microsecond=0) + timedelta(seconds=n) for n in range(_INSTANTS)]
        for task in occurrences:
            assert (await connected.wait(task.id, timeout=60)).status is TaskStatus.DONE_COMPLETED


async def _spawned(client: Client, task_id: str, instant: datetime) -> None:
    """Wait until a generator has spawned an instant."""
    async with asyncio.timeout(60):
        async for task in client.watch(task_id):
            if task.occurrence_timestamp is not None and task.occurrence_timestamp >= instant:
                return
