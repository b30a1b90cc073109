"""The store port around another store: the verbs are its own, and what users put into tasks passes through a codec."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from oncetask.errors import OncetaskError, StoreUnavailable
from oncetask.store import Cursor, Feed, Settings, TaskFilter, TaskStore, Written
from oncetask.store.coding.tasks import Coder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from oncetask.clock import Now
    from oncetask.codec import Codec
    from oncetask.lifecycle import Transition
    from oncetask.lock import Lock, LockChange
    from oncetask.store import Diagnosis
    from oncetask.task import Task, TaskStatus

__all__ = ["CodingStore"]

T = TypeVar("T")
R = TypeVar("R")

_CHUNK = 100


class CodingStore(TaskStore):
    """Another store whose documents hold data, results, progress and messages of errors as a codec gives them.

    Tasks are plain on this side, coded on the other. A task that was never coded is read as it is. One that cannot be
    decoded keeps what is stored in these fields (`SealedMap`, `SealedText`); all verbs work on it, and write them back
    as they are. A transition codes what it changes and leaves the rest of the document alone.
    """

    def __init__(self, inner: TaskStore, codec: Codec) -> None:
        """`inner`: where the documents are; it is opened and closed with this one."""
        self.inner = inner
        self.clock, self.url, self.env = inner.clock, inner.url, inner.env
        self._coder = Coder(codec)

    async def open(self) -> None:
        """Open the inner store."""
        await self.inner.open()

    async def aclose(self) -> None:
        """Close the inner store."""
        await self.inner.aclose()

    async def now(self) -> Now:
        """Ask the inner store."""
        return await self.inner.now()

    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        """Code all of them, then store them; one that cannot be coded fails by itself."""
        coded: list[Task | Written] = []
        for task in tasks:
            made = _tried(self._coder.task, task)
            coded.append(made)
            await _pause_after(len(coded))
        try:
            return _among(coded, await self.inner.create(_fit(coded)))
        except StoreUnavailable as error:
            if not error.receipts:
                raise
            raise StoreUnavailable(str(error), receipts=_among(coded, error.receipts)) from error

    async def get(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Read and decode."""
        return await self._opened_or_none(await self.inner.get(task_ids))

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
        """Read and decode."""
        found = await self.inner.due(kinds, now=now, limit=limit, after=after, generators=generators, without=without)
        return await self._opened(found)

    async def line(
        self, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None = None
    ) -> list[Task]:
        """Read and decode."""
        return await self._opened(await self.inner.line(resource_keys, now=now, limit=limit, after=after))

    async def locks(self, resource_keys: Sequence[str]) -> list[Lock | None]:
        """Ask the inner store: locks hold nothing of users."""
        return await self.inner.locks(resource_keys)

    async def apply(self, transitions: Sequence[Transition]) -> list[Written]:
        """Code what changes; one that cannot be coded fails by itself."""
        coded = list(map(partial(_tried, self._coder.transition), transitions))
        return _among(coded, await self.inner.apply(_fit(coded)))

    async def commit(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task],
        batch: object | None,
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Code what changes and what is new; one that cannot be coded makes all of it impossible."""
        try:
            changes = [self._coder.transition(transition) for transition in transitions]
            tasks = [self._coder.task(task) for task in creates]
        except OncetaskError as error:
            return [Written(error=error)] * (len(transitions) + len(locks))
        return await self.inner.commit(changes, tasks, batch, locks)

    async def delete(self, tasks: Sequence[Task]) -> list[Written]:
        """Ask the inner store, which looks at versions only."""
        return await self.inner.delete(tasks)

    async def find(self, which: TaskFilter, *, limit: int, after: str | None = None) -> list[Task]:
        """Read and decode."""
        return await self._opened(await self.inner.find(which, limit=limit, after=after))

    async def count(self, which: TaskFilter) -> int:
        """Ask the inner store."""
        return await self.inner.count(which)

    async def stats(self) -> Mapping[str, Mapping[TaskStatus, int]]:
        """Ask the inner store."""
        return await self.inner.stats()

    async def settings(self, *, no_older_than: float = 0.0) -> Settings:
        """Ask the inner store: settings hold nothing of users."""
        return await self.inner.settings(no_older_than=no_older_than)

    async def write_settings(self, before: Settings, changes: Mapping[str, Any]) -> Written:
        """Ask the inner store."""
        return await self.inner.write_settings(before, changes)

    def watch_settings(self) -> AbstractAsyncContextManager[Feed[Settings]]:
        """Ask the inner store."""
        return self.inner.watch_settings()

    @asynccontextmanager
    async def watch_due(
        self, kinds: Collection[str], *, limit: int, after: Cursor | None = None
    ) -> AsyncIterator[Feed[list[Task]]]:
        """Watch, and decode what is new."""
        async with self.inner.watch_due(kinds, limit=limit, after=after) as feed:
            yield _OpenedFeed(feed, self._coder)

    @asynccontextmanager
    async def watch_tasks(self, task_ids: Sequence[str]) -> AsyncIterator[Feed[list[Task | None]]]:
        """Watch, and decode what is new."""
        async with self.inner.watch_tasks(task_ids) as feed:
            yield _OpenedFeed(feed, self._coder)

    def new_batch(self) -> Any:
        """Ask the inner store. What users write with it is theirs, and not coded."""
        return self.inner.new_batch()

    def create_in(self, batch: Any, task: Task) -> None:
        """Code it. Raises PayloadTooLarge, and OncetaskError where the codec fails."""
        self.inner.create_in(batch, self._coder.task(task))

    def change_in(self, batch: Any, transitions: Sequence[Transition]) -> None:
        """Code what changes; raises as `create_in`."""
        self.inner.change_in(batch, [self._coder.transition(transition) for transition in transitions])

    async def diagnose(self) -> Sequence[Diagnosis]:
        """Ask the inner store."""
        return await self.inner.diagnose()

    async def _opened(self, tasks: Sequence[Task]) -> list[Task]:
        return [task for task in await self._opened_or_none(tasks) if task is not None]

    async def _opened_or_none(self, tasks: Sequence[Task | None]) -> list[Task | None]:
        opened: list[Task | None] = []
        for task in tasks:
            opened.append(None if task is None else self._coder.opened(task))
            await _pause_after(len(opened))
        return opened


class _OpenedFeed(Feed[list[Any]]):
    """Another feed, decoded: each record once, however often the feed tells of it beside others that change."""

    def __init__(self, inner: Feed[Any], coder: Coder) -> None:
        super().__init__()
        self._inner, self._coder = inner, coder
        self._known: dict[str, Task] = {}

    async def get(self) -> list[Any]:
        tasks = await self._inner.get()
        self._known = {task.id: self._once(task) for task in tasks if task is not None}
        return [None if task is None else self._known[task.id] for task in tasks]

    def _once(self, task: Task) -> Task:
        known = self._known.get(task.id)
        if known is None or known.version != task.version:
            return self._coder.opened(task)
        return known.evolve(read_at=task.read_at)


def _tried(code: Callable[[T], T], item: T) -> T | Written:
    try:
        return code(item)
    except OncetaskError as error:
        return Written(error=error)


def _fit(coded: Sequence[T | Written]) -> list[T]:
    return [one for one in coded if not isinstance(one, Written)]


def _among(coded: Sequence[object], answers: Iterable[R]) -> list[R | Written]:
    """Put the answers to those that could be coded into the places between the others."""
    answer = iter(answers)
    return [one if isinstance(one, Written) else next(answer) for one in coded]


async def _pause_after(number: int) -> None:
    """Let others on this loop have their turn now and then: a payload takes microseconds, thousands take long."""
    if number % _CHUNK == 0:
        await asyncio.sleep(0)
