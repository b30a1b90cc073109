"""The harness: workers that die, and what their successors find."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest

from oncetask import App, Context, FixedDelay, Payload, Recurrence, TaskStatus
from oncetask.testing import Harness
from tests.support import MICROSECOND, T0, at, not_none

LEASE_SECONDS = 60.0


class Work(Payload, kind="work"):
    """What takes half an hour, if nobody dies."""

    key: str | None = None
    n: int = 0

    def resource_key(self) -> str | None:
        """Give what was said."""
        return self.key


class Crashing:
    """An App of which handler and cleanup take half an hour, and note their beginnings and ends."""

    def __init__(self, *, attempts: int = 3) -> None:
        self.app = App(timeout=7_200, retry=FixedDelay(attempts, 1))
        self.notes: list[str] = []

        @self.app.handler(Work)
        async def work(ctx: Context, work: Work) -> None:
            await self.half_an_hour(f"{work.n} attempt {ctx.attempt}", ctx)

        @self.app.cancellation_handler(Work)
        async def undo(ctx: Context, work: Work) -> None:
            await self.half_an_hour(f"{work.n} cleanup {ctx.attempt}", ctx)

    async def half_an_hour(self, what: str, ctx: Context) -> None:
        """Take it."""
        self.notes.append(what)
        try:
            await asyncio.sleep(1_800)
        finally:
            self.notes.append(f"{what}: {ctx.abort_reason or 'done'}")


async def test_a_crash_is_noticed_when_the_lease_ends() -> None:
    """Until then the task is held by the dead worker, whatever else is due; then it is tried again, as a crash."""
    own = Crashing()
    async with Harness(own.app, start=T0) as h:
        task = await h.enqueue(Work())
        await h.advance(5)
        lease_ends = not_none(h.task(task).leased_until)
        await h.crash()
        assert (h.now, h.task(task).status) == (at(5), TaskStatus.LEASED)
        await h.advance_to(lease_ends - MICROSECOND)
        assert own.notes == ["0 attempt 1", "0 attempt 1: lease-lost"]
        assert h.task(task).errors == ()
        await h.advance(MICROSECOND)
        (error,) = h.task(task).errors
        assert (error.type, error.attempt, error.at) == ("LeaseLost", 1, lease_ends)
        await h.run_until(lambda: h.task(task).outcome)
        h.assert_completed(task)
        assert h.task(task).attempts == 2
    assert own.notes[2:] == ["0 attempt 2", "0 attempt 2: done"]


async def test_a_task_whose_workers_always_die_fails() -> None:
    """Each crash is an attempt: after the last there is no other, and the history tells of each."""
    own = Crashing(attempts=3)
    async with Harness(own.app, start=T0) as h:
        task = await h.enqueue(Work())
        for n in range(1, 4):
            await h.run_until(lambda: h.task(task).status is TaskStatus.LEASED)
            assert h.task(task).attempts == n
            await h.crash()
            await h.advance(LEASE_SECONDS)
        h.assert_failed(task, match="its worker died")
        assert [error.attempt for error in h.task(task).errors] == [1, 2, 3]


async def test_a_crash_in_a_cleanup() -> None:
    """The cleanup is tried again when its lease has ended, with a count of its own."""
    own = Crashing()
    async with Harness(own.app, start=T0) as h:
        task = await h.enqueue(Work())
        assert await h.cancel(task)
        await h.advance(1)
        assert own.notes == ["0 cleanup 1"]
        await h.crash()
        await h.advance(timedelta(hours=1))
        h.assert_cancelled(task)
        assert (h.task(task).attempts, h.task(task).cancel_attempts) == (0, 2)
    assert own.notes == ["0 cleanup 1", "0 cleanup 1: lease-lost", "0 cleanup 2", "0 cleanup 2: done"]


async def test_a_cancel_after_a_crash() -> None:
    """A task that was cancelled when its worker had died is cleaned up once the lease has ended."""
    own = Crashing()
    async with Harness(own.app, start=T0) as h:
        task = await h.enqueue(Work())
        await h.advance(1)
        await h.crash()
        await h.cancel(task)
        await h.advance(LEASE_SECONDS - 2)
        assert own.notes[-1] == "0 attempt 1: lease-lost"
        await h.advance(3_600)
        h.assert_cancelled(task)
    assert own.notes[2:] == ["0 cleanup 1", "0 cleanup 1: done"]


async def test_a_key_that_a_dead_worker_held() -> None:
    """The tasks of its key wait until the lease has ended, then the key goes on with the one that was begun first."""
    own = Crashing()
    async with Harness(own.app, start=T0) as h:
        for n in (1, 2):
            await h.enqueue(Work(key="k", n=n))
        await h.advance(1)
        await h.crash()
        await h.advance(LEASE_SECONDS - 2)
        assert own.notes == ["1 attempt 1", "1 attempt 1: lease-lost"]
        await h.run_until(lambda: len(h.tasks.with_status("done-completed")) == 2)
        assert h.now < at(2 * 1_800 + 3 * LEASE_SECONDS)
    begun = [note for note in own.notes[2:] if ":" not in note]
    assert begun in (["1 attempt 2", "2 attempt 1"], ["2 attempt 1", "1 attempt 2"])  # a crash gives its turn away
    assert [":" in note for note in own.notes[2:]] == [False, True, False, True]  # one at a time


async def test_what_a_dead_handler_staged_is_lost() -> None:
    """Neither a result nor new tasks of an attempt that crashed are ever stored; those of the next are, once."""
    app = App()

    class More(Payload, kind="more"):
        pass

    @app.handler(Work)
    async def work(ctx: Context, _: Work) -> str:
        ctx.enqueue(More())
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
        return f"attempt {ctx.attempt}"

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Work())
        await h.advance(50)
        await h.crash()
        assert len(h.tasks.of(More)) == 0
        await h.advance(600)
        h.assert_completed(task, result="attempt 2")
        h.assert_enqueued(More, count=1)


async def test_a_thread_of_a_dead_worker_is_told() -> None:
    """A `def` handler cannot be killed: it sees `lease-lost`, and what it returns does not count."""
    app, reasons, ended = App(), list[str | None](), threading.Event()

    @app.handler(Work, timeout=7_200)
    def work(ctx: Context, _: Work) -> int:
        if ctx.attempt == 1:
            ctx.wait_aborted_sync()
            reasons.append(ctx.abort_reason)
            ended.set()
        return ctx.attempt

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Work())
        await h.advance(5)
        await h.crash()
        assert await asyncio.to_thread(ended.wait, 20)
        await h.run_until(lambda: h.task(task).outcome)
        h.assert_completed(task, result=2)
    assert reasons == ["lease-lost"]


async def test_a_crash_takes_no_time() -> None:
    """Whatever a handler does about its end, and whatever the lifespan has to close, the instant stays the same."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await asyncio.to_thread(time.sleep, 0.02)
        yield
        await asyncio.to_thread(time.sleep, 0.02)

    app = App(lifespan=lifespan)

    @app.handler(Work)
    async def work(ctx: Context, _: Work) -> int:
        if ctx.attempt == 1:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(200)
            await asyncio.sleep(10)  # it takes notice of nothing
        return ctx.attempt

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Work())
        await h.advance(5)
        await h.crash()
        assert h.now == at(5)
        await h.run_until(lambda: h.task(task).outcome)
        h.assert_completed(task, result=2)


async def test_a_crash_with_nothing_to_do() -> None:
    """A worker that dies idle leaves nothing behind, and its successor works."""
    own = Crashing()
    async with Harness(own.app, start=T0) as h:
        await h.crash()
        await h.crash()
        h.assert_completed(await h.run(Work()))
        assert h.now == at(1_800)


@pytest.mark.parametrize("verb", ["settings", "get", "due"])
async def test_a_crash_while_the_store_is_away(verb: str) -> None:
    """A worker that begins while the store does not answer begins once it does, also with what is newly declared."""
    own = Crashing()
    async with Harness(own.app, start=T0) as h:
        own.app.schedule("hourly", Work(), Recurrence.every(3_600))
        h.store.fail(verb, times=None)  # type: ignore[arg-type]  # one of them
        await h.crash()
        await h.advance(600)
        h.store.heal()
        await h.advance(7_200)
        assert len(h.tasks.spawned_by("default:hourly")) == 2
