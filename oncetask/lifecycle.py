"""Which state follows which: the only policy on states.

Pure functions `(task, event, now) -> Transition`. A `Transition` names the record it depends on and what changes;
the store applies it only if that record is still the newest. Nothing here does I/O, reads a clock or draws lots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from oncetask.task import NO_WAIT, SCHEMA, Outcome, Progress, Task, TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncetask.clock import Now

__all__ = [
    "Step",
    "Transition",
    "abandon",
    "attempt_of",
    "cancel",
    "claim",
    "clean_up",
    "complete",
    "due_at",
    "end_cancelled",
    "expire",
    "fail",
    "give_back",
    "give_back_attempt",
    "holds",
    "is_cleanup",
    "is_expired",
    "is_overtaken",
    "may_delete",
    "present_for",
    "progressed",
    "realign",
    "reject",
    "release",
    "renew",
    "rescue",
    "reset",
    "snooze",
    "takes_staged",
    "triage",
    "with_progress",
]

_MOST_ERRORS = 10


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
    """Due and held by nobody: whoever commits first runs it, or cleans up after it where it is cancelled."""
    RESCUE = auto()
    """Its worker's lease ran out."""
    END_CANCELLED = auto()
    """Cancelled, held by nobody, and there is nothing to clean up."""
    REJECT = auto()
    """The record cannot be read."""
    REALIGN = auto()
    """Its `dueAt` does not say what its other fields say."""
    LEAVE = auto()
    """Not due, held by somebody, or not for this version of the library."""


def triage(task: Task, now: Now, *, has_cleanup: bool = False) -> Step:  # noqa: PLR0911  # one answer for each step
    """Decide what a found task needs. Lenient on the hour of free tasks, strict on leases of others.

    `has_cleanup`: its kind has a cancellation handler. A generator of occurrences never ran anything, so cancelling
    one leaves nothing to clean up.
    """
    if task.schema > SCHEMA or (task.recurrence is not None and not task.is_cancelled):
        return Step.LEAVE
    if task.outcome is None and task.problems:
        return Step.REJECT
    due = due_at(task)
    if due != task.due_at:
        return Step.REALIGN
    if due is None:
        return Step.LEAVE
    if due > present_for(task, now):
        return Step.LEAVE
    if task.lease_owner is not None and not is_overtaken(task):
        return Step.RESCUE
    if task.is_cancelled and not (has_cleanup and task.recurrence is None):
        return Step.END_CANCELLED
    return Step.CLAIM


def due_at(task: Task) -> datetime | None:
    """Give the next moment at which somebody has to look at this task; None once it is done.

    `leased_until` without an owner is nobody's lease: a rescued task keeps its place in the line (`wait_until`), and
    is not looked at before then. At its deadline a free task ends, so it is looked at then at the latest; but a
    cleanup has to happen also after the deadline.
    """
    if task.outcome is not None:
        return None
    if task.lease_owner is not None and task.leased_until is not None:
        return task.leased_until
    due = task.wait_until if task.leased_until is None else max(task.wait_until, task.leased_until)
    return due if task.deadline is None or task.is_cancelled else min(due, task.deadline)


def present_for(task: Task, now: Now) -> datetime:
    """Give the bound of the present that decides about this task: lenient where it is free, strict where it is held."""
    return now.earliest if _may_still_run(task) else now.latest


def holds(task: Task | None, lease_id: str) -> bool:
    """Tell whether the lease of this id is still the one on the task."""
    return task is not None and task.outcome is None and task.lease_owner == lease_id


def is_cleanup(task: Task) -> bool:
    """Tell whether the lease on this task is, or was, one for cleaning up after its cancellation."""
    return task.is_cancelled and task.cancel_attempts > 0


def is_overtaken(task: Task) -> bool:
    """Tell whether a cancel was stored while the task's own handler held it: whatever comes of that does not count."""
    return task.lease_owner is not None and task.is_cancelled and not is_cleanup(task)


def is_expired(task: Task, deadline: datetime | None, now: Now) -> bool:
    """Tell whether a task is too late to be started. `deadline`: its own, else its handler's.

    It is also where it may not start before then: it was found because of its deadline, not because it is due. And
    one that was claimed as too late stays that. A cleanup is never too late.
    """
    if deadline is None or task.is_cancelled:
        return False
    claimed_late = task.lease_owner is not None and task.started_at is None
    return claimed_late or deadline <= max(now.latest, task.wait_until)


