"""The harness: cancelling what waits and what runs, and cleaning up."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from oncetask import App, Context, FixedDelay, Payload, TaskNotFound, TaskStatus
from oncetask.testing import Harness
from tests.support import T0, at


class Render(Payload, kind="render"):
    """What takes an hour."""

    owner: str = "ada"

    def resource_key(self) -> str:
        """What can be cancelled together."""
        return self.owner


class Studio:
    """An App whose handler, and whose cleanup in the end, note what they did and when."""

    def __init__(self, *, failing_cleanups: int = 0) -> None:
        self.app = App(timeout=7_200)
        self.log: list[tuple[float, str]] = []
        left = [failing_cleanups]

        @self.app.handler(Render)
        async def render(ctx: Context, _: Render) -> str:
            self.note(ctx, "begins")
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                self.note(ctx, f"stops: {ctx.abort_reason}")
                raise
            return "film"

        @self.app.cancellation_handler(Render, retry=FixedDelay(3, 30))
        async def clean_up(ctx: Context, _: Render) -> None:
            await asyncio.sleep(5)
            if left[0]:
                left[0] -= 1
                raise ConnectionError
            self.note(ctx, "cleaned up")

    def note(self, ctx: Context, what: str) -> None:
        """Write it down."""
        self.log.append(((ctx.client.store.clock.now().latest - T0).total_seconds(), what))


async def test_what_waits_never_starts() -> None:
    """Cancelled before its hour, a task is cleaned up in the next call, and its handler is not called."""
    studio = Studio()
    async with Harness(studio.app, start=T0) as h:
        task = await h.enqueue(Render(), delay=86_400)
        assert (await h.cancel(task), await h.cancel(task)) == (True, False)
        assert h.task(task).status is TaskStatus.CANCELLATION_PENDING
        await h.run_due()
        h.assert_cancelled(task)
        await h.advance(timedelta(days=2))
    assert studio.log == [(5, "cleaned up")]


async def test_what_runs_is_stopped_between_two_advances() -> None:
    """A cancel between two calls reaches the handler at the beginning of the next, and the cleanup follows."""
    studio = Studio()
    async with Harness(studio.app, start=T0) as h:
        task = await h.enqueue(Render())
        await h.advance(600)
        await h.cancel(task)
        await h.advance(3_600)
        h.assert_cancelled(task)
        assert h.task(task).done_at == at(605)
    assert studio.log == [(0, "begins"), (600, "stops: cancelled"), (605, "cleaned up")]


async def test_what_runs_is_stopped_within_an_advance() -> None:
    """A task that cancels another is heeded at that instant, in the middle of one advance."""
    studio = Studio()

    class Cancel(Payload, kind="cancel"):
        task_id: str

    @studio.app.handler(Cancel)
    async def cancel(ctx: Context, cancel: Cancel) -> bool:
        return await ctx.client.cancel_task(cancel.task_id)

    async with Harness(studio.app, start=T0) as h:
        task = await h.enqueue(Render())
        by = await h.enqueue(Cancel(task_id=task.task_id), delay=1_234)
        await h.advance(timedelta(days=1))
        h.assert_completed(by, result=True)
        h.assert_cancelled(task)
    assert studio.log == [(0, "begins"), (1_234, "stops: cancelled"), (1_239, "cleaned up")]


async def test_a_cleanup_is_tried_again() -> None:
    """It has its own policy and count, whose instants virtual time keeps."""
    studio = Studio(failing_cleanups=2)
    async with Harness(studio.app, start=T0) as h:
        task = await h.enqueue(Render())
        await h.cancel(task)
        await h.advance(10)
        assert h.task(task).status is TaskStatus.CANCELLATION_PENDING
        await h.advance(3_600)
        h.assert_cancelled(task)
        assert (h.task(task).attempts, h.task(task).cancel_attempts) == (0, 3)
    assert studio.log == [(75, "cleaned up")]


async def test_a_cleanup_that_never_succeeds() -> None:
    """With its attempts spent the task has failed, and is told as failed."""
    studio = Studio(failing_cleanups=3)
    async with Harness(studio.app, start=T0) as h:
        task = await h.enqueue(Render())
        await h.cancel(task)
        await h.advance(3_600)
        h.assert_failed(task, error=ConnectionError)
        with pytest.raises(AssertionError, match=r"should be done-cancelled(.|\n)*done-failed"):
            h.assert_cancelled(task)


async def test_a_whole_key_is_cancelled() -> None:
    """Of a key that is cancelled, what runs is stopped and cleaned up first, then what waited, one at a time."""
    studio = Studio()
    async with Harness(studio.app, start=T0) as h:
        for _ in range(3):
            await h.enqueue(Render())
        other = await h.enqueue(Render(owner="bob"))
        await h.advance(60)
        assert await h.client.cancel_tasks_by_resource_key(Render, "ada") == 3
        await h.advance(3_600)
        for task in h.tasks.with_key("ada"):
            h.assert_cancelled(task)
        h.assert_completed(other, result="film")
    cleaned = [when for when, what in studio.log if what == "cleaned up"]
    assert cleaned == [65, 70, 75]


async def test_without_a_cleanup_it_ends_at_once() -> None:
    """A kind that has no cancellation handler is cancelled without anything being called."""
    app = App()

    @app.handler(Render)
    async def render(ctx: Context, _: Render) -> None:
        await asyncio.sleep(60)

    async with Harness(app, start=T0) as h:
        running, waiting = await h.enqueue(Render()), await h.enqueue(Render(), delay=60)
        await h.advance(1)
        for task in (running, waiting):
            await h.cancel(task)
        await h.run_due()
        for task in (running, waiting):
            h.assert_cancelled(task)
        assert h.now == at(1)


async def test_a_task_may_be_named_in_any_way() -> None:
    """Receipts, records and ids are as good as each other; what there is not is named."""
    async with Harness(Studio().app, start=T0) as h:
        receipt = await h.enqueue(Render(), delay=60)
        assert h.task(receipt) == h.task(receipt.task_id) == h.task(h.task(receipt)) == h.tasks.one()
        assert await h.cancel(h.tasks.one())
        with pytest.raises(TaskNotFound, match="nobody"):
            h.task("nobody")
        with pytest.raises(TaskNotFound, match="nobody"):
            await h.cancel("nobody")
