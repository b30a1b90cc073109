"""Which state follows which: the only policy on states.

Pure functions `(task, event, now) -> Transition`. A `Transition` names the record it depends on and what changes;
the store applies it only if that record is still the newest. Nothing here does I/O, reads a clock or draws lots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from oncetask.errors import InvalidRecurrence
from oncetask.lock import Lock, LockChange
from oncetask.recurrence import Recurrence
from oncetask.task import NO_WAIT, SCHEMA, Outcome, Progress, Task, TaskError, occurrence_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oncetask.clock import Now
    from oncetask.recurrence import Plan

__all__ = [
    "DECLARED_BY",
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
    "fence",
    "give_back",
    "give_back_attempt",
    "holds",
    "is_busy",
    "is_cleanup",
    "is_expired",
    "is_foreign",
    "is_generator",
    "is_held",
    "is_open",
    "is_overtaken",
    "is_paused",
    "lock",
    "may_delete",
    "may_have_ended",
    "pause",
    "present_for",
    "progressed",
    "prune",
    "realign",
    "redeclare",
    "reject",
    "release",
    "renew",
    "rescue",
    "reset",
    "resume",
    "rewrite",
    "snooze",
    "spawn",
    "takes_staged",
    "triage",
    "unlock",
    "with_progress",
]

_MOST_ERRORS = 10
_NOBODY = "taken-over"
DECLARED_BY = ("app", "name")
"""Fields of a stored recurrence that say which App declares it in its code, and as what."""
_PAUSED_AT = "pausedAt"
_DECLARED = ("kind", "data", "resource_key", "timeout", "deadline", "owner", "recurrence")
_RULE = ("rrule", "cron", "dtstart", "timezone", "exdates")


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of one task that holds only if `before` is still its newest record."""

    event: str
    before: Task
    after: Task
    changes: Mapping[str, Any]

    def stored(self, version: int) -> Transition:
        """Give the same change, as the store holds it by now."""
        return Transition(self.event, self.before, self.after.evolve(version=version), self.changes)


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
    SPAWN = auto()
    """A generator, which is due: it writes the occurrences of its instants, and moves on."""
    REALIGN = auto()
    """Its `dueAt` does not say what its other fields say."""
    LEAVE = auto()
    """Not due, held by somebody, or not for this version of the library."""


def triage(task: Task, now: Now, *, has_cleanup: bool = False) -> Step:  # noqa: PLR0911  # one answer for each step
    """Decide what a found task needs. Lenient on the hour of free tasks, strict on leases of others.

    `has_cleanup`: its kind has a cancellation handler. A generator of occurrences never ran anything, so cancelling
    one leaves nothing to clean up.
    """
    if is_foreign(task):
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
    if is_generator(task) and not task.is_cancelled:
        return Step.SPAWN
    if task.lease_owner is not None and not is_overtaken(task):
        return Step.RESCUE
    if task.is_cancelled and not (has_cleanup and not is_generator(task)):
        return Step.END_CANCELLED
    return Step.CLAIM


def due_at(task: Task) -> datetime | None:
    """Give the next moment at which somebody has to look at this task; None once it is done.

    `leased_until` without an owner is nobody's lease: a rescued task keeps its place in the line (`wait_until`), and
    is not looked at before then. At its deadline a free task ends, so it is looked at then at the latest; but a
    cleanup has to happen also after the deadline. A generator's deadline is that of its occurrences.
    """
    if task.outcome is not None or is_paused(task):
        return None
    if task.lease_owner is not None and task.leased_until is not None:
        return task.leased_until
    due = task.wait_until if task.leased_until is None else max(task.wait_until, task.leased_until)
    if task.deadline is None or task.is_cancelled or is_generator(task):
        return due
    return min(due, task.deadline)


def is_generator(task: Task) -> bool:
    """Tell whether a task runs no handler, but spawns the occurrences of a recurrence."""
    return task.recurrence is not None


def is_foreign(task: Task) -> bool:
    """Tell whether a later version of the library wrote a task: this one changes nothing of it."""
    return task.schema > SCHEMA


def is_open(task: Task) -> bool:
    """Tell whether a task is not done, wherever it stands."""
    return task.outcome is None


def is_paused(task: Task) -> bool:
    """Tell whether a generator is told to spawn nothing until it is resumed."""
    return task.recurrence is not None and task.recurrence.get(_PAUSED_AT) is not None and not task.is_cancelled


def present_for(task: Task, now: Now) -> datetime:
    """Give the bound of the present that decides about this task: lenient where it is free, strict where it is held."""
    return now.earliest if _may_still_run(task) else now.latest


def is_held(task: Task, now: Now) -> bool:
    """Tell whether somebody may be running a task at this moment."""
    return task.outcome is None and _may_still_run(task) and (due_at(task) or now.latest) > now.earliest


def holds(task: Task | None, lease_id: str) -> bool:
    """Tell whether the lease of this id is still the one on the task."""
    return task is not None and task.outcome is None and task.lease_owner == lease_id


