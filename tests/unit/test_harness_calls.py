"""The harness: the calls that let time pass, what they refuse, and what they say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from oncetask import App, Context, TaskStatus
from oncetask.testing import Harness
from tests.diary import Diary, Step
from tests.support import MICROSECOND, T0, at


async def test_run_until_stops_at_the_instant() -> None:
    """Its condition may be about anything that handlers do; time goes no further than it takes."""
    diary = Diary()
    async with diary.harness() as h:
        await h.enqueue(Step(name="a", seconds=7.5))
        await h.run_until(lambda: (7.5, "a ends") in diary.entries)
        assert h.now == at(7.5)
        await h.run_until(lambda: True)
        assert h.now == at(7.5)


async def test_run_until_says_what_there_is() -> None:
    """Where the condition does not hold in time, the error shows the tasks, and the time has passed."""
    diary = Diary()
    async with diary.harness() as h:
        await h.enqueue(Step(name="a"), delay=7_200, task_id="the-task")
        with pytest.raises(AssertionError, match=r"does not hold until 2030-01-01T01:00:00(.|\n)*the-task: waiting"):
            await h.run_until(lambda: diary.entries, within=timedelta(hours=1))
        assert h.now == at(3_600)


async def test_run_gives_the_task_when_it_is_done() -> None:
    """`run` enqueues, waits in virtual time, and gives the record."""
    diary = Diary()
    async with diary.harness() as h:
        task = await h.run(Step(name="a", seconds=5), delay=3_600)
        assert (task.status, task.done_at) == (TaskStatus.DONE_COMPLETED, at(3_605))


@pytest.mark.parametrize(
    "call", [lambda h: h.run_due(), lambda h: h.advance(1), lambda h: h.crash()], ids=["run_due", "advance", "crash"]
)
async def test_only_the_test_lets_time_pass(call: Callable[[Harness], Awaitable[object]]) -> None:
    """A handler that tries fails at once, with an error that says so; so does a second call beside the first."""
    app = App()

    @app.handler(Step)
    async def step(_: Context, __: Step) -> None:
        await call(h)

    async with Harness(app, start=T0) as h:
        task = await h.run(Step(name="a"))
        h.assert_failed(task, match="for the test itself", error=RuntimeError)
        first = asyncio.create_task(h.advance(100))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one at a time"):
            await call(h)
        await first
        assert h.now >= at(100)


async def test_nothing_runs_after_the_end() -> None:
    """What is asked of a harness that was left raises, instead of waiting for ever; its tasks can be looked at."""
    async with Diary().harness() as h:
        await h.enqueue(Step(name="a"), delay=60)
    for call in (h.run_due, h.crash, lambda: h.advance(60)):
        with pytest.raises(RuntimeError, match="this harness has ended"):
            await call()
    h.assert_waiting(h.tasks.one())


async def test_a_call_that_was_stopped_leaves_no_trace() -> None:
    """After a time limit of the test's own, in virtual time, the next call goes on from there."""
    diary = Diary()
    async with diary.harness() as h:
        task = await h.enqueue(Step(name="a", seconds=100))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await h.advance(50)
        assert h.now == at(10)
        await h.advance(90)
        h.assert_completed(task)


async def test_wrong_durations_and_instants_are_named() -> None:
    """What is no duration, no instant, or past, is refused by its name."""
    async with Harness(App(), start=T0) as h:
        with pytest.raises(ValueError, match="by must be zero or more"):
            await h.advance(-1)
        with pytest.raises(TypeError, match="by must be seconds"):
            await h.advance("a day")  # type: ignore[arg-type]  # it is the point
        with pytest.raises(ValueError, match="instant must not be before 2030-01-01T00:00:00"):
            await h.advance_to(T0 - MICROSECOND)
        with pytest.raises(ValueError, match="instant must be aware"):
            await h.advance_to(datetime(2031, 1, 1))  # noqa: DTZ001  # it is the point
        with pytest.raises(ValueError, match="within must be"):
            await h.run_until(lambda: True, within=0)


async def test_left_out_it_starts_now() -> None:
    """Without a `start` the first instant is the machine's own time of day."""
    before = time.time()
    async with Harness(App()) as h:
        assert before <= h.now.timestamp() <= time.time()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"start": datetime(2030, 1, 1)}, "start"),  # noqa: DTZ001  # it is the point
        ({"concurrency": 0}, "concurrency"),
        ({"abort_grace": -1}, "abort_grace"),
        ({"patience": -1}, "patience"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], named: str) -> None:
    """What a harness cannot use is refused when it is made, by its name."""
    with pytest.raises(ValueError, match=named):
        Harness(App(), **options)  # type: ignore[arg-type]  # it is the point
