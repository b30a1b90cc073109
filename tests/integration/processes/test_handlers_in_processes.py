"""Workers whose handlers run in processes of their own, and how these end with them."""

from __future__ import annotations

import asyncio
import os
import select
import signal

import pytest

from oncetask import Client, TaskStatus
from tests.integration.processes.conftest import Crew
from tests.integration.processes.crunching import Spin
from tests.integration.stores import ON_SQLITE

pytestmark = ON_SQLITE

_LIMIT = 30.0


async def _begun(client: Client) -> tuple[str, int]:
    """Enqueue a task; gives its id, and the process in which its handler has begun."""
    receipt = await client.enqueue(Spin())
    async with asyncio.timeout(_LIMIT):
        async for task in client.watch(receipt.task_id):
            if task.progress is not None:
                return task.id, int(task.progress.data)
    raise AssertionError


async def test_a_program_finds_its_own_handlers_there(connected: Client, crew: Crew) -> None:
    """Payload and handler of a program that was started with `python -m` run in another process."""
    worker = await crew.start("crunching")
    receipt = await connected.enqueue(Spin(ever=False))
    task = await connected.wait(receipt.task_id, _LIMIT)
    assert task.status is TaskStatus.DONE_COMPLETED
    assert task.result != worker.pid


async def test_a_program_without_its_guard_is_told(connected: Client, crew: Crew) -> None:
    """The process, which imports the program, starts no second worker; the attempt fails, and the worker goes on."""
    await crew.start("unguarded")
    for _ in range(2):
        receipt = await connected.enqueue(Spin(ever=False))
        task = await connected.wait(receipt.task_id, _LIMIT)
        assert task.status is TaskStatus.DONE_FAILED
        assert {error.type for error in task.errors} == {"OncetaskError"}
        assert "no process can be started for the handler" in task.errors[0].message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
async def test_no_handler_outlives_its_worker(connected: Client, crew: Crew, number: signal.Signals) -> None:
    """However its worker ends, the process of a handler ends with it; at SIGTERM the task is given back."""
    worker = await crew.start("crunching")
    task_id, pid = await _begun(connected)
    handler = os.pidfd_open(pid)
    worker.send_signal(number)
    assert await worker.wait() == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    assert await asyncio.to_thread(select.select, [handler], [], [], _LIMIT) == ([handler], [], [])
    os.close(handler)
    if number is signal.SIGTERM:
        task = await connected.get_task(task_id)
        assert (task.status, task.attempts) == (TaskStatus.PENDING, 0)
