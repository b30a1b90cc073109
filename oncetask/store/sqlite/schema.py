"""The tables: the fields of the document as columns, instants as whole microseconds, values as JSON text."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from oncetask.clock import from_micros, to_micros
from oncetask.errors import StoreUnavailable
from oncetask.lock import Lock
from oncetask.store.document import ABSENT, FIELDS, INSTANTS, decode, decode_lock, encode_changes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oncetask.task import Task

__all__ = [
    "COLUMNS",
    "columns_of",
    "insert",
    "lock_of",
    "prepare",
    "row_of",
    "task_of",
    "update",
    "update_many",
    "values_of",
]

_VERSION = 4
_OURS = {"env", "id", "version", "kind", "dueAt"}
"""Columns by which a table is known as ours, of any version."""
_INSTANTS = frozenset(INSTANTS.values())
_IN_RECURRENCE = frozenset({"dtstart", "exdates", "pausedAt"})
_TEXTS = frozenset({"data", "result", "errors", "progress", "recurrence"})
"""Attributes of Task that are kept as JSON text, and the columns for it."""
_FIELDS = (*FIELDS.values(), "dataJson", "resultJson")
_CONVERTED = _INSTANTS | _TEXTS
_IN_TWO = frozenset({"data", "result"})
"""Those for which there is a second column, for what Firestore could not hold as it is."""
COLUMNS = ", ".join(("id", "version", *_FIELDS))
_TYPES = dict.fromkeys(_INSTANTS, "INTEGER") | dict.fromkeys(
    ("attempts", "cancelAttempts", "isCancelled", "schema"), "INTEGER"
)
_CREATE = (
    "CREATE TABLE IF NOT EXISTS tasks (env TEXT NOT NULL, id TEXT NOT NULL, "
    "version INTEGER NOT NULL CHECK (typeof(version) = 'integer'), "
    + ", ".join(f"{name} {_TYPES.get(name, '')}" for name in _FIELDS)
    + ", UNIQUE (env, id))",
    "CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO clock VALUES (1, 0)",
    "CREATE INDEX IF NOT EXISTS due ON tasks (env, kind, dueAt, id) WHERE dueAt IS NOT NULL",
    # A change writes to few indexes, and there where the ones before it did: random places cost most.
    "DROP INDEX IF EXISTS kinds",
    "CREATE INDEX IF NOT EXISTS by_kind ON tasks (env, kind, id)",
    "CREATE INDEX IF NOT EXISTS open ON tasks (env, kind) WHERE outcome IS NULL",
    "CREATE INDEX IF NOT EXISTS keys ON tasks (env, resourceKey, id) WHERE resourceKey IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS owners ON tasks (env, owner, id) WHERE owner IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS parents ON tasks (env, parentRecurrenceId, id) WHERE parentRecurrenceId IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS generators ON tasks (env, kind, dueAt, id) WHERE recurrence IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS schedules ON tasks (env, id) WHERE recurrence IS NOT NULL",
    (
        "CREATE INDEX IF NOT EXISTS lines ON tasks (env, resourceKey, waitUntil, createdAt, id) "
        "WHERE resourceKey IS NOT NULL AND outcome IS NULL"
    ),
    "CREATE TABLE IF NOT EXISTS settings (env TEXT PRIMARY KEY, version INTEGER NOT NULL, fields TEXT NOT NULL)",
    (
        "CREATE TABLE IF NOT EXISTS locks (env TEXT NOT NULL, resourceKey TEXT NOT NULL, owner TEXT NOT NULL, "
        "leasedUntil INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (env, resourceKey))"
    ),
    f"PRAGMA user_version = {_VERSION}",
)


def prepare(connection: sqlite3.Connection, name: str) -> None:
    """Bring a database, new or old, to the schema of this version.

    Refuses one from the future, and one in which `tasks` is a table of somebody else's, before anything is written to
    it: already the journal mode is.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        msg = f"{name} has schema version {version}, this oncetask knows {_VERSION}: use a newer oncetask for it"
        raise StoreUnavailable(msg)
    columns = {column for _, column, *_ in connection.execute("PRAGMA table_info(tasks)")}
    if not columns.issuperset(_OURS) and (columns or version):
        msg = f"{name} is an SQLite database of something else: give oncetask a file of its own"
        raise StoreUnavailable(msg)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if version < _VERSION:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _CREATE:
            connection.execute(statement)
        connection.execute("COMMIT")


def row_of(env: str, task: Task, version: int) -> list[Any]:
    """Give the values that `insert` wants for a new task."""
    row = [env, task.id, version]
    _add_columns(row, {name: task.__dict__[name] for name in FIELDS})
    return row


