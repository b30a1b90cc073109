"""Deadlines: what ends at one, what wins over one, and whom one does not concern."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import pytest

from oncetask import (
    App,
    Client,
    Context,
    EnqueueOptions,
    NoRetry,
    Payload,
    RetryAfter,
    Snooze,
    Task,
    TaskExpired,
    TaskStatus,
    Worker,
    lifecycle,
)
from oncetask.store import Written
from tests.integration.stores import EVERYWHERE
from tests.integration.worker.support import LIMIT, SOON, Job, Other, app_of, done, enqueue, outcome_of
from tests.support import Shift

pytestmark = EVERYWHERE

T = TypeVar("T")

HOUR = 3_600.0
SHORTLY = 0.3


class Sync(Payload, kind="sync"):
    """What is done for one user."""

    n: int

    def resource_key(self) -> str:
        """Give the one user."""
        return "ada"


class Told:
    """An error handler that notes whom it was told of, and what."""

    def __init__(self, *apps: App) -> None:
        """Be told by these."""
        self.errors: list[Exception] = []
        self.contexts: list[Context] = []
        for app in apps:
            app.error_handler(self)

    async def __call__(self, ctx: Context, error: Exception) -> None:
        """Note it."""
        self.contexts.append(ctx)
        self.errors.append(error)

    def of(self, task_id: str) -> list[str]:
        """Give the types of the errors that the task with this id was among."""
        pairs = zip(self.contexts, self.errors, strict=True)
        return [type(error).__name__ for ctx, error in pairs if task_id in {task.id for task in ctx.tasks}]


@pytest.fixture
def _prompt_rescue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws the shortest wait after a crash, in place of a random one."""
    monkeypatch.setattr("oncetask.retry.random.uniform", lambda low, _: low)


async def never(_: Context, __: Any) -> None:
    """A handler that must not run."""
    pytest.fail("a task was run after its deadline")


async def ahead(client: Client, seconds: float) -> datetime:
    """Give the instant so many seconds from now; negative: ago."""
    return (await client.store.now()).latest + timedelta(seconds=seconds)


async def in_time(client: Client, attempt: Callable[[datetime], Awaitable[T]], began: Callable[[], object]) -> T:
    """Give what becomes of a deadline that passes only after the handler `began`.

    On a slow day it passes before; then the whole is done again, with more time.
    """
    seconds = SHORTLY
    while seconds < LIMIT:
        became = await attempt(await ahead(client, seconds))
        if began():
            return became
        seconds *= 4
    raise AssertionError("no handler was started")


async def overrun(client: Client, app: App, began: Callable[[], object], *, abort_grace: float = 5) -> Task:
    """Let a worker run one job until its deadline, and give its last record."""

    async def attempt(deadline: datetime) -> Task:
        async with Worker(app, client, abort_grace=abort_grace):
            receipt = await client.enqueue(Job(n=7), deadline=deadline)
            return await client.wait(receipt.task_id, LIMIT)

    return await in_time(client, attempt, began)


