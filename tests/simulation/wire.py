"""The store as one machine has it: every call is a request and an answer, every notification a message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from oncetask.errors import StoreUnavailable
from oncetask.store import Feed, Settings, Written
from oncetask.store.memory import MemoryStore
from oncetask.task import Task

if TYPE_CHECKING:
    from tests.simulation.machines import Machine

__all__ = ["Wire"]

T = TypeVar("T")

_TELLS_NO_TIME = frozenset({"apply", "delete"})
"""Verbs whose answer carries no time of the store, as Firestore's `BatchWrite`."""


class Wire(MemoryStore):
    """What `World.carry` makes of calls, and `World.show` of notifications."""

    url = "simulated"

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.world.memory, clock=machine.clock)
        self._machine, self._world = machine, machine.world
        self._watches: dict[int, _Watch] = {}

    async def open(self) -> None:
        """Ask for the time, where it is not known."""
        if not self.clock.known:
            await self._ask("open", lambda: None)

    async def aclose(self) -> None:
        """End what is watched."""
        for watch in tuple(self._watches.values()):
            watch.end(StoreUnavailable("the store was closed while it was watched"))

    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        """Send them in two calls sometimes, between which something else may happen."""
        half = len(tasks) // 2
        if not half or self._world.lots.random() < 0.5:
            return await super().create(tasks)
        written: list[Written | None] = []
        for some in (tasks[:half], tasks[half:]):
            try:
                written += await super().create(some)
            except StoreUnavailable as error:
                receipts = [*written, *[None] * (len(tasks) - len(written))]
                raise StoreUnavailable(str(error), receipts=receipts) from error
        return [one for one in written if one is not None]

    async def line(
        self, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None = None
    ) -> list[Task]:
        """Read the line of some keys; from its beginning, that is noted."""
        keys = tuple(resource_keys)

        def read() -> tuple[int, list[Task]]:
            return self._world.micros, self.documents.line(keys, now=now, limit=limit, after=after)

        at, found = await self._ask("line", read)
        if after is None:
            for key in keys:
                self._world.oracle.read_line(self._machine, key, at)
        return found

    async def commit(self, transitions: Any, creates: Any, batch: Any, locks: Any = ()) -> list[Written]:
        """Write all of it or nothing; some of what ends a task is too much for the store, at random."""
        if self._world.is_unfit(transitions):
            unfit = Written(error=self._world.unfit())
            return await self._ask("commit", lambda: [unfit] * (len(transitions) + len(locks)))
        return await super().commit(transitions, creates, batch, locks)

    async def _ask(self, verb: str, job: Callable[[], T]) -> T:
        sent, asked = self._world.micros, self.clock.monotonic()
        answer: asyncio.Future[tuple[datetime, T]] = asyncio.get_running_loop().create_future()
        self._world.carry(self._machine, verb, job, answer)
        store_time, result = await answer
        if verb not in _TELLS_NO_TIME:
            self._machine.heard_the_time(self._world.micros - sent)
            self.clock.observe(store_time, asked=asked)
        return result

    @asynccontextmanager
    async def _watching(self, look: Callable[[], T]) -> AsyncIterator[Feed[T]]:
        await self.open()
        watch, number = _Watch(self._machine, look), self._world.next_number()
        self._watches[number] = watch
        self.documents.listeners.append(watch.stir)
        try:
            watch.stir()
            yield watch.feed
        finally:
            watch.is_open = False
            del self._watches[number]
            self.documents.listeners.remove(watch.stir)


class _Watch:
    """What one watch shows: what there was some time ago, in order, and the newest in the end."""

    def __init__(self, machine: Machine, look: Callable[[], Any]) -> None:
        self.feed: Feed[Any] = Feed()
        self.is_open = True
        self._machine, self._world, self._look = machine, machine.world, look
        self._last: Any = None
        self._is_looking = False
        self._arrives = 0

    def stir(self, _: object = None) -> None:
        """See to it that the feed learns of a change."""
        if self.is_open and not self._is_looking:
            self._is_looking = True
            self._world.after(self._world.hearing(self._machine), self._see)

    def end(self, error: StoreUnavailable) -> None:
        """Show nothing any more."""
        if self.is_open and not self._machine.is_gone:
            self.is_open = False
            self.feed.fail(error)

    def _see(self) -> None:
        self._is_looking = False
        if not self.is_open or self._machine.is_gone:
            return
        value = self._look()
        if (mark := _mark(value)) == self._last and self._world.lots.random() < 0.95:
            return  # else it is told twice
        self._last = mark
        if self._world.is_cut_off(self._machine):
            self.end(StoreUnavailable("the simulated watch broke"))
            return
        delay = self._world.hearing(self._machine)
        self._arrives = max(self._arrives, self._world.micros + int(delay * 1_000_000))
        self._world.after((self._arrives - self._world.micros) / 1_000_000, lambda: self._put(value))

    def _put(self, value: Any) -> None:
        if self.is_open and not self._machine.is_gone:
            self.feed.put(value)


def _mark(value: Any) -> object:
    """Give what tells one value from another."""
    if isinstance(value, Settings):
        return value.version
    return [None if task is None else (task.id, task.version) for task in value]