@lru_cache
def insert(number: int) -> str:
    """Give the statement that stores so many new tasks; those whose ids exist are left out."""
    names = ("env", "id", "version", *columns_of(tuple(FIELDS)))
    rows = ", ".join([f"({', '.join('?' * len(names))})"] * number)
    return f"INSERT INTO tasks ({', '.join(names)}) VALUES {rows} ON CONFLICT (env, id) DO NOTHING"  # noqa: S608  # names of ours


def values_of(changes: Mapping[str, Any]) -> list[Any]:
    """Give the values that a change of a task's attributes writes, for the columns of `columns_of`."""
    values: list[Any] = []
    _add_columns(values, changes)
    return values


@lru_cache
def columns_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """Give the columns that a change of these attributes writes."""
    return tuple(column for name in names for column in encode_changes({name: None}))


@lru_cache
def update(columns: tuple[str, ...]) -> str:
    """Give the statement that changes one task: wants the values, the new version, env, id and old version."""
    assignments = ", ".join(f"{name} = ?" for name in (*columns, "version"))
    return f"UPDATE tasks SET {assignments} WHERE env = ? AND id = ? AND version = ?"  # noqa: S608  # names of ours


@lru_cache
def update_many(columns: tuple[str, ...], number: int) -> str:
    """Give the statement that changes so many tasks: wants the new version, of each id, old version, values; env."""
    assignments = ", ".join(f"{name} = given.column{place}" for place, name in enumerate(columns, 3))
    rows = ", ".join([f"({', '.join('?' * (len(columns) + 2))})"] * number)
    return (
        f"UPDATE tasks SET version = ?{', ' if columns else ''}{assignments} FROM (VALUES {rows}) AS given "  # noqa: S608  # as above
        "WHERE tasks.env = ? AND tasks.id = given.column1 AND tasks.version = given.column2"
    )


def task_of(row: tuple[Any, ...], read_at: datetime) -> Task:
    """Read a row of `COLUMNS`, whoever wrote it."""
    fields: dict[str, Any] = {}
    for name, value in zip(_FIELDS, row[2:], strict=True):
        if value is not None:
            fields[name] = _from_column(name, value) if name in _CONVERTED else value
    return decode(str(row[0]), fields, version=row[1], read_at=read_at)


def lock_of(resource_key: str, owner: object, leased_until: object, version: int) -> Lock:
    """Read a lock, whoever wrote it."""
    return decode_lock(resource_key, owner, _from_column("leasedUntil", leased_until), version=version)


def _add_columns(values: list[Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            values.append(None)
            if name in _IN_TWO:
                values.append(None)
        elif name in INSTANTS:
            values.append(to_micros(value))
        elif name in _TEXTS:
            values += _texts(name, value)
        elif name == "outcome":
            values.append(value.value)
        else:
            values.append(value)


def _texts(name: str, value: Any) -> Iterable[str | None]:  # whatever the attribute holds
    if value == ():  # no errors
        return ("[]",)
    fields = encode_changes({name: value})
    return [None if v is ABSENT else _JSON.encode(v) if field in _TEXTS else v for field, v in fields.items()]


def _from_column(name: str, value: Any) -> Any:  # whatever the column holds
    """Give the field's value; one that cannot be converted stays as it is, for `decode` to name."""
    try:
        if name in _INSTANTS:
            return from_micros(value) if isinstance(value, int) else value
        if name in _TEXTS and isinstance(value, str):
            read = json.loads(value)
            return _with_instants(name, read)
    except (ValueError, OverflowError, RecursionError):
        return value
    return value


def _as_instants(value: Any) -> Any:  # JSON of anybody
    if isinstance(value, list):
        return [_as_instants(item) for item in value]
    return from_micros(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _instant_to_json(value: object) -> int:
    if isinstance(value, datetime):
        return to_micros(value)
    msg = f"{value!r} is not JSON"
    raise TypeError(msg)


_JSON = json.JSONEncoder(default=_instant_to_json)


def _with_instants(name: str, read: Any) -> Any:  # JSON of anybody
    """Turn the `at` of our own structures back into an instant, and whatever is one in a recurrence."""
    if name == "recurrence" and isinstance(read, dict):
        return {key: _as_instants(value) if key in _IN_RECURRENCE else value for key, value in read.items()}
    entries = read if name == "errors" and isinstance(read, list) else [read] if name == "progress" else []
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("at"), int):
            entry["at"] = from_micros(entry["at"])
    return read
