"""Which state follows which: the only policy on states.

Pure functions `(task, event, now) -> Transition`. A `Transition` names the record it depends on and what changes;
the store applies it only if that record is still the newest. Nothing here does I/O, reads a clock or draws lots.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from oncetask.task import NO_WAIT, SCHEMA, Outcome, Task, TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncetask.clock import Now

__all__ = [
    "Step",
    "Transition",
    "claim",
    "complete",
    "due_at",
    "end_cancelled",
    "fail",
    "give_back",
    "give_back_attempt",
    "holds",
    "may_delete",
    "realign",
    "reject",
    "renew",
    "rescue",
    "reset",
    "snooze",
    "triage",
]

_MOST_ERRORS = 10
_LONGEST_MESSAGE_BYTES = 2_048


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of one task that holds only if `before` is still its newest record."""

    event: str
    before: Task
    after: Task
    changes: Mapping[str, Any]


class Step(Enum):
    """What a task that a due query found needs next."""

    CLAIM = auto()
    """Free and due: whoever commits first runs it."""
    RESCUE = auto()
    """Its worker's lease ran out."""
    END_CANCELLED = auto()
    """Cancelled before anybody ran it."""
    REJECT = auto()
    """The record cannot be read."""
    REALIGN = auto()
    """Its `dueAt` does not say what its other fields say."""
    LEAVE = auto()
    """Not due, held by somebody, or not for this version of the library."""


def triage(task: Task, now: Now) -> Step:  # noqa: PLR0911  # one answer for each step
    """Decide what a found task needs. Lenient on the hour of free tasks, strict on leases of others."""
    if task.schema > SCHEMA or task.recurrence is not None:
        return Step.LEAVE
    if task.outcome is None and task.problems:
        return Step.REJECT
    due = due_at(task)
    if due != task.due_at:
        return Step.REALIGN
    if due is None:
        return Step.LEAVE
    if task.lease_owner is not None:
        return Step.RESCUE if due <= now.earliest else Step.LEAVE
    if due > now.latest:
        return Step.LEAVE
    return Step.END_CANCELLED if task.is_cancelled else Step.CLAIM


def due_at(task: Task) -> datetime | None:
    """Give the next moment at which somebody has to look at this task; None once it is done.

    `leased_until` without an owner is nobody's lease: a rescued task keeps its place in the line (`wait_until`), and
    is not looked at before then.
    """
    if task.outcome is not None:
        return None
    if task.lease_owner is not None and task.leased_until is not None:
        return task.leased_until
    due = task.wait_until if task.deadline is None else min(task.wait_until, task.deadline)
    return due if task.leased_until is None else max(due, task.leased_until)


def holds(task: Task | None, lease_id: str) -> bool:
    """Tell whether the lease of this id is still the one on the task."""
    return task is not None and task.outcome is None and task.lease_owner == lease_id


def claim(task: Task, *, lease_id: str, until: datetime, now: Now) -> Transition:
    """Take a free task: from here on an attempt is spent, so that a crash counts as one."""
    return _transition(
        "claimed",
        task,
        lease_owner=lease_id,
        leased_until=until,
        attempts=task.attempts + 1,
        started_at=task.started_at or now.earliest,
    )


def renew(task: Task, *, until: datetime) -> Transition:
    """Hold a leased task for longer."""
    return _transition("renewed", task, leased_until=until)


def complete(task: Task, *, result: object, now: Now) -> Transition:
    """End a task whose handler succeeded. Where a cancel was stored first, the cancel wins."""
    if task.is_cancelled:
        return end_cancelled(task, now=now)
    return _end("completed", task, Outcome.COMPLETED, now, result=result, progress=None)


def fail(task: Task, error: BaseException, *, delay: float | None, now: Now) -> Transition:
    """Record a failed attempt: back to the line after `delay` seconds, or done-failed where that is None."""
    if task.is_cancelled:
        return end_cancelled(task, now=now)
    errors = _with_error(task, error, now)
    if delay is None:
        return _end("failed", task, Outcome.FAILED, now, errors=errors)
    return _free("retried", task, errors=errors, wait_until=_later(now, delay), leased_until=None)


def snooze(task: Task, *, delay: float, now: Now) -> Transition:
    """Put a task back for `delay` seconds at its handler's wish: no attempt is spent."""
    if task.is_cancelled:
        return end_cancelled(task, now=now)
    return _free("snoozed", task, attempts=_one_less(task), wait_until=_later(now, delay), leased_until=None)


