"""What is called around a handler: error handlers, middleware, lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from oncetask import (
    App,
    CallNext,
    Client,
    Context,
    Discard,
    NoRetry,
    OncetaskError,
    RetryAfter,
    Snooze,
    TaskStatus,
    Worker,
)
from tests.integration.places import Place
from tests.integration.worker.support import Job, app_of, outcome_of, raising


async def test_error_handlers_see_every_failure_but_a_snooze(connected: Client) -> None:
    """Error handlers, `async def` and `def`, get each failed attempt with its context; a `Snooze` is none."""
    errors: list[Exception] = [ValueError("first"), RetryAfter(0), Snooze(0), Discard("enough")]
    app = app_of(raising(*errors))
    seen: list[tuple[int, Exception]] = []
    seen_by_function: list[tuple[Any, str]] = []

    @app.error_handler
    async def report(ctx: Context, error: Exception) -> None:
        await asyncio.sleep(0)
        seen.append((ctx.attempt, error))

    @app.error_handler
    def note(ctx: Context, error: Exception) -> None:
        seen_by_function.append((ctx.payload, type(error).__name__))

    await outcome_of(app, connected)
    assert seen == [(1, errors[0]), (2, errors[1]), (3, errors[3])]
    assert seen_by_function == [(Job(n=7), name) for name in ("ValueError", "RetryAfter", "Discard")]


@pytest.mark.parametrize("flaw", [ValueError("oops"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
@pytest.mark.parametrize("awaited", [True, False], ids=["async", "def"])
async def test_a_failing_error_handler_harms_nobody(connected: Client, flaw: BaseException, awaited: bool) -> None:
    """Whatever an error handler raises, the others are called, the attempt is recorded and the worker goes on."""
    app = app_of(raising(ValueError("the handler's")))
    seen = []

    async def flawed(_: Context, __: Exception) -> None:
        raise flaw

    def flawed_function(_: Context, __: Exception) -> None:
        raise flaw

    app.error_handler(flawed if awaited else flawed_function)
    app.error_handler(lambda _, error: seen.append(error))
    task = await outcome_of(app, connected)
    assert task.status is TaskStatus.DONE_COMPLETED
    assert [e.message for e in task.errors] == ["the handler's"]
    assert len(seen) == 1


async def test_middleware_wraps_the_handler(connected: Client) -> None:
    """The first middleware is the outermost, an included app's are inside, and what the outermost returns is stored."""
    inner, outer = app_of(raising()), App()
    outer.include(inner)
    steps: list[str] = []

    def named(name: str) -> Any:
        async def middleware(ctx: Context, call_next: CallNext) -> object:
            steps.append(f"{name} before {ctx.kind}")
            result = await call_next()
            steps.append(f"{name} after {result}")
            return f"{result}, {name}"

        return middleware

    outer.middleware(named("first"))
    outer.middleware(named("second"))
    inner.middleware(named("third"))
    task = await outcome_of(outer, connected)
    assert task.result == "done at last, third, second, first"
    assert steps == [
        "first before job",
        "second before job",
        "third before job",
        "third after done at last",
        "second after done at last, third",
        "first after done at last, third, second",
    ]


async def test_middleware_may_fail_the_attempt_or_save_it(connected: Client) -> None:
    """An error of a middleware is one of the attempt, and one that it swallows is none."""
    app = app_of(raising(ValueError("swallowed"), ValueError("too")))
    calls = 0

    @app.middleware
    async def strict(_: Context, call_next: CallNext) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise PermissionError("not yet")
        try:
            return await call_next()
        except ValueError:
            return "saved"

    task = await outcome_of(app, connected)
    assert (task.result, task.attempts) == ("saved", 2)
    assert [e.type for e in task.errors] == ["PermissionError"]


async def test_the_lifespan_gives_the_state(connected: Client) -> None:
    """What the app's lifespan yields is `ctx.state`; it is open on the worker's loop until the last task ended."""
    events: list[object] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[dict[str, object]]:
        events.append(asyncio.get_running_loop())
        yield {"pool": "open"}
        events.append("closed")

    async def handler(ctx: Context, _: Job) -> object:
        events.append("ran")
        return ctx.state

    app = App(lifespan=lifespan)
    app.handler(Job)(handler)
    task = await outcome_of(app, connected)
    assert task.result == {"pool": "open"}
    assert events == [asyncio.get_running_loop(), "ran", "closed"]


async def test_a_lifespan_that_fails_is_told_at_the_start(connected: Client) -> None:
    """An error of the lifespan comes out of `async with worker` and of `run()`; nothing is claimed."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        raise ConnectionRefusedError("no database")
        yield

    app = App(lifespan=lifespan)
    app.handler(Job)(raising())
    receipt = await connected.enqueue(Job())
    worker = Worker(app, connected)
    with pytest.raises(ConnectionRefusedError, match="no database"):
        async with worker:
            pytest.fail("it cannot work")
    with pytest.raises(ConnectionRefusedError, match="no database"):
        await worker.run()
    assert (await connected.get_task(receipt.task_id)).attempts == 0


async def test_a_payload_that_no_longer_fits_fails_the_attempt(connected: Client) -> None:
    """Data that do not validate fail each attempt with `InvalidPayload`, and error handlers see the raw task."""
    app = App()
    seen: list[object] = []

    class Greeting(Job, kind="job"):
        name: str

    @app.handler(Greeting, retry=NoRetry())
    async def greet(_: Context, __: Greeting) -> None:
        pytest.fail("its payload is invalid")

    @app.error_handler
    async def report(ctx: Context, _: Exception) -> None:
        seen.append(dict(ctx.task.data))
        with pytest.raises(OncetaskError, match="does not validate"):
            str(ctx.payload)

    task = await outcome_of(app, connected)
    assert (task.status, task.errors[0].type) == (TaskStatus.DONE_FAILED, "InvalidPayload")
    assert "name" in task.errors[0].message
    assert seen == [{"n": 7}]


async def test_a_def_error_handler_does_not_hold_up_the_loop(connected: Client, place: Place) -> None:
    """A plain function that handles errors may block: others' tasks go on meanwhile."""
    app = app_of(raising(ValueError("slow to report")))
    loop = asyncio.get_running_loop()
    ticks: list[str] = []

    @app.error_handler
    def report(_: Context, __: Exception) -> None:
        beat = asyncio.run_coroutine_threadsafe(_beat(ticks), loop)
        beat.result(10) if loop is not _running_loop() else ticks.append("on the loop")

    await outcome_of(app, connected)
    assert ticks == ["beat"]


async def _beat(ticks: list[str]) -> None:
    ticks.append("beat")


def _running_loop() -> object:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