def may_have_ended(task: Task, now: Now) -> bool:
    """Tell whether one's own lease may have ended, so that somebody else may hold the task; strict on oneself."""
    return task.leased_until is None or task.leased_until <= now.latest


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
    if task.outcome is not None or task.is_cancelled or is_foreign(task):
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
    keeps_place: bool = False,
) -> Transition:
    """Record a failed attempt: back to the line after `delay` seconds, or done-failed where that is None.

    `is_alive`: the handler ignores its time limit and runs on, so no cleanup may start beside it. `keeps_place`: it
    does not go to the end of the line, so that the others of its resource key wait for it.
    """
    if is_overtaken(task):
        return abandon(task) if is_alive else release(task, now=now, has_cleanup=has_cleanup)
    event = "cleanup-" if task.is_cancelled else ""
    errors = _with_error(task, error, now)
    if delay is None:
        return _end(f"{event}failed", task, Outcome.FAILED, now, errors=errors)
    return _free(f"{event}retried", task, errors=errors, **_after(delay, now, keeps_place=keeps_place))


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


def snooze(task: Task, *, delay: float, now: Now, has_cleanup: bool = False, keeps_place: bool = False) -> Transition:
    """Put a task back for `delay` seconds at its handler's wish: no attempt is spent. `keeps_place`: as for `fail`."""
    if is_overtaken(task):
        return release(task, now=now, has_cleanup=has_cleanup)
    return _free("snoozed", task, **_one_attempt_less(task), **_after(delay, now, keeps_place=keeps_place))


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


def is_busy(held: Lock | None, now: Now) -> bool:
    """Tell whether somebody holds the lock of a resource key; strict, as with leases of others."""
    return held is not None and held.leased_until > now.earliest


def lock(resource_key: str, before: Lock | None, *, owner: str, until: datetime) -> LockChange:
    """Take a resource key, take it over from a holder whose lease has ended, or hold it for longer."""
    return LockChange(resource_key, before, Lock(resource_key=resource_key, owner=owner, leased_until=until))


def unlock(before: Lock) -> LockChange:
    """Let a resource key go: nothing of it runs any more."""
    return LockChange(before.resource_key, before, None)


def fence(task: Task) -> Transition:
    """Shut out the former holder of a resource key: the task that it held stays where it is, and is to be rescued.

    It belongs into the commit that takes the key over. Without it a holder that was thought dead could complete this
    task and, with the same commit, claim the next one.
    """
    return _transition("taken-over", task, lease_owner=_NOBODY)


def end_cancelled(task: Task, *, now: Now) -> Transition:
    """End a cancelled task that has nothing to clean up."""
    return _end("cancelled", task, Outcome.CANCELLED, now)


def reject(task: Task, *, now: Now, why: str = "") -> Transition:
    """End a record that cannot be read, with the reasons."""
    problems = "; ".join(filter(None, (*task.problems, why)))
    error = TaskError.noted("UnreadableTask", problems, at=now.earliest, attempt=task.attempts)
    return _end("rejected", task, Outcome.FAILED, now, errors=_kept(task, error))


def realign(task: Task) -> Transition:
    """Mend a `dueAt` that contradicts the other fields, so that nobody finds the task at the wrong time again."""
    return _transition("realigned", task)


def reset(task: Task, *, now: Now) -> Transition | None:
    """Give a done task a new life, at the end of the line; a generator goes on from now.

    Nothing of the last life stays: neither counts, errors and result nor a cancel, a pause or a retention date. A
    deadline that has passed goes as well, since the new life could only end at it again. None: there is nothing to
    reset, since it is not done, or since it is a generator that has no instant left.
    """
    if task.outcome is None or is_foreign(task):
        return None
    deadline = task.deadline if task.deadline and task.deadline > now.earliest else None
    changes: dict[str, Any] = {**_NEW_LIFE, "deadline": deadline}
    if not is_generator(task):
        return _transition("reset", task, wait_until=now.earliest, **changes)
    try:
        following = _next_run(task.evolve(deadline=deadline), now)
    except InvalidRecurrence:
        return None
    if following is None:
        return None
    return _transition("reset", task, wait_until=following, recurrence=_unpaused(task), **changes)


def spawn(task: Task, plan: Plan, *, now: Now, previous: Task | None = None) -> tuple[list[Transition], list[Task]]:
    """Move a generator on, and make its occurrences; all of it belongs into one commit.

    `previous`: its last occurrence, if the next one cancels it; but one that exists already replaces nothing. A
    generator without a further instant is completed.
    """
    occurrences = [_occurrence(task, instant, now, place) for place, instant in enumerate(plan.spawn)]
    event = "spawned" if occurrences else "passed-over"
    changes: dict[str, Any] = {"occurrence_timestamp": plan.spawn[-1]} if occurrences else {}
    if plan.next is None:
        steps = [_end(event, task, Outcome.COMPLETED, now, **changes)]
    else:
        steps = [_free(event, task, wait_until=plan.next, **changes)]
    if previous is not None and occurrences and all(one.id != previous.id for one in occurrences):
        steps += filter(None, [cancel(previous, now=now)])
    return steps, occurrences


