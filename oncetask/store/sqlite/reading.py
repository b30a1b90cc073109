"""What is read of one environment: every method of `Reader` is a job for the connection's thread."""

from __future__ import annotations

import heapq
import itertools
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from oncetask.clock import to_micros
from oncetask.store import Settings
from oncetask.store.sqlite.schema import COLUMNS, lock_of, task_of
from oncetask.task import TaskStatus, place_in_line

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from oncetask.clock import StoreClock
    from oncetask.lock import Lock
    from oncetask.store import Cursor, TaskFilter
    from oncetask.task import Task

__all__ = ["LINE", "Marks", "Reader"]

Marks = list[tuple[str, int | None]]
"""Ids and versions, in order; None where there is no such task."""

_CHUNK = 500
_FAR = 2**62  # no instant lies behind it
_SELECT = f"SELECT {COLUMNS} FROM tasks WHERE env = ?"  # noqa: S608  # names of ours
_FIRST = to_micros(datetime.min.replace(tzinfo=UTC))
_LAST = to_micros(datetime.max.replace(tzinfo=UTC))
# What is no instant has no place in the line: behind it none could be named to go on from.
LINE = (
    f"{_SELECT} AND resourceKey = ? AND outcome IS NULL AND waitUntil <= ? AND (waitUntil, createdAt, id) > (?, ?, ?) "
    f"AND typeof(waitUntil) = 'integer' AND typeof(createdAt) = 'integer' AND createdAt BETWEEN {_FIRST} AND {_LAST} "
    "ORDER BY waitUntil, createdAt, id LIMIT ?"
)
# The keys as one value: there may be more of them than a statement may have parameters.
_WITHOUT = " AND (resourceKey IS NULL OR recurrence IS NOT NULL OR resourceKey NOT IN (SELECT value FROM json_each(?)))"
_STATUS = """
    CASE WHEN outcome IN ('completed', 'failed', 'cancelled', 'expired') THEN 'done-' || outcome
         WHEN leaseOwner IS NOT NULL AND leasedUntil > :now THEN 'leased'
         WHEN isCancelled THEN 'cancellation-pending'
         WHEN dueAt IS NULL OR dueAt > :now THEN 'waiting'
         ELSE 'pending' END
"""  # as Task.status_at says; the contract suite holds the two together


