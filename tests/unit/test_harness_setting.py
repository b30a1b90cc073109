"""The harness: what surrounds handlers is as it is with a worker, and callers find their clients."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from oncetask import (
    App,
    CallNext,
    Client,
    Context,
    FixedDelay,
    NoRetry,
    Payload,
    TaskStatus,
    current_context,
)
from oncetask.testing import Harness
from tests.support import T0


class Job(Payload, kind="job"):
    """What these run."""

    fails: bool = False


class Heavy(Payload, kind="heavy"):
    """What a worker would run in a process of its own."""


def heavy(_: Context, __: Heavy) -> str:
    """Tell where it runs."""
    return threading.current_thread().name


async def test_the_lifespan_is_open_meanwhile() -> None:
    """It opens when the harness does, gives the state, and closes in the end; a crash closes and opens it again."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[list[str]]:
        events.append("opened")
        await asyncio.sleep(0)
        yield events
        events.append("closed")

    app = App(lifespan=lifespan)

    @app.handler(Job)
    async def job(ctx: Context, _: Job) -> None:
        ctx.state.append("used")

    async with Harness(app, start=T0) as h:
        await h.run(Job())
        await h.run(Job())
        assert events == ["opened", "used", "used"]
        await h.crash()
        await h.run(Job())
    assert events == ["opened", "used", "used", "closed", "opened", "used", "closed"]


async def test_a_lifespan_that_does_not_open() -> None:
    """Its error is that of entering, and time is the machine's again."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        msg = "no database"
        raise ConnectionError(msg)
        yield

    before = set(vars(asyncio.get_running_loop()))
    with pytest.raises(ConnectionError, match="no database"):
        async with Harness(App(lifespan=lifespan)):
            pass
    assert set(vars(asyncio.get_running_loop())) == before


async def test_middleware_and_error_handlers_take_part() -> None:
    """Both are called as a worker calls them, with the context and in virtual time."""
    app, seen = App(retry=FixedDelay(2, 60)), list[object]()

    @app.middleware
    async def timed(ctx: Context, call_next: CallNext) -> object:
        began = h.now
        try:
            return await call_next()
        finally:
            seen.append((h.now - began).total_seconds())

    @app.error_handler
    async def report(ctx: Context, error: Exception) -> None:
        seen.append((ctx.attempt, str(error)))

    @app.handler(Job)
    async def job(_: Context, job: Job) -> None:
        await asyncio.sleep(5)
        if job.fails:
            raise ConnectionError("down")

    async with Harness(app, start=T0) as h:
        await h.run(Job(fails=True))
    assert seen == [5, (1, "down"), 5, (2, "down")]


async def test_the_context_is_found_from_below() -> None:
    """`current_context()` gives it in `async def` and in `def` handlers, and outside of them it raises."""
    app = App()

    def below() -> str:
        return current_context().task_id

    @app.handler(Job)
    async def job(_: Context, __: Job) -> str:
        return below()

    @app.handler(Heavy)
    def threaded(_: Context, __: Heavy) -> str:
        return below()

    async with Harness(app, start=T0) as h:
        for payload in (Job(), Heavy()):
            task = await h.run(payload)
            assert task.result == task.id


async def test_progress_is_seen_in_the_middle() -> None:
    """What a handler says of its progress is stored in virtual time, and seen between two advances."""
    app = App()

    @app.handler(Job)
    async def job(ctx: Context, _: Job) -> None:
        for n in range(10):
            ctx.progress(n / 10, f"step {n}")
            await asyncio.sleep(30)

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Job())
        await h.advance(95)
        progress = h.task(task).progress
        assert progress is not None
        assert (progress.fraction, progress.message) == (0.3, "step 3")


async def test_what_would_run_in_a_process_runs_in_a_thread() -> None:
    """A handler with `run_in="process"` is called in this process, where the test sees what it does."""
    app = App()
    app.handler(Heavy, run_in="process")(heavy)
    async with Harness(app, start=T0) as h:
        h.assert_completed(await h.run(Heavy()), result="oncetask-handler")


async def test_the_client_of_handlers_is_that_of_the_test() -> None:
    """What a handler does with `ctx.client` reaches the store of the test."""
    app, clients = App(), list[Client]()

    @app.handler(Job)
    async def job(ctx: Context, _: Job) -> None:
        clients.append(ctx.client)

    async with Harness(app, start=T0) as h:
        await h.run(Job())
        assert clients == [h.client]


async def test_a_handler_that_raises_what_ends_programs() -> None:
    """`SystemExit` in a handler is a failed attempt, and neither the test's end nor the harness's."""
    app = App(retry=NoRetry())

    @app.handler(Job)
    async def job(_: Context, __: Job) -> None:
        raise SystemExit(3)

    async with Harness(app, start=T0) as h:
        h.assert_failed(await h.run(Job()), match="tried to end its process")


async def test_a_kind_without_a_handler_waits(caplog: pytest.LogCaptureFixture) -> None:
    """Another service's tasks stay where they are; enqueueing them is seen."""
    caplog.set_level(logging.ERROR, "oncetask")
    async with Harness(App(), start=T0) as h:
        task = await h.enqueue(Job())
        await h.advance(86_400)
        assert h.task(task).status is TaskStatus.PENDING
        h.assert_enqueued(Job(), count=1)
    assert caplog.records == []
