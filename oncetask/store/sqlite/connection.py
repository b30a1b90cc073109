"""One thread that owns the connection, and commits whatever is waiting in one transaction.

`synchronous = FULL` makes a commit cost a disk flush, so writers that wait at the same time share one: bare batches
of 100 do thirty times the rate of single commits.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import tenacity

from oncetask.clock import Clock, to_micros
from oncetask.departing import Departure
from oncetask.errors import OncetaskError, StoreUnavailable
from oncetask.store.sqlite.bell import Bell
from oncetask.store.sqlite.schema import prepare
from oncetask.threads import in_thread

__all__ = ["Connection", "Transaction"]

T = TypeVar("T")
Item = TypeVar("Item")

_BUSY_SECONDS = 5.0
_PATIENCE_SECONDS = 20.0
_MOST_JOBS = 1_000
_ADVICE = {
    "SQLITE_NOTADB": "it is no SQLite database, or its beginning is damaged: name another file, or restore a backup",
    "SQLITE_CORRUPT": "the file is damaged: keep it, and restore a backup or what `sqlite3 FILE .recover` finds in it",
    "SQLITE_CANTOPEN": "it has to be a file that this user may write to, in a folder where he may make others",
    "SQLITE_READONLY": "this user has to be allowed to write to the file, and to make files beside it",
    "SQLITE_FULL": "make room on its disk, and it works again",
    "SQLITE_IOERR": "the disk failed, or a limit of this process's was reached: its system's log may tell more",
}
"""What would help, by the beginning of SQLite's name for the error."""

Together = Callable[[Any, Sequence[Any]], list[Any] | None]
"""Does for many items at once what is asked for; None: it cannot, and what it has done is to be undone."""


@dataclass(slots=True)
class Transaction:
    """What a writing job gets: the connection, and the version of everything that this transaction writes."""

    sql: sqlite3.Connection
    version: int


@dataclass(slots=True)
class _Job(Generic[T]):
    run: Callable[[Any], T]
    writes: bool
    future: asyncio.Future[T]
    together: Together | None = None
    items: Sequence[Any] = ()
    result: T | None = None
    error: BaseException | None = None