def attempt_of(task: Task) -> int:
    """Give the number of the attempt that was begun last: at the task or, once there was one, at its cleanup."""
    return task.cancel_attempts if is_cleanup(task) else task.attempts


def takes_staged(transition: Transition) -> bool:
    """Tell whether what the handler staged is written together with this: only with its success."""
    return transition.event in {"completed", "cleaned-up"}


def claim(task: Task, *, lease_id: str, until: datetime, now: Now, begins: bool = True) -> Transition:
    """Take a task: from here on an attempt is spent, so that a crash counts as one.

    Of a cancelled task it is an attempt at the cleanup, which are counted by themselves. `begins`: its handler will
    be started; not so where it is too late for that, and only its error handlers are told.
    """
    if task.is_cancelled:
        return _transition("claimed", task, lease_owner=lease_id, **_cleanup_attempt(task, until))
    return _transition(
        "claimed",
        task,
        lease_owner=lease_id,
        leased_until=until,
        attempts=task.attempts + 1,
        started_at=task.started_at or (now.earliest if begins else None),
    )


def renew(task: Task, *, until: datetime) -> Transition:
    """Hold a leased task for longer."""
    return _transition("renewed", task, leased_until=until)


def progressed(task: Task) -> Transition:
    """Write a leased task for nothing but its progress."""
    return _transition("progressed", task)


def with_progress(transition: Transition, told: Progress) -> Transition:
    """Let a write take along what the handler said last. It stays with the task, whatever becomes of it."""
    changes = {**transition.changes, "progress": told}
    return replace(transition, after=transition.after.evolve(progress=told), changes=changes)


def cancel(task: Task, *, now: Now) -> Transition | None:
    """Cancel a task that is not done. None: it is done, or cancelled already.

    A lease stays as it is, so that no cleanup runs beside the live handler; its holder stops the handler.
    """
    if task.outcome is not None or task.is_cancelled:
        return None
    changes: dict[str, Any] = {"is_cancelled": True, "cancelled_at": now.earliest, "wait_until": NO_WAIT}
    if task.lease_owner is None and task.leased_until is not None:
        changes["leased_until"] = None
    return _transition("cancel-requested", task, **changes)


def complete(task: Task, *, result: object, now: Now, has_cleanup: bool = False) -> Transition:
    """End a task whose handler, or cleanup, succeeded. Where a cancel was stored before, the cancel wins."""
    if is_cleanup(task):
        return _end("cleaned-up", task, Outcome.CANCELLED, now)
    if task.is_cancelled:
        return release(task, now=now, has_cleanup=has_cleanup)
    return _end("completed", task, Outcome.COMPLETED, now, result=result)


def fail(
    task: Task,
    error: BaseException,
    *,
    delay: float | None,
    now: Now,
    has_cleanup: bool = False,
    is_alive: bool = False,
) -> Transition:
    """Record a failed attempt: back to the line after `delay` seconds, or done-failed where that is None.

    `is_alive`: the handler ignores its time limit and runs on, so no cleanup may start beside it.
    """
    if is_overtaken(task):
        return abandon(task) if is_alive else release(task, now=now, has_cleanup=has_cleanup)
    event = "cleanup-" if task.is_cancelled else ""
    errors = _with_error(task, error, now)
    if delay is None:
        return _end(f"{event}failed", task, Outcome.FAILED, now, errors=errors)
    return _free(f"{event}retried", task, errors=errors, wait_until=_later(now, delay))


def expire(
    task: Task, error: BaseException, *, began: bool, now: Now, has_cleanup: bool = False, is_alive: bool = False
) -> Transition:
    """End a task whose deadline has passed. `began`: its handler was started; if not, no attempt is spent.

    `is_alive`: as for `fail`.
    """
    if is_overtaken(task):
        return abandon(task) if is_alive else release(task, now=now, has_cleanup=has_cleanup)
    spent: dict[str, Any] = {} if began else _one_attempt_less(task)
    return _end("expired", task, Outcome.EXPIRED, now, errors=_with_error(task.evolve(**spent), error, now), **spent)


def snooze(task: Task, *, delay: float, now: Now, has_cleanup: bool = False) -> Transition:
    """Put a task back for `delay` seconds at its handler's wish: no attempt is spent."""
    if is_overtaken(task):
        return release(task, now=now, has_cleanup=has_cleanup)
    return _free("snoozed", task, **_one_attempt_less(task), wait_until=_later(now, delay))


