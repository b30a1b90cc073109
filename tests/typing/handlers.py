"""Decorators accept functions of their payload's type, refuse others, and give back what they were given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_type

from oncetask import App, CallNext, Client, Context, ExponentialBackoff, NoRetry, Payload, Task, current_context


class SendEmail(Payload, kind="send-email"):
    """A payload."""

    to: str


class SendReceipt(SendEmail):
    """A more special one."""

    amount: int


class Other(Payload):
    """One that has nothing to do with it."""


@asynccontextmanager
async def lifespan() -> AsyncIterator[dict[str, str]]:
    """Yield what becomes `ctx.state`."""
    yield {}


app = App("mail", timeout=timedelta(minutes=5), retry=ExponentialBackoff(max_attempts=5), lifespan=lifespan)


# --- handlers -----------------------------------------------------------------------------------------------------


@app.handler(SendEmail, timeout=30, retry=NoRetry(), concurrency=10)
async def send(ctx: Context, email: SendEmail) -> str:
    """Take the payload of the decorator."""
    return email.to


@app.handler(SendEmail, timeout=timedelta(seconds=30))
def send_in_a_thread(ctx: Context, email: SendEmail) -> int:
    """Need not be async."""
    return len(email.to)


@app.handler(SendEmail, run_in="process", deadline=datetime(2030, 1, 1, tzinfo=UTC))
def send_in_a_process(ctx: Context, email: SendEmail) -> int:
    """May run elsewhere, and until then."""
    return len(email.to)


@app.handler(SendReceipt)
async def send_anything(ctx: Context, email: SendEmail) -> None:
    """Take a base of the payload."""


@app.handler(SendEmail)
async def send_untyped(ctx: Context, email: Any) -> None:
    """Take anything."""


@app.handler(SendEmail)  # type: ignore[arg-type]
async def wrong_payload(ctx: Context, other: Other) -> None:
    """Take another payload."""


@app.handler(SendEmail)  # type: ignore[arg-type]
async def too_special(ctx: Context, email: SendReceipt) -> None:
    """Take a payload with more than there is."""


@app.handler(SendEmail)  # type: ignore[arg-type]
async def no_context(email: SendEmail) -> None:
    """Lack the context."""


@app.handler(SendEmail)  # type: ignore[arg-type]
async def wrong_order(email: SendEmail, ctx: Context) -> None:
    """Take payload and context the wrong way round."""


@app.handler(SendEmail)  # type: ignore[arg-type]
async def asks_for_more(ctx: Context, email: SendEmail, more: int) -> None:
    """Want an argument that nobody gives."""


app.handler("send-email")  # type: ignore[arg-type]
app.handler(str)  # type: ignore[type-var]
app.handler(SendEmail("x"))  # type: ignore[arg-type, call-arg]
app.handler(SendEmail, timeout="30")  # type: ignore[arg-type]
app.handler(SendEmail, retry=3)  # type: ignore[arg-type]
app.handler(SendEmail, 30)  # type: ignore[call-arg]


async def handlers_are_unchanged(ctx: Context, email: SendEmail) -> None:
    """What a decorator gives back is what it was given, so that handlers can be called in tests."""
    assert_type(await send(ctx, email), str)
    assert_type(send_in_a_thread(ctx, email), int)


# --- batch handlers -------------------------------------------------------------------------------------------------


@app.batch_handler(SendEmail, max_batch=50, timeout=30, retry=NoRetry(), concurrency=10, priority=3, strict_order=True)
async def send_all(ctx: Context, emails: list[SendEmail]) -> str:
    """Take a list of the decorator's payload."""
    return ", ".join(email.to for email in emails)


@app.batch_handler(SendEmail, timeout=timedelta(seconds=30))
def send_all_in_a_thread(ctx: Context, emails: list[SendEmail]) -> int:
    """Need not be async."""
    return len(emails)


@app.batch_handler(SendReceipt)
async def send_all_by_a_base(ctx: Context, emails: Sequence[SendEmail]) -> None:
    """Take a sequence of a base of the payload."""


@app.batch_handler(SendEmail)
async def send_all_untyped(ctx: Context, emails: Any) -> None:
    """Take anything."""


@app.batch_handler(SendEmail)  # type: ignore[arg-type]
async def takes_one(ctx: Context, email: SendEmail) -> None:
    """Take a single payload."""


@app.handler(SendEmail)  # type: ignore[arg-type]
async def takes_many(ctx: Context, emails: list[SendEmail]) -> None:
    """Take a list where there is one payload."""


@app.batch_handler(SendEmail)  # type: ignore[arg-type]
async def wrong_payloads(ctx: Context, others: list[Other]) -> None:
    """Take a list of another payload."""


@app.batch_handler(SendEmail)  # type: ignore[arg-type]
async def too_special_payloads(ctx: Context, emails: list[SendReceipt]) -> None:
    """Take a list of payloads with more than there is."""


@app.batch_handler(SendReceipt)  # type: ignore[arg-type]
async def could_add_a_base(ctx: Context, emails: list[SendEmail]) -> None:
    """Take a list to which other payloads could be added; a sequence of the base would be right."""


@app.batch_handler(SendEmail)  # type: ignore[arg-type]
async def no_context_for_many(emails: list[SendEmail]) -> None:
    """Lack the context."""


