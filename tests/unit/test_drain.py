"""The tick in virtual time: when it looks, when it ends, and what it reports, to the second.

Its store is a dictionary with the loop's clock. Verbs of it may be stuck: they never answer. What does not hold yet
stands in `test_drain_faults`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from oncetask import (
    App,
    Client,
    Context,
    EnqueueOptions,
    FixedDelay,
    NoRetry,
    NoWaker,
    Payload,
    Recurrence,
    StoreUnavailable,
    TickReport,
    Waker,
    Worker,
    tick,
)
from oncetask.clock import Now, StoreClock, to_micros
from oncetask.enqueueing import new_task
from oncetask.lifecycle import Transition
from oncetask.lock import Lock, LockChange
from oncetask.slots import Slots
from oncetask.store import Cursor, Feed, Settings, TaskFilter, TaskStore, Written
from oncetask.task import Task, place_in_line
from oncetask.telemetry import Telemetry
from tests.support import T0, a_handler, at, not_none
from tests.virtual_time import LoopClock, in_virtual_time

ENDS_AFTER = 4.5
"""Seconds after its budget at which a tick has ended at the latest; virtual ones, which no slow machine adds to."""

NEVER = 3_600.0
"""Seconds that nothing here takes."""

_LATENCY = 1 / 128  # exact, so that no sum of it falls just short of a timer's time


class Job(Payload, kind="job"):
    """What most of these run."""

    n: int = 0


class Keyed(Payload, kind="keyed"):
    """What shares a resource key."""

    n: int = 0

    def resource_key(self) -> str:
        """Give the one there is."""
        return "key"


class _Clock(StoreClock):
    """The loop's time, known to some seconds."""

    def __init__(self) -> None:
        super().__init__(LoopClock())
        self.known = True
        self.unsure = 0.0
        """Seconds by which the present is not known."""

    def now(self) -> Now:
        """Give both bounds."""
        latest = T0 + timedelta(seconds=self.monotonic())
        return Now(latest - timedelta(seconds=self.unsure), latest)