class Connection:
    """A thread with an SQLite connection; jobs are callables that run on it."""

    def __init__(self, path: str, clock: Clock, bell: Bell) -> None:
        """`bell` is rung on the thread after each transaction, and closed with the connection."""
        self._path = path
        self._clock = clock
        self._bell = bell
        self._jobs: queue.SimpleQueue[list[_Job[Any]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Job[Any]] = []
        self._departure = Departure(self._depart)
        self._thread = threading.Thread(target=self._serve, name="oncetask-sqlite", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_passing),
            wait=tenacity.wait_random_exponential(multiplier=0.01, max=1),
            stop=tenacity.stop_after_delay(_PATIENCE_SECONDS),
            reraise=True,
        )

    async def open(self) -> None:
        """Start the thread and open the database. Raises StoreUnavailable that names the file."""
        self._thread.start()
        await self._opened

    def end(self) -> None:
        """Run what is waiting, then close the database and end the thread."""
        self._depart()
        self._jobs.put(None)

    async def aclose(self) -> None:
        """Wait until the thread has ended."""
        await in_thread(self._thread.join)

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job that only reads."""
        return await self._submit(job, writes=False)

    async def write(self, job: Callable[[Transaction], T]) -> T:
        """Run a job in a transaction, together with others that are waiting; returns once it is on the disk."""
        return await self._submit(job, writes=True)

    async def write_each(
        self,
        each: Callable[[Transaction, Sequence[Item]], list[T]],
        together: Callable[[Transaction, Sequence[Item]], list[T] | None],
        items: Sequence[Item],
    ) -> list[T]:
        """The same for items that do not depend on each other, together with others that wait for the same.

        A statement costs less than the way to it, so `together` is tried first: it gets the items of several calls,
        and does them in few. Where it cannot, `each` does those of every call by itself.
        """
        return await self._submit(lambda tx: each(tx, items), writes=True, together=together, items=items)

    def _submit(
        self,
        job: Callable[[Any], T],
        *,
        writes: bool,
        together: Together | None = None,
        items: Sequence[Any] = (),
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(_Job(job, writes, future, together, items))
        self._departure.join()
        return future

    def _depart(self) -> None:
        """Hand over what is waiting, as one."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._jobs.put(waiting)

    def _serve(self) -> None:
        try:
            sql = self._patiently(self._connect)
        except StoreUnavailable as error:
            self._bell.close()
            self._answer(_set, self._opened, None, error)
            return
        self._answer(_set, self._opened, None, None)
        while jobs := self._take():
            writes = [job for job in jobs if job.writes]
            if writes:
                self._transact(sql, writes)
            for job in jobs:
                if not job.writes:
                    self._attempt(job, sql)
            self._answer(_settle, jobs)
        sql.close()
        self._bell.close()

    def _take(self) -> list[_Job[Any]]:
        """Wait for jobs and take all that are there by then; none: it is time to end."""
        first = self._jobs.get()
        jobs = [] if first is None else first
        while first is not None and len(jobs) < _MOST_JOBS:
            try:
                following = self._jobs.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._jobs.put(None)
                break
            jobs += following
        return jobs

    def _transact(self, sql: sqlite3.Connection, jobs: list[_Job[Any]]) -> None:
        try:
            self._patiently(lambda: self._write_all(sql, jobs))
        except StoreUnavailable as error:
            for job in jobs:
                job.error = error
        else:
            self._bell.ring()

    def _write_all(self, sql: sqlite3.Connection, jobs: list[_Job[Any]]) -> None:
        sql.execute("BEGIN IMMEDIATE")
        try:
            sql.execute("UPDATE clock SET version = max(version + 1, ?)", (to_micros(self._clock.wall()),))
            (version,) = sql.execute("SELECT version FROM clock").fetchone()
            transaction = Transaction(sql, version)
            for together, some in itertools.groupby(jobs, key=lambda job: job.together):
                alike = list(some)
                if together is None or not self._do_together(transaction, together, alike):
                    self._do_each(transaction, alike)
            sql.execute("COMMIT")
        except BaseException:
            if sql.in_transaction:
                sql.execute("ROLLBACK")
            raise

    def _do_together(self, transaction: Transaction, together: Together, jobs: list[_Job[Any]]) -> bool:
        """Do what these jobs want in one; False: that cannot be done, and nothing was."""
        transaction.sql.execute("SAVEPOINT jobs")
        try:
            results = together(transaction, [item for job in jobs for item in job.items])
        except sqlite3.Error:
            raise
        except Exception:  # noqa: BLE001  # one of them is wrong in itself, and says so when it is done by itself
            results = None
        if results is None:
            transaction.sql.execute("ROLLBACK TO jobs")
        transaction.sql.execute("RELEASE jobs")
        if results is None:
            return False
        answers = iter(results)
        for job in jobs:
            job.result, job.error = list(itertools.islice(answers, len(job.items))), None
        return True

    def _do_each(self, transaction: Transaction, jobs: list[_Job[Any]]) -> None:
        """Do what each of these jobs wants; one that fails leaves nothing."""
        for job in jobs:
            job.result = job.error = None
            transaction.sql.execute("SAVEPOINT job")
            self._attempt(job, transaction)
            if job.error is not None:
                transaction.sql.execute("ROLLBACK TO job")
            transaction.sql.execute("RELEASE job")

    def _attempt(self, job: _Job[Any], argument: object) -> None:
        try:
            job.result = job.run(argument)
        except sqlite3.Error as error:
            if job.writes:
                raise  # the disk's or the file's fault, so the whole transaction's
            job.error = self._unavailable(error)
        except Exception as error:  # noqa: BLE001  # handed to whoever awaits the job
            job.error = error

    def _connect(self) -> sqlite3.Connection:
        sql = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        sql.text_factory = partial(str, encoding="utf-8", errors="replace")  # one bad row must not fail a query for all
        try:
            prepare(sql, self._path)
        except BaseException:
            sql.close()
            raise
        return sql

    def _patiently(self, action: Callable[[], T]) -> T:
        """Repeat what failed because another process held the lock; wrap what fails for good."""
        try:
            return self._retrying(action)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: sqlite3.Error) -> OncetaskError:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        advice = next((f"; {text}" for prefix, text in _ADVICE.items() if name.startswith(prefix)), "")
        wrapped = StoreUnavailable(f"SQLite store {self._path!r}: {error} ({name}){advice}")
        wrapped.__cause__ = error
        return wrapped

    def _answer(self, callback: Callable[..., object], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *arguments)


def _is_passing(error: BaseException) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return isinstance(error, sqlite3.OperationalError) and name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _settle(jobs: list[_Job[Any]]) -> None:
    for job in jobs:
        _set(job.future, job.result, job.error)


def _set(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
