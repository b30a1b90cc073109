"""Time limits and concurrency."""

from __future__ import annotations

import asyncio
import threading

import pytest

from oncetask import App, Client, Context, NoRetry, TaskStatus, Worker
from tests.integration.worker.support import LIMIT, SOON, Job, Other, app_of, done, enqueue, outcome_of


async def test_an_attempt_over_its_limit_is_a_timeout_and_retried(connected: Client) -> None:
    """At its limit a handler is cancelled; the attempt fails with `TaskTimeout`, which error handlers see."""
    seen: list[str] = []

    async def handler(ctx: Context, _: Job) -> str:
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        return "in time"

    app = app_of(handler, timeout=0.1)
    app.error_handler(lambda _, error: seen.append(type(error).__name__))
    task = await outcome_of(app, connected)
    assert (task.status, task.result, task.attempts) == (TaskStatus.DONE_COMPLETED, "in time", 2)
    assert [(e.type, e.attempt) for e in task.errors] == [("TaskTimeout", 1)]
    assert "0.1 s" in task.errors[0].message
    assert seen == ["TaskTimeout"]


async def test_a_result_after_the_limit_does_not_count(connected: Client) -> None:
    """A handler that catches its cancellation and returns has been timed out all the same."""

    async def handler(_: Context, __: Job) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "half done"
        return "never"

    task = await outcome_of(app_of(handler, timeout=0.1, retry=NoRetry()), connected)
    assert (task.status, task.result, task.errors[0].type) == (TaskStatus.DONE_FAILED, None, "TaskTimeout")


async def test_a_handlers_own_timeout_error_is_an_ordinary_failure(connected: Client) -> None:
    """A `TimeoutError` of the handler's own is kept as what it is."""

    async def handler(_: Context, __: Job) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    task = await outcome_of(app_of(handler, timeout=60), connected)
    assert [e.type for e in task.errors] == ["TimeoutError"] * 3


async def test_a_handler_that_ignores_its_cancellation_is_abandoned(
    connected: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """After `abort_grace` the worker goes on without it, loudly; its slot is free again."""
    release = asyncio.Event()
    ended = asyncio.Event()

    async def handler(_: Context, job: Job) -> str:
        while job.n == 1 and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return "fine"

    app = app_of(handler, timeout=0.1, retry=NoRetry())
    async with Worker(app, connected, concurrency=1, abort_grace=0.1):
        stubborn, good = await done(connected, *await enqueue(connected, 1, 2))
        ended.clear()
        release.set()
        await asyncio.wait_for(ended.wait(), LIMIT)
    assert (stubborn.status, stubborn.errors[0].type) == (TaskStatus.DONE_FAILED, "TaskTimeout")
    assert good.result == "fine"
    assert (await connected.get_task(stubborn.id)).result is None
    assert any("abandoned" in record.message and stubborn.id in record.message for record in caplog.records)


async def test_an_abandoned_thread_keeps_its_slot(connected: Client) -> None:
    """The attempt of a thread that does not end is over, but nobody takes its place before it ends."""
    release, running = threading.Event(), []
    most = 0

    def handler(_: Context, job: Job) -> None:
        nonlocal most
        running.append(job.n)
        most = max(most, len(running))
        if job.n == 1:
            release.wait(LIMIT)
        running.remove(job.n)

    app = app_of(handler, timeout=0.1, retry=NoRetry())
    async with Worker(app, connected, concurrency=1, abort_grace=0):
        first, second = await enqueue(connected, 1, 2)
        (stubborn,) = await done(connected, first)
        assert stubborn.errors[0].type == "TaskTimeout"
        release.set()
        await done(connected, second)
    assert most == 1


@pytest.mark.parametrize(("concurrency", "kind_limit", "most"), [(3, None, 3), (8, 2, 2), (2, 5, 2)])
async def test_concurrency_is_never_exceeded(
    connected: Client, concurrency: int, kind_limit: int | None, most: int
) -> None:
    """Never do more handlers run than the worker's total or the kind's own limit allows; that many do."""
    running = high_water = 0
    full = asyncio.Event()

    async def handler(_: Context, __: Job) -> None:
        nonlocal running, high_water
        running += 1
        high_water = max(high_water, running)
        if running == most:
            full.set()
        await full.wait()  # nobody ends before the limit was reached once
        await asyncio.sleep(0)
        running -= 1

    app = app_of(handler, concurrency=kind_limit)
    ids = await enqueue(connected, *range(20))
    async with Worker(app, connected, concurrency=concurrency):
        tasks = await done(connected, *ids)
    assert {task.status for task in tasks} == {TaskStatus.DONE_COMPLETED}
    assert high_water == most


async def test_a_full_kind_does_not_hold_up_another(connected: Client) -> None:
    """While all slots of one kind are taken, tasks of another kind run, though they came later."""
    app, other_ran = App(), asyncio.Event()

    @app.handler(Job, concurrency=1)
    async def slow(_: Context, __: Job) -> None:
        await asyncio.wait_for(other_ran.wait(), LIMIT)

    @app.handler(Other)
    async def quick(_: Context, __: Other) -> None:
        other_ran.set()

    ids = await enqueue(connected, *range(5))
    receipt = await connected.enqueue(Other())
    async with Worker(app, connected, concurrency=4):
        tasks = await done(connected, *ids, receipt.task_id)
    assert {task.status for task in tasks} == {TaskStatus.DONE_COMPLETED}
    assert tasks[0].attempts == 1


async def test_tasks_start_in_the_order_they_were_enqueued(connected: Client) -> None:
    """With one slot, tasks run first in, first out; those of one `enqueue_many` in the order of the list."""
    order: list[int] = []

    async def handler(_: Context, job: Job) -> None:
        order.append(job.n)

    ids = [*await enqueue(connected, 3, 1, 2), *await enqueue(connected, 9), *await enqueue(connected, 5, 4)]
    async with Worker(app_of(handler, retry=SOON), connected, concurrency=1):
        await done(connected, *ids)
    assert order == [3, 1, 2, 9, 5, 4]
