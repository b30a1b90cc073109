"""Documents as raw protobuf messages: their names, values and versions.

A version is the document's `update_time` in microseconds, the resolution of every Firestore timestamp.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

from oncetask.clock import from_micros, to_micros
from oncetask.store.document import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncetask.task import Task

__all__ = ["Foreign", "Names", "micros", "read_document", "read_value", "set_micros", "write_fields", "write_value"]

_MICROS = 1_000_000


class Names:
    """The full names of an environment's documents."""

    def __init__(self, database: str, env: str) -> None:
        """`database`: projects/{project}/databases/{database}."""
        self.settings = f"{database}/documents/oncetask/{env}"
        self.parent = self.settings
        self._prefix = f"{self.settings}/onceTasks/"
        self._locks = f"{self.settings}/onceLocks/"

    def task(self, task_id: str) -> str:
        """Give the name of a task's document."""
        return self._prefix + task_id

    def lock(self, resource_key: str) -> str:
        """Give the name of a resource key's lock; a key may hold what a name may not, so it is hashed."""
        return self._locks + hashlib.sha256(resource_key.encode()).hexdigest()

    def task_id(self, name: str) -> str:
        """Give the id of the task that a document of this name holds."""
        return name[len(self._prefix) :]


class Foreign:
    """A value of a type that no field of ours has: a reference, a point, a vector of somebody else's."""

    def __init__(self, kind: str) -> None:
        """`kind`: what Firestore calls the type."""
        self._kind = kind

    def __repr__(self) -> str:
        return f"<{self._kind}>"


def micros(timestamp: Any) -> int:
    """Give the microseconds since 1970 of a protobuf timestamp."""
    number: int = timestamp.seconds * _MICROS + timestamp.nanos // 1_000
    return number


def set_micros(timestamp: Any, number: int) -> None:
    """Set a protobuf timestamp to so many microseconds since 1970."""
    timestamp.seconds, rest = divmod(number, _MICROS)
    timestamp.nanos = rest * 1_000


def read_document(names: Names, document: Any, *, read_time: Any) -> Task:
    """Read a document, whoever wrote it."""
    fields = {field: read_value(document.fields[field]) for field in document.fields}
    return decode(
        names.task_id(document.name),
        fields,
        version=micros(document.update_time),
        read_at=from_micros(micros(read_time)),
    )


def read_value(stored: Any) -> Any:
    """Give the Python value of a protobuf one; of a type unknown here, a `Foreign`."""
    kind = stored.WhichOneof("value_type")
    read = _READERS.get(kind)
    return Foreign(str(kind).removesuffix("_value")) if read is None else read(stored)


def write_value(target: Any, given: object) -> None:  # noqa: C901  # one case for each type
    """Set a protobuf value. Raises TypeError and ValueError for what Firestore cannot hold."""
    match given:
        case None:
            target.null_value = 0
        case bool():
            target.boolean_value = given
        case str():
            target.string_value = given
        case int():
            target.integer_value = given
        case float():
            target.double_value = given
        case datetime():
            set_micros(target.timestamp_value, to_micros(given))
        case bytes():
            target.bytes_value = given
        case dict():
            target.map_value.SetInParent()
            write_fields(target.map_value.fields, given)
        case list() | tuple():
            target.array_value.SetInParent()
            for item in given:
                write_value(target.array_value.values.add(), item)
        case _:
            msg = f"a Firestore document cannot hold {given!r}"
            raise TypeError(msg)


def write_fields(target: Any, fields: Mapping[str, object]) -> None:
    """Set the fields of a protobuf document or map."""
    for name, given in fields.items():
        write_value(target[name], given)


def _read_timestamp(stored: Any) -> datetime | Foreign:
    try:
        return from_micros(micros(stored.timestamp_value))
    except OverflowError:  # no instant of the years 1 to 9999
        return Foreign("timestamp")


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "null_value": lambda _: None,
    "boolean_value": lambda stored: stored.boolean_value,
    "integer_value": lambda stored: stored.integer_value,
    "double_value": lambda stored: stored.double_value,
    "string_value": lambda stored: stored.string_value,
    "bytes_value": lambda stored: stored.bytes_value,
    "timestamp_value": _read_timestamp,
    "array_value": lambda stored: [read_value(item) for item in stored.array_value.values],
    "map_value": lambda stored: {key: read_value(item) for key, item in stored.map_value.fields.items()},
}
