"""The port's verbs on SQLite."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import quote

from oncetask.clock import Clock, StoreClock, SystemClock, to_micros
from oncetask.errors import OncetaskError, StoreUnavailable, Unsupported
from oncetask.store import Cursor, Feed, TaskFilter, TaskStore, Written
from oncetask.store.sqlite.bell import Bell, FileBell
from oncetask.store.sqlite.connection import Connection, Transaction
from oncetask.store.sqlite.schema import COLUMNS, insert_row, task_of, update_of
from oncetask.task import Task, TaskStatus

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from oncetask.lifecycle import Transition

__all__ = ["SqliteStore"]

T = TypeVar("T")

_CHUNK = 500
_FAR = 2**62  # no instant lies behind it
_SELECT = f"SELECT {COLUMNS} FROM tasks WHERE env = ?"  # noqa: S608  # names of ours
_LATER_SECONDS = 1.0
_UNFIT = (TypeError, ValueError, OverflowError, RecursionError)  # what encoding a value raises; not the disk's errors
_STATUS = """
    CASE WHEN outcome IN ('completed', 'failed', 'cancelled', 'expired') THEN 'done-' || outcome
         WHEN leaseOwner IS NOT NULL AND leasedUntil > :now THEN 'leased'
         WHEN isCancelled THEN 'cancellation-pending'
         WHEN dueAt > :now THEN 'waiting'
         ELSE 'pending' END