def pause(task: Task, *, now: Now) -> Transition | None:
    """Let a generator spawn nothing until it is resumed. None: it is none, or done, cancelled or paused already."""
    if not is_generator(task) or task.outcome is not None or task.is_cancelled or is_paused(task) or is_foreign(task):
        return None
    return _transition("paused", task, recurrence={**(task.recurrence or {}), _PAUSED_AT: now.earliest})


def resume(task: Task, *, now: Now) -> Transition | None:
    """Let a paused generator go on from now; what it missed meanwhile was meant to be missed. None: it is not paused.

    One that has no instant left is completed. One that cannot be read is due now, and so rejected.
    """
    if task.outcome is not None or not is_paused(task) or is_foreign(task):
        return None
    recurrence = _unpaused(task)
    try:
        following = _next_run(task, now)
    except InvalidRecurrence:
        following = now.earliest
    if following is None:
        return _end("resumed", task, Outcome.COMPLETED, now, recurrence=recurrence)
    return _transition("resumed", task, recurrence=recurrence, wait_until=following)


def redeclare(task: Task, declared: Task) -> Transition | None:
    """Make a generator what the code declares by now. None: it is that.

    One that is done or cancelled gets a new life, since what somebody ended was another one; a pause stays. Where
    the rule itself is the same, the instant for which it waits stays as well, due or not.
    """
    own, new = task.recurrence or {}, declared.recurrence or {}
    changes = {name: getattr(declared, name) for name in _DECLARED}
    before = {**{name: getattr(task, name) for name in _DECLARED}, "recurrence": _unpaused(task)}
    if changes == before or is_foreign(task):
        return None
    if is_paused(task) and task.outcome is None:
        changes["recurrence"] = {**new, _PAUSED_AT: own[_PAUSED_AT]}
    ended = task.outcome is not None or task.is_cancelled
    if ended or any(own.get(part) != new.get(part) for part in _RULE):
        changes["wait_until"] = declared.wait_until
    return _transition("redeclared", task, **changes, **(_NEW_LIFE if ended else {}))


def rewrite(task: Task, fields: Iterable[str]) -> Transition:
    """Write some fields of a task anew as they are, for a store that keeps them in another form by now."""
    return Transition("rewritten", task, task, {name: getattr(task, name) for name in fields})


def may_delete(task: Task, now: Now) -> bool:
    """A task that somebody holds is not deleted under his hands: cancel it first."""
    lapsed = task.leased_until is None or task.leased_until <= now.earliest
    return not is_foreign(task) and (task.outcome is not None or lapsed or not _may_still_run(task))


def _may_still_run(task: Task) -> bool:
    """Tell whether the lease on a task is somebody's: its owner's, or an abandoned handler's.

    What a rescue leaves behind is nobody's, and a cancel clears that; so only `abandon` leaves one before the first
    attempt at the cleanup.
    """
    abandoned = task.leased_until is not None and task.is_cancelled and not is_cleanup(task)
    return task.lease_owner is not None or abandoned


def prune(task: Task, *, now: Now) -> Transition | None:
    """Cancel a generator that no code declares any more, so that one which does so again gets it back.

    None: it is done or cancelled already, by somebody who meant it.
    """
    cancelled = cancel(task, now=now)
    if cancelled is None:
        return None
    recurrence = {name: value for name, value in (task.recurrence or {}).items() if name not in DECLARED_BY}
    return _transition(cancelled.event, task, **{**cancelled.changes, "recurrence": recurrence})


_NEW_LIFE = {
    "outcome": None,
    "attempts": 0,
    "cancel_attempts": 0,
    "errors": (),
    "result": None,
    "progress": None,
    "is_cancelled": False,
    "cancelled_at": None,
    "started_at": None,
    "done_at": None,
    "leased_until": None,
    "lease_owner": None,
    "expire_at": None,
}


def _occurrence(generator: Task, instant: datetime, now: Now, place: int) -> Task:
    """Make the task that a generator spawns for an instant: it fails, is tried again and is cancelled by itself."""
    made = Task(
        id=occurrence_id(generator.id, instant),
        kind=generator.kind,
        data=generator.data,
        resource_key=generator.resource_key,
        wait_until=instant,
        created_at=now.earliest + timedelta(microseconds=place),
        parent_recurrence_id=generator.id,
        occurrence_timestamp=instant,
        timeout=generator.timeout,
        deadline=generator.deadline,
        owner=generator.owner,
    )
    return made.evolve(due_at=due_at(made))


def _next_run(generator: Task, now: Now) -> datetime | None:
    """Give the next instant of a generator from now on; None: it has none. Raises InvalidRecurrence."""
    following = Recurrence.from_fields(generator.recurrence or {}).next_after(now.earliest)
    return None if following is None or (generator.deadline and following >= generator.deadline) else following


def _unpaused(generator: Task) -> dict[str, Any]:
    return {name: value for name, value in (generator.recurrence or {}).items() if name != _PAUSED_AT}


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


def _after(delay: float, now: Now, *, keeps_place: bool) -> dict[str, Any]:
    """Say when a task is looked at again: as one that is last in the line then, or as one that keeps its place."""
    return {"leased_until" if keeps_place else "wait_until": _later(now, delay)}


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
