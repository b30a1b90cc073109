"""How a worker stops: what ends in time is recorded, what does not goes back where it was."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest

from oncetask import App, Client, Context, NoRetry, OncetaskError, TaskStatus, Worker
from tests.integration.worker.support import LIMIT, Job, app_of, done, enqueue, raising, stop_while


async def test_running_handlers_may_end_within_the_grace(connected: Client) -> None:
    """`stop` waits for what runs, and claims nothing more."""
    started, stopping = asyncio.Event(), asyncio.Event()

    async def handler(_: Context, __: Job) -> str:
        started.set()
        await stopping.wait()
        return "in time"

    worker = Worker(app_of(handler), connected, concurrency=1)
    async with worker:
        first, second = await enqueue(connected, 1, 2)
        await asyncio.wait_for(started.wait(), LIMIT)
        await stop_while(worker, stopping)
    assert (await connected.get_task(first)).result == "in time"
    untouched = await connected.get_task(second)
    assert (untouched.status, untouched.attempts) == (TaskStatus.PENDING, 0)


async def test_what_does_not_end_is_given_back(connected: Client) -> None:
    """After the grace a handler is aborted with "shutdown"; its task keeps its place, and no attempt is spent."""
    started, reasons, seen = asyncio.Event(), [], []

    async def handler(ctx: Context, _: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(ctx.abort_reason)

    app = app_of(handler, retry=NoRetry())
    app.error_handler(lambda _, error: seen.append(error))
    (task_id,) = await enqueue(connected, 1)
    before = await connected.get_task(task_id)
    async with Worker(app, connected, grace=0.05):
        await asyncio.wait_for(started.wait(), LIMIT)
    after = await connected.get_task(task_id)
    assert (after.status, after.attempts, after.errors) == (TaskStatus.PENDING, 0, ())
    assert (after.wait_until, after.due_at, after.lease_owner) == (before.wait_until, before.due_at, None)
    assert (reasons, seen) == (["shutdown"], [])


async def test_an_error_while_shutting_down_is_no_failure(connected: Client) -> None:
    """What a handler raises or returns after it was told to stop is not recorded."""
    started = asyncio.Event()

    async def handler(_: Context, job: Job) -> str:
        started.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if job.n == 1:
            raise ValueError("half way")
        return "half done"

    ids = await enqueue(connected, 1, 2)
    async with Worker(app_of(handler, retry=NoRetry()), connected, grace=0.05):
        await asyncio.wait_for(started.wait(), LIMIT)
    for task in await connected.get_tasks_by_ids(ids):
        assert (task.status, task.attempts, task.errors, task.result) == (TaskStatus.PENDING, 0, (), None)


async def test_a_thread_that_does_not_end_keeps_its_lease(connected: Client) -> None:
    """Nobody else may run what still runs: only the attempt is given back, and the lease runs out by itself."""
    started, release = threading.Event(), threading.Event()

    def handler(_: Context, __: Job) -> None:
        started.set()
        release.wait(LIMIT)

    (task_id,) = await enqueue(connected, 1)
    async with Worker(app_of(handler), connected, grace=0.05):
        assert await asyncio.to_thread(started.wait, LIMIT)
    task = await connected.get_task(task_id)
    release.set()
    assert (task.status, task.attempts) == (TaskStatus.LEASED, 0)


async def test_a_thread_that_looks_at_the_signal_is_given_back(connected: Client) -> None:
    """A plain function that ends when it is told to stop leaves its task free."""
    started = threading.Event()

    def handler(ctx: Context, _: Job) -> None:
        started.set()
        ctx.wait_aborted_sync(LIMIT)

    (task_id,) = await enqueue(connected, 1)
    async with Worker(app_of(handler), connected, grace=0.05):
        assert await asyncio.to_thread(started.wait, LIMIT)
    task = await connected.get_task(task_id)
    assert (task.status, task.attempts) == (TaskStatus.PENDING, 0)


async def test_an_idle_worker_stops(connected: Client) -> None:
    """`stop` returns at once where nothing runs, also twice, and before the start."""
    worker = Worker(app_of(raising()), connected)
    await worker.stop()
    async with worker:
        await asyncio.wait_for(worker.stop(), LIMIT)
        await asyncio.wait_for(worker.stop(), LIMIT)


async def test_a_cancelled_run_drains(connected: Client) -> None:
    """Cancelling `run()` stops gracefully, and the cancellation is raised afterwards."""
    started = asyncio.Event()

    async def handler(_: Context, __: Job) -> str:
        started.set()
        await asyncio.sleep(0.05)
        return "recorded"

    (task_id,) = await enqueue(connected, 1)
    running = asyncio.create_task(Worker(app_of(handler), connected).run())
    await asyncio.wait_for(started.wait(), LIMIT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await connected.get_task(task_id)).result == "recorded"


async def test_a_worker_can_run_again(connected: Client) -> None:
    """Two runs of one worker, one after the other, each do their part."""
    worker = Worker(app_of(raising()), connected)
    for n in range(2):
        async with worker:
            (task,) = await done(connected, *await enqueue(connected, n))
            assert task.status is TaskStatus.DONE_COMPLETED


async def test_a_thread_of_an_earlier_run_takes_no_slot_of_the_next(connected: Client) -> None:
    """A thread that ends while the worker runs again does not let more handlers run than there are slots."""
    release = threading.Event()
    started = threading.Event()
    running = most = 0
    lock = threading.Lock()

    def handler(_: Context, job: Job) -> None:
        nonlocal running, most
        if job.n == 0:
            started.set()
            release.wait(LIMIT)
            return
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1

    worker = Worker(app_of(handler), connected, concurrency=1, grace=0.05)
    await enqueue(connected, 0)
    async with worker:
        assert await asyncio.to_thread(started.wait, LIMIT)
    async with worker:
        release.set()
        await done(connected, *await enqueue(connected, *range(1, 11)))
    assert most == 1


async def test_one_worker_does_not_run_twice_at_once(connected: Client) -> None:
    """A second run of a worker that runs is refused, and harms the first one not at all."""
    worker = Worker(app_of(raising()), connected)
    async with worker:
        with pytest.raises(OncetaskError, match="running already"):
            await worker.run()
        await done(connected, *await enqueue(connected, 1))


async def test_an_empty_app_waits(connected: Client) -> None:
    """A worker without any handler runs, and stops."""
    async with Worker(App(), connected):
        (task_id,) = await enqueue(connected, 1)
    assert (await connected.get_task(task_id)).status is TaskStatus.PENDING
