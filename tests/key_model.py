"""A world in which real workers share resource keys: made-up time, a store in memory, and everything that goes wrong.

Each worker is the real `Worker` on an event loop of its own, which a seeded scheduler steps callback by callback, so
that it can be stopped, or lost, between any two of them. Its store is a `Wire`: what is asked arrives some time later,
is answered some time after that, or is not. All that is known here of the engine is how a `Worker` is made, the verbs
of its store, and `lifecycle` for what clients do; what has to hold is said elsewhere, by a `Watcher`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, ParamSpec, Protocol, TypeVar, cast
from unittest.mock import patch

from oncetask import App, Client, Context, Discard, FixedDelay, Payload, RetryAfter, Snooze, Worker, lifecycle
from oncetask.clock import Now, StoreClock, to_micros
from oncetask.errors import OncetaskError, StoreUnavailable
from oncetask.lifecycle import Transition
from oncetask.lock import Lock, LockChange
from oncetask.store import Cursor, Feed, Settings, TaskFilter, TaskStore, Written
from oncetask.task import Task
from oncetask.telemetry import Telemetry
from tests.simulation.hosts import Host
from tests.simulation.timeline import SECOND, Timeline
from tests.support import T0

__all__ = ["KINDS", "Change", "Machine", "Profile", "Run", "Watcher", "World"]

P = ParamSpec("P")
T = TypeVar("T")

KINDS = ("plain", "undone", "strict", "batch", "short")
_START = to_micros(T0)
_CALM_SECONDS = 1_200.0
_MOST_STEPS = 400_000


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a world is like."""

    knows: tuple[tuple[str, ...], ...] = (KINDS, KINDS)
    """The kinds of each worker."""
    kinds: tuple[str, ...] = KINDS
    """The kinds of the tasks."""
    keys: int = 2
    tasks: int = 6
    seconds: float = 25.0
    """How long things go wrong."""
    leases: tuple[float, ...] = (4.0, 7.0)
    """The longest leases of workers, in seconds."""
    unsure: float = 3.0
    """The most seconds by which a worker does not know the store's present."""
    every: int = 120
    """About so many callbacks from one fault to the next."""
    faults: tuple[str, ...] = ("freeze", "crash", "stop", "client", "client", "client")
    clients: tuple[str, ...] = ("now", "late", "early", "cancel", "cancel", "reset", "delete")
    unfit: float = 0.02
    """The share of commits with the end of a task that are too much for the store."""
    stubborn: float = 3.0
    """The most seconds for which a handler goes on after it was told to stop."""
    trouble: float = 0.03
    """The share of calls to the store that fail, or take long."""


class Watcher(Protocol):
    """Sees what is stored and what runs, as it happens."""

    def wrote(self, writer: str, tasks: Sequence[Change], locks: Sequence[LockChange]) -> None:
        """See what one accepted write changed."""

    def read_line(self, reader: str, resource_key: str, at: int) -> None:
        """See a worker get to know a line from its beginning, as it was `at` these microseconds."""

    def started(self, run: Run) -> None:
        """See a handler begin."""

    def ended(self, run: Run) -> None:
        """See a handler end."""

    def lost(self, machine: Machine) -> None:
        """See a machine go, and with it all that ran on it."""


@dataclass(frozen=True)
class Change:
    """One record before and after a write; None: it is not there."""

    before: Task | None
    after: Task | None


@dataclass(eq=False)
class Run:
    """One call of a handler."""

    machine: Machine
    tasks: tuple[Task, ...]
    obeys: bool = True
    """False once it goes on although it was told to stop."""

    @property
    def lease(self) -> str:
        """The lease under which it runs."""
        return self.tasks[0].lease_owner or ""


@dataclass(frozen=True)
class Act:
    """What a handler does in one attempt."""

    seconds: float
    ends: str = "returns"
    stubborn: float = 0.0
    """Seconds for which it goes on after it was told to stop."""


# -- the store --------------------------------------------------------------------------------------------------------


