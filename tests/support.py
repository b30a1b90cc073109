"""What many tests build: a clock that stands still, instants, and tasks with nothing special about them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from oncetask import Context, FixedDelay, Payload
from oncetask.clock import Now, StoreClock
from oncetask.handlers import Handler
from oncetask.lifecycle import Transition, due_at
from oncetask.store import Feed, TaskStore, Written
from oncetask.task import Task

T = TypeVar("T")

T0 = datetime(2030, 1, 1, tzinfo=UTC)
"""The instant around which tests happen; no clock of a machine shows it."""

MICROSECOND = timedelta(microseconds=1)


class FakeClock:
    """Clocks of a machine that stand still until a test sets them."""

    def __init__(self, wall: datetime = T0, monotonic: float = 1_000.0) -> None:
        self.wall_time = wall
        self.reading = monotonic

    def wall(self) -> datetime:
        """Give the time of day that was set."""
        return self.wall_time

    def monotonic(self) -> float:
        """Give the reading that was set."""
        return self.reading

    def advance(self, seconds: float) -> None:
        """Let both clocks run on together."""
        self.wall_time += timedelta(seconds=seconds)
        self.reading += seconds


def at(seconds: float) -> datetime:
    """Give the instant so many seconds after T0."""
    return T0 + timedelta(seconds=seconds)


def exactly(instant: datetime) -> Now:
    """Give a present that is known to the microsecond."""
    return Now(instant, instant)


def between(earliest: datetime, latest: datetime) -> Now:
    """Give a present of which only the bounds are known."""
    return Now(earliest, latest)


def a_task(task_id: str = "greet:1", **fields: Any) -> Task:
    """Give an open, free task, due since T0; `fields` say what is different about it, `due_at` follows from them."""
    given: dict[str, Any] = {
        "kind": "greet",
        "data": {"name": "Ada"},
        "wait_until": T0,
        "created_at": T0,
        "create_id": f"create-{task_id}",
        **fields,
    }
    task = Task(id=task_id, **given)
    return task if "due_at" in fields else replace(task, due_at=due_at(task))


class Greeting(Payload, kind="greet"):
    """What `a_task` is about."""

    name: str


async def greet(_: Context, __: Any) -> None:
    """Do nothing."""


def a_handler(**fields: Any) -> Handler:
    """Give a handler of `a_task`'s kind with nothing special about it; `fields` say what is different."""
    given: dict[str, Any] = {"payload_type": Greeting, "function": greet, "runs_in": "loop", "timeout": 30.0}
    return Handler(**{**given, "retry": FixedDelay(3, 1), "concurrency": None, **fields})


async def stored(store: TaskStore, *tasks: Task) -> list[Task]:
    """Create tasks and give their records, versions included."""
    written = await store.create(tasks)
    assert all(one.applied for one in written)
    return [replace(task, version=one.version or 0) for task, one in zip(tasks, written, strict=True)]


async def follow(store: TaskStore, transition: Transition) -> Task:
    """Apply a transition that nobody competes with, and give the new record."""
    (written,) = await store.apply([transition])
    assert written.applied
    return replace(transition.after, version=written.version or 0)


async def fetch(store: TaskStore, task_id: str) -> Task:
    """Read a task that exists."""
    (task,) = await store.get([task_id])
    assert task is not None
    return task


async def until(feed: Feed[T], condition: Callable[[T], object], *, seconds: float = 20) -> T:
    """Wait for the first value of a feed that fulfils a condition; fail loudly after so many seconds."""
    last: object = "nothing"
    try:
        async with asyncio.timeout(seconds):
            while True:
                last = value = await feed.get()
                if condition(value):
                    return value
    except TimeoutError:
        raise AssertionError(f"no such value within {seconds} s; the last one was {last!r}") from None


def not_none(value: T | None) -> T:
    """Give a value that is there."""
    assert value is not None
    return value


async def commit_one(
    store: TaskStore, transition: Transition, creates: Sequence[Task], batch: object | None
) -> Written:
    """Commit the change of a single task."""
    (written,) = await store.commit([transition], creates, batch)
    return written


class Shift:
    """How far a test has moved a store's time on; several stores may share one."""

    def __init__(self) -> None:
        self.distance = timedelta()

    def advance(self, seconds: float) -> None:
        """Let all of them be so much later at once."""
        self.distance += timedelta(seconds=seconds)

    def of(self, store: TaskStore) -> None:
        """Put a store under this: what decides about its tasks takes its time from `store.clock`."""
        store.clock = _ShiftedClock(store.clock, self)


class _ShiftedClock(StoreClock):
    def __init__(self, clock: StoreClock, shift: Shift) -> None:
        self._own, self._shift = clock, shift
        self.known = True

    def monotonic(self) -> float:
        """Give the local reading."""
        return self._own.monotonic()

    def observe(self, store_time: datetime, *, asked: float) -> None:
        """Learn from an answer."""
        self._own.observe(store_time, asked=asked)

    def now(self) -> Now:
        """Give the store's present, moved on."""
        now = self._own.now()
        return Now(now.earliest + self._shift.distance, now.latest + self._shift.distance)
