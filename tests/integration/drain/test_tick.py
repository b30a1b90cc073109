"""One bounded drain: what it runs, what it reports, and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from oncetask import (
    App,
    Client,
    Context,
    NoRetry,
    Recurrence,
    Snooze,
    StoreUnavailable,
    TaskStatus,
    TickReport,
    tick,
)
from tests.integration.places import Place
from tests.integration.worker.keys_support import Stage, enqueue_keyed, keyed_app
from tests.integration.worker.support import LIMIT, Job, Other, app_of, enqueue, raising
from tests.support import not_none

NEVER = 3_600.0
"""A time limit that nothing reaches."""


async def statuses(client: Client) -> Counter[TaskStatus]:
    """Count all tasks by their status."""
    return Counter([task.status async for task in client.iter_tasks()])


class TestWhatItRuns:
    """Everything that is due, and nothing else."""

    async def test_an_empty_store(self, connected: Client) -> None:
        """There is nothing to report."""
        assert await tick(app_of(raising()), connected) == TickReport()

    async def test_an_app_without_handlers(self, connected: Client) -> None:
        """It looks for nothing."""
        await enqueue(connected, 1)
        assert await tick(App(), connected) == TickReport()

    async def test_all_that_is_due(self, connected: Client) -> None:
        """More tasks than run at a time are run, and the next one that waits is told."""
        await enqueue(connected, *range(100))
        later = await connected.enqueue(Job(), delay=1_000)
        await connected.enqueue(Other())

        report = await tick(app_of(raising()), connected, concurrency=8)

        waiting = await connected.get_task(later.task_id)
        assert report == TickReport(claimed=100, completed=100, next_due=waiting.wait_until)
        assert await statuses(connected) == {
            TaskStatus.DONE_COMPLETED: 100,
            TaskStatus.WAITING: 1,
            TaskStatus.PENDING: 1,  # of a kind that this App has no handler for
        }

    async def test_how_tasks_end(self, connected: Client) -> None:
        """Each end is counted by its name; what goes back says when it is due again."""

        async def handler(_: Context, job: Job) -> None:
            match job.n:
                case 1:
                    raise ValueError("no")
                case 2:
                    raise Snooze(1_000)

        app = app_of(handler, retry=NoRetry())
        ids = await enqueue(connected, 0, 1, 2, 3)
        await connected.enqueue(Job(n=4), deadline=datetime(2020, 1, 1, tzinfo=UTC))
        await connected.cancel_task(ids[3])

        report = await tick(app, connected)

        snoozed = await connected.get_task(ids[2])
        assert report == TickReport(
            claimed=4, completed=1, failed=1, retried=1, cancelled=1, expired=1, next_due=snoozed.wait_until
        )

    async def test_what_a_handler_enqueues(self, connected: Client) -> None:
        """A chain of tasks runs to its end in one tick."""

        async def handler(ctx: Context, job: Job) -> None:
            if job.n:
                ctx.enqueue(Job(n=job.n - 1))

        await enqueue(connected, 3)
        assert await tick(app_of(handler), connected) == TickReport(claimed=4, completed=4)

    async def test_blocking_handlers(self, connected: Client) -> None:
        """A `def` handler runs in a thread."""

        def handler(_: Context, job: Job) -> int:
            return job.n

        (task_id,) = await enqueue(connected, 5)
        await tick(app_of(handler), connected)
        assert (await connected.get_task(task_id)).result == 5

    async def test_schedules(self, connected: Client) -> None:
        """Those of the App are brought about, and what they spawn runs at once."""
        app = app_of(raising())
        app.schedule("often", Job(n=1), Recurrence.every(60, start=datetime(2020, 1, 1, tzinfo=UTC)))
        first = await tick(app, connected)
        assert first.next_due is not None
        assert first == TickReport(next_due=first.next_due)

        await connected.cancel_task(f"{app.name}:often")
        assert (await tick(app, connected)).cancelled == 0  # a generator is no task that was cancelled

    async def test_what_a_schedule_spawns(self, connected: Client) -> None:
        """An instant that has come makes an occurrence, which this tick runs."""
        soon = datetime.now(UTC) + timedelta(seconds=1)
        await connected.enqueue(
            Job(), recurrence=Recurrence("FREQ=YEARLY;COUNT=1", dtstart=soon.replace(microsecond=0))
        )
        report = await tick(app_of(raising()), connected, linger=1.5)
        assert (report.spawned, report.completed) == (1, 1)

    async def test_the_lifespan(self, connected: Client) -> None:
        """It is opened where there is something to run, once, and closed before the tick answers."""
        seen: list[str] = []

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[str]:
            seen.append("opened")
            yield "state"
            seen.append("closed")

        app = App(lifespan=lifespan)

        @app.handler(Job)
        async def handler(ctx: Context, _: Job) -> None:
            seen.append(ctx.state)

        await tick(app, connected)
        assert seen == []
        await enqueue(connected, 1, 2)
        await tick(app, connected)
        assert seen == ["opened", "state", "state", "closed"]

    async def test_the_line_of_a_key(self, connected: Client, place: Place) -> None:
        """Ticks that overlap run the tasks of a key one at a time, in order."""
        stage = Stage()
        await enqueue_keyed(connected, *range(12))
        others = [place.connect() for _ in range(2)]
        reports = await asyncio.gather(*(tick(keyed_app(stage), client) for client in (connected, *others)))

        assert sum(report.completed for report in reports) == 12
        assert (stage.numbers, stage.overlaps) == (list(range(12)), [])

    async def test_ticks_that_overlap(self, connected: Client, place: Place) -> None:
        """Of any number that run at the same time one runs each task."""
        runs: Counter[int] = Counter()

        async def handler(_: Context, job: Job) -> None:
            runs[job.n] += 1

        await enqueue(connected, *range(200))
        clients = [connected, *(place.connect() for _ in range(3))]
        reports = await asyncio.gather(*(tick(app_of(handler), client) for client in clients))

        assert sum(report.completed for report in reports) == 200
        assert runs == Counter(range(200))


class TestBudget:
    """How long it may take, and what becomes of what does not end in time."""

    async def test_what_is_cut_off_goes_back(self, connected: Client) -> None:
        """A task that began late is put back with its attempt unspent; the next tick begins with it."""
        reasons: list[str | None] = []

        async def handler(ctx: Context, job: Job) -> None:
            if job.n == 0:
                await asyncio.sleep(0.4)
                return
            try:
                await asyncio.sleep(NEVER)
            finally:
                reasons.append(ctx.abort_reason)

        app = app_of(handler, timeout=NEVER)
        _, task_id = await enqueue(connected, 0, 1)
        report = await tick(app, connected, budget=1, concurrency=1)

        task = await connected.get_task(task_id)
        assert (report.claimed, report.completed, report.interrupted, report.more) == (2, 1, 1, True)
        assert (task.status, task.attempts, task.errors) == (TaskStatus.PENDING, 0, ())
        assert report.next_due == task.wait_until
        assert reasons == ["budget"]

    async def test_one_that_had_all_of_it_has_failed(self, connected: Client) -> None:
        """The next tick could do no more for it, so it is retried by its policy, and ends."""
        seen: list[float] = []

        async def handler(ctx: Context, _: Job) -> None:
            seen.append(ctx.remaining)
            await asyncio.sleep(NEVER)

        (task_id,) = await enqueue(connected, 1)
        report = await tick(app_of(handler, timeout=NEVER, retry=NoRetry()), connected, budget=0.5)

        task = await connected.get_task(task_id)
        assert (report.failed, report.interrupted) == (1, 0)
        assert [(error.type, "whole budget" in error.message) for error in task.errors] == [("TaskTimeout", True)]
        assert 0 < seen[0] <= 0.5

    async def test_its_own_limit_comes_first(self, connected: Client) -> None:
        """A handler that reaches its own time limit within the budget has failed by that."""

        async def handler(_: Context, __: Job) -> None:
            await asyncio.sleep(NEVER)

        (task_id,) = await enqueue(connected, 1)
        report = await tick(app_of(handler, timeout=0.1, retry=NoRetry()), connected)
        (error,) = (await connected.get_task(task_id)).errors
        assert (report.failed, error.message) == (1, "the attempt reached its time limit of 0.1 s")

    async def test_one_that_does_not_obey(self, connected: Client) -> None:
        """The tick answers; the lease stays, so that nobody else starts beside the handler that runs on."""
        released = asyncio.Event()

        async def handler(_: Context, job: Job) -> None:
            if job.n == 0:
                await asyncio.sleep(0.2)
            while job.n and not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue

        _, task_id = await enqueue(connected, 0, 1)
        report = await tick(app_of(handler), connected, budget=0.6, concurrency=1, abort_grace=0.1)
        task = await connected.get_task(task_id)
        released.set()
        assert (report.interrupted, report.more) == (1, False)
        assert (task.status, task.attempts) == (TaskStatus.LEASED, 0)
        assert report.next_due == task.leased_until

    async def test_nothing_is_claimed_once_it_is_spent(self, connected: Client) -> None:
        """What is left over stays untouched, and the report says so."""

        async def handler(_: Context, __: Job) -> None:
            await asyncio.sleep(0.3)

        ids = await enqueue(connected, *range(5))
        report = await tick(app_of(handler), connected, budget=1, concurrency=1)
        tasks = await connected.get_tasks_by_ids(ids)
        untouched = [task for task in tasks if task.started_at is None]
        assert report.more
        assert (report.claimed, report.interrupted) == (5 - len(untouched), report.claimed - report.completed)
        assert untouched

    async def test_being_cancelled(self, connected: Client) -> None:
        """What it runs is given back with its attempts unspent, before it ends."""
        reasons: list[str | None] = []
        running = asyncio.Event()

        async def handler(ctx: Context, _: Job) -> None:
            running.set()
            try:
                await asyncio.sleep(NEVER)
            finally:
                reasons.append(ctx.abort_reason)

        (task_id,) = await enqueue(connected, 1)
        ticking = asyncio.create_task(tick(app_of(handler), connected))
        async with asyncio.timeout(LIMIT):
            await running.wait()
        ticking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ticking
        task = await connected.get_task(task_id)
        assert (task.status, task.attempts, reasons) == (TaskStatus.PENDING, 0, ["shutdown"])


class TestLingering:
    """Staying for what becomes due."""

    async def test_what_becomes_due(self, connected: Client) -> None:
        """A task is run at its time, before the first one was found and after it."""
        starts: dict[int, datetime] = {}

        async def handler(ctx: Context, job: Job) -> None:
            starts[job.n] = not_none(ctx.task.started_at) - not_none(ctx.task.wait_until)  # type: ignore[assignment]

        for n, delay in enumerate((0.3, 0.6, 0.9)):
            await connected.enqueue(Job(n=n), delay=delay)
        report = await tick(app_of(handler), connected, linger=1.5)
        assert report == TickReport(claimed=3, completed=3)
        assert all(late < timedelta(seconds=1) for late in starts.values())  # type: ignore[operator]

    async def test_what_becomes_due_later_is_left(self, connected: Client) -> None:
        """It does not stay for what it will not see."""
        receipt = await connected.enqueue(Job(), delay=1_000)
        report = await tick(app_of(raising()), connected, linger=0.2)
        assert report == TickReport(next_due=(await connected.get_task(receipt.task_id)).wait_until)

    async def test_what_is_enqueued_meanwhile(self, connected: Client, place: Place) -> None:
        """Somebody else's task is found as well, by one that has run something and by one that has not."""
        other = place.connect()
        ran = asyncio.Event()

        async def handler(_: Context, job: Job) -> None:
            if job.n == 2:
                ran.set()

        ticking = asyncio.create_task(tick(app_of(handler), connected, linger=2 * LIMIT, budget=3 * LIMIT))
        for n in (1, 2):
            receipt = await other.enqueue(Job(n=n))
            await other.wait(receipt.task_id, LIMIT)
        await ran.wait()
        ticking.cancel()
        await asyncio.wait({ticking})


