"""What a handler learns from its context."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from oncetask import (
    App,
    Client,
    Context,
    FixedDelay,
    NoRetry,
    OncetaskError,
    TaskAborted,
    TaskStatus,
    TaskTimeout,
    current_context,
)
from tests.integration.worker.support import Job, app_of, outcome_of


async def test_the_context_describes_the_run(connected: Client) -> None:
    """Id, kind, attempt, payload, task and client of the run are at hand."""

    async def handler(ctx: Context, job: Job) -> None:
        assert ctx.task.status_at(ctx.task.read_at) is TaskStatus.LEASED
        assert (ctx.task_id, ctx.kind, ctx.attempt) == ("the-one", "job", 1)
        assert ctx.payload is job
        assert ctx.tasks == (ctx.task,)
        assert ctx.client is connected
        assert (ctx.aborted, ctx.abort_reason) == (False, None)
        ctx.raise_if_aborted()

    task = await outcome_of(app_of(handler, retry=NoRetry()), connected, task_id="the-one")
    assert task.errors == ()


async def test_current_context_is_found_from_anywhere_below(connected: Client) -> None:
    """Nested calls, tasks and threads below a handler find its context; two runs do not see each other's."""
    found: list[tuple[str, bool]] = []

    async def nested(ctx: Context) -> None:
        await asyncio.sleep(0)
        found.append(("nested", current_context() is ctx))

    async def handler(ctx: Context, _: Job) -> None:
        await nested(ctx)
        await asyncio.create_task(nested(ctx))
        found.append(("thread", await asyncio.to_thread(current_context) is ctx))

    await outcome_of(app_of(handler), connected)
    assert found == [("nested", True), ("nested", True), ("thread", True)]


async def test_current_context_is_found_in_a_def_handler(connected: Client) -> None:
    """A plain function's thread has the context too."""

    def handler(ctx: Context, _: Job) -> bool:
        return current_context() is ctx

    task = await outcome_of(app_of(handler), connected)
    assert task.result is True


async def test_there_is_no_context_outside(connected: Client) -> None:
    """Outside of handlers `current_context` raises an error that says so."""
    with pytest.raises(OncetaskError, match="below a running handler"):
        current_context()


async def test_the_fencing_token_rises(connected: Client) -> None:
    """Each claim of a task has a greater token, which is constant while it runs."""
    tokens: list[int] = []

    async def handler(ctx: Context, _: Job) -> None:
        tokens.append(ctx.fencing_token)
        await asyncio.sleep(0)
        assert ctx.fencing_token == tokens[-1]
        if len(tokens) < 3:
            raise ValueError("again")

    task = await outcome_of(app_of(handler), connected)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 3
    assert tokens[-1] < task.version


async def test_remaining_and_deadline_follow_the_timeout(connected: Client) -> None:
    """The time left starts at the limit, and falls; the deadline is an instant of the store's."""
    seen: list[float] = []

    async def handler(ctx: Context, _: Job) -> None:
        seen.extend([ctx.remaining, ctx.remaining])
        assert ctx.task.leased_until is not None
        assert ctx.deadline < ctx.task.leased_until

    task = await outcome_of(app_of(handler, timeout=30, retry=NoRetry()), connected)
    assert task.status is TaskStatus.DONE_COMPLETED
    assert 30 >= seen[0] >= seen[1] > 0


@pytest.mark.parametrize(("own", "limit"), [({}, 40), ({"timeout": 20}, 20), ({"timeout": timedelta(seconds=10)}, 10)])
async def test_the_timeout_of_the_call_comes_before_the_handlers(
    connected: Client, own: dict[str, float], limit: float
) -> None:
    """An enqueue call's timeout wins over the handler's, a handler's over the app's."""
    seen = []
    app = App(timeout=40)

    @app.handler(Job)
    async def handler(ctx: Context, _: Job) -> None:
        seen.append(ctx.remaining)

    await outcome_of(app, connected, **own)  # type: ignore[arg-type]  # a timeout, or nothing
    assert limit - 5 < seen[0] <= limit


async def test_an_async_handler_can_wait_for_its_abort(connected: Client) -> None:
    """`wait_aborted` returns at the limit, also for a part of the handler that the cancellation does not reach."""
    reasons: list[object] = []

    async def handler(ctx: Context, _: Job) -> None:
        async def watch() -> None:
            await ctx.wait_aborted()
            with pytest.raises(TaskTimeout):
                ctx.raise_if_aborted()
            reasons.append((ctx.aborted, ctx.abort_reason, ctx.remaining))

        watching = asyncio.create_task(watch())
        try:
            await asyncio.Event().wait()
        finally:
            await watching

    await outcome_of(app_of(handler, timeout=0.1, retry=NoRetry()), connected)
    assert reasons == [(True, "timeout", 0)]


async def test_a_thread_can_wait_for_its_abort(connected: Client) -> None:
    """`wait_aborted_sync` tells a thread whether the signal came within its own limit."""
    told: list[object] = []

    def handler(ctx: Context, _: Job) -> None:
        told.append(ctx.wait_aborted_sync(0))
        told.append(ctx.wait_aborted_sync(timedelta(seconds=20)))
        told.append(ctx.abort_reason)
        ctx.raise_if_aborted()

    task = await outcome_of(app_of(handler, timeout=0.1, retry=FixedDelay(1, 0)), connected)
    assert told == [False, True, "timeout"]
    assert task.errors[0].type == "TaskTimeout"
    assert not issubclass(TaskTimeout, TaskAborted)