class Records:
    """The documents, with versions, and writes that are all or nothing."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.tasks: dict[str, Task] = {}
        self.locks: dict[str, Lock] = {}
        self._names: dict[str, str] = {}
        self._version = 0

    def line(self, keys: Collection[str], now: datetime, limit: int, after: Task | None) -> list[Task]:
        """Read the line of some keys."""
        found = [
            task
            for task in self.tasks.values()
            if task.resource_key in keys and task.outcome is None and task.wait_until <= now
        ]
        behind = [task for task in found if after is None or _place(task) > _place(after)]
        return sorted(behind, key=_place)[:limit]

    def due(self, kinds: Collection[str], now: datetime | None, limit: int, after: Cursor | None) -> list[Task]:
        """Read the due line; no `now`: all of it."""
        start = None if after is None else (after.due_at, after.task_id)
        found = [
            (task.due_at, task.id)
            for task in self.tasks.values()
            if task.due_at is not None and task.kind in kinds and (now is None or task.due_at <= now)
        ]
        return [self.tasks[place[1]] for place in sorted(found) if start is None or place > start][:limit]

    def find(self, which: TaskFilter, limit: int, after: str | None) -> list[Task]:
        """Find what is left under a lease."""
        assert which == TaskFilter(resource_key=which.resource_key, lease_owner=which.lease_owner, done=False)
        asked = (which.resource_key, which.lease_owner, None)
        found = [task for task in self.tasks.values() if (task.resource_key, task.lease_owner, task.outcome) == asked]
        return sorted((task for task in found if task.id > (after or "")), key=lambda task: task.id)[:limit]

    def write(self, writer: str, steps: Sequence[Transition], locks: Sequence[LockChange] = ()) -> list[Written]:
        """Write all of it, or refuse all of it."""
        if not all(self._fits(step) for step in steps) or not all(self._suits(change) for change in locks):
            self._world.note(writer, "is refused", *self._told(steps, locks))
            return [Written()] * (len(steps) + len(locks))
        ids = [step.before.id for step in steps]
        assert len(set(ids)) == len(ids), f"a document twice in one write: {ids}"
        version = self._next_version()
        changes = [self._change(step, version) for step in steps]
        stored = [self._lock(change, version) for change in locks]
        self._world.note(writer, "writes", *self._told(steps, locks))
        self._world.wrote(writer, changes, stored)
        return [Written(version)] * (len(steps) + len(locks))

    def put(self, writer: str, task: Task) -> None:
        """Create a task."""
        self.tasks[task.id] = replace(task, version=self._next_version())
        self._world.wrote(writer, [Change(None, self.tasks[task.id])], [])

    def drop(self, writer: str, task: Task) -> None:
        """Delete a task."""
        self._world.wrote(writer, [Change(self.tasks.pop(task.id), None)], [])

    def _told(self, steps: Sequence[Transition], locks: Sequence[LockChange]) -> Iterator[str]:
        """Put a write into words, the same in every run: leases have names of their own."""
        for step in steps:
            yield f"{step.before.id} {step.event},"
        for change in locks:
            owners = [None if lock is None else lock.owner for lock in (change.before, change.after)]
            before, after = (owner and self._names.setdefault(owner, f"L{len(self._names)}") for owner in owners)
            yield f"{change.resource_key} {before}->{after}"

    def _next_version(self) -> int:
        self._version = max(self._version + 1, _START + self._world.micros)
        return self._version

    def _fits(self, step: Transition) -> bool:
        stored = self.tasks.get(step.before.id)
        return stored is not None and stored.version == step.before.version

    def _suits(self, change: LockChange) -> bool:
        stored = self.locks.get(change.resource_key)
        if change.before is None or stored is None:
            return change.before is stored
        return stored.version == change.before.version

    def _change(self, step: Transition, version: int) -> Change:
        before = self.tasks[step.before.id]
        self.tasks[before.id] = before.evolve(**{**step.changes, "version": version})
        return Change(before, self.tasks[before.id])

    def _lock(self, change: LockChange, version: int) -> LockChange:
        before = self.locks.pop(change.resource_key, None)
        after = None if change.after is None else replace(change.after, version=version)
        if after is not None:
            self.locks[change.resource_key] = after
        return LockChange(change.resource_key, before, after)


class Wire:
    """The verbs of a `TaskStore` that workers use, as one machine has them: every call is a request and an answer."""

    url, env = "model://", "default"

    def __init__(self, machine: Machine, clock: StoreClock) -> None:
        self._machine, self._world, self._records = machine, machine.world, machine.world.records
        self.clock = clock

    async def open(self) -> None:
        """Nothing has to be opened."""

    async def aclose(self) -> None:
        """Nothing is open."""

    async def now(self) -> Now:
        """Give the bounds of the present."""
        return self.clock.now()

    async def get(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Read tasks."""
        return await self._ask(lambda: [self._records.tasks.get(task_id) for task_id in task_ids])

    async def due(  # the port's
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
        found = await self._ask(lambda: self._records.due(kinds, now, limit, after))
        return [task for task in found if task.resource_key not in without and not generators]

    async def line(
        self, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None = None
    ) -> list[Task]:
        """Read the line of some keys."""
        at, found = await self._ask(lambda: (self._world.micros, self._records.line(resource_keys, now, limit, after)))
        if after is None:
            for key in resource_keys:
                self._world.watcher.read_line(self._machine.name, key, at)
        return found

    async def locks(self, resource_keys: Sequence[str]) -> list[Lock | None]:
        """Read locks."""
        return await self._ask(lambda: [self._records.locks.get(key) for key in resource_keys])

    async def find(self, which: TaskFilter, *, limit: int, after: str | None = None) -> list[Task]:
        """Find tasks."""
        return await self._ask(lambda: self._records.find(which, limit, after))

    async def apply(self, transitions: Sequence[Transition]) -> list[Written]:
        """Write each by itself."""
        name = self._machine.name
        return await self._ask(lambda: [one for step in transitions for one in self._records.write(name, [step])])

    async def commit(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task],
        batch: object | None,
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Write all of it or nothing."""
        assert not creates
        assert batch is None
        if self._world.is_unfit(transitions):
            unfit = Written(error=OncetaskError("the model's store cannot take so much"))
            return await self._ask(lambda: [unfit] * (len(transitions) + len(locks)))
        return await self._ask(lambda: self._records.write(self._machine.name, transitions, locks))

    @asynccontextmanager
    async def watch_due(
        self, kinds: Collection[str], *, limit: int, after: Cursor | None = None
    ) -> AsyncIterator[Feed[list[Task]]]:
        """Watch the front of the due line."""
        with self._world.watching(lambda: self._records.due(kinds, None, limit, after)) as feed:
            yield feed

    async def settings(self, **_: object) -> Settings:
        """Read the settings, which nobody writes."""
        return await self._ask(lambda: Settings({}, 0))

    @asynccontextmanager
    async def watch_settings(self) -> AsyncIterator[Feed[Settings]]:
        """Watch the settings."""
        with self._world.watching(lambda: Settings({}, 0)) as feed:
            yield feed

    @asynccontextmanager
    async def watch_tasks(self, task_ids: Sequence[str]) -> AsyncIterator[Feed[list[Task | None]]]:
        """Watch tasks."""
        with self._world.watching(lambda: [self._records.tasks.get(task_id) for task_id in task_ids]) as feed:
            yield feed

    async def _ask(self, job: Callable[[], T]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._world.send(self._machine, job, answer)
        return await answer


class _Watch:
    """What one watch shows: the newest value there is when it arrives, if it is another one."""

    def __init__(self, world: World, look: Callable[[], Any]) -> None:
        self.feed: Feed[Any] = Feed()
        self._world, self._look = world, look
        self._last: Any = None
        self._is_on_its_way = False

    def stir(self) -> None:
        """See to it that the feed learns of a change."""
        if not self._is_on_its_way:
            self._is_on_its_way = True
            self._world.after(self._world.latency(), self._show)

    def _show(self) -> None:
        self._is_on_its_way = False
        value = self._look()
        if value != self._last:
            self._last = value
            self.feed.put(value)


# -- the machines -----------------------------------------------------------------------------------------------------


class _Clock(StoreClock):
    """What a machine knows of the present: bounds that are true, and apart."""

    def __init__(self, world: World, early: float, late: float) -> None:
        self._world, self._early, self._late = world, timedelta(seconds=early), timedelta(seconds=late)
        self.known = True

    def monotonic(self) -> float:
        """Give the local reading."""
        return self._world.micros / SECOND

    def now(self) -> Now:
        """Give both bounds; the later one comes nearer, and moves away, as answers come fast and slowly."""
        share = self._world.micros // (SECOND // 2) * 7 % 5 / 4
        return Now(self._world.now - self._early, self._world.now + share * self._late)


class Machine(Host):
    """A worker on a machine of its own."""

    def __init__(self, world: World, name: str, knows: tuple[str, ...], lease: float, unsure: float) -> None:
        super().__init__(world, name)
        self.world, self.knows = world, knows
        clock = _Clock(world, world.lots.choice((0.0, unsure)), world.lots.choice((0.0, 0.0, unsure)))
        client = Client(cast("TaskStore", Wire(self, clock)), telemetry=_telemetry())
        app = App(lifespan=lambda: nullcontext(self), retry=FixedDelay(4, 1))
        for kind in knows:
            _REGISTER[kind](app)
        concurrency = world.lots.choice((1, 2, 8))
        self.worker = Worker(app, client, lease=lease, concurrency=concurrency, grace=2, abort_grace=1)
        self.spawn(self.worker.run())


class _Idle:
    """Stands for what of a worker has nothing to do with keys: the watchdog's thread, and the schedules."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def start(self, *_: object) -> Any:
        """Start nothing; may be awaited."""
        return _Nothing()

    def wake(self) -> None:
        """Do nothing."""

    sleep = fall_behind = wake

    async def aclose(self) -> None:
        """Nothing is open."""

    async def keep(self, *_: object) -> None:
        """Keep nothing."""


class _Nothing:
    """May be awaited, or not."""

    def __await__(self) -> Iterator[None]:
        return iter(())


@contextmanager
def _spared() -> Iterator[None]:
    """Let workers begin without it."""
    with patch("oncetask.engine.Watchdog", _Idle), patch("oncetask.engine.Timekeeper", _Idle):
        yield


@cache
def _telemetry() -> Telemetry:
    return Telemetry()


async def _handle(ctx: Context, _: object) -> None:
    machine: Machine = ctx.state
    await machine.world.perform(Run(machine, ctx.tasks))


class Plain(Payload, kind="plain"):
    """Nothing special."""


class Undone(Payload, kind="undone"):
    """Has a cleanup."""


class Strict(Payload, kind="strict"):
    """Keeps its place when it fails."""


class Batch(Payload, kind="batch"):
    """Runs together with others."""


class Short(Payload, kind="short"):
    """Has little time."""


def _undone(app: App) -> None:
    app.handler(Undone)(_handle)
    app.cancellation_handler(Undone)(_handle)


_REGISTER: Mapping[str, Callable[[App], object]] = {
    "plain": lambda app: app.handler(Plain)(_handle),
    "undone": _undone,
    "strict": lambda app: app.handler(Strict, strict_order=True)(_handle),
    "batch": lambda app: app.batch_handler(Batch, max_batch=3)(_handle),
    "short": lambda app: app.handler(Short, timeout=1.5)(_handle),
}


# -- the world --------------------------------------------------------------------------------------------------------


class World(Timeline):
    """Machines and their store, and what goes wrong with them; the same seed gives the same."""

    def __init__(self, profile: Profile, seed: int, watch: Callable[[World], Watcher]) -> None:
        super().__init__(random.Random(f"{profile}{seed}"))  # noqa: S311  # has to be repeatable
        self.profile = profile
        self.is_calm = False
        self._watches: list[_Watch] = []
        self._scripts: dict[str, Iterator[Act]] = {}
        self._until_fault = 0
        self.records = Records(self)
        self.watcher = watch(self)
        self.machines: list[Machine] = []

    # -- what a test does with it

    def run(self) -> None:
        """Live through all of it: things go wrong, then nothing does any more; raise what ought not to be."""
        random.seed(self.lots.random())
        page, crowd = self.lots.choice((2, 20)), self.lots.choice((1, 2, 10))
        with _quiet(self), _spared(), patch("oncetask.keys._PAGE", page), patch("oncetask.waiting._CROWD", crowd):
            try:
                for number, knows in enumerate(self.profile.knows):
                    self._boot(f"w{number}", knows)
                for _ in range(self.profile.tasks):
                    self._enqueue(self.lots.choice(("now", "now", "late")))
                self._wear_on()
                self._calm_down()
            finally:
                self.is_over = True
                for machine in self.machines:
                    machine.loop.end()

    def step(self) -> None:
        """Let one thing happen, or time pass until something can."""
        self.let_happen(self.machines)

    def _wear_on(self) -> None:
        ends = self.profile.seconds * SECOND
        while self.micros < ends:
            self.step()
            self._until_fault -= 1
            if self._until_fault <= 0:
                self._until_fault = self.lots.randrange(2 * self.profile.every)
                self._go_wrong(self.lots.choice(self.profile.faults))

    def _calm_down(self) -> None:
        self.note("-- from here on nothing goes wrong")
        self.is_calm = True
        for machine in self.machines:
            machine.frozen_until = min(machine.frozen_until, self.micros)
        ends = self.micros + _CALM_SECONDS * SECOND
        for _ in range(_MOST_STEPS):
            if self._is_finished():
                break
            assert self.micros < ends, f"after {_CALM_SECONDS} calm seconds these are not done: {self._left()}"
            self.step()
        assert self._is_finished(), f"after {_MOST_STEPS} calm steps these are not done: {self._left()}"
        ends = self.micros + (max(self.profile.leases) + self.profile.unsure + 1) * SECOND
        while self.micros < ends:
            self.step()
        self._look_at_locks()

    def _look_at_locks(self) -> None:
        busy = {task.resource_key for task in self.records.tasks.values() if task.outcome is None}
        held = [lock for lock in self.records.locks.values() if lock.leased_until > self.now]
        assert not [lock for lock in held if lock.resource_key not in busy], f"locks of finished keys: {held}"

    def _is_finished(self) -> bool:
        return not self._left()

    def _left(self) -> list[Task]:
        """Give what ought to be done some day: all but what waits behind a task of a kind that nobody knows."""
        known = {kind for knows in self.profile.knows for kind in knows}
        opened = [task for task in self.records.tasks.values() if task.outcome is None]
        strangers = [task for task in opened if task.kind not in known]
        return [
            task
            for task in opened
            if not any(one.resource_key == task.resource_key and _place(one) <= _place(task) for one in strangers)
        ]

    # -- what machines do

    def send(self, machine: Machine, job: Callable[[], T], answer: asyncio.Future[T]) -> None:
        """Take a request on its way, and its answer back; or only one of these, or neither."""
        there, back, fate = self.latency(), self.latency(), self._fate()
        if fate != "arrives":
            slow = self.lots.random() * 12
            there, back = (there + slow, back) if fate != "slow-answer" else (there, back + slow)
            machine.disturbed(there + back + 1)
        if fate in {"lost", "unsure"}:
            self.after(self.latency() + self.lots.random(), lambda: self._answer(machine, answer, None))
        if fate != "lost":
            self.after(there, lambda: self._arrive(machine, job, answer, back))

    def is_unfit(self, steps: Sequence[Transition]) -> bool:
        """Tell whether a commit is too much for the store; only where it ends a task, which may do without the rest."""
        ends = any(step.after.lease_owner is None for step in steps)
        return ends and not self.is_calm and self.lots.random() < self.profile.unfit

    def _fate(self) -> str:
        if self.is_calm or self.lots.random() >= self.profile.trouble:
            return "arrives"
        return self.lots.choice(("slow", "slow-answer", "lost", "unsure"))

    def _arrive(self, machine: Machine, job: Callable[[], T], answer: asyncio.Future[T], back: float) -> None:
        result = job()
        self.after(back, lambda: self._answer(machine, answer, [result]))

    def _answer(self, machine: Machine, answer: asyncio.Future[T], result: list[T] | None) -> None:
        if machine.is_gone or answer.done():
            return
        if result is None:
            answer.set_exception(StoreUnavailable("the model's"))
        else:
            answer.set_result(result[0])

    def wrote(self, writer: str, tasks: Sequence[Change], locks: Sequence[LockChange]) -> None:
        """Show a write to whoever looks."""
        self.watcher.wrote(writer, tasks, locks)
        for watch in self._watches:
            watch.stir()

    @contextmanager
    def watching(self, look: Callable[[], Any]) -> Iterator[Feed[Any]]:
        """Show something as long as the block runs."""
        watch = _Watch(self, look)
        self._watches.append(watch)
        watch.stir()
        try:
            yield watch.feed
        finally:
            self._watches.remove(watch)

    async def perform(self, run: Run) -> None:
        """Do what a handler does."""
        act = next(self._scripts[run.tasks[0].id], Act(0.0))
        self.note(run.machine.name, "runs", *(task.id for task in run.tasks), act)
        self.watcher.started(run)
        try:
            await asyncio.sleep(act.seconds)
        except asyncio.CancelledError:
            if act.stubborn and not self.is_over:
                run.obeys = False
                await asyncio.sleep(act.stubborn)
            raise
        finally:
            if not self.is_over:
                self.note(run.machine.name, "has run", *(task.id for task in run.tasks))
                self.watcher.ended(run)
        _end(act.ends)

    # -- what goes wrong

    def _go_wrong(self, fault: str) -> None:
        alive = [one for one in self.machines if not one.is_gone]
        if fault == "client" or not alive:
            self._meddle()
            return
        machine = self.lots.choice(alive)
        if fault == "freeze":
            seconds = self.lots.choice((0.5, 2.0, 2.5 * max(self.profile.leases))) * self.lots.random()
            self.note(machine.name, "stands still for", seconds)
            machine.freeze(seconds)
        else:
            self._lose(machine, fault)

    def _lose(self, machine: Machine, fault: str) -> None:
        """Let a worker crash, or stop; some time later there is another one in its place."""
        self.note(machine.name, fault)
        if fault == "crash":
            self._end_of(machine)
        else:
            machine.spawn(machine.worker.stop())
        name = f"{machine.name.partition('.')[0]}.{self.next_number()}"
        self.after(3 + 5 * self.lots.random(), lambda: self._replace(machine, name))

    def _replace(self, machine: Machine, name: str) -> None:
        self._end_of(machine)
        self._boot(name, machine.knows)

    def _end_of(self, machine: Machine) -> None:
        machine.is_gone = True
        self.watcher.lost(machine)

    def _boot(self, name: str, knows: tuple[str, ...]) -> None:
        lease, unsure = self.lots.choice(self.profile.leases), self.lots.random() * self.profile.unsure
        self.machines.append(Machine(self, name, knows, lease, unsure))

    def _meddle(self) -> None:
        """Do what clients do."""
        tasks = list(self.records.tasks.values())
        does = self.lots.choice(self.profile.clients)
        if does in {"now", "late", "early"} or not tasks:
            self._enqueue(does)
            return
        task, now = self.lots.choice(tasks), Now(self.now - timedelta(seconds=1), self.now + timedelta(seconds=1))
        if does == "delete":
            if lifecycle.may_delete(task, now):
                self.note("client deletes", task.id)
                self.records.drop("client", task)
            return
        step = lifecycle.cancel(task, now=now) if does == "cancel" else lifecycle.reset(task, now=now)
        if step is not None:
            self.records.write("client", [step])

    def _enqueue(self, when: str) -> None:
        lots = self.lots
        number = self.next_number()
        created = self.now - timedelta(seconds=lots.choice((0.0, 0.0, 1.0)), microseconds=number)
        shift = {"early": -20.0, "late": 3.0}.get(when, 0.0) * lots.random()
        wait = created + timedelta(seconds=shift)
        kind = lots.choice(self.profile.kinds)
        task = Task(
            id=f"{kind}{number}",
            kind=kind,
            data={},
            resource_key=f"key{lots.randrange(self.profile.keys)}",
            wait_until=wait,
            created_at=created,
            deadline=max(wait, self.now) + timedelta(seconds=0.1 + 8 * lots.random()) if lots.random() < 0.1 else None,
        )
        self._scripts[task.id] = iter([self._act() for _ in range(lots.randrange(1, 4))])
        self.note("client creates", task.id, task.resource_key, f"{shift:+.3f}", task.deadline or "")
        self.records.put("client", task.evolve(due_at=lifecycle.due_at(task)))

    def _act(self) -> Act:
        lots = self.lots
        seconds = lots.choice((0.0, 0.0, 0.05, 0.6, 2.0, 8.0)) * lots.random()
        ends = lots.choice(("returns", "returns", "returns", "raises", "snoozes", "asks", "discards"))
        return Act(seconds, ends, lots.choice((0.0, 0.0, 0.0, self.profile.stubborn)) * lots.random())


def _end(how: str) -> None:
    match how:
        case "raises":
            raise ValueError("the model's")
        case "snoozes":
            raise Snooze(0.7)
        case "asks":
            raise RetryAfter(0.3)
        case "discards":
            raise Discard("the model's")


def _place(task: Task) -> tuple[datetime, datetime, str]:
    return task.wait_until, task.created_at, task.id


@contextmanager
def _quiet(world: World) -> Iterator[None]:
    """Hear of nothing but errors that ought not to be."""

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                world.fail(f"an error was logged: {record.getMessage()}: {record.exc_info[1]!r}")

    logger, heard = logging.getLogger("oncetask"), Heard()
    level, logger.propagate = logger.level, False
    logger.setLevel(logging.ERROR)
    logger.addHandler(heard)
    try:
        yield
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)
        logger.propagate = True