class TestPauses:
    """Kinds that are paused."""

    async def test_a_paused_kind_is_left_alone(self, connected: Client) -> None:
        """Nothing of it is claimed, and it is no reason to look again; others run."""
        app = app_of(raising())
        app.handler(Other)(raising())  # type: ignore[arg-type]
        await connected.pause_kind(Job)
        await enqueue(connected, 1)
        await connected.enqueue(Other())
        assert await tick(app, connected) == TickReport(claimed=1, completed=1)

        await connected.resume_kind(Job)
        assert await tick(app, connected) == TickReport(claimed=1, completed=1)

    async def test_schedules_of_a_paused_kind_spawn(self, connected: Client) -> None:
        """The occurrences wait."""
        await connected.pause_kind(Job)
        soon = (datetime.now(UTC) + timedelta(seconds=1)).replace(microsecond=0)
        await connected.enqueue(Job(), recurrence=Recurrence("FREQ=YEARLY;COUNT=1", dtstart=soon), task_id="yearly")
        async with asyncio.timeout(LIMIT):
            while not (report := await tick(app_of(raising()), connected, linger=0.05)).spawned:
                pass
        assert (report.spawned, report.claimed) == (1, 0)

    async def test_a_pause_that_comes_meanwhile(self, connected: Client, place: Place) -> None:
        """It is respected without the tick being started anew."""
        other = place.connect()
        first = asyncio.Event()

        async def handler(_: Context, __: Job) -> None:
            first.set()

        app = app_of(handler)
        ticking = asyncio.create_task(tick(app, connected, linger=2 * LIMIT, budget=3 * LIMIT))
        await enqueue(other, 1)
        async with asyncio.timeout(LIMIT):
            await first.wait()
            await other.pause_kind(Job)
            while not await _stays_pending(other):
                pass
            await other.resume_kind(Job)
            async for task in other.iter_tasks():
                await other.wait(task.id, LIMIT)
        ticking.cancel()
        await asyncio.wait({ticking})


