"""The tables: the fields of the document as columns, instants as whole microseconds, values as JSON text."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import TYPE_CHECKING, Any

from oncetask.clock import EPOCH, from_micros, to_micros
from oncetask.errors import StoreUnavailable
from oncetask.lock import Lock
from oncetask.store.document import ABSENT, FIELDS, INSTANTS, decode, encode, encode_changes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncetask.task import Task

__all__ = ["COLUMNS", "insert_row", "lock_of", "prepare", "task_of", "update_of"]

_VERSION = 3
_INSTANTS = frozenset(INSTANTS.values())
_IN_RECURRENCE = frozenset({"dtstart", "exdates", "pausedAt"})
_TEXTS = frozenset({"data", "result", "errors", "progress", "recurrence"})
_FIELDS = (*FIELDS.values(), "dataJson", "resultJson")
COLUMNS = ", ".join(("id", "version", *_FIELDS))
_INSERT = (
    f"INSERT INTO tasks (env, id, version, {', '.join(_FIELDS)}) "  # noqa: S608  # names of ours
    f"VALUES ({', '.join('?' * (len(_FIELDS) + 3))}) ON CONFLICT (env, id) DO NOTHING"
)
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
    "CREATE INDEX IF NOT EXISTS kinds ON tasks (env, kind, outcome, id)",
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
    """Bring a database, new or old, to the schema of this version; refuse one from the future."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        msg = f"{name} has schema version {version}, this oncetask knows {_VERSION}: use a newer oncetask for it"
        raise StoreUnavailable(msg)
    if version < _VERSION:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _CREATE:
            connection.execute(statement)
        connection.execute("COMMIT")


def insert_row(env: str, task: Task, version: int) -> tuple[str, list[Any]]:
    """Give the statement that stores a new task, and its values."""
    fields = encode(task)
    return _INSERT, [env, task.id, version, *(_to_column(name, fields.get(name)) for name in _FIELDS)]


def update_of(changes: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Give the SET part that a change of a task's attributes means, and its values."""
    fields = encode_changes(changes)
    return ", ".join(f"{name} = ?" for name in fields), [_to_column(n, v) for n, v in fields.items()]


def task_of(row: tuple[Any, ...], read_at: datetime) -> Task:
    """Read a row of `COLUMNS`, whoever wrote it."""
    fields: dict[str, Any] = {}
    for name, value in zip(_FIELDS, row[2:], strict=True):
        if value is not None:
            fields[name] = _from_column(name, value)
    return decode(str(row[0]), fields, version=row[1], read_at=read_at)


def lock_of(resource_key: str, owner: object, leased_until: object, version: int) -> Lock:
    """Read a lock, whoever wrote it: one that makes no sense is nobody's, so that it can be taken over."""
    until = _from_column("leasedUntil", leased_until)
    if isinstance(owner, str) and isinstance(until, datetime):
        return Lock(resource_key=resource_key, owner=owner, leased_until=until, version=version)
    return Lock(resource_key=resource_key, owner="", leased_until=EPOCH, version=version)


def _to_column(name: str, value: Any) -> Any:  # whatever the field holds
    if value is None or value is ABSENT:
        return None
    if name in _INSTANTS:
        return to_micros(value)
    if name in _TEXTS:
        return json.dumps(value, default=_instant_to_json)
    return value


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


def _with_instants(name: str, read: Any) -> Any:  # JSON of anybody
    """Turn the `at` of our own structures back into an instant, and whatever is one in a recurrence."""
    if name == "recurrence" and isinstance(read, dict):
        return {key: _as_instants(value) if key in _IN_RECURRENCE else value for key, value in read.items()}
    entries = read if name == "errors" and isinstance(read, list) else [read] if name == "progress" else []
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("at"), int):
            entry["at"] = from_micros(entry["at"])
    return read
