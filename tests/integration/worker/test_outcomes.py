"""How an attempt ends, and what is stored of it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from oncetask import (
    Client,
    Context,
    Discard,
    ExponentialBackoff,
    NoRetry,
    PayloadTooLarge,
    RetryAfter,
    Snooze,
    TaskStatus,
    Worker,
)
from tests.integration.stores import EVERYWHERE
from tests.integration.worker.support import LIMIT, SOON, Job, app_of, outcome_of, raising

pytestmark = EVERYWHERE


async def test_an_async_handler_runs_and_its_result_is_stored(connected: Client) -> None:
    """What an `async def` handler returns is the result of a completed task."""

    async def handler(_: Context, job: Job) -> dict[str, int]:
        return {"square": job.n**2}

    task = await outcome_of(app_of(handler), connected)
    assert (task.status, task.result, task.attempts) == (TaskStatus.DONE_COMPLETED, {"square": 49}, 1)
    assert task.started_at is not None
    assert task.done_at is not None
    assert task.created_at <= task.started_at <= task.done_at


async def test_a_def_handler_runs_in_a_thread(connected: Client) -> None:
    """A plain function is as good a handler, and does not run on the loop's thread."""

    def handler(_: Context, job: Job) -> list[Any]:
        return [job.n, threading.current_thread() is threading.main_thread()]

    task = await outcome_of(app_of(handler), connected)
    assert task.result == [7, False]


class _Color(Enum):
    RED = "red"


class _Report(BaseModel):
    at: datetime
    color: _Color


@pytest.mark.parametrize(
    ("returned", "stored"),
    [
        (None, None),
        ("text", "text"),
        (0, 0),
        ([[1], [2, [3]]], [[1], [2, [3]]]),
        ({"__reserved__": 2**70}, {"__reserved__": 2**70}),
        (
            _Report(at=datetime(2030, 1, 1, tzinfo=UTC), color=_Color.RED),
            {"at": "2030-01-01T00:00:00Z", "color": "red"},
        ),
        ((1, {2}), [1, [2]]),
    ],
    ids=["nothing", "text", "zero", "lists in lists", "what Firestore cannot hold", "a model", "a tuple and a set"],
)
async def test_results_are_stored_as_json(connected: Client, returned: Any, stored: Any) -> None:
    """A result comes back as the JSON form of what was returned, on every store alike."""

    async def handler(_: Context, __: Job) -> Any:
        return returned

    task = await outcome_of(app_of(handler), connected)
    assert task.status is TaskStatus.DONE_COMPLETED
    assert (task.result, (await connected.get_task(task.id)).result) == (stored, stored)


async def test_a_failure_is_retried_and_remembered(connected: Client) -> None:
    """Each failed attempt leaves its number, type and message; the one that succeeds completes the task."""
    task = await outcome_of(app_of(raising(ValueError("too early"), KeyError("lost"))), connected)
    assert (task.status, task.result, task.attempts) == (TaskStatus.DONE_COMPLETED, "done at last", 3)
    assert [(e.attempt, e.type, e.message) for e in task.errors] == [
        (1, "ValueError", "too early"),
        (2, "KeyError", "'lost'"),
    ]
    assert task.errors[0].at <= task.errors[1].at


async def test_attempts_end(connected: Client) -> None:
    """A task whose policy grants no further attempt is done-failed, with all its errors."""
    task = await outcome_of(app_of(raising(*[RuntimeError("no")] * 9)), connected)
    assert (task.status, task.attempts, len(task.errors)) == (TaskStatus.DONE_FAILED, 3, 3)


async def test_a_backoff_is_waited_for(connected: Client) -> None:
    """Between two attempts a task waits as its policy says, with the attempts spent kept."""
    app = app_of(raising(OSError("busy")), retry=ExponentialBackoff(base_delay=600, max_delay=600, jitter=0))
    async with Worker(app, connected):
        receipt = await connected.enqueue(Job())
        async for task in connected.watch(receipt.task_id):
            if task.status is TaskStatus.WAITING:
                break
    assert task.attempts == 1
    assert task.wait_until - task.errors[0].at == timedelta(seconds=600)
    assert task.lease_owner is None


async def test_the_time_of_the_retry_is_kept_without_polling(connected: Client) -> None:
    """A worker starts the next attempt when its time has come, though its slow poll is an hour away."""
    app = app_of(raising(OSError("busy")), retry=ExponentialBackoff(base_delay=0.3, jitter=0))
    async with Worker(app, connected, poll=3600):
        receipt = await connected.enqueue(Job())
        task = await connected.wait(receipt.task_id, LIMIT)
    assert (task.status, task.attempts) == (TaskStatus.DONE_COMPLETED, 2)
    assert task.done_at is not None
    assert task.done_at - task.errors[0].at >= timedelta(seconds=0.3)


async def test_discard_fails_at_once(connected: Client) -> None:
    """`Discard` ends a task done-failed, whatever its policy says."""
    task = await outcome_of(app_of(raising(Discard("no such user"))), connected)
    assert (task.status, task.attempts) == (TaskStatus.DONE_FAILED, 1)
    assert [(e.type, e.message) for e in task.errors] == [("Discard", "no such user")]


