"""What is written of one environment: every method of `Writer` is a job for a transaction of the connection."""

from __future__ import annotations

import json
import sqlite3
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from oncetask.clock import to_micros
from oncetask.errors import OncetaskError
from oncetask.store import Settings, Written
from oncetask.store.document import UNFIT
from oncetask.store.sqlite.schema import columns_of, insert, row_of, update, update_many, values_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from oncetask.lifecycle import Transition
    from oncetask.lock import LockChange
    from oncetask.store.sqlite.connection import Transaction
    from oncetask.task import Task

__all__ = ["Undone", "Writer"]

T = TypeVar("T")

_CAN_DO_MANY = sqlite3.sqlite_version_info >= (3, 33)  # knows UPDATE ... FROM, and takes more than 999 values
_SIZES = (128, 64, 32, 16, 8, 4, 2, 1)


class Undone(Exception):  # no error: it rolls a job back, for the sake of the one part that does not fit
    """One part of a commit was refused, or is impossible (`error`), and with it all of it."""

    def __init__(self, error: OncetaskError | None) -> None:
        """`error`: None where it was refused."""
        super().__init__()
        self.error = error


class Writer:
    """Writes tasks, locks and settings, each on the version that it was decided from."""

    def __init__(self, env: str) -> None:
        """Write nothing outside of this environment."""
        self._env = env

    def create(self, tx: Transaction, tasks: Sequence[Task]) -> list[Written]:
        """Insert tasks, each by itself."""
        return [self._insert(tx, task) for task in tasks]

    def apply(self, tx: Transaction, transitions: Sequence[Transition]) -> list[Written]:
        """Update tasks, each by itself."""
        return [self._update(tx, transition) for transition in transitions]

    def create_together(self, tx: Transaction, tasks: Sequence[Task]) -> list[Written] | None:
        """Insert tasks in a few statements; None: they cannot be, and what was done has to be undone."""
        if not _CAN_DO_MANY or not _are_different(task.id for task in tasks):
            return None
        rows = [row_of(self._env, task, tx.version) for task in tasks]
        for part in _in_parts(rows):
            if tx.sql.execute(insert(len(part)), list(chain.from_iterable(part))).rowcount != len(part):
                return None
        return [Written(tx.version)] * len(tasks)

    def apply_together(self, tx: Transaction, transitions: Sequence[Transition]) -> list[Written] | None:
        """Update tasks in a few statements; None: they cannot be, and what was done has to be undone."""
        if not _CAN_DO_MANY or not _are_different(transition.before.id for transition in transitions):
            return None
        alike: dict[tuple[str, ...], list[list[Any]]] = {}
        for transition in transitions:
            row = [transition.before.id, transition.before.version, *values_of(transition.changes)]
            alike.setdefault(columns_of(tuple(transition.changes)), []).append(row)
        for columns, rows in alike.items():
            for part in _in_parts(rows):
                values = [tx.version, *chain.from_iterable(part), self._env]
                if tx.sql.execute(update_many(columns, len(part)), values).rowcount != len(part):
                    return None
        return [Written(tx.version)] * len(transitions)

    def commit(
        self, tx: Transaction, transitions: Sequence[Transition], creates: Sequence[Task], locks: Sequence[LockChange]
    ) -> list[Written]:
        """Do all of it, or raise Undone."""
        written = [_required(self._update(tx, transition)) for transition in transitions]
        written += [_required(self._change_lock(tx, change)) for change in locks]
        for task in creates:
            if error := self._insert(tx, task).error:
                raise Undone(error)
        return written

    def delete(self, tx: Transaction, tasks: Sequence[Task]) -> list[Written]:
        """Delete tasks, each by itself."""
        statement = "DELETE FROM tasks WHERE env = ? AND id = ? AND version = ?"
        return [self._run(tx, statement, (self._env, task.id, task.version)) for task in tasks]

    def write_settings(self, tx: Transaction, before: Settings, changes: Mapping[str, Any]) -> Written:
        """Insert the row, or update it where the version is still the one that was read."""
        fields = json.dumps({**before.fields, **changes})
        if before.version:
            statement = "UPDATE settings SET fields = ?, version = ? WHERE env = ? AND version = ?"
            return self._run(tx, statement, (fields, tx.version, self._env, before.version))
        statement = "INSERT INTO settings (fields, version, env) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        return self._run(tx, statement, (fields, tx.version, self._env))

    def _insert(self, tx: Transaction, task: Task) -> Written:
        try:
            written = self._run(tx, insert(1), row_of(self._env, task, tx.version))
        except UNFIT as error:
            return _impossible(error)
        if written.applied:
            return written
        found = tx.sql.execute(
            "SELECT version, createId FROM tasks WHERE env = ? AND id = ?", (self._env, task.id)
        ).fetchone()
        return Written(found[0]) if task.create_id is not None and found[1] == task.create_id else Written()

    def _update(self, tx: Transaction, transition: Transition) -> Written:
        before = transition.before
        try:
            statement = update(columns_of(tuple(transition.changes)))
            values = (*values_of(transition.changes), tx.version, self._env, before.id, before.version)
            return self._run(tx, statement, values)
        except UNFIT as error:
            return _impossible(error)

    def _change_lock(self, tx: Transaction, change: LockChange) -> Written:
        before, after, key = change.before, change.after, change.resource_key
        try:
            if after is None:
                statement = "DELETE FROM locks WHERE env = ? AND resourceKey = ? AND version = ?"
                return self._run(tx, statement, (self._env, key, 0 if before is None else before.version))
            values = (after.owner, to_micros(after.leased_until), tx.version, self._env, key)
            if before is None:
                statement = (
                    "INSERT INTO locks (owner, leasedUntil, version, env, resourceKey) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT DO NOTHING"
                )
                return self._run(tx, statement, values)
            statement = (
                "UPDATE locks SET owner = ?, leasedUntil = ?, version = ? "
                "WHERE env = ? AND resourceKey = ? AND version = ?"
            )
            return self._run(tx, statement, (*values, before.version))
        except UNFIT as error:
            return _impossible(error)

    def _run(self, tx: Transaction, statement: str, values: Sequence[Any]) -> Written:
        """Run a statement that changes one row; refused where it changed none."""
        return Written(tx.version) if tx.sql.execute(statement, values).rowcount else Written()


def _are_different(ids: Iterable[str]) -> bool:
    """Tell whether none of these ids stands there twice: the second write of a task depends on the first."""
    listed = list(ids)
    return len(set(listed)) == len(listed)


def _in_parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut rows into parts of a few sizes, so that SQLite meets the same statements again."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def _required(written: Written) -> Written:
    if not written.applied:
        raise Undone(written.error)
    return written


def _impossible(error: Exception) -> Written:
    return Written(error=OncetaskError(f"SQLite cannot hold this task: {error}"))
