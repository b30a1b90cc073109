"""The harness: what runs when, and in which order."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from oncetask import App, Context, Payload, TaskStatus
from oncetask.testing import Harness
from tests.diary import Diary, Split, Step
from tests.support import MICROSECOND, T0, at


async def test_what_becomes_due_on_the_way_runs_at_its_instant_in_order() -> None:
    """Within one advance tasks start when they are due, in whatever order they were enqueued."""
    diary = Diary()
    async with diary.harness() as h:
        for seconds in (86_400, 0.25, 3_600):
            await h.enqueue(Step(name=f"{seconds} s"), delay=seconds)
        report = await h.advance(timedelta(days=2))
        assert h.now == T0 + timedelta(days=2)
    assert diary.entries == [(0.25, "0.25 s"), (3_600, "3600 s"), (86_400, "86400 s")]
    assert (report.completed, report.next_due) == (3, None)


async def test_they_start_on_time_while_another_sleeps() -> None:
    """A handler that takes ten minutes holds up nobody who is due meanwhile."""
    diary = Diary()
    async with diary.harness() as h:
        await h.enqueue(Step(name="long", seconds=600))
        await h.enqueue(Step(name="short", seconds=1), delay=300)
        await h.enqueue(Step(name="last"), delay=599.5)
        await h.run_until(lambda: not h.tasks.with_status("waiting", "pending", "leased"))
    assert diary.entries == [
        (0, "long"),
        (300, "short"),
        (301, "short ends"),
        (599.5, "last"),
        (600, "long ends"),
    ]


async def test_they_start_on_time_while_a_thread_works() -> None:
    """A `def` handler that blocks for a moment of real time holds up nobody who becomes due in it."""
    diary = Diary()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Block(Payload, kind="block"):
        pass

    ended: list[datetime] = []

    @diary.app.handler(Block)
    def block(_: Context, __: Block) -> None:
        asyncio.run_coroutine_threadsafe(began.wait(), loop).result(20)
        ended.append(diary.h.now)

    class Release(Payload, kind="release"):
        pass

    @diary.app.handler(Release)
    async def release(_: Context, __: Release) -> None:
        began.set()

    async with diary.harness() as h:
        blocked = await h.enqueue(Block())
        await h.enqueue(Release(), delay=0.05)
        await h.run_until(lambda: h.task(blocked).outcome)
    assert ended[0] >= at(0.05)


@pytest.mark.parametrize(("beyond", "ran"), [(timedelta(), True), (MICROSECOND, False)])
async def test_at_the_very_end_of_an_advance(beyond: timedelta, *, ran: bool) -> None:
    """What is due at the instant at which it ends has run; a microsecond later it has not."""
    diary = Diary()
    async with diary.harness() as h:
        task = await h.enqueue(Step(name="edge"), wait_until=at(100) + beyond)
        await h.advance(100)
        assert (h.now, bool(diary.entries)) == (at(100), ran)
        if not ran:
            h.assert_waiting(task, until=at(100) + MICROSECOND)
            await h.advance(MICROSECOND)
        h.assert_completed(task)


async def test_what_runs_at_the_end_of_an_advance_runs_on_in_the_next() -> None:
    """A handler of an hour that was begun at the end of one advance ends within others, an hour later."""
    diary = Diary()
    async with diary.harness() as h:
        task = await h.enqueue(Step(name="hour", seconds=3_600), delay=10)
        await h.advance(10)
        assert h.task(task).status is TaskStatus.LEASED
        for _ in range(6):
            await h.advance(timedelta(minutes=10) - MICROSECOND)
        assert h.task(task).status is TaskStatus.LEASED
        await h.advance(6 * MICROSECOND)
        h.assert_completed(task)
    assert diary.entries == [(10, "hour"), (3_610, "hour ends")]


async def test_advances_sum_up_exactly() -> None:
    """A thousand advances of a tenth of a second are a hundred seconds, to the microsecond."""
    async with Harness(App(), start=T0) as h:
        for _ in range(1_000):
            await h.advance(0.1)
        assert h.now == at(100)


async def test_an_advance_of_nothing_runs_what_is_due_now() -> None:
    """`advance(0)` starts what is due, and lets no time pass."""
    diary = Diary()
    async with diary.harness() as h:
        await h.enqueue(Step(name="now", seconds=1))
        await h.enqueue(Step(name="later"), delay=MICROSECOND)
        await h.advance(0)
        assert h.now == T0
        assert diary.entries == [(0, "now")]


async def test_nothing_runs_by_itself() -> None:
    """Enqueueing starts nothing, nor does time that the test itself sleeps away."""
    diary = Diary()
    async with diary.harness() as h:
        await h.enqueue(Step(name="now"))
        await asyncio.sleep(3_600)
        assert h.now == at(3_600)
        assert diary.entries == []
        await h.run_due()
    assert diary.entries == [(3_600, "now")]


async def test_a_century_passes_too() -> None:
    """Instants stay exact to the microsecond for years, and an advance of a hundred of them ends."""
    diary = Diary()
    async with diary.harness() as h:
        await h.enqueue(Step(name="late"), delay=timedelta(days=2_000) + MICROSECOND)
        await h.advance(timedelta(days=2_001))
        assert diary.entries == [((timedelta(days=2_000) + MICROSECOND).total_seconds(), "late")]
        await h.advance(timedelta(days=36_500))
        for _ in range(3):  # less than a float of so many seconds can tell
            await h.advance(MICROSECOND)
        assert abs(h.now - T0 - timedelta(days=38_501)) <= timedelta(seconds=1)


async def test_run_due_lets_handlers_take_their_time() -> None:
    """It ends when nothing is due or runs; what a handler sleeps has passed then, and what came due in it has run."""
    diary = Diary()
    async with diary.harness() as h:
        await h.enqueue(Step(name="slow", seconds=60))
        await h.enqueue(Step(name="meanwhile", seconds=30), delay=59)
        await h.enqueue(Step(name="later"), delay=90)
        report = await h.run_due()
        assert (h.now, report.completed, report.next_due) == (at(89), 2, at(90))
    assert [what for _, what in diary.entries] == ["slow", "meanwhile", "slow ends", "meanwhile ends"]


async def test_run_due_runs_what_handlers_bring_about() -> None:
    """What a handler stages, or enqueues at once, runs in the same call."""
    diary = Diary()
    async with diary.harness() as h:
        await h.enqueue(Split(into=["staged", "direct", "direct too"]))
        assert (await h.run_due()).completed == 4
        h.assert_idle()
    assert sorted(diary.entries) == [(0, "direct"), (0, "direct too"), (0, "staged")]


async def test_run_due_runs_all_that_was_enqueued_together() -> None:
    """Tasks of one `enqueue_many`, and those that a handler stages, are microseconds apart, and due all the same."""
    diary = Diary()
    many = [Step(name=f"{n:02}") for n in range(20)]

    class Stage(Payload, kind="stage"):
        pass

    @diary.app.handler(Stage)
    async def stage(ctx: Context, _: Stage) -> None:
        for payload in many:
            ctx.enqueue(payload)

    async with diary.harness() as h:
        await h.client.enqueue_many(many)
        await h.run_due()
        assert [what for _, what in diary.entries] == [f"{n:02}" for n in range(20)]
        await h.enqueue(Stage())
        await h.run_due()
        assert len(diary.entries) == 40
        assert h.now < at(0.001)


async def test_first_enqueued_first_begun() -> None:
    """Though no time passes between two calls, what was enqueued first begins first, and is told first."""
    diary = Diary()
    names = [f"{n:02}" for n in range(30, 0, -1)]
    async with diary.harness(concurrency=1) as h:
        for name in names:
            await h.enqueue(Step(name=name), task_id=f"step-{name}")
        await h.run_due()
        assert [step.name for step in h.tasks.payloads(Step)] == names
        assert h.now == T0
    assert [what for _, what in diary.entries] == names


async def test_as_many_run_at_a_time_as_a_worker_would() -> None:
    """`concurrency` is a worker's: with two slots the third waits for one."""
    diary = Diary()
    async with diary.harness(concurrency=2) as h:
        for name in "abc":
            await h.enqueue(Step(name=name, seconds=10))
        await h.run_due()
    assert [entry for entry in diary.entries if "ends" not in entry[1]] == [(0, "a"), (0, "b"), (10, "c")]