def held(reasons: list[str | None]) -> Callable[[Context, Any], Awaitable[None]]:
    """Give a handler that runs until it is cancelled, and notes why that was."""

    async def handler(ctx: Context, _: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            reasons.append(ctx.abort_reason)
            raise

    return handler


def kinds_of_errors(task: Task) -> list[tuple[str, int]]:
    """Give the type and the attempt of each error."""
    return [(error.type, error.attempt) for error in task.errors]


class TestBeforeTheStart:
    """The deadline has passed when the task's turn comes."""

    @pytest.mark.parametrize("whose", ["the task's", "the handler's", "the app's"])
    async def test_it_ends_without_its_handler(self, connected: Client, whose: str) -> None:
        """It is done-expired, spends no attempt, has not started, and its error handlers are told `TaskExpired`."""
        past = await ahead(connected, -60)
        app = App(deadline=past if whose == "the app's" else None)
        app.handler(Job, deadline=past if whose == "the handler's" else None, retry=SOON)(never)
        told, around = Told(app), list[str]()

        @app.middleware
        async def middleware(ctx: Context, call_next: Any) -> object:
            around.append(ctx.task_id)
            return await call_next()

        options: EnqueueOptions = {"deadline": past} if whose == "the task's" else {}
        task = await outcome_of(app, connected, **options)
        assert (task.status, task.attempts, task.started_at) == (TaskStatus.DONE_EXPIRED, 0, None)
        assert (task.result, task.lease_owner, task.leased_until, task.due_at) == (None, None, None, None)
        assert kinds_of_errors(task) == [("TaskExpired", 0)]
        assert "passed before the handler was started" in task.errors[0].message
        assert str(past) in task.errors[0].message
        assert [(type(error), str(error)) for error in told.errors] == [(TaskExpired, task.errors[0].message)]
        assert [(ctx.task_id, ctx.payload) for ctx in told.contexts] == [(task.id, Job(n=7))]
        assert around == []

    async def test_others_are_not_held_up(self, connected: Client) -> None:
        """Tasks that have expired end by themselves, and those between them run."""
        past = await ahead(connected, -1)
        ran: list[int] = []

        async def handler(_: Context, job: Job) -> None:
            ran.append(job.n)

        late = [(await connected.enqueue(Job(n=n), deadline=past)).task_id for n in (1, 2)]
        good = await enqueue(connected, 3, 4)
        late.append((await connected.enqueue(Job(n=5), deadline=past)).task_id)
        async with Worker(app_of(handler), connected, concurrency=1):
            tasks = await done(connected, *late, *good)
        assert [task.status for task in tasks] == [TaskStatus.DONE_EXPIRED] * 3 + [TaskStatus.DONE_COMPLETED] * 2
        assert ran == [3, 4]

    @pytest.mark.parametrize("later", [0.2, 0.0], ids=["after", "at"])
    async def test_one_that_waits_until_after_its_handlers_deadline(self, connected: Client, later: float) -> None:
        """A task that may start only at or after its handler's deadline ends when it is found due."""
        deadline = await ahead(connected, 0.1)
        wait_until = deadline + timedelta(seconds=later)
        app = app_of(never, deadline=deadline)
        task = await outcome_of(app, connected, wait_until=wait_until)
        assert (task.status, task.attempts, task.started_at) == (TaskStatus.DONE_EXPIRED, 0, None)
        assert (task.wait_until, task.deadline) == (wait_until, None)
        assert kinds_of_errors(task) == [("TaskExpired", 0)]

    async def test_an_error_handler_that_raises_does_not_keep_it(
        self, connected: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The task ends all the same, the next error handler is told, and the log tells of the first."""
        app = app_of(never)

        @app.error_handler
        def flawed(_: Context, __: Exception) -> None:
            raise ValueError("flawed")

        told = Told(app)
        task = await outcome_of(app, connected, deadline=await ahead(connected, -60))
        assert task.status is TaskStatus.DONE_EXPIRED
        assert told.of(task.id) == ["TaskExpired"]
        assert any(
            "an error handler failed" in record.message and task.id in record.message for record in caplog.records
        )

    async def test_between_the_claim_and_the_start(self, connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a batch whose deadline passes after it was put together, the others go back, and run without that one."""
        shift, commit = Shift(), connected.store.commit
        shift.of(connected.store)

        async def slow_commit(*arguments: Any) -> list[Written]:
            written = await commit(*arguments)
            if not shift.distance:
                shift.advance(30)
            return written

        monkeypatch.setattr(connected.store, "commit", slow_commit)
        calls: list[list[int]] = []

        async def handler(_: Context, syncs: list[Sync]) -> None:
            calls.append([sync.n for sync in syncs])

        app = App()
        app.batch_handler(Sync)(handler)
        told = Told(app)
        first = (await connected.enqueue(Sync(n=1))).task_id
        late = (await connected.enqueue(Sync(n=2), deadline=await ahead(connected, 20))).task_id
        third = (await connected.enqueue(Sync(n=3), deadline=await ahead(connected, HOUR))).task_id
        async with Worker(app, connected):
            tasks = await done(connected, first, late, third)
        assert [(task.status, task.attempts) for task in tasks] == [
            (TaskStatus.DONE_COMPLETED, 1),
            (TaskStatus.DONE_EXPIRED, 0),
            (TaskStatus.DONE_COMPLETED, 1),
        ]
        assert [kinds_of_errors(task) for task in tasks] == [[], [("TaskExpired", 0)], []]
        assert sorted(n for numbers in calls for n in numbers) == [1, 3]
        assert [[task.id for task in ctx.tasks] for ctx in told.contexts] == [[late]]


class TestWhileItRuns:
    """The deadline passes while the handler runs."""

    async def test_an_async_handler_is_cancelled(self, connected: Client) -> None:
        """It sees the cancellation and the reason; its task is done-expired, the attempt spent, no other follows."""
        reasons: list[str | None] = []
        app = app_of(held(reasons))
        told = Told(app)
        task = await overrun(connected, app, lambda: reasons)
        assert reasons == ["deadline"]
        assert (task.status, task.attempts, task.result) == (TaskStatus.DONE_EXPIRED, 1, None)
        assert task.started_at is not None
        assert task.done_at is not None
        assert task.deadline is not None
        assert task.started_at < task.deadline
        assert kinds_of_errors(task) == [("TaskExpired", 1)]
        assert f"the deadline {task.deadline} passed while the handler ran" in task.errors[0].message
        assert told.of(task.id) == ["TaskExpired"]
        assert type(told.errors[-1]) is TaskExpired

    async def test_a_def_handler_sees_the_signal(self, connected: Client) -> None:
        """In a thread `wait_aborted_sync` returns, and `raise_if_aborted` raises `TaskExpired`."""
        seen: list[object] = []

        def handler(ctx: Context, _: Job) -> None:
            woken = ctx.wait_aborted_sync(LIMIT)
            try:
                ctx.raise_if_aborted()
            except TaskExpired:
                seen.append((woken, ctx.aborted, ctx.abort_reason, ctx.remaining))
                raise

        task = await overrun(connected, app_of(handler), lambda: seen)
        assert seen == [(True, True, "deadline", 0.0)]
        assert (task.status, task.attempts) == (TaskStatus.DONE_EXPIRED, 1)
        assert kinds_of_errors(task) == [("TaskExpired", 1)]

    async def test_the_handlers_own_deadline_does_the_same(self, connected: Client) -> None:
        """A deadline that the task itself does not name stops its handler all the same."""
        reasons: list[str | None] = []

        async def attempt(deadline: datetime) -> Task:
            return await outcome_of(app_of(held(reasons), deadline=deadline), connected)

        task = await in_time(connected, attempt, lambda: reasons)
        assert reasons == ["deadline"]
        assert (task.status, task.attempts, task.deadline) == (TaskStatus.DONE_EXPIRED, 1, None)

    @pytest.mark.parametrize("ends", ["returns", "fails", "asks for another attempt", "snoozes"])
    async def test_how_the_handler_ends_then_does_not_count(self, connected: Client, ends: str) -> None:
        """Neither what it returns or raises after its cancellation nor what it staged has any effect."""
        began: list[str] = []
        ways = {"fails": ValueError("no"), "asks for another attempt": RetryAfter(0), "snoozes": Snooze(0)}

        async def handler(ctx: Context, _: Job) -> str:
            ctx.enqueue(Other(), task_id="staged")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                began.append(ctx.task_id)
                if ends in ways:
                    raise ways[ends] from None
            return "half done"

        task = await overrun(connected, app_of(handler), lambda: began)
        assert began == [task.id]
        assert (task.status, task.attempts, task.result) == (TaskStatus.DONE_EXPIRED, 1, None)
        assert kinds_of_errors(task) == [("TaskExpired", 1)]
        assert await connected.get_tasks_by_ids(["staged"]) == []

    async def test_a_handler_that_ignores_it_is_abandoned(
        self, connected: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """After `abort_grace` the task is done-expired without it, and its late return changes nothing."""
        release, ended = asyncio.Event(), asyncio.Event()
        ignored: list[str | None] = []

        async def handler(ctx: Context, _: Job) -> str:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    ignored.append(ctx.abort_reason)
            ended.set()
            return "too late"

        try:
            task = await overrun(connected, app_of(handler), lambda: ignored, abort_grace=0.1)
            assert not ended.is_set()
        finally:
            release.set()  # or nothing would ever end
        await asyncio.wait_for(ended.wait(), LIMIT)
        assert ignored == ["deadline"]
        assert (task.status, task.attempts) == (TaskStatus.DONE_EXPIRED, 1)
        assert kinds_of_errors(task) == [("TaskExpired", 1)]
        after = await connected.get_task(task.id)
        assert (after.version, after.result) == (task.version, None)
        assert any("abandoned" in record.message and task.id in record.message for record in caplog.records)

    async def test_a_thread_that_ignores_it_is_abandoned(self, connected: Client) -> None:
        """Its task is done-expired while the thread still runs."""
        began: list[str] = []

        async def attempt(deadline: datetime) -> Task:
            release, over = threading.Event(), threading.Event()

            def handler(ctx: Context, _: Job) -> str:
                began.append(ctx.task_id)
                assert ctx.wait_aborted_sync(LIMIT)
                release.wait(LIMIT)
                over.set()
                return "too late"

            async with Worker(app_of(handler), connected, abort_grace=0):
                receipt = await connected.enqueue(Job(), deadline=deadline)
                task = await connected.wait(receipt.task_id, LIMIT)
                release.set()
                if began:
                    assert await asyncio.to_thread(over.wait, LIMIT)
                return task

        task = await in_time(connected, attempt, lambda: began)
        assert task.id in began
        after = await connected.get_task(task.id)
        assert (after.status, after.version, after.result) == (TaskStatus.DONE_EXPIRED, task.version, None)

    async def test_an_error_handler_that_raises_does_not_keep_it(self, connected: Client) -> None:
        """The task ends all the same, and the next error handler is told."""
        reasons: list[str | None] = []
        app = app_of(held(reasons))

        @app.error_handler
        async def flawed(_: Context, __: Exception) -> None:
            raise ValueError("flawed")

        told = Told(app)
        task = await overrun(connected, app, lambda: reasons)
        assert (task.status, reasons) == (TaskStatus.DONE_EXPIRED, ["deadline"])
        assert told.of(task.id) == ["TaskExpired"]


class TestTheEarlierOne:
    """Both a timeout and a deadline."""

    async def test_a_deadline_before_the_timeout(self, connected: Client) -> None:
        """The deadline stops the run: no other attempt follows."""
        reasons: list[str | None] = []
        task = await overrun(connected, app_of(held(reasons), timeout=HOUR), lambda: reasons)
        assert (reasons, task.status) == (["deadline"], TaskStatus.DONE_EXPIRED)
        assert kinds_of_errors(task) == [("TaskExpired", 1)]

    async def test_a_timeout_before_the_deadline(self, connected: Client) -> None:
        """The timeout stops the run: each attempt fails with `TaskTimeout`, and is followed by another one."""
        reasons: list[str | None] = []
        app = app_of(held(reasons), timeout=0.1)
        told = Told(app)
        task = await outcome_of(app, connected, deadline=await ahead(connected, HOUR))
        assert (reasons, task.status) == (["timeout"] * 3, TaskStatus.DONE_FAILED)
        assert kinds_of_errors(task) == [("TaskTimeout", 1), ("TaskTimeout", 2), ("TaskTimeout", 3)]
        assert told.of(task.id) == ["TaskTimeout"] * 3

    @pytest.mark.parametrize(("timeout", "until"), [(1_000, 500), (500, 1_000)], ids=["deadline", "timeout"])
    async def test_the_context_tells_of_it(self, connected: Client, timeout: float, until: float) -> None:
        """`ctx.deadline` and `ctx.remaining` follow the earlier one, and say the same."""
        seen: list[Context] = []
        left: list[tuple[float, float]] = []

        async def handler(ctx: Context, _: Job) -> None:
            seen.append(ctx)
            left.append((ctx.remaining, (ctx.deadline - connected.store.clock.now().latest).total_seconds()))

        deadline = await ahead(connected, until)
        task = await outcome_of(app_of(handler), connected, timeout=timeout, deadline=deadline)
        assert (task.status, task.deadline) == (TaskStatus.DONE_COMPLETED, deadline)
        ((remaining, until_then),) = left
        assert 490 < remaining <= 505
        assert abs(remaining - until_then) < 5
        assert (seen[0].deadline == deadline) == (until < timeout)


class TestPrecedence:
    """The enqueue call's comes before the handler's, and that before the app's."""

    @pytest.mark.parametrize(
        ("app", "handler", "call", "wins"),
        [
            pytest.param(1_000, None, None, 1_000, id="the app's alone"),
            pytest.param(1_000, 2_000, None, 2_000, id="a later one of the handler"),
            pytest.param(2_000, 1_000, None, 1_000, id="an earlier one of the handler"),
            pytest.param(1_000, 2_000, 3_000, 3_000, id="the latest of the call"),
            pytest.param(3_000, 2_000, 1_000, 1_000, id="the earliest of the call"),
            pytest.param(1_000, None, 2_000, 2_000, id="the call's before the app's"),
            pytest.param(None, None, 1_000, 1_000, id="the call's alone"),
            pytest.param(-60, 1_000, None, 1_000, id="an app's that has passed"),
            pytest.param(-60, -60, 1_000, 1_000, id="a handler's that has passed"),
        ],
    )
    async def test_of_deadlines(
        self, connected: Client, app: float | None, handler: float | None, call: float | None, wins: float
    ) -> None:
        """`ctx.deadline` is the one that is named nearest to the task, be it earlier or later than the others."""
        start = await ahead(connected, 0)

        def after(seconds: float | None) -> datetime | None:
            return None if seconds is None else start + timedelta(seconds=seconds)

        seen: list[datetime] = []

        async def note(ctx: Context, _: Job) -> None:
            seen.append(ctx.deadline)

        jobs = App(timeout=86_400, deadline=after(app))
        jobs.handler(Job, deadline=after(handler))(note)
        own = after(call)
        options: EnqueueOptions = {} if own is None else {"deadline": own}
        task = await outcome_of(jobs, connected, **options)
        assert task.status is TaskStatus.DONE_COMPLETED
        assert seen == [after(wins)]
        assert task.deadline == own

    @pytest.mark.parametrize(
        ("app", "handler", "call", "wins"),
        [
            pytest.param(1_000, None, None, 1_000, id="the app's alone"),
            pytest.param(1_000, 2_000, None, 2_000, id="a longer one of the handler"),
            pytest.param(2_000, 1_000, None, 1_000, id="a shorter one of the handler"),
            pytest.param(1_000, 2_000, 3_000, 3_000, id="the longest of the call"),
            pytest.param(3_000, 2_000, 1_000, 1_000, id="the shortest of the call"),
            pytest.param(1_000, None, 2_000, 2_000, id="the call's before the app's"),
        ],
    )
    async def test_of_timeouts(
        self, connected: Client, app: float, handler: float | None, call: float | None, wins: float
    ) -> None:
        """`ctx.remaining` starts at the one that is named nearest to the task; a task keeps only its own."""
        seen: list[tuple[float | None, float]] = []

        async def note(ctx: Context, _: Job) -> None:
            seen.append((ctx.task.timeout, ctx.remaining))

        jobs = App(timeout=app)
        jobs.handler(Job, timeout=handler)(note)
        options: EnqueueOptions = {} if call is None else {"timeout": call}
        await outcome_of(jobs, connected, **options)
        ((own, remaining),) = seen
        assert own == call
        assert wins - 5 < remaining <= wins


class TestBetweenAttempts:
    """The deadline passes while the task waits to run again."""

    async def test_a_retry_after_it_is_not_waited_for(self, connected: Client) -> None:
        """A failed attempt whose retry would come later ends at the deadline, without another start."""
        calls: list[str] = []

        async def handler(ctx: Context, _: Job) -> None:
            calls.append(ctx.task_id)
            raise RetryAfter(1_000, "rate limit")

        app = app_of(handler)
        told = Told(app)
        task = await overrun(connected, app, lambda: calls)
        assert calls == [task.id]
        assert (task.status, task.attempts) == (TaskStatus.DONE_EXPIRED, 1)
        assert task.started_at is not None
        assert kinds_of_errors(task) == [("RetryAfter", 1), ("TaskExpired", 1)]
        assert "passed before the handler was started" in task.errors[1].message
        assert task.deadline is not None
        assert task.wait_until > task.deadline
        assert told.of(task.id) == ["RetryAfter", "TaskExpired"]

    async def test_a_snooze_beyond_it_is_not_waited_for(self, connected: Client) -> None:
        """A task that was put off until later ends at the deadline, without another start or an attempt spent."""
        calls: list[str] = []

        async def handler(ctx: Context, _: Job) -> None:
            calls.append(ctx.task_id)
            raise Snooze(1_000)

        app = app_of(handler)
        told = Told(app)
        task = await overrun(connected, app, lambda: calls)
        assert calls == [task.id]
        assert (task.status, task.attempts) == (TaskStatus.DONE_EXPIRED, 0)
        assert kinds_of_errors(task) == [("TaskExpired", 0)]
        assert told.of(task.id) == ["TaskExpired"]

    async def test_a_snoozed_task_did_start(self, connected: Client) -> None:
        """The first start of a handler is kept, though it spent no attempt before the deadline passed."""
        calls: list[str] = []

        async def handler(ctx: Context, _: Job) -> None:
            calls.append(ctx.task_id)
            raise Snooze(1_000)

        task = await overrun(connected, app_of(handler), lambda: calls)
        assert task.status is TaskStatus.DONE_EXPIRED
        assert task.started_at is not None

    @pytest.mark.usefixtures("_prompt_rescue")
    @pytest.mark.parametrize("whose", ["the task's", "the handler's"])
    async def test_a_dead_workers_task_is_not_run_again(self, connected: Client, whose: str) -> None:
        """The crash stays the one attempt; the task ends with both errors, of which the second one is told."""
        past = await ahead(connected, -60)
        own: EnqueueOptions = {"deadline": past} if whose == "the task's" else {}
        receipt = await connected.enqueue(Job(), **own)
        await _claim(connected, receipt.task_id, seconds=-30)
        app = app_of(never, **({} if own else {"deadline": past}))
        told = Told(app)
        async with Worker(app, connected, poll=3600):
            task = await connected.wait(receipt.task_id, LIMIT)
        assert (task.status, task.attempts) == (TaskStatus.DONE_EXPIRED, 1)
        assert kinds_of_errors(task) == [("LeaseLost", 1), ("TaskExpired", 1)]
        assert told.of(task.id) == ["TaskExpired"]


class TestCancelled:
    """A cancel and a deadline."""

    @pytest.mark.parametrize("whose", ["the task's", "the handler's"])
    async def test_a_cancelled_task_is_cleaned_up_after_its_deadline(self, connected: Client, whose: str) -> None:
        """A task whose deadline has passed gets its cleanup all the same, under the timeout alone."""
        past = await ahead(connected, -60)
        own: EnqueueOptions = {"deadline": past} if whose == "the task's" else {}
        app = app_of(never, timeout=1_000, **({} if own else {"deadline": past}))
        told, remaining = Told(app), list[float]()

        @app.cancellation_handler(Job)
        async def clean_up(ctx: Context, _: Job) -> None:
            remaining.append(ctx.remaining)

        receipt = await connected.enqueue(Job(), **own)
        assert await connected.cancel_task(receipt.task_id)
        async with Worker(app, connected):
            task = await connected.wait(receipt.task_id, LIMIT)
        assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 0, 1)
        assert task.errors == ()
        assert told.errors == []
        assert len(remaining) == 1
        assert remaining[0] > 900

    async def test_without_a_cleanup_it_is_cancelled_too(self, connected: Client) -> None:
        """A cancelled task whose deadline has passed is done-cancelled, not done-expired."""
        receipt = await connected.enqueue(Job(), deadline=await ahead(connected, -60))
        assert await connected.cancel_task(receipt.task_id)
        async with Worker(app_of(never), connected):
            task = await connected.wait(receipt.task_id, LIMIT)
        assert (task.status, task.errors) == (TaskStatus.DONE_CANCELLED, ())

    async def test_a_cleanup_runs_on_when_the_deadline_passes(self, connected: Client) -> None:
        """A deadline that passes during a cleanup does not stop it; that it passed is seen at another task."""
        seen: list[object] = []
        app = app_of(never)
        app.handler(Other, retry=SOON)(held([]))

        @app.cancellation_handler(Job)
        async def clean_up(ctx: Context, _: Job) -> None:
            deadline = await ahead(connected, SHORTLY)
            assert ctx.task.deadline is not None
            other = await connected.enqueue(Other(), deadline=max(deadline, ctx.task.deadline))
            expired = await connected.wait(other.task_id, LIMIT)
            seen.append((expired.status, ctx.aborted))

        receipt = await connected.enqueue(Job(), deadline=await ahead(connected, SHORTLY))
        assert await connected.cancel_task(receipt.task_id)
        async with Worker(app, connected):
            task = await connected.wait(receipt.task_id, LIMIT)
        assert seen == [(TaskStatus.DONE_EXPIRED, False)]
        assert (task.status, task.cancel_attempts, task.errors) == (TaskStatus.DONE_CANCELLED, 1, ())

    @pytest.mark.parametrize("has_cleanup", [False, True], ids=["no cleanup", "cleanup"])
    async def test_a_cancel_that_is_stored_before_wins(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch, has_cleanup: bool
    ) -> None:
        """A task that was cancelled while it ran is done-cancelled, though its worker learns that at the deadline."""
        monkeypatch.setattr("oncetask.leases._WATCHED_AFTER_SECONDS", HOUR)
        cancelled: list[str] = []
        reasons: list[str | None] = []
        cleaned: list[str] = []

        async def handler(ctx: Context, job: Job) -> None:
            await connected.cancel_task(ctx.task_id)
            cancelled.append(ctx.task_id)
            await held(reasons)(ctx, job)

        async def clean_up(ctx: Context, _: Job) -> None:
            cleaned.append(ctx.task_id)

        app = app_of(handler)
        if has_cleanup:
            app.cancellation_handler(Job)(clean_up)
        task = await overrun(connected, app, lambda: cancelled)
        assert cancelled == [task.id]
        assert reasons == ["deadline"]
        assert (task.status, task.attempts, task.errors) == (TaskStatus.DONE_CANCELLED, 1, ())
        assert [task_id for task_id in cleaned if task_id == task.id] == [task.id] * has_cleanup

    async def test_no_cleanup_beside_a_handler_that_ignores_the_deadline(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A cancelled task whose handler does not stop at its deadline is nobody's, and not cleaned up meanwhile."""
        monkeypatch.setattr("oncetask.leases._WATCHED_AFTER_SECONDS", HOUR)
        release, ended = asyncio.Event(), asyncio.Event()
        ignored: list[str | None] = []

        async def handler(ctx: Context, _: Job) -> None:
            await connected.cancel_task(ctx.task_id)
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    ignored.append(ctx.abort_reason)
            ended.set()

        cleaned: list[str] = []

        async def clean_up(ctx: Context, _: Job) -> None:
            cleaned.append(ctx.task_id)

        app = app_of(handler)
        app.cancellation_handler(Job)(clean_up)

        async def attempt(deadline: datetime) -> Task | None:
            async with Worker(app, connected, abort_grace=0, grace=0):
                receipt = await connected.enqueue(Job(), deadline=deadline)
                try:
                    async with asyncio.timeout(LIMIT):
                        async for task in connected.watch(receipt.task_id):
                            if task.is_cancelled and task.lease_owner is None and ignored:
                                release.set()
                                await ended.wait()
                                return await connected.get_task(task.id)
                finally:
                    release.set()  # or nothing would ever end
            release.clear()
            return None

        task = await in_time(connected, attempt, lambda: ignored)
        assert task is not None
        assert ignored == ["deadline"]
        assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.CANCELLATION_PENDING, 1, 0)
        assert (task.errors, task.due_at) == ((), task.leased_until)
        assert task.leased_until is not None
        assert task.id not in cleaned

    async def test_a_cancel_before_the_deadline_stops_the_handler(self, connected: Client) -> None:
        """A running task with a deadline ahead is aborted as "cancelled", and no error handler is told."""
        reasons: list[str | None] = []
        started = asyncio.Event()

        async def handler(ctx: Context, job: Job) -> None:
            started.set()
            await held(reasons)(ctx, job)

        app = app_of(handler)
        told = Told(app)
        async with Worker(app, connected):
            receipt = await connected.enqueue(Job(), deadline=await ahead(connected, HOUR))
            await asyncio.wait_for(started.wait(), LIMIT)
            assert await connected.cancel_task(receipt.task_id)
            task = await connected.wait(receipt.task_id, LIMIT)
        assert reasons == ["cancelled"]
        assert (task.status, task.errors, told.errors) == (TaskStatus.DONE_CANCELLED, (), [])


class TestBatches:
    """Members of a batch have each their own deadline."""

    async def test_a_member_that_has_expired_does_not_come_along(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It ends by itself, without its handler; the others run at once in one call, and nobody is told of them."""
        calls: list[list[int]] = []
        events: list[str] = []
        apply, commit = connected.store.apply, connected.store.commit

        async def noted(transitions: Sequence[lifecycle.Transition]) -> list[Written]:
            events.extend(transition.event for transition in transitions)
            return await apply(transitions)

        async def noted_too(transitions: Sequence[lifecycle.Transition], *others: Any) -> list[Written]:
            events.extend(transition.event for transition in transitions)
            return await commit(transitions, *others)

        monkeypatch.setattr(connected.store, "apply", noted)
        monkeypatch.setattr(connected.store, "commit", noted_too)

        async def handler(_: Context, syncs: list[Sync]) -> str:
            calls.append([sync.n for sync in syncs])
            return "synced"

        app = App()
        app.batch_handler(Sync)(handler)
        told = Told(app)
        ids = await _enqueue_syncs(connected, None, await ahead(connected, -60), await ahead(connected, HOUR))
        async with Worker(app, connected):
            tasks = await done(connected, *ids)
        assert calls == [[1, 3]]
        assert sorted(events) == ["claimed"] * 3 + ["completed"] * 2 + ["expired"]
        assert [(task.status, task.attempts, task.result) for task in tasks] == [
            (TaskStatus.DONE_COMPLETED, 1, "synced"),
            (TaskStatus.DONE_EXPIRED, 0, None),
            (TaskStatus.DONE_COMPLETED, 1, "synced"),
        ]
        assert tasks[1].started_at is None
        assert [(ctx.task_id, len(ctx.tasks), ctx.payload) for ctx in told.contexts] == [(ids[1], 1, Sync(n=2))]

    async def test_only_those_whose_deadline_it_was_end(self, connected: Client) -> None:
        """The call is stopped for all; the others go back with their attempt unspent, and run again."""
        batch = _Stopped()
        app = App()
        app.batch_handler(Sync, retry=NoRetry())(batch)
        told = Told(app)
        tasks = await in_time(connected, partial(batch.run, connected, app), lambda: batch.reasons)
        ids = [task.id for task in tasks]
        assert batch.reasons == ["deadline"]
        assert batch.calls[0] == ids
        assert sorted(chain(*batch.calls[1:])) == sorted([ids[0], ids[2]])  # together, or one after the other
        assert set(batch.attempts) == {1}
        assert [(task.status, task.attempts, task.result) for task in tasks] == [
            (TaskStatus.DONE_COMPLETED, 1, "synced"),
            (TaskStatus.DONE_EXPIRED, 1, None),
            (TaskStatus.DONE_COMPLETED, 1, "synced"),
        ]
        assert [kinds_of_errors(task) for task in tasks] == [[], [("TaskExpired", 1)], []]
        assert [told.of(task_id) for task_id in ids] == [[], ["TaskExpired"], []]
        (ctx,) = (ctx for ctx in told.contexts if ids[1] in {task.id for task in ctx.tasks})
        assert (ctx.task_id, ctx.attempt, [task.id for task in ctx.tasks]) == (ids[1], 1, [ids[1]])

    async def test_the_error_handler_sees_the_payload_of_who_expired(self, connected: Client) -> None:
        """In an error handler that is told of the second member of a batch, `ctx.payload` is that member's."""
        batch = _Stopped()
        app = App()
        app.batch_handler(Sync, retry=NoRetry())(batch)
        seen: list[object] = []

        @app.error_handler
        async def report(ctx: Context, _: Exception) -> None:
            try:
                seen.append((ctx.task_id, ctx.payload))
            except Exception as error:
                seen.append((ctx.task_id, error))
                raise

        tasks = await in_time(connected, partial(batch.run, connected, app), lambda: batch.reasons)
        assert seen[-1:] == [(tasks[1].id, Sync(n=2))]

    async def test_of_an_abandoned_call_the_others_stay_held(self, connected: Client) -> None:
        """Where the handler ignores its cancellation, nobody starts the others beside it: they stay leased."""
        release, ended = asyncio.Event(), asyncio.Event()
        ignored: list[str | None] = []

        async def handler(ctx: Context, _: list[Sync]) -> str:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    ignored.append(ctx.abort_reason)
            ended.set()
            return "too late"

        async def attempt(deadline: datetime) -> list[Task]:
            app = App()
            app.batch_handler(Sync)(handler)
            ids = await _enqueue_syncs(connected, deadline, None)
            async with Worker(app, connected, abort_grace=0, grace=0, poll=3600):
                try:
                    await done(connected, ids[0])
                    if ignored:
                        async with asyncio.timeout(LIMIT):
                            async for task in connected.watch(ids[1]):
                                if task.attempts == 0:
                                    break
                    tasks = await connected.get_tasks_by_ids(ids)
                    ended.clear()
                finally:
                    release.set()  # or nothing would ever end
                await asyncio.wait_for(ended.wait(), LIMIT)
            if not ignored:
                release.clear()
            return tasks

        late, other = await in_time(connected, attempt, lambda: ignored)
        assert ignored == ["deadline"]
        assert (late.status, late.attempts) == (TaskStatus.DONE_EXPIRED, 1)
        assert (other.status, other.attempts, other.errors) == (TaskStatus.LEASED, 0, ())
        assert (await connected.get_task(other.id)).version == other.version

    async def test_a_deadline_of_all_ends_all(self, connected: Client) -> None:
        """At their handler's deadline every member expires, and one report tells of them together."""
        reasons: list[str | None] = []
        told = Told()

        async def attempt(deadline: datetime) -> list[Task]:
            app = App()
            app.batch_handler(Sync, deadline=deadline)(held(reasons))
            app.error_handler(told)
            ids = await _enqueue_syncs(connected, None, None)
            async with Worker(app, connected):
                return await done(connected, *ids)

        tasks = await in_time(connected, attempt, lambda: reasons)
        assert reasons == ["deadline"]
        assert [(task.status, task.attempts) for task in tasks] == [(TaskStatus.DONE_EXPIRED, 1)] * 2
        assert [task.id for task in told.contexts[-1].tasks] == [task.id for task in tasks]

    async def test_a_cancelled_member_is_cancelled(self, connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a call that a deadline stops, a member that was cancelled meanwhile ends done-cancelled, without error."""
        monkeypatch.setattr("oncetask.leases._WATCHED_AFTER_SECONDS", HOUR)
        batch = _Stopped(cancels=0)
        app = App()
        app.batch_handler(Sync)(batch)
        tasks = await in_time(connected, partial(batch.run, connected, app), lambda: batch.reasons)
        assert [(task.status, task.attempts, len(task.errors)) for task in tasks] == [
            (TaskStatus.DONE_CANCELLED, 1, 0),
            (TaskStatus.DONE_EXPIRED, 1, 1),
            (TaskStatus.DONE_COMPLETED, 1, 0),
        ]


class _Stopped:
    """A batch handler that runs until the deadline of its second task stops it; without that one it returns."""

    def __init__(self, *, cancels: int | None = None) -> None:
        """`cancels`: the member that it cancels first."""
        self._cancels = cancels
        self._late = ""
        self.reasons: list[str | None] = []
        self.calls: list[list[str]] = []
        self.attempts: list[int] = []

    async def run(self, client: Client, app: App, deadline: datetime) -> list[Task]:
        """Enqueue three tasks, the second of which has this deadline, and give their last records."""
        self.calls, self.attempts = [], []
        ids = await _enqueue_syncs(client, None, deadline, await ahead(client, HOUR))
        self._late = ids[1]
        async with Worker(app, client):
            return await done(client, *ids)

    async def __call__(self, ctx: Context, _: list[Sync]) -> str:
        """Wait, or return."""
        ids = [task.id for task in ctx.tasks]
        self.calls.append(ids)
        self.attempts.append(ctx.attempt)
        if self._late not in ids:
            return "synced"
        if self._cancels is not None:
            await ctx.client.cancel_task(ids[self._cancels])
        await held(self.reasons)(ctx, None)
        return "never"


async def _enqueue_syncs(client: Client, *deadlines: datetime | None) -> Sequence[str]:
    """Enqueue a sync for each of these deadlines, numbered from 1 on, and give their ids."""
    ids: list[str] = []
    for n, deadline in enumerate(deadlines, 1):
        options: EnqueueOptions = {} if deadline is None else {"deadline": deadline}
        ids.append((await client.enqueue(Sync(n=n), **options)).task_id)
    return ids


async def _claim(client: Client, task_id: str, *, seconds: float) -> None:
    """Take a task as a worker would, and crash: nobody renews the lease, which ends after so many seconds."""
    task, now = await client.get_task(task_id), await client.store.now()
    claim = lifecycle.claim(task, lease_id="of-the-dead", until=now.latest + timedelta(seconds=seconds), now=now)
    (written,) = await client.store.apply([claim])
    assert written.applied
