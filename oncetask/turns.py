"""Whose turn it is: the tasks of one resource key run one at a time, in the order of their line.

Pure: what a task needs is `lifecycle.triage`'s answer; here is only what that means for those behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from oncetask import lifecycle
from oncetask.errors import InvalidPayload
from oncetask.lifecycle import Step
from oncetask.task import Task, place_in_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oncetask.clock import Now
    from oncetask.handlers import Handler

__all__ = ["Turn", "needs_key", "next_turn"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What may start now of a resource key."""

    tasks: tuple[Task, ...] = ()
    """What is run next, several in a batch; none: nothing is to do, or somebody has to be waited for."""
    waits_for: Task | None = None
    """The task at which the line stands still: somebody runs it, its time has not come, or no kind of it is known."""


def needs_key(task: Task, handler: Handler, now: Now) -> bool:
    """Tell whether a found task may only be claimed together with its resource key.

    What will not run needs none: a cancelled one without a cleanup, an expired one, a dead worker's that is rescued.
    """
    if task.resource_key is None or lifecycle.is_generator(task):
        return False
    claims = lifecycle.triage(task, now, has_cleanup=handler.has_cleanup) is Step.CLAIM
    return claims and not lifecycle.is_expired(task, handler.deadline_of(task), now)


def next_turn(line: Iterable[Task], handlers: Mapping[str, Handler], now: Now) -> Turn:
    """Say what is run next of a key that nobody holds, from the beginning of its line.

    The line stands still at a task that keeps its place and cannot run now: none behind it may start before it. So it
    does at one of a kind that has no handler here, whatever that kind's rules are.
    """
    chosen: list[Task] = []
    for task in sorted(line, key=place_in_line):
        handler = handlers.get(task.kind)
        does = _does(task, handler, now)
        if does == "passes":
            continue
        if does == "waits" or handler is None:
            return Turn(tuple(chosen), None if chosen else task)
        joins = _joins(task, handler, now)
        if chosen and not (joins and task.kind == chosen[0].kind):
            break
        chosen.append(task)
        if not joins or len(chosen) == handler.max_batch:
            break
    return Turn(tuple(chosen))


def _does(task: Task, handler: Handler | None, now: Now) -> Literal["starts", "waits", "passes"]:
    """Say what a task in line does to those behind it. What will not run lets them pass."""
    if lifecycle.is_generator(task):
        return "passes"
    aligned = task.evolve(due_at=lifecycle.due_at(task))  # whatever is stored there
    match lifecycle.triage(aligned, now, has_cleanup=handler is not None and handler.has_cleanup):
        case Step.CLAIM:
            deadline = task.deadline if handler is None else handler.deadline_of(task)
            if lifecycle.is_expired(task, deadline, now):
                return "passes"
            return "waits" if handler is None else "starts"
        case Step.LEAVE | Step.RESCUE:
            return "waits"
        case _:
            return "passes"


def _joins(task: Task, handler: Handler, now: Now) -> bool:
    """Tell whether a task may be one of a batch: not where it would fail by itself, or take others along for good."""
    if handler.max_batch is None or task.is_cancelled:
        return False
    elapsed = (now.earliest - (task.started_at or now.earliest)).total_seconds()
    if task.attempts and handler.retry.is_last(attempt=task.attempts + 1, elapsed=elapsed):
        return False
    try:
        handler.payload_type.from_data(task.data)
    except InvalidPayload:
        return False
    return True