def give_back(task: Task, *, now: Now, has_cleanup: bool = False) -> Transition:
    """Put an interrupted task back where it was, its attempt unspent."""
    if is_overtaken(task):
        return release(task, now=now, has_cleanup=has_cleanup)
    return _free("given-back", task, **_one_attempt_less(task))


def give_back_attempt(task: Task) -> Transition:
    """Give back the attempt only: the handler has not ended, so that nobody else may start before the lease ends."""
    return _transition("attempt-given-back", task, **_one_attempt_less(task))


def release(task: Task, *, now: Now, has_cleanup: bool) -> Transition:
    """Let go of a task that was cancelled while its handler ran, for whoever cleans up; end it where nobody does."""
    return _free("released", task, wait_until=NO_WAIT) if has_cleanup else end_cancelled(task, now=now)


def clean_up(task: Task, *, until: datetime) -> Transition:
    """Go on from the stopped handler of a cancelled task to its cleanup, under the same lease."""
    return _transition("cleanup-started", task, **_cleanup_attempt(task, until))


def abandon(task: Task) -> Transition:
    """Give up a cancelled task whose handler does not stop: nobody holds it, nobody cleans up before the lease ends."""
    return _transition("abandoned", task, lease_owner=None)


def rescue(task: Task, error: BaseException, *, delay: float | None, now: Now) -> Transition:
    """Free a task whose lease ran out: its place is kept, but nobody looks at it for `delay` seconds.

    None: no attempts left, at the task or, where it is cancelled, at its cleanup.
    """
    errors = _with_error(task, error, now)
    if delay is None:
        event = "cleanup-failed" if task.is_cancelled else "failed"
        return _end(event, task, Outcome.FAILED, now, errors=errors)
    return _free("rescued", task, errors=errors, leased_until=_later(now, delay))


def end_cancelled(task: Task, *, now: Now) -> Transition:
    """End a cancelled task that has nothing to clean up."""
    return _end("cancelled", task, Outcome.CANCELLED, now)


def reject(task: Task, *, now: Now) -> Transition:
    """End a record that cannot be read, with the reasons."""
    error = TaskError.noted("UnreadableTask", "; ".join(task.problems), at=now.earliest, attempt=task.attempts)
    return _end("rejected", task, Outcome.FAILED, now, errors=_kept(task, error))


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
    lapsed = task.leased_until is None or task.leased_until <= now.earliest
    return task.outcome is not None or lapsed or not _may_still_run(task)


def _may_still_run(task: Task) -> bool:
    """Tell whether the lease on a task is somebody's: its owner's, or an abandoned handler's.

    What a rescue leaves behind is nobody's, and a cancel clears that; so only `abandon` leaves one before the first
    attempt at the cleanup.
    """
    abandoned = task.leased_until is not None and task.is_cancelled and not is_cleanup(task)
    return task.lease_owner is not None or abandoned


def _transition(event: str, task: Task, **changes: Any) -> Transition:  # values of Task's fields
    after = task.evolve(**changes)
    due = due_at(after)
    if due is None or due != task.due_at:  # a done one's is removed whatever stands there, rubbish too
        changes["due_at"] = due
        after = after.evolve(due_at=due)
    return Transition(event, task, after, changes)


def _free(event: str, task: Task, **changes: Any) -> Transition:  # values of Task's fields
    return _transition(event, task, **{"lease_owner": None, "leased_until": None, **changes})


def _end(event: str, task: Task, outcome: Outcome, now: Now, **changes: Any) -> Transition:  # as above
    return _transition(
        event, task, outcome=outcome, done_at=now.earliest, lease_owner=None, leased_until=None, **changes
    )


def _later(now: Now, delay: float) -> datetime:
    return now.earliest + timedelta(seconds=delay)


def _cleanup_attempt(task: Task, until: datetime) -> dict[str, Any]:
    return {"leased_until": until, "cancel_attempts": task.cancel_attempts + 1}


def _one_attempt_less(task: Task) -> dict[str, Any]:
    if is_cleanup(task):
        return {"cancel_attempts": task.cancel_attempts - 1}
    return {"attempts": max(0, task.attempts - 1)}


def _with_error(task: Task, error: BaseException, now: Now) -> tuple[TaskError, ...]:
    return _kept(task, TaskError.of(error, at=now.earliest, attempt=attempt_of(task)))


def _kept(task: Task, newest: TaskError) -> tuple[TaskError, ...]:
    return (*task.errors[1 - _MOST_ERRORS :], newest)
