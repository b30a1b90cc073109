"""How a task looks as a document: field names, which of them are null, and what to make of a strange one.

Both stores hold the same fields. A field whose value is None is absent, except `outcome` and `leaseOwner`: those are
null while a task is open or free, so that equality filters find it. `dueAt` is absent, never null, once done.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from oncetask.clock import EPOCH, LONGEST_SECONDS
from oncetask.lock import Lock
from oncetask.payload import is_kind
from oncetask.store.fitting import firestore_holds
from oncetask.task import Outcome, Progress, Task, TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ABSENT", "FIELDS", "INSTANTS", "UNFIT", "decode", "decode_lock", "encode", "encode_changes"]

UNFIT = (TypeError, ValueError, OverflowError, RecursionError)
"""What encoding raises for a value that no document can hold."""


class _Absent:
    """Type of the mark for a field that is to be removed."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()

INSTANTS: Final = {
    "wait_until": "waitUntil",
    "leased_until": "leasedUntil",
    "created_at": "createdAt",
    "started_at": "startedAt",
    "done_at": "doneAt",
    "cancelled_at": "cancelledAt",
    "occurrence_timestamp": "occurrenceTimestamp",
    "deadline": "deadline",
    "expire_at": "expireAt",
    "due_at": "dueAt",
}
_PLAIN: Final = {
    "kind": "kind",
    "resource_key": "resourceKey",
    "lease_owner": "leaseOwner",
    "attempts": "attempts",
    "cancel_attempts": "cancelAttempts",
    "is_cancelled": "isCancelled",
    "parent_recurrence_id": "parentRecurrenceId",
    "timeout": "timeout",
    "owner": "owner",
    "create_id": "createId",
    "schema": "schema",
    "recurrence": "recurrence",
}
_JSON: Final = {"data": "data", "result": "result"}
FIELDS: Final = {
    **_PLAIN,
    **INSTANTS,
    **_JSON,
    "outcome": "outcome",
    "errors": "errors",
    "progress": "progress",
}
"""Attribute of Task -> field of the document; `data` and `result` may stand in `dataJson` and `resultJson`."""

_NULL_WHILE_OPEN = frozenset({"outcome", "leaseOwner"})
_OUTCOMES = tuple(Outcome)


def encode(task: Task) -> dict[str, Any]:
    """Give the fields of a new document; absent ones are left out."""
    fields = encode_changes({name: getattr(task, name) for name in FIELDS})
    return {name: value for name, value in fields.items() if value is not ABSENT}


def encode_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields that a change writes; `ABSENT` for those that it removes."""
    fields: dict[str, Any] = {}
    for name, value in changes.items():
        field = FIELDS[name]
        if name in _JSON:
            plain = value is not None and firestore_holds(value)
            fields[field] = value if plain else ABSENT
            fields[f"{field}Json"] = ABSENT if plain or value is None else json.dumps(value)
        elif value is None:
            fields[field] = None if field in _NULL_WHILE_OPEN else ABSENT
        elif name == "errors":
            fields[field] = [{"at": e.at, "attempt": e.attempt, "type": e.type, "message": e.message} for e in value]
        elif name == "progress":
            fields[field] = _encode_progress(value)
        elif name == "outcome":
            fields[field] = value.value
        else:
            fields[field] = value
    return fields


def decode(task_id: str, fields: Mapping[str, Any], *, version: int, read_at: datetime) -> Task:
    """Read a document, whoever wrote it: what is missing or wrong is told in `problems`, never raised."""
    known = {**_DEFAULTS, "id": task_id, "version": version, "read_at": read_at}
    if None not in map(fields.get, _REQUIRED):
        for field, value in fields.items():
            if value is not None and (read := _READ_BY_FIELD.get(field)) is not None:
                name, check = read
                if (sound := check(value)) is ABSENT:
                    break
                known[name] = sound
        else:
            return Task.of(known)
    return _decode_slowly(known, fields)


def decode_lock(resource_key: str, owner: object, leased_until: object, *, version: int) -> Lock:
    """Read a lock, whoever wrote it: one that makes no sense is nobody's, so that it can be taken over."""
    if isinstance(owner, str) and isinstance(leased_until, datetime) and leased_until.tzinfo is not None:
        return Lock(resource_key=resource_key, owner=owner, leased_until=leased_until, version=version)
    return Lock(resource_key=resource_key, owner="", leased_until=EPOCH, version=version)


def _decode_slowly(known: dict[str, Any], fields: Mapping[str, Any]) -> Task:
    """Read a document in which something is missing, wrong, or written as JSON text; tells what, in order."""
    problems: list[str] = []
    for name, field, check, wanted, default, required in _READ:
        value = fields.get(field)
        if value is None:
            if required:
                problems.append(f"{field}: is missing, must be {wanted}")
            known[name] = default
        else:
            read = check(value)
            if read is ABSENT:
                problems.append(f"{field}: must be {wanted}, not {_short(value)}")
                read = default
            known[name] = read
    for name in _JSON:
        known[name] = _decode_json(name, fields, problems)
    return Task.of({**known, "problems": tuple(problems)})


def _encode_progress(progress: Progress) -> dict[str, Any]:
    parts: dict[str, Any] = {"fraction": progress.fraction, "message": progress.message, "at": progress.at}
    if progress.data is not None:
        if firestore_holds(progress.data):
            parts["data"] = progress.data
        else:
            parts["dataJson"] = json.dumps(progress.data)
    return {key: part for key, part in parts.items() if part is not None}


