"""What a worker writes first about a task that it found: a claim, or whatever else `lifecycle.triage` calls for."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from oncetask import lifecycle
from oncetask.errors import LeaseLost
from oncetask.ids import new_id
from oncetask.lifecycle import Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oncetask.clock import Now
    from oncetask.handlers import Handler
    from oncetask.lifecycle import Transition
    from oncetask.task import Task

__all__ = ["comes_too_late", "elapsed", "lease_seconds", "next_step"]

_LEASE_MARGIN = 10.0
_log = logging.getLogger("oncetask")


def next_step(  # noqa: PLR0911  # one answer for each step
    task: Task, handler: Handler, *, longest_lease: float, now: Now
) -> Transition | None:
    """Make the transition that the task needs; None: nothing, or nothing of its own. `longest_lease`: seconds."""
    match lifecycle.triage(task, now, has_cleanup=handler.has_cleanup):
        case Step.CLAIM:
            until = now.latest + timedelta(seconds=lease_seconds(task, handler, longest_lease))
            begins = not lifecycle.is_expired(task, handler.deadline_of(task), now)
            if begins and task.resource_key is not None:
                return None  # its key has to be taken first
            return lifecycle.claim(task, lease_id=new_id(), until=until, now=now, begins=begins)
        case Step.RESCUE:
            error = LeaseLost(f"its worker died or stood still: the lease ended at {task.leased_until}")
            policy = handler.called_for(task).retry
            delay = policy.after_crash(attempt=lifecycle.attempt_of(task), elapsed=elapsed(task, now), error=error)
            return lifecycle.rescue(task, error, delay=delay, now=now)
        case Step.END_CANCELLED:
            return lifecycle.end_cancelled(task, now=now)
        case Step.REJECT:
            return lifecycle.reject(task, now=now)
        case Step.REALIGN:
            return lifecycle.realign(task)
        case Step.SPAWN | Step.LEAVE:
            return None


def comes_too_late(claimed: Iterable[Task], now: Now) -> bool:
    """Tell whether a claim was confirmed so late that somebody else may hold a task by now: nothing starts then."""
    late = next((task for task in claimed if lifecycle.may_have_ended(task, now)), None)
    if late is not None:
        _log.warning("task %s is not started: its lease had ended when the claim was confirmed", late.id)
    return late is not None


def lease_seconds(task: Task, handler: Handler, longest: float) -> float:
    """Give the length of a lease: the time limit and a margin to record the end, but never above `longest`."""
    return min(handler.called_for(task).limit + _LEASE_MARGIN, longest)


def elapsed(task: Task, now: Now) -> float:
    """Seconds since the first start, of a cleanup since the cancel, for policies that stop after a time."""
    start = task.cancelled_at if lifecycle.is_cleanup(task) else task.started_at
    return (now.earliest - (start or now.earliest)).total_seconds()