class Reader:
    """Reads tasks, and less than tasks where less will do."""

    def __init__(self, env: str, clock: StoreClock) -> None:
        """`clock` says when something was read."""
        self._env = env
        self._clock = clock

    def read_at(self) -> datetime:
        """Give the `Task.read_at` of what is read from now on."""
        return self._clock.now().earliest

    def get(self, sql: sqlite3.Connection, task_ids: Collection[str]) -> list[Task | None]:
        """Read tasks by id, in the order of the ids."""
        return self._get(sql, task_ids, self.read_at())

    def versions(self, sql: sqlite3.Connection, task_ids: Collection[str]) -> dict[str, int]:
        """Read the versions of those that exist."""
        ordered, found = list(task_ids), dict[str, int]()
        for start in range(0, len(ordered), _CHUNK):
            part = ordered[start : start + _CHUNK]
            places = ", ".join("?" * len(part))
            query = f"SELECT id, version FROM tasks WHERE env = ? AND id IN ({places})"  # noqa: S608  # question marks
            found.update(sql.execute(query, (self._env, *part)))
        return found

    def at_marks(
        self, sql: sqlite3.Connection, marks: Marks, known: Mapping[str, Task], read_at: datetime
    ) -> list[Task | None]:
        """Give the tasks of marks that were read in this transaction; whole rows only where `known` has other versions.

        `read_at`: as it was before the transaction.
        """
        stale = {i for i, version in marks if version is not None and not _holds(known, i, version)}
        tasks = dict(zip(stale, self._get(sql, stale, read_at), strict=True))
        for i, version in marks:
            if version is not None and i not in tasks:
                tasks[i] = known[i].evolve(read_at=read_at)
        return [tasks.get(i) for i, _ in marks]

    def due(
        self,
        sql: sqlite3.Connection,
        kinds: Collection[str],
        *,
        now: datetime,
        limit: int,
        after: Cursor | None,
        generators: bool,
        without: Collection[str],
    ) -> list[Task]:
        """Read the beginning of the due line."""
        read_at, until = self.read_at(), to_micros(now)
        rows = self._due_line(
            sql, COLUMNS, kinds, until=until, limit=limit, after=after, generators=generators, without=without
        )
        return [task_of(row[1:], read_at) for row in rows]

    def line(
        self, sql: sqlite3.Connection, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None
    ) -> list[Task]:
        """Merge the lines of the keys; each is an index that is read only as far as the merge goes."""
        read_at = self.read_at()
        start = (_FIRST - 1, 0, "")
        if after is not None:
            start = (to_micros(after.wait_until), to_micros(after.created_at), after.id)
        until = to_micros(now)
        lines = [
            (task_of(row, read_at) for row in sql.execute(LINE, (self._env, key, until, *start, limit)))
            for key in set(resource_keys)
        ]
        merged = heapq.merge(*lines, key=place_in_line)
        return list(itertools.islice(merged, limit))

    def locks(self, sql: sqlite3.Connection, resource_keys: Sequence[str]) -> list[Lock | None]:
        """Read locks, in the order of the keys."""
        query = "SELECT resourceKey, owner, leasedUntil, version FROM locks WHERE env = ? AND resourceKey = ?"
        rows = (sql.execute(query, (self._env, key)).fetchone() for key in resource_keys)
        return [None if row is None else lock_of(*row) for row in rows]

    def front(self, sql: sqlite3.Connection, kinds: Collection[str], *, limit: int, after: Cursor | None) -> Marks:
        """Tell which tasks stand first in the line, due or not."""
        rows = self._due_line(sql, "id, version", kinds, until=_FAR, limit=limit, after=after)
        return [(row[1], row[2]) for row in rows]

    def find(self, sql: sqlite3.Connection, which: TaskFilter, *, limit: int, after: str | None) -> list[Task]:
        """Read tasks in the order of ids."""
        read_at = self.read_at()
        where, values = _where(which)
        rows = sql.execute(f"{_SELECT}{where} AND id > ? ORDER BY id LIMIT ?", (self._env, *values, after or "", limit))
        return [task_of(row, read_at) for row in rows]

    def count(self, sql: sqlite3.Connection, which: TaskFilter) -> int:
        """Count tasks, generators left out."""
        where, values = _where(which)
        query = f"SELECT count(*) FROM tasks WHERE env = ? AND recurrence IS NULL{where}"  # noqa: S608  # ours
        return int(sql.execute(query, (self._env, *values)).fetchone()[0])

    def settings(self, sql: sqlite3.Connection) -> Settings:
        """Read the settings of the environment."""
        row = sql.execute("SELECT fields, version FROM settings WHERE env = ?", (self._env,)).fetchone()
        return Settings({}, 0) if row is None else Settings(_fields(row[0]), row[1])

    def stats(self, sql: sqlite3.Connection) -> dict[str, dict[TaskStatus, int]]:
        """Count by kind and status in one query."""
        query = f"SELECT kind, {_STATUS}, count(*) FROM tasks WHERE env = :env GROUP BY 1, 2"  # noqa: S608  # ours
        counts: dict[str, dict[TaskStatus, int]] = {}
        for kind, status, n in sql.execute(query, {"now": to_micros(self.read_at()), "env": self._env}):
            counts.setdefault(str(kind), {})[TaskStatus(status)] = n
        return counts

    def _due_line(
        self,
        sql: sqlite3.Connection,
        columns: str,
        kinds: Collection[str],
        *,
        until: int,
        limit: int,
        after: Cursor | None,
        generators: bool = False,
        without: Collection[str] = (),
    ) -> Iterator[tuple[Any, ...]]:
        """Merge the lines of the kinds; each is an index that is read only as far as the merge goes."""
        query = f"SELECT dueAt, {columns} FROM tasks WHERE env = ? AND kind = ? AND dueAt <= ? AND (dueAt, id) > (?, ?)"  # noqa: S608  # names of ours
        query += " AND recurrence IS NOT NULL" if generators else ""
        query += _WITHOUT if without else ""
        excluded = [json.dumps(list(without))] if without else []
        start = (-_FAR, "") if after is None else (to_micros(after.due_at), after.task_id)
        lines = [
            sql.execute(f"{query} ORDER BY dueAt, id LIMIT ?", (self._env, kind, until, *start, *excluded, limit))
            for kind in set(kinds)
        ]
        return itertools.islice(heapq.merge(*lines, key=lambda row: row[:2]), limit)

    def _get(self, sql: sqlite3.Connection, task_ids: Collection[str], read_at: datetime) -> list[Task | None]:
        rows = (sql.execute(f"{_SELECT} AND id = ?", (self._env, i)).fetchone() for i in task_ids)
        return [None if row is None else task_of(row, read_at) for row in rows]


def _holds(known: Mapping[str, Task], task_id: str, version: int) -> bool:
    return task_id in known and known[task_id].version == version


def _fields(text: object) -> Mapping[str, Any]:
    """Read the settings, whoever wrote them: what is no map counts as none."""
    try:
        fields = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _where(which: TaskFilter) -> tuple[str, Sequence[object]]:
    given = which.equal
    # Generators are few and have an index of their own; the plus keeps SQLite from taking that of all of a kind.
    clauses = [f" AND {'+' if which.generators else ''}{name} = ?" for name in given]
    if which.generators:
        clauses.append(" AND recurrence IS NOT NULL")
    if which.done is not None:
        clauses.append(f" AND outcome IS {'NOT ' if which.done else ''}NULL")
    return "".join(clauses), list(given.values())
