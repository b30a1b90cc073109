"""The harness: timeouts of running handlers, deadlines, and leases that last as long as the work."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from oncetask import App, Context, FixedDelay, NoRetry, Payload, TaskExpired, TaskTimeout
from oncetask.testing import Harness
from tests.support import MICROSECOND, T0, at


class Work(Payload, kind="work"):
    """What takes so many seconds of virtual time."""

    seconds: float = 1e9


class Threaded(Payload, kind="threaded"):
    """The same in a thread, until it is told to stop."""


class Stopped:
    """An App whose handlers note how they were told to stop."""

    def __init__(self, *, attempts: int = 1) -> None:
        self.app = App(timeout=600, retry=FixedDelay(attempts, 10))
        self.stops: list[tuple[str | None, datetime]] = []

        @self.app.handler(Work)
        async def work(ctx: Context, work: Work) -> None:
            try:
                await asyncio.sleep(work.seconds)
            except asyncio.CancelledError:
                self.stopped(ctx)
                raise

        @self.app.handler(Threaded)
        def threaded(ctx: Context, _: Threaded) -> None:
            ctx.wait_aborted_sync()
            self.stopped(ctx)
            ctx.raise_if_aborted()

    def stopped(self, ctx: Context) -> None:
        """Note why, and when by the store's time."""
        self.stops.append((ctx.abort_reason, ctx.client.store.clock.now().latest))


@pytest.mark.parametrize("payload", [Work(), Threaded()], ids=["async def", "def"])
async def test_a_handler_is_stopped_at_its_limit(payload: Payload) -> None:
    """At ten minutes to the microsecond the handler is told, in a thread too, and the attempt has failed."""
    own = Stopped()
    async with Harness(own.app, start=T0) as h:
        task = await h.run(payload)
        h.assert_failed(task, match="time limit of 600 s", error=TaskTimeout)
    ((reason, instant),) = own.stops
    assert reason == "timeout"
    assert at(600) <= instant < at(602)  # a thread that was told takes a moment of real time
    if isinstance(payload, Work):
        assert (instant, task.done_at) == (at(600), at(600))


@pytest.mark.parametrize(("seconds", "outcome"), [(600, "failed"), (599.999999, "completed")])
async def test_the_very_limit(seconds: float, outcome: str) -> None:
    """What takes a microsecond less than its limit completes; what takes as long does not."""
    own = Stopped()
    async with Harness(own.app, start=T0) as h:
        assert (await h.run(Work(seconds=seconds))).outcome == outcome


async def test_the_limit_of_the_call_goes_first() -> None:
    """`timeout=` of enqueue is the one that counts, and each attempt has it anew."""
    own = Stopped(attempts=2)
    async with Harness(own.app, start=T0) as h:
        task = await h.run(Work(), timeout=5)
        h.assert_failed(task, match="time limit of 5 s")
    assert [instant for _, instant in own.stops] == [at(5), at(20)]


async def test_a_short_limit_in_a_thread_that_does_not_look() -> None:
    """A `def` handler that ignores its limit is abandoned after the grace, and what it returns is dropped."""
    app, gate = App(retry=NoRetry()), threading.Event()

    @app.handler(Threaded, timeout=0.05)
    def threaded(ctx: Context, _: Threaded) -> bool:
        return gate.wait(30)

    async with Harness(app, start=T0, abort_grace=0.05) as h:
        task = await h.enqueue(Threaded())
        await h.run_until(lambda: h.task(task).outcome)
        gate.set()
        h.assert_failed(task, error=TaskTimeout)
        assert h.now >= at(0.1)
        await h.advance(1)
        h.assert_failed(task, error=TaskTimeout)


async def test_a_handler_that_ignores_its_cancellation_is_abandoned() -> None:
    """After the limit and the grace the task has failed, at that instant; what it does later changes nothing."""
    app = App(retry=NoRetry())

    @app.handler(Work, timeout=10)
    async def work(_: Context, __: Work) -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1_000)
        await asyncio.sleep(100)
        return "after all"

    async with Harness(app, start=T0, abort_grace=5) as h:
        task = await h.run(Work())
        assert task.done_at == at(15)
        await h.advance(1_000)
        h.assert_failed(task, error=TaskTimeout)


async def test_time_limits_within_a_handler() -> None:
    """`asyncio.timeout` and what libraries make of it go by virtual time, and so does `ctx.remaining`."""
    app = App(timeout=600)

    @app.handler(Work)
    async def work(ctx: Context, _: Work) -> list[float]:
        seen = [ctx.remaining]
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                await ctx.wait_aborted()
        seen.append(ctx.remaining)
        await asyncio.sleep(0.1)
        return [*seen, ctx.remaining, (ctx.deadline - T0).total_seconds()]

    async with Harness(app, start=T0) as h:
        h.assert_completed(await h.run(Work()), result=[600, 540, 539.9, 600])


async def test_a_deadline_that_passes_while_it_runs() -> None:
    """The handler is told at the deadline, and the task has expired."""
    own = Stopped()
    async with Harness(own.app, start=T0) as h:
        task = await h.run(Work(), deadline=at(100))
        h.assert_expired(task)
        assert task.errors[-1].type == TaskExpired.__name__
    assert own.stops == [("deadline", at(100))]


async def test_a_deadline_that_passes_before_it_starts() -> None:
    """A task that could not start in time ends at its deadline, without an attempt."""
    app = App(retry=FixedDelay(9, 3_600))

    @app.handler(Work)
    async def work(_: Context, __: Work) -> None:
        raise ConnectionError

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Work(), deadline=at(9_000))
        await h.advance(9_000 - 0.000001)
        h.assert_waiting(task)
        await h.advance(MICROSECOND)
        h.assert_expired(task)
        assert (h.task(task).done_at, h.task(task).attempts) == (at(9_000), 3)


async def test_leases_are_renewed_for_as_long_as_it_takes() -> None:
    """A handler of six hours keeps its lease, which is a minute long, all the time and runs once."""
    app, runs = App(), list[int]()

    @app.handler(Work, timeout=timedelta(days=1))
    async def work(ctx: Context, work: Work) -> None:
        runs.append(ctx.attempt)
        await asyncio.sleep(work.seconds)

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Work(seconds=6 * 3_600))
        for _ in range(6):
            await h.advance(3_600 - 1)
            leased_until = h.task(task).leased_until
            assert leased_until is not None
            assert h.now < leased_until <= h.now + timedelta(seconds=60)
        await h.advance(6)
        h.assert_completed(task)
    assert runs == [1]


async def test_a_lease_that_cannot_be_renewed_is_lost_at_its_end() -> None:
    """While the store does not answer a handler runs until its lease ends, and is told; another attempt follows."""
    own = Stopped(attempts=2)
    async with Harness(own.app, start=T0) as h:
        task = await h.enqueue(Work())
        await h.advance(10)
        with h.store.failing("apply"):
            await h.advance(100)
        assert [reason for reason, _ in own.stops] == ["lease-lost"]
        assert at(59) <= own.stops[0][1] <= at(60)
        await h.run_until(lambda: h.task(task).outcome)
        assert [error.type for error in h.task(task).errors] == ["LeaseLost", "TaskTimeout"]
