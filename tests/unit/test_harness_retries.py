"""The harness: attempts by their policy, at the instants that it says."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import pytest
import tenacity

from oncetask import (
    App,
    Context,
    Discard,
    ExponentialBackoff,
    FixedDelay,
    NoRetry,
    Payload,
    Retry,
    RetryAfter,
    Snooze,
    TaskStatus,
)
from oncetask.testing import Harness
from tests.support import MICROSECOND, T0, at


class Call(Payload, kind="call"):
    """What fails for some time."""

    failures: int = 1_000


def an_app(retry: Retry, error: Exception | None = None) -> tuple[App, list[datetime]]:
    """Give an App whose handler fails so often as its payload says, and the instants of its attempts."""
    app, instants = App(retry=retry), list[datetime]()

    @app.handler(Call)
    async def call(ctx: Context, call: Call) -> int:
        instants.append(ctx.client.store.clock.now().latest)
        if len(instants) <= call.failures:
            raise error or ConnectionError("nobody there")
        return ctx.attempt

    return app, instants


@pytest.mark.parametrize(
    ("retry", "seconds"),
    [
        (FixedDelay(3, 60), [0, 60, 120]),
        (ExponentialBackoff(5, base_delay=10, max_delay=60, jitter=0), [0, 10, 30, 70, 130]),
        (NoRetry(), [0]),
        (Retry(stop=tenacity.stop_after_delay(86_400), wait=tenacity.wait_fixed(40_000)), [0, 40_000, 80_000, 120_000]),
    ],
    ids=["fixed", "exponential", "none", "of tenacity"],
)
async def test_attempts_come_when_the_policy_says(retry: Retry, seconds: list[float]) -> None:
    """Each attempt starts at the very instant, and after the last one the task has failed."""
    app, instants = an_app(retry)
    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Call())
        report = await h.advance(timedelta(days=7))
        h.assert_failed(task, match="nobody there", error=ConnectionError)
        assert (report.claimed, report.retried, report.failed) == (len(seconds), len(seconds) - 1, 1)
    assert instants == [at(one) for one in seconds]


async def test_between_two_attempts_it_waits() -> None:
    """A microsecond before its next attempt the task still waits, and says until when."""
    app, instants = an_app(FixedDelay(5, 3_600))
    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Call(failures=1))
        await h.run_due()
        h.assert_waiting(task, until=at(3_600))
        await h.advance(timedelta(hours=1) - MICROSECOND)
        h.assert_waiting(task, until=at(3_600))
        await h.advance(MICROSECOND)
        h.assert_completed(task, result=2)
    assert len(instants) == 2


async def test_jitter_is_within_its_share() -> None:
    """A policy with jitter is the real one: the instants are drawn, and follow each other as it allows."""
    app, instants = an_app(ExponentialBackoff(4, base_delay=100, multiplier=1, jitter=0.5))
    async with Harness(app, start=T0) as h:
        await h.run(Call())
    waits = [later - earlier for earlier, later in itertools.pairwise(instants)]
    assert all(timedelta(seconds=50) <= wait <= timedelta(seconds=100) for wait in waits)


async def test_a_handler_that_asks_for_a_time_gets_it() -> None:
    """`RetryAfter` sets the next attempt in place of the policy; the error is kept."""
    app, instants = an_app(FixedDelay(2, 5), RetryAfter(1_234.5, "too many requests"))
    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Call(failures=1))
        await h.run_due()
        h.assert_waiting(task, until=at(1_234.5))
        await h.advance(1_234.5)
        h.assert_completed(task, result=2)
    assert instants == [T0, at(1_234.5)]


async def test_a_snooze_spends_no_attempt() -> None:
    """`Snooze` comes again after its delay as often as it likes, as the first attempt."""
    app, instants = an_app(NoRetry(), Snooze(timedelta(days=1)))
    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Call(failures=30))
        await h.advance(timedelta(days=30) - MICROSECOND)
        h.assert_waiting(task, until=T0 + timedelta(days=30))
        await h.advance(MICROSECOND)
        h.assert_completed(task, result=1)
    assert instants == [T0 + timedelta(days=n) for n in range(31)]


async def test_a_discarded_task_fails_at_once() -> None:
    """`Discard` ends the task, whatever the policy would allow."""
    app, instants = an_app(FixedDelay(9, 1), Discard("no such customer"))
    async with Harness(app, start=T0) as h:
        h.assert_failed(await h.run(Call()), match="no such customer", error=Discard)
    assert instants == [T0]


async def test_a_reset_task_runs_again() -> None:
    """What has failed begins anew with all of its attempts, at the instant of the reset."""
    app, instants = an_app(FixedDelay(2, 60))
    async with Harness(app, start=T0) as h:
        task = await h.run(Call(failures=3))
        assert task.status is TaskStatus.DONE_FAILED
        await h.advance(940)
        assert await h.client.reset_task(task.id)
        await h.advance(60)
        h.assert_completed(task, result=2)
    assert instants == [T0, at(60), at(1_000), at(1_060)]
