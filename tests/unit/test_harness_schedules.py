"""The harness: recurrences over weeks, and pauses."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import pytest

from oncetask import App, Context, Payload, Recurrence, TaskStatus
from oncetask.testing import Harness
from tests.support import MICROSECOND, T0, at


class Report(Payload, kind="report"):
    """What is written again and again, and takes so many seconds."""

    seconds: float = 0


class Kept:
    """An App with one schedule, whose occurrences note when they began and for which instant they are."""

    def __init__(self, recurrence: Recurrence, *, seconds: float = 0) -> None:
        self.app = App("reports")
        self.app.schedule("s", Report(seconds=seconds), recurrence)
        self.begun: list[datetime] = []
        self.meant: list[datetime | None] = []

        @self.app.handler(Report, timeout=timedelta(days=2))
        async def report(ctx: Context, report: Report) -> None:
            self.begun.append(ctx.client.store.clock.now().latest)
            self.meant.append(ctx.task.occurrence_timestamp)
            await asyncio.sleep(report.seconds)


async def test_a_month_of_nights() -> None:
    """A nightly schedule runs thirty times in thirty days, each time at its instant."""
    kept = Kept(Recurrence.cron("0 2 * * *"))
    async with Harness(kept.app, start=T0) as h:
        report = await h.advance(timedelta(days=30))
        assert (report.spawned, report.completed) == (30, 30)
        assert report.next_due == T0 + timedelta(days=30, hours=2)
    assert kept.begun == kept.meant == [T0 + timedelta(days=n, hours=2) for n in range(30)]


async def test_a_month_of_hours() -> None:
    """720 occurrences of an hourly schedule, none late, none twice."""
    kept = Kept(Recurrence.every(3_600))
    async with Harness(kept.app, start=T0) as h:
        await h.advance(timedelta(days=30))
        assert len(h.tasks.spawned_by("reports:s").with_status("done-completed")) == 720
    assert kept.begun == [at(3_600 * n) for n in range(1, 721)]


async def test_an_occurrence_at_the_very_end() -> None:
    """What is to be spawned at the instant at which an advance ends has run; a microsecond earlier it was not there."""
    kept = Kept(Recurrence.every(3_600))
    async with Harness(kept.app, start=T0) as h:
        await h.advance(3_600 - 0.000001)
        assert len(h.tasks.spawned_by("reports:s")) == 0
        await h.advance(MICROSECOND)
        h.assert_completed(h.tasks.spawned_by("reports:s").one())


async def test_the_hour_stays_when_the_clocks_change() -> None:
    """At nine in Berlin is at eight in UTC in winter, and at seven in summer."""
    kept = Kept(Recurrence.cron("0 9 * * *", timezone="Europe/Berlin"))
    async with Harness(kept.app, start=datetime(2030, 3, 29, tzinfo=UTC)) as h:
        await h.advance(timedelta(days=4))
    assert [begun.hour for begun in kept.begun] == [8, 8, 7, 7]
    assert {begun.astimezone(ZoneInfo("Europe/Berlin")).hour for begun in kept.begun} == {9}


@pytest.mark.parametrize(("catch_up", "runs"), [("one", 1), ("all", 6), ("skip", 0)])
async def test_what_was_missed(catch_up: Literal["one", "all", "skip"], runs: int) -> None:
    """After hours in which nothing was spawned, `catch_up` says how many of the missed ones run."""
    kept = Kept(Recurrence.every(3_600, catch_up=catch_up))
    async with Harness(kept.app, start=T0) as h:
        await asyncio.sleep(6.5 * 3_600)  # time passes, and nobody works
        await h.run_due()
        assert len(kept.begun) == runs
        await h.advance(3_600)
        assert len(kept.begun) == runs + 1


@pytest.mark.parametrize(
    ("overlap", "hours", "statuses"),
    [
        ("allow", [1, 2, 3, 4], ["completed", "completed", "leased", "leased"]),
        ("skip", [1, 3], ["completed", "leased"]),
        ("cancel-previous", [1, 2, 3, 4], ["cancelled", "cancelled", "cancelled", "leased"]),
    ],
)
async def test_what_overlaps(
    overlap: Literal["allow", "skip", "cancel-previous"], hours: list[int], statuses: list[str]
) -> None:
    """With runs of a hundred minutes each hour, `overlap` says which begin and which are stopped."""
    kept = Kept(Recurrence.every(3_600, overlap=overlap), seconds=6_000)
    async with Harness(kept.app, start=T0) as h:
        await h.advance(timedelta(hours=4.5))
        occurrences = h.tasks.spawned_by("reports:s")
        assert [task.status.removeprefix("done-") for task in occurrences] == statuses
    assert kept.begun == [at(3_600 * hour) for hour in hours]


async def test_a_recurrence_that_is_enqueued() -> None:
    """One that a caller enqueues spawns as one in the code does, until its rule has run out."""
    kept = Kept(Recurrence.every(86_400, catch_up="skip"))
    async with Harness(kept.app, start=T0) as h:
        rule = Recurrence("FREQ=MINUTELY;COUNT=3", dtstart=at(60))
        generator = await h.enqueue(Report(), recurrence=rule)
        await h.advance(3_600)
        h.assert_completed(generator)
        assert [task.occurrence_timestamp for task in h.tasks.spawned_by(generator.task_id)] == [
            at(60),
            at(120),
            at(180),
        ]
    assert kept.begun == [at(60), at(120), at(180)]


async def test_a_paused_schedule() -> None:
    """While it is paused nothing is spawned; afterwards it goes on with the next instant."""
    kept = Kept(Recurrence.every(3_600, catch_up="all"))
    async with Harness(kept.app, start=T0) as h:
        await h.advance(3_600)
        await h.client.pause_schedule("reports:s")
        await h.advance(timedelta(hours=10))
        await h.client.resume_schedule("reports:s")
        await h.advance(timedelta(hours=1))
    assert kept.begun == [at(3_600), at(12 * 3_600)]


async def test_a_paused_kind() -> None:
    """Its tasks wait, its schedules spawn on time, and all of it runs in the next call after it was resumed."""
    kept = Kept(Recurrence.every(3_600))
    async with Harness(kept.app, start=T0) as h:
        await h.client.pause_kind(Report)
        await h.enqueue(Report())
        report = await h.advance(timedelta(hours=3))
        assert (report.spawned, report.claimed, kept.begun) == (3, 0, [])
        assert [task.created_at for task in h.tasks.spawned_by("reports:s")] == [at(3_600), at(7_200), at(10_800)]
        assert len(h.tasks.with_status(TaskStatus.PENDING)) == 4
        await h.client.resume_kind(Report)
        await h.run_due()
        assert kept.begun == [at(10_800)] * 4


async def test_a_pause_in_the_middle_of_an_advance() -> None:
    """A handler that pauses another kind is heeded from that moment on."""
    kept = Kept(Recurrence.every(3_600))

    class Stop(Payload, kind="stop"):
        pass

    @kept.app.handler(Stop)
    async def stop(ctx: Context, _: Stop) -> None:
        await ctx.client.pause_kind(Report)

    async with Harness(kept.app, start=T0) as h:
        await h.enqueue(Stop(), delay=9_000)
        await h.advance(timedelta(hours=5))
    assert kept.begun == [at(3_600), at(7_200)]


async def test_a_cancelled_schedule_spawns_nothing_more() -> None:
    """Cancelled it ends; reset it goes on."""
    kept = Kept(Recurrence.every(3_600))
    async with Harness(kept.app, start=T0) as h:
        await h.advance(3_600)
        assert await h.cancel("reports:s")
        await h.advance(7_200)
        h.assert_cancelled("reports:s")
        await h.client.reset_task("reports:s")
        await h.advance(3_600)
    assert kept.begun == [at(3_600), at(4 * 3_600)]
