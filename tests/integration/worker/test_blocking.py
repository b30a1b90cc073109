"""Handlers that block the event loop: the log says who, and nothing of theirs harms anybody."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from oncetask import App, Client, Context, Task, TaskStatus, Worker
from tests.integration.places import Place
from tests.integration.stores import ON_SQLITE
from tests.integration.worker.support import LIMIT, Job, app_of, done, enqueue, outcome_of, raising


def spin_until_told(caplog: pytest.LogCaptureFixture, text: str = "has been blocked") -> None:
    """Keep the event loop from turning until the log speaks of it."""
    ends = time.monotonic() + LIMIT
    while not any(text in record.getMessage() for record in caplog.records):
        if time.monotonic() > ends:
            pytest.fail("nobody noticed")


def told(caplog: pytest.LogCaptureFixture, text: str) -> str:
    """Give the log's message that says so."""
    (message,) = [record.getMessage() for record in caplog.records if text in record.getMessage()]
    return message


async def test_who_blocks_the_loop_is_named(connected: Client, caplog: pytest.LogCaptureFixture) -> None:
    """The log names kind, task and the line of code while it blocks, and says later that it is over."""

    async def handler(_: Context, __: Job) -> str:
        spin_until_told(caplog)
        return "done"

    async with Worker(app_of(handler), connected):
        (task_id,) = await enqueue(connected, 1)
        task = await connected.wait(task_id, LIMIT)
        async with asyncio.timeout(LIMIT):
            while "goes on" not in caplog.text:  # noqa: ASYNC110  # the watchdog's thread says so, and has no event
                await asyncio.sleep(0.01)
    assert task.result == "done"
    message = told(caplog, "has been blocked")
    assert f"the handler of kind job, task {task_id}" in message
    assert "spin_until_told" in message
    assert f"task {task_id}" in told(caplog, "goes on")


async def test_what_a_handler_started_is_told_with_those_that_run(
    connected: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Of an asyncio task that a handler started the name is told, and which handlers run."""

    async def block() -> None:
        spin_until_told(caplog)

    async def handler(_: Context, __: Job) -> None:
        await asyncio.create_task(block(), name="the culprit")

    await outcome_of(app_of(handler), connected, task_id="the-parent")
    message = told(caplog, "has been blocked")
    assert "the culprit" in message
    assert "job (the-parent)" in message
    assert "in block" in message


async def test_an_idle_loop_is_left_alone(connected: Client, caplog: pytest.LogCaptureFixture) -> None:
    """While no handler runs, nobody looks: whoever blocks the loop then is none of the worker's."""
    before = threading.active_count()
    async with Worker(app_of(lambda _, __: None), connected):
        (task_id,) = await enqueue(connected, 1)
        await connected.wait(task_id, LIMIT)
        (dog,) = [thread for thread in threading.enumerate() if thread.name == "oncetask-watchdog"]
        assert dog.is_alive()
    assert not dog.is_alive()
    assert threading.active_count() <= before + 1  # the store's, which opened with the worker
    assert not caplog.records


@ON_SQLITE
async def test_who_lost_its_lease_by_blocking_writes_nothing(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blocked worker cannot renew; when somebody else has taken the task meanwhile, its own result is refused."""
    monkeypatch.setattr("oncetask.retry.random.uniform", lambda low, _: low)  # rescued without a wait
    connected, elsewhere = place.connect(), place.connect()
    taken: list[Task] = []

    async def work(task_id: str) -> None:
        async with elsewhere, Worker(app_of(raising()), elsewhere, poll=0.1):
            taken.append(await elsewhere.wait(task_id, LIMIT))

    async def handler(ctx: Context, _: Job) -> str:
        other = threading.Thread(target=asyncio.run, args=(work(ctx.task_id),))
        other.start()
        while other.is_alive():
            pass
        return "mine"

    async with Worker(app_of(handler), connected, lease=0.3):
        (task_id,) = await enqueue(connected, 1)
        task = await connected.wait(task_id, LIMIT)
        async with asyncio.timeout(LIMIT):
            while "not held by this worker" not in caplog.text:  # noqa: ASYNC110  # the log has no event
                await asyncio.sleep(0.01)
    assert taken
    assert (task.status, task.result) == (TaskStatus.DONE_COMPLETED, "done at last")
    assert (await connected.get_task(task_id)).version == taken[0].version


async def test_a_blocked_loop_holds_up_only_for_as_long(connected: Client, caplog: pytest.LogCaptureFixture) -> None:
    """When it goes on, what waited runs."""
    app = App()

    @app.handler(Job)
    async def handler(_: Context, job: Job) -> int:
        if job.n == 0:
            spin_until_told(caplog)
        return job.n

    ids = await enqueue(connected, *range(5))
    async with Worker(app, connected):
        tasks = await done(connected, *ids)
    assert [task.result for task in tasks] == [0, 1, 2, 3, 4]
