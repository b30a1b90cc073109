"""The port's verbs on documents in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from oncetask.clock import Clock, StoreClock, SystemClock
from oncetask.errors import StoreUnavailable
from oncetask.store import Cursor, Feed, Settings, TaskFilter, Written
from oncetask.store.batchless import BatchlessStore
from oncetask.store.memory.documents import Documents, Memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from oncetask.lifecycle import Transition
    from oncetask.lock import Lock, LockChange
    from oncetask.store.memory.documents import Edit
    from oncetask.task import Task, TaskStatus

__all__ = ["MemoryStore"]

T = TypeVar("T")


class MemoryStore(BatchlessStore):
    """Tasks in this process's memory; several of these may share one, as processes share a database.

    Answers come at the next turn of the loop. What calls and answers go through is `_ask` and `_show`, which may be
    overridden: by somebody who lets them be late, say, or fail.
    """

    url = "in memory"
    what = "memory"

    def __init__(self, memory: Memory | None = None, *, env: str = "default", clock: Clock | None = None) -> None:
        """`memory`: left out: one of its own, which runs by `clock`; that left out: this machine's."""
        machine = clock or SystemClock()
        self.documents: Documents = (memory or Memory(machine.wall)).documents(env)
        """What is stored, to be looked at without waiting."""
        self.env = env
        self.clock = StoreClock(machine)
        self._feeds: set[Feed[Any]] = set()

    async def open(self) -> None:
        """Learn the time."""
        self._know_the_time()

    async def aclose(self) -> None:
        """End what is watched. The documents stay."""
        for feed in tuple(self._feeds):
            feed.fail(StoreUnavailable("the store was closed while it was watched"))
        self._feeds.clear()

    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        """Store new tasks, one after the other."""
        return await self._ask("create", lambda: [self.documents.create(task) for task in tasks])

    async def get(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Read by id."""
        return await self._ask("get", lambda: self.documents.get(task_ids))

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
        """Read the beginning of the due line."""
        return await self._ask(
            "due",
            lambda: self.documents.due(
                kinds, now=now, limit=limit, after=after, generators=generators, without=frozenset(without)
            ),
        )

    async def line(
        self, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None = None
    ) -> list[Task]:
        """Read the beginning of the line of some keys."""
        return await self._ask("line", lambda: self.documents.line(resource_keys, now=now, limit=limit, after=after))

    async def locks(self, resource_keys: Sequence[str]) -> list[Lock | None]:
        """Read by key."""
        return await self._ask("locks", lambda: self.documents.locks(resource_keys))

    async def apply(self, transitions: Sequence[Transition]) -> list[Written]:
        """Write each by itself."""
        return await self._ask("apply", lambda: [one for step in transitions for one in self.documents.write([step])])

    async def commit(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task],
        batch: object | None,
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Write all of it, or nothing."""
        if batch is not None:
            self._no_batch()
        return await self._ask("commit", lambda: self.documents.write(transitions, creates, locks))

    async def delete(self, tasks: Sequence[Task]) -> list[Written]:
        """Delete each by itself."""
        return await self._ask("delete", lambda: [self.documents.delete(task) for task in tasks])

    async def find(self, which: TaskFilter, *, limit: int, after: str | None = None) -> list[Task]:
        """Read in the order of ids."""
        return await self._ask("find", lambda: self.documents.find(which, limit=limit, after=after))

    async def count(self, which: TaskFilter) -> int:
        """Count, generators left out."""
        return await self._ask("count", lambda: self.documents.count(which))

    async def stats(self) -> Mapping[str, Mapping[TaskStatus, int]]:
        """Count by kind and status."""
        return await self._ask("stats", self.documents.stats)

    async def settings(self, *, no_older_than: float = 0.0) -> Settings:  # noqa: ARG002  # opening reads none
        """Read the settings."""
        return await self._ask("settings", self.documents.settings)

    async def write_settings(self, before: Settings, changes: Mapping[str, Any]) -> Written:
        """Write the settings."""
        return await self._ask("write_settings", lambda: self.documents.write_settings(before, changes))

    @asynccontextmanager
    async def watch_settings(self) -> AsyncIterator[Feed[Settings]]:
        """Look at the settings after every write."""
        async with self._watching(self.documents.settings) as feed:
            yield feed

    @asynccontextmanager
    async def watch_due(
        self, kinds: Collection[str], *, limit: int, after: Cursor | None = None
    ) -> AsyncIterator[Feed[list[Task]]]:
        """Look at the beginning of the line after every write."""
        async with self._watching(lambda: self.documents.due(kinds, now=None, limit=limit, after=after)) as feed:
            yield feed

    @asynccontextmanager
    async def watch_tasks(self, task_ids: Sequence[str]) -> AsyncIterator[Feed[list[Task | None]]]:
        """Look at the tasks after every write."""
        ids = tuple(task_ids)
        async with self._watching(lambda: self.documents.get(ids)) as feed:
            yield feed

    # -- what may be overridden ---------------------------------------------------------------------------------------

    async def _ask(self, verb: str, job: Callable[[], T]) -> T:  # noqa: ARG002  # for those who override it
        """Do what a verb of the port asks for, at one moment."""
        self._know_the_time()
        await asyncio.sleep(0)
        return job()

    def _show(self, look: Callable[[], None]) -> None:
        """Let somebody who watches look at what has changed."""
        look()

    # -- within -------------------------------------------------------------------------------------------------------

    def _know_the_time(self) -> None:
        self.clock.observe(self.documents.present(), asked=self.clock.monotonic())

    @asynccontextmanager
    async def _watching(self, look: Callable[[], T]) -> AsyncIterator[Feed[T]]:
        await self.open()
        feed: Feed[T] = Feed()
        last: list[object] = []

        def show() -> None:
            if feed in self._feeds:
                value = look()
                if (mark := _mark(value)) not in last:
                    last[:] = [mark]
                    feed.put(value)

        def heard(_: Sequence[Edit]) -> None:
            self._show(show)

        self._feeds.add(feed)
        self.documents.listeners.append(heard)
        try:
            show()
            yield feed
        finally:
            self._feeds.discard(feed)
            self.documents.listeners.remove(heard)


def _mark(value: object) -> object:
    """Give what tells one value from another: the versions of what is in it."""
    if isinstance(value, Settings):
        return value.version
    assert isinstance(value, list)  # noqa: S101  # of tasks
    return [None if task is None else (task.id, task.version) for task in value]