class Store:
    """The verbs that a tick uses. Each takes a moment."""

    url, env = "model://", "default"

    def __init__(self) -> None:
        self.clock = _Clock()
        self.tasks: dict[str, Task] = {}
        self.held: dict[str, Lock] = {}
        self.fields: dict[str, Any] = {}
        self.stuck: set[str] = set()
        """Verbs that do not answer."""
        self.slow: dict[str, float] = {}
        """Seconds that verbs take which take longer than a moment."""
        self.looks = 0
        """How often the line was asked for."""
        self._version = 0
        self._watches: list[tuple[Callable[[], Any], Feed[Any]]] = []

    async def _ask(self, verb: str) -> None:
        await asyncio.sleep(self.slow.get(verb, _LATENCY))
        if verb in self.stuck:
            await asyncio.Event().wait()

    async def open(self) -> None:
        """Nothing has to be opened."""
        await self._ask("open")

    async def aclose(self) -> None:
        """Nothing is open."""

    async def now(self) -> Now:
        """Give the present."""
        return self.clock.now()

    async def get(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Read tasks."""
        await self._ask("get")
        return [self.tasks.get(task_id) for task_id in task_ids]

    async def due(
        self,
        kinds: Collection[str],
        *,
        now: datetime,
        limit: int,
        after: Cursor | None = None,
        generators: bool = False,
        without: Collection[str] = (),
    ) -> list[Task]:
        """Read the due line."""
        self.looks += 1
        await self._ask("due")
        found = [
            task
            for task in self._front(kinds, after)
            if task.resource_key not in without and (task.recurrence is not None or not generators)
        ]
        return [task for task in found if task.due_at is not None and task.due_at <= now][:limit]

    def _front(self, kinds: Collection[str], after: Cursor | None) -> list[Task]:
        start = None if after is None else (after.due_at, after.task_id)
        places = [(task.due_at, task.id) for task in self.tasks.values() if task.due_at and task.kind in kinds]
        return [self.tasks[place[1]] for place in sorted(places) if start is None or place > start]

    async def line(
        self, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None = None
    ) -> list[Task]:
        """Read the line of some keys."""
        await self._ask("line")
        assert after is None, "these lines are short"
        opened = [task for task in self.tasks.values() if task.resource_key in resource_keys and task.outcome is None]
        return sorted((task for task in opened if task.wait_until <= now), key=place_in_line)[:limit]

    async def locks(self, resource_keys: Sequence[str]) -> list[Lock | None]:
        """Read locks."""
        await self._ask("locks")
        return [self.held.get(key) for key in resource_keys]

    async def find(self, which: TaskFilter, *, limit: int, after: str | None = None) -> list[Task]:
        """Find nothing: nobody takes a key over here."""
        return []

    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        """Store new tasks."""
        await self._ask("create")
        return [Written() if task.id in self.tasks else self.put(task) for task in tasks]

    async def apply(self, transitions: Sequence[Transition]) -> list[Written]:
        """Write each by itself."""
        await self._ask("apply")
        return [self.put(step.after) if self._is_newest(step.before) else Written() for step in transitions]

    async def commit(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task],
        batch: object | None,  # the port's
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Write all of it or nothing."""
        await self._ask("commit")
        free = all(self.held.get(change.resource_key) == change.before for change in locks)
        if not free or not all(self._is_newest(step.before) for step in transitions):
            return [Written()] * (len(transitions) + len(locks))
        for change in locks:
            self.held.pop(change.resource_key, None)
            if change.after is not None:
                self.held[change.resource_key] = replace(change.after, version=self._version + 1)
        for task in creates:
            self.put(task)
        return [self.put(step.after) for step in transitions] + [Written(self._version)] * len(locks)

    async def settings(self, *, no_older_than: float = 0.0) -> Settings:  # the port's
        """Read the settings."""
        await self._ask("settings")
        return Settings(dict(self.fields), 1)

    async def write_settings(self, _: Settings, changes: Mapping[str, Any]) -> Written:
        """Set some of the settings."""
        self.fields |= changes
        self.tell()
        return Written(1)

    def watch_settings(self) -> AbstractAsyncContextManager[Feed[Settings]]:
        """Watch the settings."""
        return self._watching(lambda: Settings(dict(self.fields), 1))

    def watch_due(
        self, kinds: Collection[str], *, limit: int, after: Cursor | None = None
    ) -> AbstractAsyncContextManager[Feed[list[Task]]]:
        """Watch the front of the line."""
        return self._watching(lambda: self._front(kinds, after)[:limit])

    def watch_tasks(self, task_ids: Sequence[str]) -> AbstractAsyncContextManager[Feed[list[Task | None]]]:
        """Watch tasks."""
        return self._watching(lambda: [self.tasks.get(task_id) for task_id in task_ids])

    @asynccontextmanager
    async def _watching(self, look: Callable[[], Any]) -> AsyncIterator[Feed[Any]]:
        feed: Feed[Any] = Feed()
        feed.put(look())
        self._watches.append((look, feed))
        try:
            yield feed
        finally:
            self._watches.remove((look, feed))

    def put(self, task: Task) -> Written:
        """Store a record, and tell whoever watches."""
        self._version = max(self._version + 1, to_micros(self.clock.now().latest))
        self.tasks[task.id] = replace(task, version=self._version)
        self.tell()
        return Written(self._version)

    def tell(self) -> None:
        """Show everybody who watches what there is now."""
        for look, feed in self._watches:
            feed.put(look())

    def _is_newest(self, task: Task) -> bool:
        return task.id in self.tasks and self.tasks[task.id].version == task.version


class _NoWatchdog:
    """Stands for the thread that watches the loop: virtual time waits for no thread."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def start(self) -> None:
        """Do nothing."""

    wake = sleep = start

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.fixture(autouse=True)
def _without_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("oncetask.engine.Watchdog", _NoWatchdog)
    return iter(())


class Place:
    """A store, a client, and what a test does there."""

    def __init__(self, waker: Waker | None = None) -> None:
        self.store = Store()
        self.client = Client(cast("TaskStore", self.store), waker=waker or NoWaker())

    def enqueue(self, payload: Payload, **options: Any) -> str:
        """Store a task, at once."""
        task = new_task(payload, cast("EnqueueOptions", options), self.store.clock.now())
        self.store.put(task)
        return task.id

    def pause(self, kind: str) -> None:
        """Pause a kind, and tell whoever follows the settings."""
        self.store.fields["pausedKinds"] = [kind]
        self.store.tell()

    def task(self, task_id: str) -> Task:
        """Give a record."""
        return replace(self.store.tasks[task_id], read_at=self.store.clock.now().latest)

    async def ticked(self, app: App, *, limit: float = 120.0, **options: Any) -> tuple[TickReport, float]:
        """Let a tick run; gives its report, and how many seconds it took. One that does not end fails loudly."""
        began = now()
        async with asyncio.timeout(limit):
            report = await tick(app, self.client, **options)
        return report, now() - began


def now() -> float:
    """Give the seconds that have passed."""
    return asyncio.get_running_loop().time()


def later(seconds: float, what: Callable[[], object]) -> None:
    """Do something in a while."""
    asyncio.get_running_loop().call_later(seconds, what)


def app_of(handler: Callable[[Context, Any], Any], *kinds: type[Payload], lifespan: Any = None, **options: Any) -> App:
    """Give an App in which a function handles these kinds, `Job` where none is given; it tries once."""
    app = App(lifespan=lifespan)
    for kind in kinds or (Job,):
        app.handler(kind, **{"retry": NoRetry(), "timeout": NEVER, **options})(handler)
    return app


async def returns(_: Context, __: Any) -> None:
    """Do nothing."""


async def hangs(_: Context, __: Any) -> None:
    """Obey, but never end by itself."""
    await asyncio.sleep(NEVER)


async def ignores(_: Context, __: Any) -> None:
    """Go on for a minute, whatever one is told."""
    for _second in range(60):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)


class TestBudget:
    """What is begun, and when it is cut off."""

    @pytest.mark.parametrize(("budget", "until"), [(10, 9), (100, 95)])
    def test_the_last_tenth_is_for_ending(self, budget: float, until: float) -> None:
        """Nothing is begun in it; it is five seconds at most. Until then a slot is never left empty."""
        starts: list[float] = []

        @in_virtual_time
        async def run() -> None:
            place = Place()

            async def handler(_: Context, __: Job) -> None:
                starts.append(now())
                await asyncio.sleep(0.4)

            for n in range(300):
                place.enqueue(Job(n=n))
            report, took = await place.ticked(app_of(handler), budget=budget, concurrency=1)
            assert (report.more, report.claimed, report.completed) == (True, len(starts), len(starts))
            assert took < budget

        run()
        assert until - 0.6 < starts[-1] <= until + 0.02

    @in_virtual_time
    async def test_a_handler_that_does_not_obey(self) -> None:
        """The tick does not wait for it longer than it may."""
        place = Place()
        place.enqueue(Job())
        _, took = await place.ticked(app_of(ignores), budget=10)
        assert took <= 10 + ENDS_AFTER

    @in_virtual_time
    async def test_error_handlers_that_hang(self) -> None:
        """Nor for those that are told of what was cut off."""
        place = Place()
        place.enqueue(Job())
        app = app_of(hangs)

        @app.error_handler
        async def report(_: Context, __: Exception) -> None:
            await asyncio.sleep(NEVER)

        _, took = await place.ticked(app, budget=10)
        assert took <= 10 + ENDS_AFTER
        assert asyncio.all_tasks() == {asyncio.current_task()}

    @in_virtual_time
    async def test_what_began_in_time_may_end(self) -> None:
        """In the last tenth nothing is begun, but what runs has the whole budget."""
        place = Place()

        async def handler(_: Context, job: Job) -> None:
            await asyncio.sleep(8.5 if job.n == 0 else 1)

        place.enqueue(Job(n=0))
        place.enqueue(Job(n=1))
        report, took = await place.ticked(app_of(handler), budget=10, concurrency=1)
        assert (report, 9.5 <= took < 10) == (TickReport(claimed=2, completed=2), True)

    @in_virtual_time
    async def test_one_that_lingers(self) -> None:
        """It ends when nothing may be begun any more, though nothing runs and nothing rings then."""
        for options in ({"budget": 10, "linger": 60}, {"budget": 60, "linger": 9}):
            place = Place()
            place.enqueue(Job())
            report, took = await place.ticked(app_of(returns), **options)
            assert report == TickReport(claimed=1, completed=1)
            assert 8.9 < took < 9.2

    @pytest.mark.parametrize("linger", [2, 3, 60])
    @in_virtual_time
    async def test_one_that_lingers_where_there_is_nothing(self, linger: float) -> None:
        """It ends in order, though it would linger for longer than its budget, or just as long."""
        report, took = await Place().ticked(app_of(returns), budget=2, linger=linger)
        assert (report, took <= 2) == (TickReport(), True)

    @in_virtual_time
    async def test_a_claim_that_arrives_after_the_budget(self) -> None:
        """What it begins is given back before the tick ends, so that nothing is left claimed."""
        place = Place()
        place.enqueue(Job(), delay=1.7)
        place.store.slow["apply"] = 0.5
        report, took = await place.ticked(app_of(returns), budget=2, linger=60)
        (task,) = place.store.tasks.values()
        assert (task.lease_owner, task.attempts) == (None, 0)
        assert (report.claimed, report.interrupted) == (1, 1)
        assert 2 < took < 2 + ENDS_AFTER

    @in_virtual_time
    async def test_one_that_lingers_while_all_is_paused(self) -> None:
        """There is nothing to look at, and it does not look all the time."""
        place = Place()
        place.pause("job")
        place.enqueue(Job())
        report, took = await place.ticked(app_of(returns), budget=10, linger=60)
        assert (report, took <= 10, place.store.looks <= 20) == (TickReport(), True, True)

    @in_virtual_time
    async def test_being_cancelled_in_its_last_part(self) -> None:
        """Where nothing is begun any more, and it only waits for what runs, a cancel is one as well."""
        reasons: list[str | None] = []
        place = Place()

        async def handler(ctx: Context, job: Job) -> None:
            try:
                await asyncio.sleep(NEVER)
            except asyncio.CancelledError:
                reasons.append(ctx.abort_reason)
                await ignores(ctx, job)

        task_id = place.enqueue(Job())
        ticking = asyncio.create_task(tick(app_of(handler), place.client, budget=100))
        await asyncio.sleep(97)
        ticking.cancel()
        began = now()
        await asyncio.wait({ticking})
        assert (ticking.cancelled(), reasons, now() - began <= 2.5) == (True, ["shutdown"], True)
        assert place.task(task_id).attempts == 0

    @in_virtual_time
    async def test_what_is_enqueued_beside_a_long_task(self) -> None:
        """It begins at once, not when that ends."""
        starts: dict[int, float] = {}
        place = Place()

        async def handler(_: Context, job: Job) -> None:
            starts[job.n] = now()
            await asyncio.sleep(30 if job.n == 0 else 0)

        place.enqueue(Job(n=0))
        later(10, lambda: place.enqueue(Job(n=1)))
        await place.ticked(app_of(handler))
        assert 10 <= starts[1] < 10.5

    @in_virtual_time
    async def test_a_lease_is_not_much_longer_than_the_budget(self) -> None:
        """What a killed tick leaves is free again soon after it would have ended."""
        place = Place()
        task_id = place.enqueue(Job())
        ticking = asyncio.create_task(tick(app_of(hangs), place.client, budget=3))
        await asyncio.sleep(0.5)
        leased_until = place.task(task_id).leased_until
        await asyncio.wait({ticking})
        assert leased_until is not None
        assert at(3) < leased_until <= at(13.5)

    @in_virtual_time
    async def test_nothing_is_begun_after_a_cancel(self) -> None:
        """While it waits for what it has told to stop, it takes nothing new, though it has a free slot."""
        starts: list[int] = []
        place = Place()

        async def handler(ctx: Context, job: Job) -> None:
            starts.append(job.n)
            await ignores(ctx, job)

        place.enqueue(Job(n=0))
        ticking = asyncio.create_task(tick(app_of(handler), place.client, linger=40))
        await asyncio.sleep(5)
        ticking.cancel()
        later(0.3, lambda: place.enqueue(Job(n=1)))
        await asyncio.wait({ticking})
        assert starts == [0]

    @in_virtual_time
    async def test_a_waker_that_takes_its_time(self) -> None:
        """The tick ends in time where handlers do not obey and the waker takes as long as it may."""

        class Slow(NoWaker):
            async def wake(self, at: datetime, *, env: str, now: Now) -> None:  # the port's
                await asyncio.sleep(2)

        place = Place(Slow())
        place.enqueue(Job(n=0))
        place.enqueue(Job(n=1))
        _, took = await place.ticked(app_of(ignores), budget=10, concurrency=1)
        assert took <= 10 + ENDS_AFTER

    @in_virtual_time
    async def test_many_keys(self) -> None:
        """They are taken a few at a time, but none waits for the tasks of another."""
        starts: list[float] = []
        place = Place()

        async def handler(_: Context, __: Job) -> None:
            starts.append(now())
            await asyncio.sleep(5)

        for n in range(20):
            place.enqueue(Job(n=n), resource_key=f"key {n}")
        report, _ = await place.ticked(app_of(handler))
        assert (report, max(starts) < 1) == (TickReport(claimed=20, completed=20), True)


class TestLingering:
    """Staying for what becomes due."""

    @in_virtual_time
    async def test_to_the_second(self) -> None:
        """What it knows of begins at its time, also where nothing was due before."""
        starts: list[float] = []
        place = Place()

        async def handler(_: Context, __: Job) -> None:
            starts.append(now())

        for delay in (10.3, 20.7):
            place.enqueue(Job(), delay=delay)
        await place.ticked(app_of(handler), linger=40)
        assert [0 <= start - due < 0.1 for start, due in zip(starts, (10.3, 20.7), strict=True)] == [True, True]

    @in_virtual_time
    async def test_how_often_it_looks(self) -> None:
        """Before it has run anything it looks once a second; after that it listens."""
        place = Place()
        await place.ticked(app_of(returns), linger=40)
        assert place.store.looks <= 41
        place.enqueue(Job())
        before = place.store.looks
        await place.ticked(app_of(returns), linger=40)
        assert place.store.looks - before <= 6


class TestPauses:
    """Kinds that are paused while a tick works."""

    @in_virtual_time
    async def test_what_was_read_ahead(self) -> None:
        """None of it is begun any more, two seconds after the pause at the latest, though there is room for others."""
        starts: list[float] = []
        place = Place()

        async def handler(_: Context, __: Job) -> None:
            starts.append(now())
            await asyncio.sleep(0.5)

        for n in range(40):
            place.enqueue(Job(n=n))
        later(5, lambda: place.pause("job"))
        report, took = await place.ticked(app_of(handler, Job, Keyed), concurrency=1)
        assert 4 < starts[-1] <= 7
        assert (report, took < 8) == (TickReport(claimed=len(starts), completed=len(starts)), True)

    @in_virtual_time
    async def test_a_worker_that_cannot_ask(self) -> None:
        """It begins nothing before it has learnt what is paused, however that fails at first."""
        place, starts = Place(), list[float]()
        asked = place.store.settings

        async def fail(**_: object) -> Settings:
            place.store.settings = asked  # type: ignore[method-assign]
            raise StoreUnavailable("not yet")

        @asynccontextmanager
        async def blind() -> AsyncIterator[Feed[Settings]]:
            raise StoreUnavailable("not followed")
            yield

        async def handler(_: Context, __: Job) -> None:
            starts.append(now())

        place.store.settings, place.store.watch_settings = fail, blind  # type: ignore[method-assign]
        place.pause("job")
        place.enqueue(Job())
        async with Worker(app_of(handler), place.client):
            await asyncio.sleep(20)
        assert starts == []

    @in_virtual_time
    async def test_nothing_else_to_do(self) -> None:
        """Where all kinds are paused by now, it ends with what runs."""
        place = Place()

        async def handler(_: Context, __: Job) -> None:
            await asyncio.sleep(5)

        place.enqueue(Job())
        later(3, lambda: place.pause("job"))
        _, took = await place.ticked(app_of(handler))
        assert took < 5.5

    @in_virtual_time
    async def test_kinds_of_others(self) -> None:
        """That they are paused costs this App's ticks nothing."""
        place = Place()
        place.pause("another")
        await place.ticked(app_of(returns))
        assert place.store.looks == 1


class TestReport:
    """What is counted, and who is told."""

    @in_virtual_time
    async def test_a_cleanup(self) -> None:
        """It is an attempt of its own, in the slot of the one that was stopped."""
        place = Place()
        app = app_of(hangs)
        app.cancellation_handler(Job)(returns)
        task_id = place.enqueue(Job())

        async def cancel() -> None:
            await asyncio.sleep(2)
            await place.client.cancel_task(task_id)

        cancelling = asyncio.create_task(cancel())
        report, _ = await place.ticked(app)
        await cancelling
        assert report == TickReport(claimed=2, cancelled=1)

    @in_virtual_time
    async def test_what_a_dead_worker_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It goes back to the line first, and is begun when its wait is over."""
        monkeypatch.setattr("oncetask.retry.random.uniform", lambda _, high: high)  # the longest wait, not some moment
        place = Place()
        task_id = place.enqueue(Job())
        place.store.put(place.task(task_id).evolve(lease_owner="dead", leased_until=at(1), due_at=at(1), attempts=1))
        await asyncio.sleep(2)
        app = app_of(returns, retry=FixedDelay(3, 5))
        report, _ = await place.ticked(app)
        assert (report.retried, report.claimed, report.failed) == (1, 0, 0)
        assert report.next_due is not None
        report, _ = await place.ticked(app, linger=40)
        assert report == TickReport(claimed=1, completed=1)

    @in_virtual_time
    async def test_a_store_that_fails_in_the_end(self) -> None:
        """What has run is reported; when to look next is not known, so it is now."""
        place = Place()

        async def fail(*_: object, **__: object) -> list[Task]:
            raise StoreUnavailable("cut off")

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            yield
            place.store.due = fail  # type: ignore[method-assign]

        place.enqueue(Job())
        report, _ = await place.ticked(app_of(returns, lifespan=lifespan))
        assert report == TickReport(claimed=1, completed=1, more=True)

    @in_virtual_time
    async def test_schedules_whose_kind_has_no_free_slot(self) -> None:
        """They spawn in time, while another task takes up the only slot."""
        place = Place()

        async def handler(_: Context, job: Job) -> None:
            await asyncio.sleep(30 if job.n == 0 else 0)

        place.enqueue(Job(n=0))
        place.enqueue(Job(n=1), recurrence=Recurrence.every(600, start=at(5)), task_id="generator")
        report, _ = await place.ticked(app_of(handler), concurrency=1)
        (occurrence,) = (task for task in place.store.tasks.values() if task.parent_recurrence_id == "generator")
        assert (report.spawned, report.completed) == (1, 2)
        assert at(5) <= not_none(occurrence.created_at) < at(7)

    @in_virtual_time
    async def test_who_is_told(self) -> None:
        """The client's telemetry hears of everything that the report counts."""
        heard: list[str] = []

        class Ear(Telemetry):
            def changed(self, transition: Transition) -> None:
                heard.append(transition.event)

            def spawned(self, generator: Task, number: int) -> None:  # the listener's
                heard.append(f"{number} occurrences")

        place = Place()
        place.client.telemetry = Ear()
        place.enqueue(Job())
        place.enqueue(Job(), recurrence=Recurrence.every(600, start=at(5)))
        await place.ticked(app_of(returns), linger=6)
        assert sorted(heard) == ["1 occurrences", "claimed", "claimed", "completed", "completed", "spawned"]


class TestNextDue:
    """When somebody has to look again."""

    @in_virtual_time
    async def test_a_busy_key(self) -> None:
        """Its holder goes on with the next task; should it die, that is seen after the longest lease."""
        place = Place()
        place.store.held["key"] = Lock(resource_key="key", owner="somebody", leased_until=at(300), version=1)
        place.enqueue(Keyed())
        report, took = await place.ticked(app_of(returns, Keyed))
        assert took < 1
        assert report.next_due is not None
        assert (report.more, 59 < (report.next_due - T0).total_seconds() <= 61) == (False, True)

    @in_virtual_time
    async def test_a_paused_kind_opens_nothing(self) -> None:
        """Of a kind that is paused nothing is begun, so the App's lifespan stays closed."""
        opened: list[str] = []

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            opened.append("lifespan")
            yield

        place = Place()
        place.pause("job")
        place.enqueue(Job())
        report, _ = await place.ticked(app_of(returns, lifespan=lifespan))
        assert (report, opened) == (TickReport(), [])


class TestSlots:
    """What a pause means for a slot that goes from task to task of a key."""

    def test_a_slot_is_not_passed_on_to_a_paused_kind(self) -> None:
        """It stays the slot of the kind that has it, and is given back as such."""
        slots = Slots(2, {"a": a_handler(concurrency=1), "b": a_handler(concurrency=1)}, processes=1)
        slot = slots.take("a")
        slots.pause(frozenset({"b"}))
        assert not slot.pass_on("b")
        assert (slots.room.has("a"), slots.room.has("b")) == (False, False)
        slot.give()
        assert slots.room.kinds == {"a"}
        slots.pause(frozenset())
        assert slots.room.kinds == {"a", "b"}

    def test_a_change_rings(self) -> None:
        """Whoever waits for room looks again after a pause, and not after one that changes nothing."""
        slots = Slots(1, {"a": a_handler()}, processes=1)
        assert (slots.pause(frozenset({"a"})), slots.changed.is_set()) == (True, True)
        slots.changed.clear()
        assert (slots.pause(frozenset({"a"})), slots.changed.is_set()) == (False, False)