app.batch_handler("send-email")  # type: ignore[arg-type]
app.batch_handler(str)  # type: ignore[type-var]
app.handler(SendEmail, priority=2, strict_order=True)
app.handler(SendEmail, priority="high")  # type: ignore[arg-type]
app.handler(SendEmail, strict_order="yes")  # type: ignore[arg-type]
app.batch_handler(SendEmail, max_batch="100")  # type: ignore[arg-type]
app.batch_handler(SendEmail, max_batch=None)  # type: ignore[arg-type]
app.batch_handler(SendEmail, retry=3)  # type: ignore[arg-type]
app.batch_handler(SendEmail, 100)  # type: ignore[call-arg]
app.handler(SendEmail, max_batch=100)  # type: ignore[call-arg]


async def batch_handlers_are_unchanged(ctx: Context, emails: list[SendEmail]) -> None:
    """What a decorator gives back is what it was given."""
    assert_type(await send_all(ctx, emails), str)
    assert_type(send_all_in_a_thread(ctx, emails), int)


# --- cancellation handlers ------------------------------------------------------------------------------------------


@app.cancellation_handler(SendEmail, timeout=30, retry=ExponentialBackoff(max_attempts=10))
async def undo(ctx: Context, email: SendEmail) -> str:
    """Take the payload of the decorator."""
    return email.to


@app.cancellation_handler(SendEmail, timeout=timedelta(minutes=1))
def undo_in_a_thread(ctx: Context, email: SendEmail) -> int:
    """Need not be async."""
    return len(email.to)


@app.cancellation_handler(SendReceipt)
async def undo_anything(ctx: Context, email: SendEmail) -> None:
    """Take a base of the payload."""


@app.cancellation_handler(SendEmail)
async def undo_untyped(ctx: Context, email: Any) -> None:
    """Take anything."""


@app.cancellation_handler(SendEmail)  # type: ignore[arg-type]
async def undo_wrong_payload(ctx: Context, other: Other) -> None:
    """Take another payload."""


@app.cancellation_handler(SendEmail)  # type: ignore[arg-type]
async def undo_too_special(ctx: Context, email: SendReceipt) -> None:
    """Take a payload with more than there is."""


@app.cancellation_handler(SendEmail)  # type: ignore[arg-type]
async def undo_many(ctx: Context, emails: list[SendEmail]) -> None:
    """Take a list, though a batch is cleaned up one by one."""


@app.cancellation_handler(SendEmail)  # type: ignore[arg-type]
async def undo_without_context(email: SendEmail) -> None:
    """Lack the context."""


app.handler(SendEmail, run_in="thread")  # type: ignore[arg-type]
app.handler(SendEmail, deadline=30)  # type: ignore[arg-type]
app.batch_handler(SendEmail, run_in=True)  # type: ignore[arg-type]
app.cancellation_handler("send-email")  # type: ignore[arg-type]
app.cancellation_handler(str)  # type: ignore[type-var]
app.cancellation_handler(SendEmail, timeout="30")  # type: ignore[arg-type]
app.cancellation_handler(SendEmail, retry=3)  # type: ignore[arg-type]
app.cancellation_handler(SendEmail, concurrency=3)  # type: ignore[call-arg]
app.cancellation_handler(SendEmail, 30)  # type: ignore[call-arg]


async def cancellation_handlers_are_unchanged(ctx: Context, email: SendEmail) -> None:
    """What a decorator gives back is what it was given."""
    assert_type(await undo(ctx, email), str)
    assert_type(undo_in_a_thread(ctx, email), int)


# --- error handlers and middleware ----------------------------------------------------------------------------------


@app.error_handler
async def report(ctx: Context, error: Exception) -> None:
    """May be async."""


@app.error_handler
def report_in_a_thread(ctx: Context, error: Exception) -> None:
    """Need not be async."""


@app.error_handler  # type: ignore[type-var]
async def report_too_little(error: Exception) -> None:
    """Lack the context."""


@app.middleware
async def timed(ctx: Context, call_next: CallNext) -> object:
    """Go on, and give what the handler gave."""
    return await call_next()


@app.middleware  # type: ignore[type-var]
def not_async(ctx: Context, call_next: CallNext) -> object:
    """Cannot await the handler."""
    return call_next()


assert_type(report.__name__, str)
call_next_is_a_function: Callable[[], Awaitable[object]]


def call_next_type(call_next: CallNext) -> None:
    """Tell that CallNext is an async function without arguments."""
    assert_type(call_next(), Awaitable[object])


# --- the context ----------------------------------------------------------------------------------------------------


async def context_types(ctx: Context) -> None:
    """What a handler finds in its context."""
    assert_type(current_context(), Context)
    assert_type(ctx.task, Task)
    assert_type(ctx.tasks, tuple[Task, ...])
    assert_type(ctx.payload, Payload)
    assert_type(ctx.task_id, str)
    assert_type(ctx.kind, str)
    assert_type(ctx.attempt, int)
    assert_type(ctx.deadline, datetime)
    assert_type(ctx.remaining, float)
    assert_type(ctx.fencing_token, int)
    assert_type(ctx.aborted, bool)
    assert_type(ctx.progress(0.5, "half", {"rows": 3}), None)
    ctx.progress("half")  # type: ignore[arg-type]
    assert_type(
        ctx.abort_reason,
        Literal["timeout", "deadline", "cancelled", "shutdown", "budget", "lease-lost"] | None,
    )
    assert_type(await ctx.wait_aborted(), None)
    assert_type(ctx.wait_aborted_sync(timeout=timedelta(seconds=1)), bool)
    assert_type(ctx.enqueue(SendEmail(to="a"), delay=5), str)
    assert_type(ctx.client, Client)
    assert_type(ctx.task.payload(SendEmail), SendEmail)
    ctx.enqueue("send-email")  # type: ignore[arg-type]
    ctx.attempt = 3  # type: ignore[misc]