def _decode_json(name: str, fields: Mapping[str, Any], problems: list[str]) -> Any:  # any JSON
    text = fields.get(f"{name}Json")
    if text is not None:
        try:
            value = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            problems.append(f"{name}Json: must be JSON ({error}), not {_short(text)}")
            return None if name == "result" else {}
    else:
        value = fields.get(name)
    if name == "result":
        return value
    if isinstance(value, dict):
        return value
    if value is None and text is None:
        problems.append(f"{name}: is missing, must be a map")
    else:
        problems.append(f"{name}: must be a map, not {_short(value)}")
    return {}


def _instant(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo is not None:
        try:
            return value if value.tzinfo is UTC else value.astimezone(UTC)
        except OverflowError:  # beyond the years 1 to 9999
            return ABSENT
    return ABSENT


def _text(value: object) -> object:
    return value if isinstance(value, str) and value else ABSENT


def _kind(value: object) -> object:
    return value if is_kind(value) else ABSENT


def _count(value: object) -> object:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else ABSENT


def _flag(value: object) -> object:
    return bool(value) if isinstance(value, int) and value in {0, 1} else ABSENT


def _duration(value: object) -> object:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LONGEST_SECONDS
    return value if fits else ABSENT


def _map(value: object) -> object:
    return value if isinstance(value, dict) else ABSENT


def _outcome(value: object) -> object:
    return Outcome(value) if isinstance(value, str) and value in _OUTCOMES else ABSENT


def _errors(value: object) -> object:
    if not isinstance(value, list):
        return ABSENT
    try:
        errors = tuple(TaskError(e["at"], e["attempt"], e["type"], e["message"]) for e in value)
    except (TypeError, KeyError):
        return ABSENT
    sound = all(
        _instant(e.at) is not ABSENT
        and _count(e.attempt) is not ABSENT
        and isinstance(e.type, str)
        and isinstance(e.message, str)
        for e in errors
    )
    return errors if sound else ABSENT


def _progress(value: object) -> object:
    """Read a progress leniently: that one of its parts is strange must not end a task."""
    if not isinstance(value, dict):
        return ABSENT
    fraction, message, at = value.get("fraction"), value.get("message"), _instant(value.get("at"))
    is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    data = value.get("data")
    if isinstance(text := value.get("dataJson"), str):
        with suppress(ValueError, RecursionError):
            data = json.loads(text)
    return Progress(
        fraction if is_number else None,
        message if isinstance(message, str) else None,
        data,
        at if isinstance(at, datetime) else None,
    )


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes, or lists in lists in lists
        text = f"a {type(value).__name__} beyond all measure"
    return text if len(text) <= 80 else text[:80] + "…"  # noqa: PLR2004  # a line's worth


_READ: tuple[tuple[str, str, Callable[[object], object], str, Any, bool], ...] = (
    ("kind", "kind", _kind, "1 to 100 of the characters a-z 0-9 . _ -", "unreadable", True),
    ("resource_key", "resourceKey", _text, "a text", None, False),
    ("lease_owner", "leaseOwner", _text, "a text", None, False),
    ("attempts", "attempts", _count, "a whole number, 0 or more", 0, False),
    ("cancel_attempts", "cancelAttempts", _count, "a whole number, 0 or more", 0, False),
    ("is_cancelled", "isCancelled", _flag, "true or false", False, False),
    ("parent_recurrence_id", "parentRecurrenceId", _text, "a text", None, False),
    ("timeout", "timeout", _duration, "seconds, more than zero", None, False),
    ("owner", "owner", _text, "a text", None, False),
    ("create_id", "createId", _text, "a text", None, False),
    ("schema", "schema", _count, "a whole number", 1, False),
    ("recurrence", "recurrence", _map, "a map", None, False),
    ("wait_until", "waitUntil", _instant, "a timestamp", EPOCH, True),
    ("leased_until", "leasedUntil", _instant, "a timestamp", None, False),
    ("created_at", "createdAt", _instant, "a timestamp", EPOCH, True),
    ("started_at", "startedAt", _instant, "a timestamp", None, False),
    ("done_at", "doneAt", _instant, "a timestamp", None, False),
    ("cancelled_at", "cancelledAt", _instant, "a timestamp", None, False),
    ("occurrence_timestamp", "occurrenceTimestamp", _instant, "a timestamp", None, False),
    ("deadline", "deadline", _instant, "a timestamp", None, False),
    ("expire_at", "expireAt", _instant, "a timestamp", None, False),
    ("due_at", "dueAt", _instant, "a timestamp", None, False),
    ("outcome", "outcome", _outcome, "null, " + ", ".join(Outcome), None, False),
    ("errors", "errors", _errors, "a list of {at, attempt, type, message}", (), False),
    ("progress", "progress", _progress, "a map", None, False),
)
_DEFAULTS: dict[str, Any] = {name: default for name, _, _, _, default, _ in _READ} | {"result": None, "problems": ()}
_REQUIRED = ("data", *(field for _, field, _, _, _, required in _READ if required))
_READ_BY_FIELD: dict[str, tuple[str, Callable[[object], object]]] = {
    **{field: (name, check) for name, field, check, _, _, _ in _READ},
    "data": ("data", _map),
    "result": ("result", lambda value: value),
    "dataJson": ("data", lambda _: ABSENT),
    "resultJson": ("result", lambda _: ABSENT),
}
"""For documents as we write them; what is not so is read slowly."""