"""  # as Task.status_at says; the contract suite holds the two together
_log = logging.getLogger("oncetask")


class SqliteStore(TaskStore):
    """Tasks in one SQLite file, or in memory (`:memory:`, private to this store)."""

    def __init__(self, path: str, *, env: str = "default", clock: Clock | None = None) -> None:
        """Do no I/O: the file is opened, and created where it is missing, at the first use."""
        self._path = path
        self.env = env
        self.url = "memory://" if path == ":memory:" else f"sqlite:///{quote(path)}"
        self._machine = clock or SystemClock()
        self.clock = StoreClock(self._machine)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._connection: Connection
        self._bell: Bell

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
            self._bell = Bell() if self._path == ":memory:" else FileBell(self._path)
        except OSError as error:
            msg = f"SQLite store {self._path!r} cannot be opened: {error.strerror} (does its folder exist?)"
            raise StoreUnavailable(msg) from error
        self._connection = Connection(self._path, self._machine, self._bell)
        await self._connection.open()

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
        self._bell.deafen()
        return self._connection

    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        """Insert, a chunk a transaction, so that others get their turn in between."""
        written: list[Written] = []
        for start in range(0, len(tasks), _CHUNK):
            chunk = tasks[start : start + _CHUNK]
            try:
                written += await self._write(partial(self._insert_all, chunk))
            except StoreUnavailable as error:
                unknown = [None] * (len(tasks) - len(written))
                raise StoreUnavailable(str(error), receipts=[*written, *unknown]) from error
        return written

    async def get(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Read by id."""

        def read(sql: sqlite3.Connection) -> list[Task | None]:
            now = self._read_at()
            rows = (sql.execute(f"{_SELECT} AND id = ?", (self.env, i)).fetchone() for i in task_ids)
            return [None if row is None else task_of(row, now) for row in rows]

        return await self._read(read)

    async def due(
        self, kinds: Collection[str], *, now: datetime, limit: int, after: Cursor | None = None
    ) -> list[Task]:
        """Merge the lines of the kinds; each is an index that is read only as far as the merge goes."""
        return await self._read(lambda sql: self._line(sql, kinds, to_micros(now), limit, after))

    async def apply(self, transitions: Sequence[Transition]) -> list[Written]:
        """Update where the version is still the one that the change came from."""
        if not transitions:
            return []
        return await self._write(lambda tx: [self._update(tx, t) for t in transitions])

    async def commit(self, transition: Transition, creates: Sequence[Task], batch: object | None) -> Written:
        """Update and insert in one transaction."""
        if batch is not None:
            self._no_batch()

        def write(tx: Transaction) -> Written:
            written = self._update(tx, transition)
            for task in creates if written.applied else ():
                if error := self._insert(tx, task).error:
                    raise error
            return written

        try:
            return await self._write(write)
        except StoreUnavailable:
            raise
        except OncetaskError as error:  # rolled back, for the sake of the one part that does not fit
            return Written(error=error)

    async def delete(self, tasks: Sequence[Task]) -> list[Written]:
        """Delete where the version is still the one that was read."""

        def write(tx: Transaction) -> list[Written]:
            rows = [
                tx.sql.execute(
                    "DELETE FROM tasks WHERE env = ? AND id = ? AND version = ?",
                    (self.env, task.id, task.version),
                ).rowcount
                for task in tasks
            ]
            return [Written(tx.version) if n else Written() for n in rows]

        return await self._write(write)

    async def find(self, which: TaskFilter, *, limit: int, after: str | None = None) -> list[Task]:
        """Read in the order of ids."""
        where, values = _where(which)
        query = f"{_SELECT}{where} AND id > ? ORDER BY id LIMIT ?"

        def read(sql: sqlite3.Connection) -> list[Task]:
            now = self._read_at()
            return [task_of(row, now) for row in sql.execute(query, (self.env, *values, after or "", limit))]

        return await self._read(read)

    async def count(self, which: TaskFilter) -> int:
        """Count, generators left out."""
        where, values = _where(which)
        query = f"SELECT count(*) FROM tasks WHERE env = ? AND recurrence IS NULL{where}"  # noqa: S608  # ours
        return await self._read(lambda sql: int(sql.execute(query, (self.env, *values)).fetchone()[0]))

    async def stats(self) -> Mapping[str, Mapping[TaskStatus, int]]:
        """Count by kind and status in one query."""
        query = f"SELECT kind, {_STATUS}, count(*) FROM tasks WHERE env = :env GROUP BY 1, 2"  # noqa: S608  # ours

        def read(sql: sqlite3.Connection) -> dict[str, dict[TaskStatus, int]]:
            counts: dict[str, dict[TaskStatus, int]] = {}
            for kind, status, n in sql.execute(query, {"now": to_micros(self._read_at()), "env": self.env}):
                counts.setdefault(str(kind), {})[TaskStatus(status)] = n
            return counts

        return await self._read(read)

    @asynccontextmanager
    async def watch_due(
        self, kinds: Collection[str], *, limit: int, after: Cursor | None = None
    ) -> AsyncIterator[Feed[list[Task]]]:
        """Read the beginning of the line again after each commit of anybody."""
        async with self._watch(
            lambda: self._read(lambda sql: self._line(sql, kinds, _FAR, limit, after)),
            lambda tasks: [(task.id, task.version) for task in tasks],
        ) as feed:
            yield feed

    @asynccontextmanager
    async def watch_task(self, task_id: str) -> AsyncIterator[Feed[Task | None]]:
        """Read the task again after each commit of anybody."""

        async def read() -> Task | None:
            (task,) = await self.get([task_id])
            return task

        async with self._watch(read, lambda task: task and task.version) as feed:
            yield feed

    def new_batch(self) -> NoReturn:
        """There is no write batch of SQLite's."""
        self._no_batch()

    def create_in(self, batch: Any, task: Task) -> NoReturn:  # noqa: ARG002  # the port's signature
        """There is no transaction of Firestore's to join."""
        self._no_batch()

    def _no_batch(self) -> NoReturn:
        msg = "write batches and transactions of the caller's need a Firestore store; this one is SQLite"
        raise Unsupported(msg)

    async def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        await self.open()
        return await self._connection.read(job)

    async def _write(self, job: Callable[[Transaction], T]) -> T:
        await self.open()
        return await self._connection.write(job)

    def _read_at(self) -> datetime:
        return self.clock.now().earliest

    def _insert(self, tx: Transaction, task: Task) -> Written:
        try:
            statement, values = insert_row(self.env, task, tx.version)
            created = tx.sql.execute(statement, values).rowcount
        except _UNFIT as error:
            return _impossible(error)
        if created:
            return Written(tx.version)
        found = tx.sql.execute(
            "SELECT version, createId FROM tasks WHERE env = ? AND id = ?", (self.env, task.id)
        ).fetchone()
        return Written(found[0]) if task.create_id is not None and found[1] == task.create_id else Written()

    def _insert_all(self, tasks: Sequence[Task], tx: Transaction) -> list[Written]:
        return [self._insert(tx, task) for task in tasks]

    def _update(self, tx: Transaction, transition: Transition) -> Written:
        before = transition.before
        try:
            assignments, values = update_of(transition.changes)
            prefix = f"{assignments}, " if assignments else ""
            changed = tx.sql.execute(
                f"UPDATE tasks SET {prefix}version = ? WHERE env = ? AND id = ? AND version = ?",  # noqa: S608  # ours
                (*values, tx.version, self.env, before.id, before.version),
            )
        except _UNFIT as error:
            return _impossible(error)
        return Written(tx.version) if changed.rowcount else Written()

    def _line(
        self, sql: sqlite3.Connection, kinds: Collection[str], until: int, limit: int, after: Cursor | None
    ) -> list[Task]:
        query = f"SELECT dueAt, {COLUMNS} FROM tasks WHERE env = ? AND kind = ? AND dueAt <= ? AND (dueAt, id) > (?, ?)"  # noqa: S608  # names of ours
        start = (-_FAR, "") if after is None else (to_micros(after.due_at), after.task_id)
        lines = [
            sql.execute(f"{query} ORDER BY dueAt, id LIMIT ?", (self.env, kind, until, *start, limit))
            for kind in set(kinds)
        ]
        merged = heapq.merge(*lines, key=lambda row: row[:2])
        now = self._read_at()
        return [task_of(row[1:], now) for row in itertools.islice(merged, limit)]

    @asynccontextmanager
    async def _watch(self, read: Callable[[], Awaitable[T]], mark: Callable[[T], object]) -> AsyncIterator[Feed[T]]:
        await self.open()
        bell, changed, feed = self._bell, asyncio.Event(), Feed[T]()
        bell.listen(changed.set)  # before the first look, so that nothing falls between the two
        following = asyncio.create_task(_follow(feed, changed, read, mark))
        try:
            yield feed
        finally:
            bell.ignore(changed.set)
            following.cancel()
            await asyncio.wait({following})


async def _follow(
    feed: Feed[T], changed: asyncio.Event, read: Callable[[], Awaitable[T]], mark: Callable[[T], object]
) -> None:
    seen: object = object()
    while True:
        changed.clear()
        try:
            value = await read()
        except StoreUnavailable:
            _log.exception("cannot look at what changed; trying again in %s s", _LATER_SECONDS)
            await asyncio.sleep(_LATER_SECONDS)
            continue
        if (now := mark(value)) != seen:
            seen = now
            feed.put(value)
        await changed.wait()


def _impossible(error: Exception) -> Written:
    return Written(error=OncetaskError(f"SQLite cannot hold this task: {error}"))


def _where(which: TaskFilter) -> tuple[str, list[object]]:
    equal = {
        "kind": which.kind,
        "resourceKey": which.resource_key,
        "owner": which.owner,
        "parentRecurrenceId": which.parent,
        "outcome": None if which.outcome is None else which.outcome.value,
    }
    given = {name: value for name, value in equal.items() if value is not None}
    clauses = [f" AND {name} = ?" for name in given]
    if which.done is not None:
        clauses.append(f" AND outcome IS {'NOT ' if which.done else ''}NULL")
    return "".join(clauses), list(given.values())
