"""What the stores themselves can do: the same documents, in the same batches, through the bare client, and no engine.

Nothing is run between a claim and its completion, nobody else is thought of, and what is refused ends the benchmark.
Otherwise it is what a worker has to do: create, query what is due, claim on the version that was read, complete on
the version of the claim. As a worker's, one call takes the ends of some tasks and the claims of the next ones along.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from google.cloud.firestore import AsyncClient
from google.cloud.firestore_v1 import FieldFilter, types
from google.cloud.firestore_v1._helpers import encode_dict

from oncetask.clock import StoreClock, SystemClock
from oncetask.enqueueing import new_task
from oncetask.ids import new_id
from oncetask.payload import Payload
from oncetask.store.document import encode
from oncetask.store.sqlite.schema import COLUMNS, insert, prepare, row_of
from oncetask.task import Task

__all__ = ["firestore", "sqlite"]

T = TypeVar("T")

_CREATES = 500
_READS = 500
_LANES = 2
_LEASE = timedelta(seconds=60)
_ENV = "floor"
_FIRST_VERSION = 1_000_000
_DUE = f"SELECT {COLUMNS} FROM tasks WHERE env = ? AND kind = ? AND dueAt <= ? ORDER BY dueAt, id LIMIT ?"  # noqa: S608  # ours
_CLAIM = (
    "UPDATE tasks SET leaseOwner = ?, leasedUntil = ?, dueAt = ?, attempts = 1, startedAt = ?, version = ? "
    "WHERE env = ? AND id = ? AND version = ?"
)
_END = (
    "UPDATE tasks SET outcome = 'completed', doneAt = ?, leaseOwner = NULL, leasedUntil = NULL, dueAt = NULL, "
    "version = ? WHERE env = ? AND id = ? AND version = ?"
)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _new(payloads: Sequence[Payload]) -> list[Task]:
    now = StoreClock(SystemClock()).now()
    return [new_task(payload, {}, now, place=place) for place, payload in enumerate(payloads)]


async def firestore(project: str, payloads: Sequence[Payload], *, batch: int) -> dict[str, float]:
    """Create, claim and complete by the asynchronous client, in two calls at a time with `batch` tasks each."""
    client = AsyncClient(project=project)
    try:
        return await _Firestore(client, batch).measure(payloads)
    finally:
        client.close()  # type: ignore[no-untyped-call]  # Google ships no types for it


class _Firestore:
    def __init__(self, client: AsyncClient, batch: int) -> None:
        self._client, self._batch = client, batch
        self._tasks = client.collection("oncetask", "floor", "onceTasks")
        self._found: list[Any] = []
        self._seen: set[str] = set()
        self._reading = asyncio.Lock()
        self._completed = 0

    async def measure(self, payloads: Sequence[Payload]) -> dict[str, float]:
        started = time.perf_counter()
        chunks = iter(list(_chunks(_new(payloads), _CREATES)))

        async def create() -> None:
            for chunk in chunks:
                await self._write([self._creation(task) for task in chunk])

        await asyncio.gather(*(create() for _ in range(_LANES)))
        enqueued = time.perf_counter()
        await asyncio.gather(*(self._lane(payloads[0].kind) for _ in range(_LANES)))
        drained = time.perf_counter()
        if self._completed != len(payloads):
            sys.exit(f"the floor completed {self._completed} of {len(payloads)} tasks: its figures mean nothing")
        rates = (enqueued - started, drained - enqueued)
        return dict(
            zip(("enqueue_per_second", "drain_per_second"), (len(payloads) / taken for taken in rates), strict=True)
        )

    async def _lane(self, kind: str) -> None:
        """Claim some and complete those before, until there is nothing left."""
        held: list[tuple[str, Any]] = []
        while True:
            found = await self._next(kind)
            if not found and not held:
                return
            now = datetime.now(UTC)
            writes = [self._end(name, version, now) for name, version in held]
            writes += [self._claim(snapshot, now) for snapshot in found]
            versions = await self._write(writes)
            self._completed += len(held)
            names = (snapshot.reference._document_path for snapshot in found)  # noqa: SLF001  # the client's only full name
            held = list(zip(names, versions[len(held) :], strict=True))

    async def _next(self, kind: str) -> list[Any]:
        async with self._reading:
            if len(self._found) < self._batch:
                due = (
                    self._tasks.where(filter=FieldFilter("kind", "==", kind))
                    .where(filter=FieldFilter("dueAt", "<=", datetime.now(UTC)))
                    .order_by("dueAt")
                    .limit(_READS)
                )
                fresh = [snapshot async for snapshot in due.stream() if snapshot.id not in self._seen]
                self._seen.update(snapshot.id for snapshot in fresh)
                self._found += fresh
            found, self._found = self._found[: self._batch], self._found[self._batch :]
            return found

    async def _write(self, writes: list[types.Write]) -> list[Any]:
        request = {"database": self._client._database_string, "writes": writes}  # noqa: SLF001  # as the client itself
        answer = await self._client._firestore_api.batch_write(  # noqa: SLF001  # it has no public road to it
            request=request,
            metadata=self._client._rpc_metadata,  # noqa: SLF001  # as above
        )
        if failed := [status for status in answer.status if status.code]:
            sys.exit(
                f"the floor was refused {len(failed)} writes, the first with {failed[0]}: its figures mean nothing"
            )
        return [result.update_time for result in answer.write_results]

    def _creation(self, task: Task) -> types.Write:
        name = self._tasks.document(task.id)._document_path  # noqa: SLF001  # as above
        document = types.Document(name=name, fields=encode_dict(encode(task)))
        return types.Write(update=document, current_document=types.Precondition(exists=False))

    def _claim(self, snapshot: Any, now: datetime) -> types.Write:
        until = now + _LEASE
        fields = {"leaseOwner": new_id(), "leasedUntil": until, "dueAt": until, "attempts": 1, "startedAt": now}
        name = snapshot.reference._document_path  # noqa: SLF001  # as above
        return self._update(name, fields, list(fields), snapshot.update_time)

    def _end(self, name: str, version: Any, now: datetime) -> types.Write:
        fields = {"outcome": "completed", "doneAt": now, "leaseOwner": None}
        return self._update(name, fields, [*fields, "leasedUntil", "dueAt"], version)

    @staticmethod
    def _update(name: str, fields: dict[str, Any], mask: list[str], version: Any) -> types.Write:
        return types.Write(
            update=types.Document(name=name, fields=encode_dict(fields)),
            update_mask=types.DocumentMask(field_paths=mask),
            current_document=types.Precondition(update_time=version),
        )


def sqlite(path: str, payloads: Sequence[Payload], *, batch: int) -> dict[str, float]:
    """Create, claim and complete in a file of SQLite, with the same tables; `batch` tasks a transaction."""
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        prepare(sql, path)
        started = time.perf_counter()
        for version, chunk in enumerate(_chunks(_new(payloads), _CREATES), 1):
            with _transaction(sql):
                sql.executemany(insert(1), [row_of(_ENV, task, version) for task in chunk])
        enqueued = time.perf_counter()
        completed = _drain(sql, payloads[0].kind, batch)
        drained = time.perf_counter()
    if completed != len(payloads):
        sys.exit(f"the floor completed {completed} of {len(payloads)} tasks: its figures mean nothing")
    return {
        "enqueue_per_second": len(payloads) / (enqueued - started),
        "drain_per_second": len(payloads) / (drained - enqueued),
    }


def _drain(sql: sqlite3.Connection, kind: str, batch: int) -> int:
    """Claim and complete all there is; gives the number."""
    completed, held, found = 0, list[tuple[str, int]](), list[tuple[str, int]]()
    for version in itertools.count(_FIRST_VERSION):
        now = time.time_ns() // 1_000
        if not found:
            holding = {task_id for task_id, _ in held}
            found = [row[:2] for row in sql.execute(_DUE, (_ENV, kind, now, _READS)) if row[0] not in holding]
        claimed, found = found[:batch], found[batch:]
        if not claimed and not held:
            break
        until = now + _LEASE // timedelta(microseconds=1)
        ends = [(now, version, _ENV, task_id, old) for task_id, old in held]
        claims = [(new_id(), until, until, now, version, _ENV, task_id, old) for task_id, old in claimed]
        with _transaction(sql):
            changed = [sql.executemany(_END, ends).rowcount, sql.executemany(_CLAIM, claims).rowcount]
        if sum(number for number in changed if number > 0) != len(claimed) + len(held):
            sys.exit("the floor was refused writes: its figures mean nothing")
        completed += len(held)
        held = [(task_id, version) for task_id, _ in claimed]
    return completed


@contextmanager
def _transaction(sql: sqlite3.Connection) -> Iterator[None]:
    sql.execute("BEGIN IMMEDIATE")
    yield
    sql.execute("COMMIT")
