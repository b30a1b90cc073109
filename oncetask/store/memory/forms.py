"""How documents look in memory: what is kept of them, and how they are read, whoever wrote them."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import datetime
from typing import TYPE_CHECKING, Any

from oncetask.errors import OncetaskError
from oncetask.store import Written
from oncetask.store.document import ABSENT, decode_lock, encode, encode_changes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncetask.lock import Lock
    from oncetask.store import TaskFilter
    from oncetask.task import Task

__all__ = [
    "changed_fields",
    "copy_of",
    "fits",
    "impossible",
    "lock_fields",
    "lock_of",
    "new_fields",
    "place_of",
]

_MUTABLE = ("data", "result", "recurrence", "progress")
_KEPT_AS_JSON = (*_MUTABLE, "errors")


def copy_of(task: Task, read_at: datetime) -> Task:
    """Give a record to somebody who may change what is inside."""
    inside = {name: deepcopy(value) for name in _MUTABLE if (value := getattr(task, name)) is not None}
    return task.evolve(read_at=read_at, **inside)


def place_of(task_id: str, fields: Mapping[str, Any]) -> tuple[datetime, str] | None:
    """Give a task's place in the due line; None: it has none."""
    due = fields.get("dueAt")
    if isinstance(due, datetime) and due.tzinfo is not None and isinstance(fields.get("kind"), str):
        return due, task_id
    return None


def fits(which: TaskFilter, fields: Mapping[str, Any]) -> bool:
    """Tell whether a document is one of those that are meant."""
    if any(fields.get(name) != value for name, value in which.equal.items()):
        return False
    if which.generators and fields.get("recurrence") is None:
        return False
    return which.done is None or which.done == (fields.get("outcome") is not None)


def new_fields(task: Task) -> dict[str, Any]:
    """Give the document of a new task. Raises `UNFIT`."""
    task.id.encode()
    return _storable(encode(task))


def changed_fields(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give a task's document with changes of its attributes. Raises `UNFIT`."""
    changed = {**fields, **_storable(encode_changes(changes))}
    return {name: value for name, value in changed.items() if value is not ABSENT}


def lock_fields(lock: Lock) -> dict[str, Any]:
    """Give the document of a lock. Raises `UNFIT`."""
    return _storable({"leaseOwner": lock.owner, "leasedUntil": lock.leased_until})


def lock_of(key: str, fields: Mapping[str, Any], version: int) -> Lock:
    """Read a lock, whoever wrote it."""
    return decode_lock(key, fields.get("leaseOwner"), fields.get("leasedUntil"), version=version)


def _storable(fields: dict[str, Any]) -> dict[str, Any]:
    """Copy what goes into a document. Raises `UNFIT`."""
    _JSON.encode(fields).encode()
    return {
        name: deepcopy(value) if name in _KEPT_AS_JSON and value is not ABSENT else value
        for name, value in fields.items()
    }


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if value is ABSENT:
        return ""
    msg = f"{value!r} is not JSON"
    raise TypeError(msg)


_JSON = json.JSONEncoder(default=_as_text, ensure_ascii=False)


def impossible(error: Exception) -> Written:
    """Answer a write of what no document can hold."""
    return Written(error=OncetaskError(f"memory cannot hold this task: {error}"))