async def _stays_pending(client: Client) -> bool:
    """Tell whether a fresh task is left alone for a while; this is what is looked at, nothing is waited for."""
    receipt = await client.enqueue(Job())
    await asyncio.sleep(0.3)
    return not (await client.get_task(receipt.task_id)).status.is_done


class TestBadInput:
    """Arguments that cannot be meant, and a store that is not there."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"budget": 0}, "budget must be"),
            ({"budget": -1}, "budget must be"),
            ({"budget": "soon"}, "budget must be"),
            ({"linger": -1}, "linger must be"),
            ({"concurrency": 0}, "concurrency must be"),
            ({"abort_grace": -1}, "abort_grace must be"),
        ],
    )
    async def test_bad_arguments(self, connected: Client, options: dict[str, float], message: str) -> None:
        """The error names the argument."""
        with pytest.raises((ValueError, TypeError), match=message):
            await tick(app_of(raising()), connected, **options)  # type: ignore[arg-type]

    async def test_a_poisonous_record_does_not_hide_what_comes_next(self, connected: Client, place: Place) -> None:
        """A due task of a newer version stays where it is; the report tells of the one behind it."""
        newer, _ = await enqueue(connected, 1, 2)
        await place.change(newer, schema=99)
        later = await connected.enqueue(Job(), delay=1_000)
        report = await tick(app_of(raising()), connected)
        waiting = await connected.get_task(later.task_id)
        assert report == TickReport(claimed=1, completed=1, next_due=waiting.wait_until)

    async def test_a_store_that_fails_meanwhile(self, connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """What runs ends, and is recorded; then the caller is told."""
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def handler(_: Context, __: Job) -> None:
            begun.set()
            await go_on.wait()

        async def unavailable(*_: object, **__: object) -> None:
            go_on.set()
            raise StoreUnavailable("cut off")

        (task_id,) = await enqueue(connected, 1)
        ticking = asyncio.create_task(tick(app_of(handler), connected, concurrency=2))
        async with asyncio.timeout(LIMIT):
            await begun.wait()
            monkeypatch.setattr(connected.store, "watch_due", unavailable)
            monkeypatch.setattr(connected.store, "due", unavailable)
            go_on.set()
            with pytest.raises(StoreUnavailable, match="cut off"):
                await ticking
        monkeypatch.undo()
        assert (await connected.get_task(task_id)).status is TaskStatus.DONE_COMPLETED
