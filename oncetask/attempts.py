"""How an attempt may end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oncetask.clock import seconds
from oncetask.errors import Discard, RetryAfter, Snooze
from oncetask.store.fitting import UnstorableResult

if TYPE_CHECKING:
    from datetime import datetime

    from oncetask.context import AbortReason
    from oncetask.errors import TaskExpired
    from oncetask.task import Task

__all__ = ["Completed", "Ended", "Expired", "Failed", "Interrupted", "Snoozed", "failed_with"]


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned; `result` in its JSON form, with what it staged."""

    result: Any
    staged: tuple[Task, ...]
    batch: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed. `final`: no policy is asked. `after`: the wait that the handler asked for, in seconds.

    `ended`: the handler did stop; else it was abandoned, still running.
    """

    error: Exception
    final: bool = False
    after: float | None = None
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Expired:
    """A deadline passed, of one of the tasks at least: those up to `deadline`.

    `began`: the handler had been started. `ended`: as for `Failed`.
    """

    error: TaskExpired
    deadline: datetime
    began: bool = True
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The handler wants to run again, `delay` seconds later."""

    delay: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The run was stopped from outside. `ended`: the handler did stop; else it was abandoned, still running."""

    reason: AbortReason
    ended: bool


Ended = Completed | Failed | Expired | Snoozed | Interrupted


def failed_with(error: Exception) -> Ended:
    """Read what a handler says by raising: how its attempt ended."""
    try:
        match error:
            case Snooze():
                return Snoozed(seconds("Snooze(delay)", error.delay, zero=True))
            case RetryAfter():
                return Failed(error, after=seconds("RetryAfter(delay)", error.delay, zero=True))
            case Discard() | UnstorableResult():  # to try again would only repeat the handler's effects
                return Failed(error, final=True)
    except (TypeError, ValueError) as wrong:
        return Failed(wrong)
    return Failed(error)
