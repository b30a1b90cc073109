"""Tasks as JSON, for programs: what the command line prints and what the HTTP API answers."""

from __future__ import annotations

import math
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from oncetask.store.document import FIELDS

if TYPE_CHECKING:
    from oncetask.task import Progress, Task, TaskError

__all__ = ["as_json", "iso", "plain"]

_DEEPEST = 300
"""Deeper than any payload or result of ours can be: pydantic's own limit is 254."""


def as_json(task: Task) -> dict[str, Any]:
    """Give a task as its document has it, with its id and status; what is not there is null.

    Instants stay instants, and data is whatever a document holds: `plain` makes JSON of it.
    """
    return {
        "id": task.id,
        "status": task.status,
        **{field: getattr(task, name) for name, field in FIELDS.items()},
        "errors": [_map(error) for error in task.errors],
        "progress": None if task.progress is None else _map(task.progress),
        "readAt": task.read_at,
        "problems": task.problems,
    }


def plain(value: Any, depth: int = _DEEPEST) -> Any:  # whatever a document holds
    """Give what JSON can say of a value: instants in ISO 8601 and UTC, what it has no word for as text.

    `depth`: what lies deeper than so many maps and lists is left out, with an ellipsis instead.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, dict) and depth:
        return {str(key): plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [plain(item, depth - 1) for item in value]
    return "…" if isinstance(value, dict | list | tuple) else repr(value)


def iso(instant: datetime) -> str:
    """Give an instant in UTC, for programs."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _map(record: TaskError | Progress) -> dict[str, Any]:
    """Give the attributes of a record; not `asdict`, which copies what a document holds."""
    return {field.name: getattr(record, field.name) for field in fields(record)}