def give_back(task: Task) -> Transition:
    """Put an interrupted task back where it was, its attempt unspent."""
    return _free("given-back", task, attempts=_one_less(task), leased_until=None)


def give_back_attempt(task: Task) -> Transition:
    """Give back the attempt only: the handler has not ended, so that nobody else may start before the lease ends."""
    return _transition("attempt-given-back", task, attempts=_one_less(task))


def rescue(task: Task, error: BaseException, *, delay: float | None, now: Now) -> Transition:
    """Free a task whose lease ran out: its place is kept, but nobody looks at it for `delay` seconds.

    None: no attempts left. A cancelled one is free at once, for whoever ends it.
    """
    errors = _with_error(task, error, now)
    if task.is_cancelled:
        return _free("rescued", task, errors=errors, leased_until=None)
    if delay is None:
        return _end("failed", task, Outcome.FAILED, now, errors=errors)
    return _free("rescued", task, errors=errors, leased_until=_later(now, delay))


def end_cancelled(task: Task, *, now: Now) -> Transition:
    """End a cancelled task that has nothing to clean up."""
    return _end("cancelled", task, Outcome.CANCELLED, now)


def reject(task: Task, *, now: Now) -> Transition:
    """End a record that cannot be read, with the reasons."""
    error = TaskError(now.earliest, task.attempts, "UnreadableTask", _cut("; ".join(task.problems)))
    return _end("rejected", task, Outcome.FAILED, now, errors=(*task.errors[1 - _MOST_ERRORS :], error))


def realign(task: Task) -> Transition:
    """Mend a `dueAt` that contradicts the other fields, so that nobody finds the task at the wrong time again."""
    return _transition("realigned", task)


def reset(task: Task, *, now: Now) -> Transition | None:
    """Give a done task a new life, at the end of the line. None: it is not done, so there is nothing to reset.

    Nothing of the last life stays: neither counts, errors and result nor a cancel or a retention date. A deadline
    that has passed goes as well, since the new life could only end at it again.
    """
    if task.outcome is None:
        return None
    return _transition(
        "reset",
        task,
        outcome=None,
        wait_until=now.earliest,
        attempts=0,
        cancel_attempts=0,
        errors=(),
        result=None,
        progress=None,
        is_cancelled=False,
        cancelled_at=None,
        started_at=None,
        done_at=None,
        leased_until=None,
        lease_owner=None,
        expire_at=None,
        deadline=task.deadline if task.deadline and task.deadline > now.earliest else None,
    )


def may_delete(task: Task, now: Now) -> bool:
    """A task that somebody holds is not deleted under his hands: cancel it first."""
    return task.outcome is not None or task.lease_owner is None or _lapsed(task, now)


def _lapsed(task: Task, now: Now) -> bool:
    return task.leased_until is None or task.leased_until <= now.earliest


def _transition(event: str, task: Task, **changes: Any) -> Transition:  # values of Task's fields
    after = task.evolve(**changes)
    due = due_at(after)
    if due is None or due != task.due_at:  # a done one's is removed whatever stands there, rubbish too
        changes["due_at"] = due
        after = after.evolve(due_at=due)
    return Transition(event, task, after, changes)


def _free(event: str, task: Task, **changes: Any) -> Transition:  # values of Task's fields
    if task.is_cancelled:
        changes["wait_until"] = NO_WAIT
    return _transition(event, task, lease_owner=None, **changes)


def _end(event: str, task: Task, outcome: Outcome, now: Now, **changes: Any) -> Transition:  # as above
    return _transition(
        event, task, outcome=outcome, done_at=now.earliest, lease_owner=None, leased_until=None, **changes
    )


def _later(now: Now, delay: float) -> datetime:
    return now.earliest + timedelta(seconds=delay)


def _one_less(task: Task) -> int:
    return max(0, task.attempts - 1)


def _with_error(task: Task, error: BaseException, now: Now) -> tuple[TaskError, ...]:
    entry = TaskError(now.earliest, task.attempts, type(error).__name__, _cut(_text(error)))
    return (*task.errors[1 - _MOST_ERRORS :], entry)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001  # __str__ is user code, and this failure has to be recorded all the same
        return f"(no message: its __str__ raised {type(broken).__name__})"


def _cut(message: str) -> str:
    raw = message.encode("utf-8", "replace")
    if len(raw) <= _LONGEST_MESSAGE_BYTES:
        return raw.decode()
    return raw[: _LONGEST_MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "…"
