"""One handler under its limits, to the instant: on an event loop whose time is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from oncetask import App, Client, Context, Payload, Progress, TaskExpired, TaskTimeout
from oncetask.attempts import Completed, Ended, Expired, Failed, Interrupted
from oncetask.clock import StoreClock
from oncetask.context import TimeLimit
from oncetask.execution import Execution
from oncetask.processes import Processes
from oncetask.store import TaskStore
from oncetask.task import Task
from tests.support import MICROSECOND, FakeClock, a_task, at
from tests.virtual_time import LoopClock, in_virtual_time

TICK = 0.001


class Greet(Payload, kind="greet"):
    """What is run."""

    name: str


Function = Callable[[Context, Greet], Coroutine[Any, Any, object]]


def execution(function: Function, *, task: Task | None = None, grace: float = 5.0, **options: Any) -> Execution:
    """Make one attempt; `options`: the handler's."""
    app = App()
    app.handler(Greet, **options)(function)
    store = cast("TaskStore", SimpleNamespace(clock=StoreClock(LoopClock())))
    told: list[Progress] = []
    return Execution(
        app.handlers()["greet"],
        [task or a_task(lease_owner="l", leased_until=at(60), attempts=1, started_at=at(0))],
        [Greet(name="Ada")],
        client=Client(store),
        state=None,
        processes=Processes(),
        abort_grace=grace,
        tell=told.append,
    )


async def run(function: Function, **options: Any) -> tuple[Ended, float]:
    """Run an attempt; gives how it ended, and when."""
    ended = await execution(function, **options).run()
    return ended, asyncio.get_running_loop().time()


def lasting(seconds: float) -> Function:
    """Give a handler that takes so long."""

    async def handler(_: Context, __: Greet) -> float:
        await asyncio.sleep(seconds)
        return seconds

    return handler


