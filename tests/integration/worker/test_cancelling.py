"""Cancelled tasks and their worker: who is stopped, what is cleaned up, and which of two commits wins."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any

import pytest

from oncetask import (
    App,
    Client,
    Context,
    Discard,
    FixedDelay,
    NoRetry,
    Payload,
    Snooze,
    StoreUnavailable,
    Task,
    TaskAborted,
    TaskStatus,
    Worker,
    lifecycle,
)
from oncetask.lifecycle import Transition
from oncetask.store import Written
from oncetask.task import NO_WAIT
from tests.integration.places import Place
from tests.integration.worker.support import LIMIT, SOON, Job, app_of, done, enqueue, raising


class Ran:
    """What ran, in order, and events that tests wait for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.started, self.stopped = asyncio.Event(), asyncio.Event()

    async def until_stopped(self, ctx: Context, _: Job) -> str:
        """A handler that waits for its cancellation."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.calls.append(f"stopped: {ctx.abort_reason}")
            self.stopped.set()
            raise
        return "never"

    async def clean_up(self, ctx: Context, job: Job) -> str:
        """A cleanup that succeeds."""
        self.calls.append(f"cleanup {job.n} #{ctx.attempt}")
        return "dropped"


@pytest.fixture
def ran() -> Ran:
    """What ran in this test."""
    return Ran()


def with_cleanup(app: App, cleanup: Callable[[Context, Job], Any], **options: Any) -> App:
    """Add a cancellation handler for `Job`."""
    app.cancellation_handler(Job, **options)(cleanup)
    return app


async def never(_: Context, __: Job) -> None:
    """A handler that must not run."""
    pytest.fail("a cancelled task was run")


class TestPending:
    """Cancelled before anybody ran it."""

    async def test_without_a_cleanup_it_ends_with_one_write(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing runs, and the worker writes once."""
        (task_id,) = await enqueue(connected, 1)
        assert await connected.cancel_task(task_id)
        events: list[str] = []
        apply = connected.store.apply

        async def noted(transitions: Sequence[Transition]) -> list[Written]:
            events.extend(transition.event for transition in transitions)
            return await apply(transitions)

        monkeypatch.setattr(connected.store, "apply", noted)
        async with Worker(app_of(never), connected):
            task = await connected.wait(task_id, LIMIT)
        assert events == ["cancelled"]
        assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 0, 0)
        assert (task.started_at, task.result, task.errors) == (None, None, ())

    async def test_with_a_cleanup_only_that_runs(self, connected: Client, ran: Ran) -> None:
        """A cleanup runs for tasks that never started as well; what it returns is dropped."""
        (task_id,) = await enqueue(connected, 1)
        await connected.cancel_task(task_id)
        async with Worker(with_cleanup(app_of(never), ran.clean_up), connected):
            task = await connected.wait(task_id, LIMIT)
        assert ran.calls == ["cleanup 1 #1"]
        assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 0, 1)
        assert (task.result, task.started_at) == (None, None)

    async def test_one_scheduled_for_later_ends_at_once(self, connected: Client) -> None:
        """A cancelled task does not wait for its hour."""
        receipt = await connected.enqueue(Job(n=1), delay=timedelta(days=300))
        async with Worker(app_of(never), connected, poll=3600):
            assert await connected.cancel_task(receipt.task_id)
            task = await connected.wait(receipt.task_id, LIMIT)
        assert (task.status, task.wait_until) == (TaskStatus.DONE_CANCELLED, NO_WAIT)

    async def test_one_in_backoff_is_cleaned_up_at_once(self, connected: Client, ran: Ran) -> None:
        """A cancel during the wait for the next attempt goes to the cleanup, which may take as many attempts anew."""
        app = with_cleanup(app_of(raising(ValueError("boom")), retry=FixedDelay(2, 3_000)), ran.clean_up)
        (task_id,) = await enqueue(connected, 1)
        async with Worker(app, connected):
            async for task in connected.watch(task_id):
                if task.errors and task.lease_owner is None:
                    break
            assert await connected.cancel_task(task_id)
            task = await connected.wait(task_id, LIMIT)
        assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 1, 1)
        assert [error.message for error in task.errors] == ["boom"]

    async def test_a_kind_without_a_worker_stays_pending(self, connected: Client) -> None:
        """Workers of other kinds leave it alone; the first one that handles it ends it."""

        class Foreign(Payload, kind="foreign"):
            """Nobody here handles it."""

        foreign = await connected.enqueue(Foreign())
        assert await connected.cancel_task(foreign.task_id)
        async with Worker(app_of(raising()), connected):
            await done(connected, *await enqueue(connected, 1))
        assert (await connected.get_task(foreign.task_id)).status is TaskStatus.CANCELLATION_PENDING
        app = App()
        app.handler(Foreign)(never)  # type: ignore[arg-type]  # it is not called
        async with Worker(app, connected):
            (task,) = await done(connected, foreign.task_id)
        assert task.status is TaskStatus.DONE_CANCELLED

    async def test_it_goes_before_a_long_line(self, connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """A cancelled task is ended while a long line of others, read ahead before, still waits."""
        monkeypatch.setattr("oncetask.line._BEFORE_SECONDS", 0.01)
        gate = asyncio.Semaphore(0)
        cancelled = asyncio.Event()

        async def handler(_: Context, __: Job) -> None:
            await gate.acquire()

        ids = await enqueue(connected, *range(300))
        async with Worker(app_of(handler), connected, concurrency=1, grace=0, poll=3600):
            async for task in connected.watch(ids[0]):
                if task.status is TaskStatus.LEASED:
                    break
            await connected.cancel_task(ids[-1])
            waiting = asyncio.create_task(connected.wait(ids[-1], LIMIT))
            waiting.add_done_callback(lambda _: cancelled.set())
            for task_id in ids[:-1]:
                if cancelled.is_set():
                    break
                gate.release()
                await connected.wait(task_id, LIMIT)
            await waiting
            assert (await connected.pending_count()) > 200

    async def test_a_look_before_the_line_that_fails_stops_nobody(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the look for cancelled tasks fails the worker says so, and goes on."""
        monkeypatch.setattr("oncetask.line._BEFORE_SECONDS", 0)
        monkeypatch.setattr("oncetask.worker._FIRST_PAUSE", 0.01)
        failures, due = [StoreUnavailable("test")] * 2, connected.store.due

        async def failing(kinds: Collection[str], **options: Any) -> list[Task]:
            if options["now"] == NO_WAIT and failures:
                raise failures.pop()
            return await due(kinds, **options)

        monkeypatch.setattr(connected.store, "due", failing)
        async with Worker(app_of(raising()), connected, concurrency=1):
            tasks = await done(connected, *await enqueue(connected, *range(60)))
        assert {task.status for task in tasks} == {TaskStatus.DONE_COMPLETED}
        assert failures == []

    async def test_a_generator_ends_without_its_kinds_cleanup(self, place: Place, connected: Client, ran: Ran) -> None:
        """A cancelled generator is done-cancelled with no handler called; its occurrences run on."""
        await connected.store.create(
            [
                _record("generator", recurrence={"rrule": "FREQ=DAILY"}, resource_key="k"),
                _record("occurrence", parent_recurrence_id="generator", resource_key="k"),
            ]
        )
        assert await connected.cancel_task("generator")
        async with Worker(with_cleanup(app_of(raising()), ran.clean_up), place.connect()):
            generator, occurrence = await done(connected, "generator", "occurrence")
        assert (generator.status, occurrence.status) == (TaskStatus.DONE_CANCELLED, TaskStatus.DONE_COMPLETED)
        assert ran.calls == []

    async def test_the_two_steps_cancel_everything(self, connected: Client, ran: Ran) -> None:
        """Cancelling the generator, then by its resource key, reaches every occurrence; each is cleaned up."""
        await connected.store.create(
            [
                _record("generator", recurrence={"rrule": "FREQ=DAILY"}, resource_key="k"),
                *(_record(f"o{n}", parent_recurrence_id="generator", resource_key="k") for n in range(3)),
            ]
        )
        assert await connected.cancel_task("generator")
        assert await connected.cancel_tasks_by_resource_key(Job, "k") == 3
        async with Worker(with_cleanup(app_of(never), ran.clean_up), connected):
            tasks = await done(connected, "generator", "o0", "o1", "o2")
        assert {task.status for task in tasks} == {TaskStatus.DONE_CANCELLED}
        assert len(ran.calls) == 3


class TestRunning:
    """Cancelled while its handler runs."""

    async def test_a_coroutine_is_cancelled_then_cleaned_up(self, place: Place, connected: Client, ran: Ran) -> None:
        """A cancel from another client is a CancelledError in the handler, with its reason; then the cleanup runs."""
        app = with_cleanup(app_of(ran.until_stopped), ran.clean_up)
        (task_id,) = await enqueue(connected, 1)
        async with Worker(app, connected, poll=3600):
            await asyncio.wait_for(ran.started.wait(), LIMIT)
            assert await place.connect().cancel_task(task_id)
            (task,) = await done(connected, task_id)
        assert ran.calls == ["stopped: cancelled", "cleanup 1 #1"]
        assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 1, 1)
        assert (task.lease_owner, task.leased_until, task.errors) == (None, None, ())

    async def test_without_a_cleanup_it_ends(self, place: Place, connected: Client, ran: Ran) -> None:
        """The handler is stopped, and the task is done-cancelled."""
        (task_id,) = await enqueue(connected, 1)
        async with Worker(app_of(ran.until_stopped), connected, poll=3600):
            await asyncio.wait_for(ran.started.wait(), LIMIT)
            assert await place.connect().cancel_task(task_id)
            (task,) = await done(connected, task_id)
        assert ran.calls == ["stopped: cancelled"]
        assert (task.status, task.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 0)

    async def test_a_thread_sees_the_signal(self, place: Place, connected: Client, ran: Ran) -> None:
        """In a `def` handler the signal is set: `wait_aborted_sync` returns, `raise_if_aborted` raises."""
        started, loop = threading.Event(), asyncio.get_running_loop()

        def handler(ctx: Context, _: Job) -> None:
            loop.call_soon_threadsafe(ran.started.set)
            assert not ctx.aborted
            assert ctx.wait_aborted_sync(LIMIT)
            ran.calls.append(f"stopped: {ctx.abort_reason}")
            started.set()
            with pytest.raises(TaskAborted, match="cancelled"):
                ctx.raise_if_aborted()
            ctx.raise_if_aborted()

        (task_id,) = await enqueue(connected, 1)
        async with Worker(with_cleanup(app_of(handler), ran.clean_up), connected, poll=3600):
            await asyncio.wait_for(ran.started.wait(), LIMIT)
            assert await place.connect().cancel_task(task_id)
            (task,) = await done(connected, task_id)
        assert ran.calls == ["stopped: cancelled", "cleanup 1 #1"]
        assert task.status is TaskStatus.DONE_CANCELLED

    async def test_its_lease_and_place_stay_until_it_stops(self, connected: Client) -> None:
        """As long as the handler runs the task is leased and `dueAt` stays: no cleanup runs beside it."""
        started, stopped, release = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def handler(ctx: Context, _: Job) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stopped.set()
                await release.wait()

        (task_id,) = await enqueue(connected, 1)
        async with Worker(app_of(handler), connected, abort_grace=60):
            await asyncio.wait_for(started.wait(), LIMIT)
            before = await connected.get_task(task_id)
            await connected.cancel_task(task_id)
            await asyncio.wait_for(stopped.wait(), LIMIT)
            after = await connected.get_task(task_id)
            release.set()
            await done(connected, task_id)
        assert (after.status, after.is_cancelled, after.wait_until) == (TaskStatus.LEASED, True, NO_WAIT)
        assert (after.lease_owner, after.leased_until, after.due_at) == (
            before.lease_owner,
            before.leased_until,
            before.due_at,
        )

    async def test_one_that_completes_after_the_cancel_is_cleaned_up(self, connected: Client, ran: Ran) -> None:
        """A handler that returns as if nothing were: its result does not count, nothing that it staged is stored."""

        async def handler(ctx: Context, _: Job) -> str:
            assert await connected.cancel_task(ctx.task_id)
            ctx.enqueue(Job(n=2), task_id="staged")
            return "done all the same"

        (task_id,) = await enqueue(connected, 1)
        async with Worker(with_cleanup(app_of(handler), ran.clean_up), connected):
            (task,) = await done(connected, task_id)
        assert ran.calls == ["cleanup 1 #1"]
        assert (task.status, task.result, task.attempts) == (TaskStatus.DONE_CANCELLED, None, 1)
        assert await connected.get_tasks_by_ids(["staged"]) == []

    @pytest.mark.parametrize("error", [ValueError("boom"), Snooze(60), Discard("no"), None])
    async def test_however_it_ends_after_the_cancel_it_is_cancelled(
        self, connected: Client, error: Exception | None
    ) -> None:
        """A failure, a snooze or a result that comes after the cancel changes nothing: done-cancelled."""

        async def handler(ctx: Context, _: Job) -> None:
            await connected.cancel_task(ctx.task_id)
            if error is not None:
                raise error

        (task_id,) = await enqueue(connected, 1)
        async with Worker(app_of(handler), connected):
            (task,) = await done(connected, task_id)
        assert (task.status, task.errors) == (TaskStatus.DONE_CANCELLED, ())

    async def test_a_completion_that_was_stored_first_stays(self, connected: Client) -> None:
        """A completed task is not cancelled any more, and the call says so."""
        (task_id,) = await enqueue(connected, 1)
        async with Worker(app_of(raising()), connected):
            await done(connected, task_id)
        assert not await connected.cancel_task(task_id)
        task = await connected.get_task(task_id)
        assert (task.status, task.is_cancelled, task.result) == (TaskStatus.DONE_COMPLETED, False, "done at last")

    async def test_one_that_ignores_its_stop_is_cleaned_up_after_its_lease(
        self, connected: Client, ran: Ran, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An abandoned handler keeps everybody away until its lease has ended; then the cleanup runs."""
        release = asyncio.Event()

        async def handler(_: Context, __: Job) -> None:
            ran.started.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    ran.calls.append("ignored")

        app = with_cleanup(app_of(handler), ran.clean_up)
        (task_id,) = await enqueue(connected, 1)
        async with Worker(app, connected, abort_grace=0.05, lease=1):
            await asyncio.wait_for(ran.started.wait(), LIMIT)
            await connected.cancel_task(task_id)
            seen = [task async for task in connected.watch(task_id)]
            release.set()
        left = [task for task in seen if task.lease_owner is None and not task.status.is_done]
        assert ran.calls == ["ignored", "cleanup 1 #1"]
        assert seen[-1].status is TaskStatus.DONE_CANCELLED
        assert [task.status for task in left] == [TaskStatus.CANCELLATION_PENDING]
        assert left[0].due_at == left[0].leased_until is not None
        assert any("abandoned" in record.message and task_id in record.message for record in caplog.records)

    async def test_one_that_ignored_its_time_limit_is_waited_for_too(self, connected: Client, ran: Ran) -> None:
        """A cancel that finds a handler ignoring its time limit keeps the cleanup away until the lease has ended."""
        release, ignored = asyncio.Event(), asyncio.Event()

        async def handler(_: Context, __: Job) -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    ignored.set()

        app = with_cleanup(app_of(handler, timeout=0.05), ran.clean_up)
        (task_id,) = await enqueue(connected, 1)
        async with Worker(app, connected, abort_grace=0.3, lease=1):
            await asyncio.wait_for(ignored.wait(), LIMIT)
            await connected.cancel_task(task_id)
            seen = [task async for task in connected.watch(task_id)]
            release.set()
        left = [task for task in seen if task.lease_owner is None and not task.status.is_done]
        assert [task.status for task in left] == [TaskStatus.CANCELLATION_PENDING]
        assert seen[-1].status is TaskStatus.DONE_CANCELLED
        assert left[0].leased_until is not None
        assert seen[-1].done_at is not None
        assert seen[-1].done_at >= left[0].leased_until

    async def test_the_task_of_a_dead_worker_is_cleaned_up_after_its_lease(self, connected: Client, ran: Ran) -> None:
        """A dead owner's cancelled task waits for the end of the lease; then others clean up, with all attempts."""
        (task_id,) = await enqueue(connected, 1)
        (task,) = await connected.get_tasks_by_ids([task_id])
        now = await connected.store.now()
        claim = lifecycle.claim(task, lease_id="of-the-dead", until=now.latest + timedelta(seconds=0.5), now=now)
        await connected.store.apply([claim])
        await connected.cancel_task(task_id)
        async with Worker(with_cleanup(app_of(never), ran.clean_up), connected, poll=3600):
            (ended,) = await done(connected, task_id)
        assert (ended.status, ended.attempts, ended.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 1, 1)
        assert ended.done_at is not None
        assert claim.after.leased_until is not None
        assert ended.done_at >= claim.after.leased_until

    async def test_what_it_raises_on_its_way_out_is_logged(
        self, connected: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An error in the handler's own `finally` does not vanish."""
        started = asyncio.Event()

        async def handler(_: Context, __: Job) -> None:
            try:
                started.set()
                await asyncio.Event().wait()
            finally:
                msg = "could not close the valve"
                raise RuntimeError(msg)

        (task_id,) = await enqueue(connected, 1)
        async with Worker(app_of(handler), connected):
            await asyncio.wait_for(started.wait(), LIMIT)
            await connected.cancel_task(task_id)
            (task,) = await done(connected, task_id)
        assert task.status is TaskStatus.DONE_CANCELLED
        assert any(record.exc_info and "valve" in str(record.exc_info[1]) for record in caplog.records)

    async def test_one_that_somebody_else_holds_stops_its_handler(
        self, connected: Client, place: Place, ran: Ran
    ) -> None:
        """A handler whose task has become somebody else's is told that its lease is lost, and nothing is written."""
        (task_id,) = await enqueue(connected, 1)
        async with Worker(app_of(ran.until_stopped), connected, poll=3600):
            await asyncio.wait_for(ran.started.wait(), LIMIT)
            await place.change(task_id, leaseOwner="somebody-else")
            await asyncio.wait_for(ran.stopped.wait(), LIMIT)
        assert ran.calls == ["stopped: lease-lost"]
        assert (await connected.get_task(task_id)).lease_owner == "somebody-else"


class TestCleanup:
    """The cancellation handler's own attempts, limits and ends."""

    async def test_it_is_retried_by_its_own_policy(self, connected: Client, ran: Ran) -> None:
        """Its attempts are counted by themselves, by a policy that allows more than the task's."""
        failing = raising(ValueError("1"), ValueError("2"), ValueError("3"))

        async def cleanup(ctx: Context, job: Job) -> None:
            ran.calls.append(f"#{ctx.attempt}")
            await failing(ctx, job)

        app = with_cleanup(app_of(never, retry=NoRetry()), cleanup, retry=FixedDelay(5, 0))
        (task_id,) = await enqueue(connected, 1)
        await connected.cancel_task(task_id)
        async with Worker(app, connected):
            (task,) = await done(connected, task_id)
        assert ran.calls == ["#1", "#2", "#3", "#4"]
        assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_CANCELLED, 0, 4)
        assert [(error.attempt, error.message) for error in task.errors] == [(1, "1"), (2, "2"), (3, "3")]

    async def test_by_default_the_tasks_policy_applies_with_a_count_of_its_own(
        self, connected: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Three attempts for the task are three for its cleanup; exhausted, it ends done-failed, and each is logged."""

        async def cleanup(_: Context, __: Job) -> None:
            msg = "still locked"
            raise OSError(msg)

        started = asyncio.Event()

        async def handler(ctx: Context, _: Job) -> None:
            if ctx.attempt < 3:
                msg = "not yet"
                raise ValueError(msg)
            started.set()
            await ctx.wait_aborted()

        app = with_cleanup(app_of(handler, retry=SOON), cleanup)
        (task_id,) = await enqueue(connected, 1)
        with caplog.at_level(logging.WARNING, "oncetask"):
            async with Worker(app, connected):
                await asyncio.wait_for(started.wait(), LIMIT)
                await connected.cancel_task(task_id)
                (task,) = await done(connected, task_id)
        assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_FAILED, 3, 3)
        assert [error.message for error in task.errors] == ["not yet"] * 2 + ["still locked"] * 3
        told = [r for r in caplog.records if getattr(r, "event", "").startswith("cleanup-")]
        assert [(r.event, r.attempt, r.task_id) for r in told] == [  # type: ignore[attr-defined]  # given as extra
            ("cleanup-retried", 1, task_id),
            ("cleanup-retried", 2, task_id),
            ("cleanup-failed", 3, task_id),
        ]
        assert all("still locked" in record.getMessage() for record in told)

    async def test_it_has_its_own_timeout(self, connected: Client) -> None:
        """The limit of the cleanup holds for it, whatever the task says of itself."""

        async def cleanup(ctx: Context, _: Job) -> None:
            assert ctx.remaining <= 0.1
            await asyncio.Event().wait()

        app = with_cleanup(app_of(never), cleanup, timeout=0.1, retry=NoRetry())
        receipt = await connected.enqueue(Job(n=1), timeout=50)
        await connected.cancel_task(receipt.task_id)
        async with Worker(app, connected):
            (task,) = await done(connected, receipt.task_id)
        assert (task.status, task.errors[0].type) == (TaskStatus.DONE_FAILED, "TaskTimeout")
        assert "0.1 s" in task.errors[0].message

    async def test_without_one_the_tasks_timeout_holds(self, connected: Client) -> None:
        """Left out, a cleanup may take as long as the task: what its enqueue said, else its handler."""
        limits: list[float] = []

        async def cleanup(ctx: Context, _: Job) -> None:
            limits.append(ctx.remaining)

        app = with_cleanup(app_of(never, timeout=70), cleanup)
        ids = [
            (await connected.enqueue(Job(n=1), timeout=50)).task_id,
            (await connected.enqueue(Job(n=2))).task_id,
        ]
        await connected.cancel_tasks_by_ids(ids)
        async with Worker(app, connected):
            await done(connected, *ids)
        assert sorted(round(limit, -1) for limit in limits) == [50, 70]

    async def test_what_it_enqueues_is_stored_with_its_success(self, connected: Client) -> None:
        """A cleanup hands work on with `ctx.enqueue`; an attempt that fails stores nothing."""
        ran: list[int] = []

        async def handler(_: Context, job: Job) -> None:
            ran.append(job.n)

        async def cleanup(ctx: Context, _: Job) -> None:
            ctx.enqueue(Job(n=10 + ctx.attempt), task_id=f"after {ctx.attempt}")
            if ctx.attempt == 1:
                msg = "once more"
                raise ValueError(msg)

        (task_id,) = await enqueue(connected, 1)
        await connected.cancel_task(task_id)
        async with Worker(with_cleanup(app_of(handler), cleanup), connected):
            await done(connected, task_id)
            await done(connected, "after 2")
        assert ran == [12]
        assert await connected.get_tasks_by_ids(["after 1"]) == []

    async def test_middlewares_and_error_handlers_are_there_too(self, connected: Client, ran: Ran) -> None:
        """A cleanup runs inside of the middlewares; the error handlers see its failures, with its own attempt."""
        app = with_cleanup(app_of(never), raising(ValueError("boom")), retry=SOON)

        @app.middleware
        async def around(ctx: Context, call_next: Any) -> object:
            ran.calls.append(f"around #{ctx.attempt} {ctx.task.is_cancelled}")
            return await call_next()

        @app.error_handler
        async def report(ctx: Context, error: Exception) -> None:
            ran.calls.append(f"{error} #{ctx.attempt}")

        (task_id,) = await enqueue(connected, 1)
        await connected.cancel_task(task_id)
        async with Worker(app, connected):
            await done(connected, task_id)
        assert ran.calls == ["around #1 True", "boom #1", "around #2 True"]

    async def test_a_def_cleanup_runs_in_a_thread(self, connected: Client) -> None:
        """A cancellation handler may block."""
        threads: list[str] = []
        app = with_cleanup(app_of(never), lambda *_: threads.append(threading.current_thread().name))
        (task_id,) = await enqueue(connected, 1)
        await connected.cancel_task(task_id)
        async with Worker(app, connected):
            (task,) = await done(connected, task_id)
        assert task.status is TaskStatus.DONE_CANCELLED
        assert threads != [threading.main_thread().name]

    async def test_cancelling_again_does_not_stop_it(self, connected: Client) -> None:
        """A second cancel says False, and the cleanup runs on."""
        answers: list[bool] = []

        async def cleanup(ctx: Context, _: Job) -> None:
            answers.append(await connected.cancel_task(ctx.task_id))
            assert not ctx.aborted

        (task_id,) = await enqueue(connected, 1)
        await connected.cancel_task(task_id)
        async with Worker(with_cleanup(app_of(never), cleanup), connected):
            (task,) = await done(connected, task_id)
        assert (answers, task.status, task.cancel_attempts) == ([False], TaskStatus.DONE_CANCELLED, 1)

    async def test_a_stopping_worker_gives_it_back(self, connected: Client, ran: Ran) -> None:
        """A cleanup that a shutdown interrupts goes back with its attempt unspent, first in the line."""
        (task_id,) = await enqueue(connected, 1)
        await connected.cancel_task(task_id)
        async with Worker(with_cleanup(app_of(never), ran.until_stopped), connected, grace=0):
            await asyncio.wait_for(ran.started.wait(), LIMIT)
        task = await connected.get_task(task_id)
        assert ran.calls == ["stopped: shutdown"]
        assert (task.status, task.cancel_attempts) == (TaskStatus.CANCELLATION_PENDING, 0)
        assert (task.wait_until, task.lease_owner) == (NO_WAIT, None)

    async def test_one_whose_worker_dies_counts_as_an_attempt(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A cleanup that takes its worker down each time ends done-failed, it does not loop."""
        monkeypatch.setattr("oncetask.retry.random.uniform", lambda low, _: low)
        (task_id,) = await enqueue(connected, 1)
        await connected.cancel_task(task_id)
        for attempt in (1, 2):
            (task,) = await connected.get_tasks_by_ids([task_id])
            now = await connected.store.now()
            until = now.earliest - timedelta(seconds=60)
            claim = lifecycle.claim(task, lease_id=f"dead {attempt}", until=until, now=now)
            await connected.store.apply([claim])
            if attempt == 1:
                rescue = lifecycle.rescue(
                    (await connected.get_tasks_by_ids([task_id]))[0], OSError("died"), delay=0, now=now
                )
                await connected.store.apply([rescue])
        app = with_cleanup(app_of(never), never, retry=FixedDelay(2, 0))
        async with Worker(app, connected):
            (task,) = await done(connected, task_id)
        assert (task.status, task.cancel_attempts) == (TaskStatus.DONE_FAILED, 2)
        assert task.errors[-1].type == "LeaseLost"

    async def test_a_reset_task_starts_a_new_life(self, connected: Client, ran: Ran) -> None:
        """After a reset nothing of the cancel is left: the handler runs again."""
        app = with_cleanup(app_of(raising()), ran.clean_up)
        (task_id,) = await enqueue(connected, 1)
        await connected.cancel_task(task_id)
        async with Worker(app, connected):
            await done(connected, task_id)
            assert await connected.reset_task(task_id)
            (task,) = await done(connected, task_id)
        assert (task.status, task.attempts, task.cancel_attempts) == (TaskStatus.DONE_COMPLETED, 1, 0)
        assert (task.is_cancelled, task.cancelled_at) == (False, None)


def _record(task_id: str, **fields: Any) -> Task:
    base = Task(id=task_id, kind="job", data={"n": 1}, wait_until=NO_WAIT, created_at=NO_WAIT, **fields)
    return base.evolve(due_at=lifecycle.due_at(base))
