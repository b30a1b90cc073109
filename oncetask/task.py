"""The record around a payload: when, how often tried, how it ended. Records are frozen; changes make new ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime  # part of the public types
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TypeVar

from oncetask.clock import EPOCH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncetask.payload import Payload

__all__ = [
    "NO_WAIT",
    "SCHEMA",
    "Outcome",
    "Progress",
    "Receipt",
    "Stats",
    "Task",
    "TaskError",
    "TaskPage",
    "TaskStatus",
    "cut",
    "occurrence_id",
    "place_in_line",
]

P = TypeVar("P", bound="Payload")

NO_WAIT = EPOCH
"""`wait_until` of what goes first: at once, before everything else in the line."""

_LONGEST_MESSAGE_BYTES = 2_048
_LONGEST_PARENT_BYTES = 1_400  # leaves room for an instant in the 1,500 of Firestore's ids

SCHEMA = 1
"""The version of the document's shape that this library writes and understands."""


class Outcome(StrEnum):
    """How a task ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class TaskStatus(StrEnum):
    """Where a task stands; derived from its fields and the time, never stored."""

    WAITING = "waiting"
    """Not due yet."""
    PENDING = "pending"
    """Due, and nobody holds it."""
    LEASED = "leased"
    """A worker runs it, and its lease holds."""
    CANCELLATION_PENDING = "cancellation-pending"
    """Cancelled, and not cleaned up yet."""
    DONE_COMPLETED = "done-completed"
    """Its handler succeeded."""
    DONE_FAILED = "done-failed"
    """No attempts left, discarded, or unreadable."""
    DONE_CANCELLED = "done-cancelled"
    """Cancelled, and cleaned up where there was something to clean up."""
    DONE_EXPIRED = "done-expired"
    """Its deadline passed."""

    @property
    def is_done(self) -> bool:
        """True for the four states that nothing follows but a reset."""
        return self.value.startswith("done-")


_DONE = {outcome: TaskStatus(f"done-{outcome}") for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class TaskError:
    """One failed attempt."""

    at: datetime
    attempt: int
    type: str
    message: str

    @classmethod
    def of(cls, error: BaseException, *, at: datetime, attempt: int) -> Self:
        """Make the entry for an error, whatever its `__str__` does; a long message is cut."""
        return cls.noted(type(error).__name__, _text(error), at=at, attempt=attempt)

    @classmethod
    def noted(cls, name: str, message: str, *, at: datetime, attempt: int) -> Self:
        """Make the entry for something that went wrong; a long message is cut to 2 KiB."""
        return cls(at, attempt, name, cut(message))


def cut(message: str) -> str:
    """Give a text as it is kept: at most 2 KiB of it, and nothing that UTF-8 has no bytes for."""
    raw = message.encode("utf-8", "replace")
    if len(raw) <= _LONGEST_MESSAGE_BYTES:
        return raw.decode()
    return raw[: _LONGEST_MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "…"


def occurrence_id(generator_id: str, instant: datetime) -> str:
    """Give the id of a generator's occurrence at an instant: always the same, so that it is created once."""
    raw = generator_id.encode()
    parent = generator_id if len(raw) <= _LONGEST_PARENT_BYTES else hashlib.sha256(raw).hexdigest()
    return f"{parent}:{instant.astimezone(UTC).isoformat().removesuffix('+00:00')}Z"


def place_in_line(task: Task) -> tuple[datetime, datetime, str]:
    """Give what the tasks of a resource key are ordered by."""
    return task.wait_until, task.created_at, task.id


def _text(error: BaseException) -> str:
    """Give an error's message; a group's with those of its members, which say what was wrong."""
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001  # __str__ is user code, and this failure has to be recorded
        text = f"(no message: its __str__ raised {type(broken).__name__})"
    if isinstance(error, BaseExceptionGroup):
        text += ": " + "; ".join(f"{type(member).__name__}: {_text(member)}" for member in error.exceptions)
    return text


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running handler says it is."""

    fraction: float | None
    message: str | None = None
    data: Any = None
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)  # without slots: a copy of one dictionary is what `evolve` costs
class Task:
    """One task as it was read at `read_at`. Instants are aware UTC datetimes, durations are seconds."""

    id: str
    kind: str
    data: Mapping[str, Any]
    resource_key: str | None = None
    wait_until: datetime
    leased_until: datetime | None = None
    lease_owner: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    done_at: datetime | None = None
    attempts: int = 0
    cancel_attempts: int = 0
    errors: tuple[TaskError, ...] = ()
    result: Any = None
    progress: Progress | None = None
    is_cancelled: bool = False
    cancelled_at: datetime | None = None
    recurrence: Mapping[str, Any] | None = None
    parent_recurrence_id: str | None = None
    occurrence_timestamp: datetime | None = None
    timeout: float | None = None
    deadline: datetime | None = None
    owner: str | None = None
    outcome: Outcome | None = None
    expire_at: datetime | None = None
    due_at: datetime | None = None
    """The next moment at which somebody has to look at this task; None once it is done, or while it is paused."""
    create_id: str | None = None
    """Whose create this was: a repeated create whose first answer got lost knows its own task again."""
    schema: int = SCHEMA
    version: int = 0
    """The store's version of this record; every write depends on it."""
    read_at: datetime = field(default=EPOCH)
    problems: tuple[str, ...] = ()
    """What in the stored document is missing or wrong; the fields named here hold stand-ins."""

    @property
    def status(self) -> TaskStatus:
        """The status as of `read_at`."""
        return self.status_at(self.read_at)

    def status_at(self, now: datetime) -> TaskStatus:
        """Give the status that this record has at `now` (aware) if nobody writes to it."""
        if self.outcome is not None:
            return _DONE[self.outcome]
        if self.lease_owner is not None and self.leased_until is not None and self.leased_until > now:
            return TaskStatus.LEASED
        if self.is_cancelled:
            return TaskStatus.CANCELLATION_PENDING
        if self.due_at is None or self.due_at > now:  # never due: the generator of a paused schedule
            return TaskStatus.WAITING
        return TaskStatus.PENDING

    def evolve(self, **changes: Any) -> Task:
        """Give a copy in which these fields have other values."""
        return Task.of({**self.__dict__, **changes})

    @classmethod
    def of(cls, values: dict[str, Any]) -> Task:
        """Make a record of values for all fields, and keep the dictionary. Raises TypeError for any other names."""
        # What __init__ does with thirty keywords, at a tenth of its price: a worker copies each task several times.
        if len(values) != len(_NAMES):
            msg = f"a Task has other fields: {', '.join(sorted(values.keys() ^ _NAMES))}"
            raise TypeError(msg)
        task = object.__new__(cls)
        object.__setattr__(task, "__dict__", values)
        return task

    def payload(self, model: type[P]) -> P:
        """Read the data as `model`. Raises InvalidPayload where it does not fit."""
        return model.from_data(self.data)


_NAMES = frozenset(field.name for field in fields(Task))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What `enqueue` answers: the task's id, and whether this call created it (False: it existed already)."""

    task_id: str
    created: bool


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Some tasks, and the cursor that continues after them (None: these were the last)."""

    tasks: list[Task]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of tasks by kind and status, as of about one moment; statuses without a task are left out."""

    counts: Mapping[str, Mapping[TaskStatus, int]]

    def total(self, status: TaskStatus | None = None) -> int:
        """Count over all kinds, of one status or of all."""
        return sum(n for by in self.counts.values() for s, n in by.items() if status in {None, s})