async def for_ever(_: Context, __: Greet) -> None:
    """Never end by itself."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("limit", [0.2, 300, timedelta(hours=6)])
@in_virtual_time
async def test_up_to_its_limit_a_handler_may_run(limit: float | timedelta) -> None:
    """One that ends just before its limit has completed."""
    seconds = timedelta(seconds=limit).total_seconds() if isinstance(limit, int | float) else limit.total_seconds()
    ended, _ = await run(lasting(seconds - TICK), timeout=limit)
    assert ended == Completed(seconds - TICK, (), None)


@pytest.mark.parametrize("limit", [0.2, 300, timedelta(hours=6)])
@in_virtual_time
async def test_at_its_limit_a_handler_is_cancelled(limit: float | timedelta) -> None:
    """One that would end just after it is cancelled exactly then, and the attempt has failed."""
    seconds = timedelta(seconds=limit).total_seconds() if isinstance(limit, int | float) else limit.total_seconds()
    ended, when = await run(lasting(seconds + TICK), timeout=limit)
    assert isinstance(ended, Failed)
    assert isinstance(ended.error, TaskTimeout)
    assert not isinstance(ended.error, TaskExpired)
    assert (round(when, 6), ended.ended, ended.final) == (seconds, True, False)


@in_virtual_time
async def test_a_thousand_handlers_see_their_own_limits() -> None:
    """Side by side, each is cancelled at its own limit, and is told that limit."""
    seen: dict[str, tuple[float, str | None]] = {}

    async def handler(ctx: Context, _: Greet) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen[ctx.task_id] = round(asyncio.get_running_loop().time(), 6), ctx.abort_reason

    limits = {f"greet:{n}": round(0.2 + n * TICK, 3) for n in range(1_000)}
    tasks = [a_task(name, timeout=limit, lease_owner="l", leased_until=at(60)) for name, limit in limits.items()]
    ends = await asyncio.gather(*(execution(handler, task=task).run() for task in tasks))
    assert {name: (limit, "timeout") for name, limit in limits.items()} == seen
    for ended, limit in zip(ends, limits.values(), strict=True):
        assert isinstance(ended, Failed)
        assert str(ended.error) == f"the attempt reached its time limit of {limit:g} s"


@pytest.mark.parametrize(("timeout", "deadline", "stops", "reason"), [
    (10, 20, 10, "timeout"),
    (20, 10, 10, "deadline"),
    (10, 10, 10, "deadline"),
])  # fmt: skip
@in_virtual_time
async def test_the_earlier_of_timeout_and_deadline_wins(
    timeout: float, deadline: float, stops: float, reason: str
) -> None:
    """Whichever comes first stops the handler; where they fall together it is the deadline, which is for good."""
    seen: list[object] = []

    async def handler(ctx: Context, _: Greet) -> None:
        seen.extend((ctx.deadline, ctx.remaining))
        try:
            await asyncio.Event().wait()
        finally:
            seen.extend((ctx.abort_reason, ctx.remaining))

    task = a_task(deadline=at(deadline), lease_owner="l", leased_until=at(60), attempts=1, started_at=at(0))
    ended, when = await run(handler, timeout=timeout, task=task)
    assert seen == [at(stops), stops, reason, 0.0]
    assert when == stops
    assert isinstance(ended, Expired if reason == "deadline" else Failed)


@pytest.mark.parametrize(("deadline", "starts"), [(at(0), False), (at(0) + MICROSECOND, True), (at(-60), False)])
@in_virtual_time
async def test_at_its_deadline_nothing_is_started(deadline: datetime, starts: bool) -> None:
    """At the instant itself it is too late, a microsecond before it is not."""
    started = False

    async def handler(_: Context, __: Greet) -> None:
        nonlocal started
        started = True
        await asyncio.Event().wait()

    task = a_task(
        wait_until=at(-100), deadline=deadline, lease_owner="l", leased_until=at(60), attempts=1, started_at=at(0)
    )
    ended, when = await run(handler, task=task)
    assert isinstance(ended, Expired)
    assert (started, ended.began, ended.deadline) == (starts, starts, deadline)
    assert when == pytest.approx(0, abs=1e-5)


@in_virtual_time
async def test_a_handler_that_ends_at_its_deadline_by_itself_has_completed() -> None:
    """A deadline ends what still runs; what has returned just before it is complete."""
    task = a_task(deadline=at(10), lease_owner="l", leased_until=at(60), attempts=1, started_at=at(0))
    ended, _ = await run(lasting(10 - TICK), task=task)
    assert isinstance(ended, Completed)


@pytest.mark.parametrize("grace", [0, 0.5, 5])
@in_virtual_time
async def test_who_does_not_obey_is_abandoned_after_the_grace(grace: float) -> None:
    """A handler that swallows its cancellation is waited for as long as the grace, and no longer."""

    async def stubborn(_: Context, __: Greet) -> None:
        while asyncio.get_running_loop().time() < 60:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    ended, when = await run(stubborn, timeout=1, grace=grace)
    assert isinstance(ended, Failed)
    assert (when, ended.ended, type(ended.error)) == (1 + grace, False, TaskTimeout)


@in_virtual_time
async def test_who_obeys_late_is_waited_for() -> None:
    """A handler may clean up for as long as the grace; the attempt ends when it ends."""

    async def slow_to_stop(_: Context, __: Greet) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(4)

    ended, when = await run(slow_to_stop, timeout=1)
    assert isinstance(ended, Failed)
    assert (when, ended.ended) == (5, True)


@in_virtual_time
async def test_a_second_reason_changes_nothing() -> None:
    """Whoever tells a handler first to stop says why; its grace is not begun anew."""
    attempt = execution(for_ever, timeout=10)
    loop = asyncio.get_running_loop()
    loop.call_later(3, attempt.abort, "cancelled")
    loop.call_later(3.5, attempt.abort, "shutdown")
    assert await attempt.run() == Interrupted("cancelled", ended=True)
    assert loop.time() == 3


@in_virtual_time
async def test_a_timeout_of_the_handlers_own_is_told_apart() -> None:
    """A `TimeoutError` that the handler raises before its limit is an ordinary failure."""

    async def handler(_: Context, __: Greet) -> None:
        async with asyncio.timeout(1):
            await asyncio.Event().wait()

    ended, when = await run(handler, timeout=10)
    assert isinstance(ended, Failed)
    assert (type(ended.error), when) == (TimeoutError, 1)


@in_virtual_time
async def test_nothing_is_left_behind() -> None:
    """When an attempt is over no asyncio task and no timer of it is left, however it ended."""
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    await run(lasting(1), timeout=10)
    await run(for_ever, timeout=10)
    await run(
        for_ever, timeout=10, task=a_task(deadline=at(15), lease_owner="l", leased_until=at(60), started_at=at(0))
    )
    assert asyncio.all_tasks() == before
    timers = cast("list[asyncio.TimerHandle]", loop._scheduled)  # type: ignore[attr-defined]
    assert [timer for timer in timers if not timer.cancelled() and timer.when() < 1_000] == []


@pytest.mark.parametrize(("deadline", "reason", "seconds"), [
    (None, "timeout", 30.0),
    (at(31), "timeout", 30.0),
    (at(30), "deadline", 30.0),
    (at(29.5), "deadline", 29.5),
    (at(-1), "deadline", -1.0),
])  # fmt: skip
def test_a_time_limit_has_one_reason(deadline: datetime | None, reason: str, seconds: float) -> None:
    """It says when a run that starts now has to stop, on both clocks, and what for."""
    clock = FakeClock()
    limit = TimeLimit.from_now(30, deadline, StoreClock(clock))
    assert limit == (reason, clock.reading + seconds, at(seconds))


def test_a_deadline_is_never_overrun() -> None:
    """Where the store's time is known only roughly, the later bound decides about a deadline."""
    clock = FakeClock()
    store_clock = StoreClock(clock)
    clock.advance(0.4)
    store_clock.observe(at(100), asked=clock.reading - 0.4)  # it is between 100 and 100.4 now
    limit = TimeLimit.from_now(30, at(110), store_clock)
    assert (limit.reason, round(limit.ends - clock.reading, 6)) == ("deadline", 9.6)
