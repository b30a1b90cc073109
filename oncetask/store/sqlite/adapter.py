"""The port's verbs on SQLite."""

from __future__ import annotations

import asyncio
import errno
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from oncetask.clock import Clock, StoreClock, SystemClock
from oncetask.errors import OncetaskError, StoreUnavailable
from oncetask.store import Cursor, Feed, Settings, TaskFilter, Written
from oncetask.store.batchless import BatchlessStore
from oncetask.store.sqlite.bell import Bell, FileBell
from oncetask.store.sqlite.connection import Connection, Transaction
from oncetask.store.sqlite.reading import Reader
from oncetask.store.sqlite.watches import Watches
from oncetask.store.sqlite.writing import Undone, Writer
from oncetask.task import Task, TaskStatus

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from oncetask.lifecycle import Transition
    from oncetask.lock import Lock, LockChange

__all__ = ["SqliteStore"]

T = TypeVar("T")
Item = TypeVar("Item")

_CHUNK = 500
_NOT_ALLOWED = "; this user has to be allowed to write to the file, and to make files beside it"
_HINTS = {errno.ENOENT: " (does its folder exist?)", errno.EACCES: _NOT_ALLOWED, errno.EROFS: _NOT_ALLOWED}


class SqliteStore(BatchlessStore):
    """Tasks in one SQLite file, or in memory (`:memory:`, private to this store)."""

    what = "SQLite"

    def __init__(self, path: str, *, env: str = "default", clock: Clock | None = None) -> None:
        """Do no I/O: the file is opened, and created where it is missing, at the first use."""
        self._path = path
        self.env = env
        self.url = "memory://" if path == ":memory:" else f"sqlite:///{quote(path)}"
        self._machine = clock or SystemClock()
        self.clock = StoreClock(self._machine)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._reader = Reader(env, self.clock)
        self._writer = Writer(env)
        self._connection: Connection
        self._watches: Watches

    async def open(self) -> None:
        """Open the file on this loop, once."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                msg = f"this client of {self._path!r} belongs to another event loop: connect() anew for each loop"
                raise OncetaskError(msg)
            self._forget()
            self._loop = loop
        if self._opening is None:
            self._opening = loop.create_task(self._open())
        opening = self._opening
        if not opening.done() or opening.exception() is not None:
            try:
                await asyncio.shield(opening)
            except StoreUnavailable:
                if self._opening is opening:
                    self._opening = None
                raise

    async def _open(self) -> None:
        try:
            bell = Bell() if self._path == ":memory:" else FileBell(self._path)
        except OSError as error:
            hint = _HINTS.get(error.errno or 0, "")
            msg = f"SQLite store {self._path!r} cannot be opened: {error.strerror}: {error.filename!r}{hint}"
            raise StoreUnavailable(msg) from error
        self._connection = Connection(self._path, self._machine, bell)
        await self._connection.open()
        self._watches = Watches(bell, self._connection, self._reader)

    async def aclose(self) -> None:
        """Close the file; the next use opens it again."""
        if self._opening is None or self._loop is not asyncio.get_running_loop():
            return
        await asyncio.wait({self._opening})
        connection = self._forget()
        if connection is not None:
            await connection.aclose()

    def _forget(self) -> Connection | None:
        """Give up what was opened; the connection ends once its jobs are done."""
        opening, self._opening, self._loop = self._opening, None, None
        if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
            return None
        self._connection.end()
        self._watches.end()
        return self._connection

    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        """Insert, a chunk a transaction, so that others get their turn in between."""
        written: list[Written] = []
        for start in range(0, len(tasks), _CHUNK):
            chunk = tasks[start : start + _CHUNK]
            try:
                written += await self._write_each(self._writer.create, self._writer.create_together, chunk)
            except StoreUnavailable as error:
                unknown = [None] * (len(tasks) - len(written))
                raise StoreUnavailable(str(error), receipts=[*written, *unknown]) from error
        return written

    async def get(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Read by id."""
        return await self._read(lambda sql: self._reader.get(sql, task_ids))

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
        """Merge the lines of the kinds."""
        due = partial(
            self._reader.due, kinds=kinds, now=now, limit=limit, after=after, generators=generators, without=without
        )
        return await self._read(due)

    async def line(
        self, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None = None
    ) -> list[Task]:
        """Merge the lines of the keys."""
        return await self._read(lambda sql: self._reader.line(sql, resource_keys, now=now, limit=limit, after=after))

    async def locks(self, resource_keys: Sequence[str]) -> list[Lock | None]:
        """Read by key."""
        return await self._read(lambda sql: self._reader.locks(sql, resource_keys))

    async def apply(self, transitions: Sequence[Transition]) -> list[Written]:
        """Update where the version is still the one that the change came from."""
        if not transitions:
            return []
        return await self._write_each(self._writer.apply, self._writer.apply_together, transitions)

    async def commit(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task],
        batch: object | None,
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Update and insert in one transaction."""
        if batch is not None:
            self._no_batch()
        try:
            return await self._write(
                partial(self._writer.commit, transitions=transitions, creates=creates, locks=locks)
            )
        except Undone as undone:
            return [Written(error=undone.error)] * (len(transitions) + len(locks))

    async def delete(self, tasks: Sequence[Task]) -> list[Written]:
        """Delete where the version is still the one that was read."""
        return await self._write(partial(self._writer.delete, tasks=tasks))

    async def find(self, which: TaskFilter, *, limit: int, after: str | None = None) -> list[Task]:
        """Read in the order of ids."""
        return await self._read(lambda sql: self._reader.find(sql, which, limit=limit, after=after))

    async def count(self, which: TaskFilter) -> int:
        """Count, generators left out."""
        return await self._read(lambda sql: self._reader.count(sql, which))

    async def stats(self) -> Mapping[str, Mapping[TaskStatus, int]]:
        """Count by kind and status in one query."""
        return await self._read(self._reader.stats)

    async def settings(self, *, no_older_than: float = 0.0) -> Settings:  # noqa: ARG002  # opening reads none
        """Read the row of the environment."""
        return await self._read(self._reader.settings)

    async def write_settings(self, before: Settings, changes: Mapping[str, Any]) -> Written:
        """Insert the row, or update it where the version is still the one that was read."""
        return await self._write(partial(self._writer.write_settings, before=before, changes=changes))

    @asynccontextmanager
    async def watch_settings(self) -> AsyncIterator[Feed[Settings]]:
        """Look at the row of the environment again after commits of anybody."""
        await self.open()
        async with self._watches.settings() as feed:
            yield feed

    @asynccontextmanager
    async def watch_due(
        self, kinds: Collection[str], *, limit: int, after: Cursor | None = None
    ) -> AsyncIterator[Feed[list[Task]]]:
        """Look at the beginning of the line again after commits of anybody."""
        await self.open()
        async with self._watches.line(kinds, limit=limit, after=after) as feed:
            yield feed

    @asynccontextmanager
    async def watch_tasks(self, task_ids: Sequence[str]) -> AsyncIterator[Feed[list[Task | None]]]:
        """Look at the tasks again after commits of anybody."""
        await self.open()
        async with self._watches.tasks(task_ids) as feed:
            yield feed

    async def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        await self.open()
        return await self._connection.read(job)

    async def _write(self, job: Callable[[Transaction], T]) -> T:
        await self.open()
        return await self._connection.write(job)

    async def _write_each(
        self,
        each: Callable[[Transaction, Sequence[Item]], list[Written]],
        together: Callable[[Transaction, Sequence[Item]], list[Written] | None],
        items: Sequence[Item],
    ) -> list[Written]:
        await self.open()
        return await self._connection.write_each(each, together, items)