async def test_snooze_spends_no_attempt(connected: Client) -> None:
    """A task that snoozes four times still has its one attempt, and no error is kept."""
    task = await outcome_of(app_of(raising(*[Snooze(0)] * 4), retry=NoRetry()), connected)
    assert (task.status, task.attempts, task.errors) == (TaskStatus.DONE_COMPLETED, 1, ())


async def test_snooze_waits(connected: Client) -> None:
    """A snoozed task is not due before its delay is over."""
    async with Worker(app_of(raising(Snooze(timedelta(hours=1)))), connected):
        receipt = await connected.enqueue(Job())
        async for task in connected.watch(receipt.task_id):
            if task.status is TaskStatus.WAITING:
                break
    assert task.attempts == 0
    assert task.wait_until - task.created_at >= timedelta(hours=1)


async def test_retry_after_overrides_the_wait_of_the_policy(connected: Client) -> None:
    """`RetryAfter` counts as a failure, and its delay stands in for the policy's."""
    app = app_of(raising(RetryAfter(0, "rate limit")), retry=ExponentialBackoff(base_delay=600))
    task = await outcome_of(app, connected)
    assert (task.status, task.attempts) == (TaskStatus.DONE_COMPLETED, 2)
    assert [(e.type, e.message) for e in task.errors] == [("RetryAfter", "rate limit")]


async def test_retry_after_grants_no_attempt(connected: Client) -> None:
    """`RetryAfter` in the last attempt ends the task."""
    task = await outcome_of(app_of(raising(RetryAfter(0)), retry=NoRetry()), connected)
    assert (task.status, task.attempts) == (TaskStatus.DONE_FAILED, 1)


@pytest.mark.parametrize("instruction", [Snooze(-1), RetryAfter(float("nan")), Snooze("soon")])  # type: ignore[arg-type]  # wrong on purpose
async def test_a_bad_instruction_is_a_failure_that_names_it(connected: Client, instruction: Exception) -> None:
    """A delay that is none fails the attempt, and the error names the instruction and the value."""
    task = await outcome_of(app_of(raising(instruction), retry=NoRetry()), connected)
    assert task.status is TaskStatus.DONE_FAILED
    assert type(instruction).__name__ in task.errors[0].message
    assert repr(instruction.delay) in task.errors[0].message  # type: ignore[attr-defined]  # both have one


async def test_an_unfit_result_fails_without_a_retry(connected: Client) -> None:
    """What cannot be stored as JSON ends the task, since the handler's work is done and would only be repeated."""

    async def handler(_: Context, __: Job) -> object:
        return object()

    task = await outcome_of(app_of(handler), connected)
    assert (task.status, task.attempts) == (TaskStatus.DONE_FAILED, 1)
    assert "result" in task.errors[0].message


async def test_a_large_result_fails_without_a_retry(connected: Client) -> None:
    """A result over 1 MiB ends the task, with a message that names the result and the limit."""

    async def handler(_: Context, __: Job) -> str:
        return "x" * 2**20

    task = await outcome_of(app_of(handler), connected)
    assert (task.status, task.attempts) == (TaskStatus.DONE_FAILED, 1)
    assert task.errors[0].type == PayloadTooLarge.__name__
    assert "result takes 1,048," in task.errors[0].message


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(1), GeneratorExit()])
@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
async def test_what_would_end_a_program_fails_the_attempt_only(
    connected: Client, error: BaseException, in_thread: bool
) -> None:
    """A handler that wants to end its process fails like any other, and the worker goes on."""

    async def handler(_: Context, __: Job) -> None:
        raise error

    def function(_: Context, __: Job) -> None:
        raise error

    app = app_of(function if in_thread else handler, retry=NoRetry())
    async with Worker(app, connected):
        for _ in range(2):
            receipt = await connected.enqueue(Job())
            task = await connected.wait(receipt.task_id, LIMIT)
            assert task.status is TaskStatus.DONE_FAILED
            assert type(error).__name__ in task.errors[0].type + task.errors[0].message


async def test_a_handler_that_cancels_itself_fails(connected: Client) -> None:
    """A `CancelledError` that the worker did not ask for is a failure, not a shutdown."""
    import asyncio  # noqa: PLC0415  # only here

    task = await outcome_of(app_of(raising(asyncio.CancelledError()), retry=SOON), connected)
    assert (task.status, task.attempts) == (TaskStatus.DONE_COMPLETED, 2)
    assert "cancelled from within" in task.errors[0].message


async def test_an_error_without_a_message_is_recorded(connected: Client) -> None:
    """An error whose text cannot be had, or is endless, fails its attempt like any other."""

    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise ValueError("never")

    task = await outcome_of(app_of(raising(UnspeakableError(), ValueError("🙂" * 5_000))), connected)
    assert task.status is TaskStatus.DONE_COMPLETED
    assert task.errors[0].type == "UnspeakableError"
    assert len(task.errors[1].message.encode()) <= 2_048
