"""What a tick holds where store, handlers, lifespan and clocks do not behave, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from oncetask import App, Context, NoRetry, Recurrence, StoreUnavailable, TaskStatus, TickReport, tick
from oncetask.lock import Lock
from oncetask.store import Feed
from tests.support import at
from tests.unit.test_drain import (
    ENDS_AFTER,
    Job,
    Keyed,
    Place,
    _without_threads,
    app_of,
    hangs,
    ignores,
    later,
    now,
    returns,
)
from tests.virtual_time import in_virtual_time

__all__ = ["_without_threads"]


def stuck_from_the_start(place: Place, verb: str) -> App:
    """Let a verb not answer from the first moment on."""
    place.store.stuck.add(verb)
    return app_of(returns)


def stuck_after_the_claim(place: Place, verb: str) -> App:
    """Let a verb not answer any more once a handler runs."""

    async def handler(_: Context, __: Job) -> None:
        place.store.stuck.add(verb)

    return app_of(handler)


class TestEdges:
    """Time limits, the report, and pauses, in bad company."""

    @pytest.mark.parametrize("linger", [0, 60])
    @pytest.mark.parametrize(
        ("begin", "verb"),
        [
            (stuck_from_the_start, "open"),
            (stuck_from_the_start, "settings"),
            (stuck_from_the_start, "due"),
            (stuck_from_the_start, "apply"),
            (stuck_after_the_claim, "due"),
        ],
    )
    def test_a_store_that_does_not_answer(self, begin: Callable[[Place, str], App], verb: str, linger: float) -> None:
        """The tick ends in time all the same, with StoreUnavailable or a report."""

        @in_virtual_time
        async def run() -> None:
            place = Place()
            place.enqueue(Job())
            app = begin(place, verb)
            try:
                await place.ticked(app, budget=10, linger=linger, limit=10 + ENDS_AFTER)
            except StoreUnavailable:
                return

        run()

    @in_virtual_time
    async def test_an_error_handler_that_ignores_its_cancellation(self) -> None:
        """The tick ends in time."""
        place = Place()
        place.enqueue(Job())
        app = app_of(hangs)

        @app.error_handler
        async def report(ctx: Context, _: Exception) -> None:
            await ignores(ctx, _)

        _, took = await place.ticked(app, budget=10)
        assert took <= 10 + ENDS_AFTER

    @pytest.mark.parametrize("opens", [False, True])
    def test_a_lifespan_that_hangs(self, opens: bool) -> None:  # a parameter
        """The tick ends in time, whether the lifespan hangs when it opens or when it closes."""

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            await asyncio.sleep(60 if opens else 0)
            yield
            await asyncio.sleep(0 if opens else 60)

        @in_virtual_time
        async def run() -> None:
            place = Place()
            place.enqueue(Job())
            _, took = await place.ticked(app_of(returns, lifespan=lifespan), budget=10)
            assert took <= 10 + ENDS_AFTER

        run()

    @in_virtual_time
    async def test_the_last_ring(self) -> None:
        """One that lingers ends also where its time is over just while it closes the doorbell."""
        place = Place()
        closing = place.store._watching

        @asynccontextmanager
        async def slowly(look: Callable[[], Any]) -> AsyncIterator[Feed[Any]]:
            async with closing(look) as feed:
                yield feed
            await asyncio.sleep(0.2)  # a stream that has to be closed

        place.store._watching = slowly  # type: ignore[method-assign]

        async def handler(_: Context, __: Job) -> None:
            await asyncio.sleep(8.9 - now())  # so that the bell is closed, or opened, at 9 s

        place.enqueue(Job(n=0))
        later(5, lambda: place.enqueue(Job(n=1)))
        _, took = await place.ticked(app_of(handler), budget=10, linger=60)
        assert took <= 10 + ENDS_AFTER

    @in_virtual_time
    async def test_a_pause_before_anything_was_due(self) -> None:
        """It is respected within two seconds, also by a tick that has not run anything so far."""
        place = Place()
        later(3, lambda: place.pause("job"))
        later(10, lambda: place.enqueue(Job()))
        report, _ = await place.ticked(app_of(returns), linger=20)
        assert report == TickReport()

    @in_virtual_time
    async def test_a_resumed_kind_before_anything_was_due(self) -> None:
        """It is taken within two seconds, as far as the tick lingers."""
        place = Place()
        place.pause("job")
        place.enqueue(Job())
        later(3, lambda: place.pause("another"))
        report, _ = await place.ticked(app_of(returns), linger=20)
        assert report.completed == 1

    @pytest.mark.parametrize("delay", [0.0, 1.0])
    def test_what_comes_while_it_winds_up(self, delay: float) -> None:
        """It is run, or reported as due now: nobody else has it."""

        @in_virtual_time
        async def run() -> None:
            place = Place()

            @asynccontextmanager
            async def lifespan() -> AsyncIterator[None]:
                yield
                place.enqueue(Job(n=1), delay=delay)
                await asyncio.sleep(2)

            place.enqueue(Job())
            report, _ = await place.ticked(app_of(returns, lifespan=lifespan))
            due = report.next_due is not None and report.next_due <= place.store.clock.now().latest
            assert report.completed == 2 or report.more or due

        run()

    @in_virtual_time
    async def test_a_lease_that_may_just_have_ended(self) -> None:
        """A dead worker's task is told of, also where the clock does not know whether its lease has ended."""
        place = Place()
        task_id = place.enqueue(Job())
        held = place.task(task_id)
        await asyncio.sleep(10)
        ended = at(9.9)
        place.store.put(held.evolve(lease_owner="dead", leased_until=ended, due_at=ended, attempts=1))
        place.store.clock.unsure = 0.5
        report, _ = await place.ticked(app_of(returns))
        assert report.retried == 1 or report.next_due is not None

    @in_virtual_time
    async def test_a_poisonous_record_after_lingering(self) -> None:
        """A tick that lingered to its end has left nothing for want of budget: the next one would do so for ever."""
        place = Place()
        task_id = place.enqueue(Job())
        place.store.put(replace(place.task(task_id), schema=99))
        report, _ = await place.ticked(app_of(returns), budget=10, linger=60)
        assert not report.more

    @in_virtual_time
    async def test_the_schedule_of_a_paused_kind(self) -> None:
        """It spawns on, so somebody has to look at it."""
        place = Place()
        place.pause("job")
        place.enqueue(Job(), recurrence=Recurrence.every(600, start=at(300)))
        report, _ = await place.ticked(app_of(returns))
        assert report.next_due == at(300)

    @in_virtual_time
    async def test_a_task_that_no_tick_can_end(self) -> None:
        """It ends, also where opening the lifespan takes more than a tenth of each budget."""

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            await asyncio.sleep(1.5)
            yield

        place = Place()
        task_id = place.enqueue(Job())
        for _ in range(3):
            await place.ticked(app_of(hangs, lifespan=lifespan), budget=10)
        assert place.task(task_id).status is TaskStatus.DONE_FAILED

    @in_virtual_time
    async def test_what_comes_in_the_last_second(self) -> None:
        """A tick lingers as long as it was told to."""
        place = Place()
        later(0.3, lambda: place.enqueue(Job()))
        report, _ = await place.ticked(app_of(returns), linger=1)
        assert report.completed == 1

    @in_virtual_time
    async def test_a_busy_key_behind_a_poisonous_record(self) -> None:
        """A due task that waits for its key is told of, also where a newer version's stands before it."""
        place = Place()
        task_id = place.enqueue(Job())
        place.store.put(replace(place.task(task_id), schema=99))
        place.enqueue(Keyed(), delay=1)
        await asyncio.sleep(2)
        place.store.held["key"] = Lock(resource_key="key", owner="of another App", leased_until=at(60), version=1)
        report, _ = await place.ticked(app_of(returns, Job, Keyed))
        assert report.next_due is not None

    @in_virtual_time
    async def test_the_deadline_of_one_of_a_batch(self) -> None:
        """The others of the batch go back and run again; the budget has nothing to do with it."""

        async def handler(_: Context, batch: list[Keyed]) -> None:
            await asyncio.sleep(30 if len(batch) > 1 else 0)

        place, app = Place(), App(timeout=3_600)
        app.batch_handler(Keyed, max_batch=10, retry=NoRetry())(handler)
        place.enqueue(Keyed(n=1), deadline=at(2))
        place.enqueue(Keyed(n=2))
        report, _ = await place.ticked(app)
        assert (report.expired, report.completed, report.interrupted) == (1, 1, 0)

    @in_virtual_time
    async def test_being_cancelled_twice(self) -> None:
        """It still ends after what it runs, and so does the App's lifespan."""
        seen: list[str] = []

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            try:
                yield
            finally:
                seen.append("closed")

        async def handler(_: Context, __: Job) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.5)
                seen.append("ended")

        place = Place()
        place.enqueue(Job())
        ticking = asyncio.create_task(tick(app_of(handler, lifespan=lifespan), place.client, budget=200))
        await asyncio.sleep(5)
        for _ in range(2):
            ticking.cancel()
            await asyncio.sleep(0.1)
        await asyncio.wait({ticking})
        assert seen == ["ended", "closed"]
