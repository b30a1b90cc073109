"""Tasks and times as JSON and as text."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from oncetask.clock import EPOCH
from oncetask.lifecycle import is_paused
from oncetask.representation import as_json, iso, plain
from oncetask.task import TaskStatus

if TYPE_CHECKING:
    from oncetask.task import Progress, Task, TaskError

__all__ = [
    "ago",
    "as_json",
    "error_line",
    "how_many",
    "is_of_cleanup",
    "iso",
    "local",
    "milestone",
    "plain",
    "progress_line",
    "standing",
]

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def local(instant: datetime, now: datetime) -> str:
    """Give an instant in the zone of this machine, for people."""
    if instant == EPOCH:
        return "at once, before all others"
    try:
        there = instant.astimezone()
    except (OverflowError, ValueError, OSError):  # the years 1 and 9999 have no local time everywhere
        there = instant
    return f"{there.isoformat(sep=' ', timespec='milliseconds')}  ({ago(instant - now)})"


def ago(distance: timedelta) -> str:
    """Say how far a moment is from now, in one unit: `in 5 min`, `3 s ago`."""
    seconds = distance.total_seconds()
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(seconds) >= size), (1, "s"))
    number = f"{abs(seconds) / size:.1f}" if size == 1 and abs(seconds) < 10 else f"{int(abs(seconds) // size)}"  # noqa: PLR2004  # tenths only while they matter
    return f"in {number} {unit}" if seconds > 0 else f"{number} {unit} ago"


def milestone(task: Task) -> datetime | None:
    """Give the moment that says most about a task in its present status: due, started, cancelled or done."""
    match task.status:
        case TaskStatus.LEASED:
            return task.started_at
        case TaskStatus.CANCELLATION_PENDING:
            return task.cancelled_at
        case TaskStatus.WAITING | TaskStatus.PENDING:
            return task.due_at
    return task.done_at


def error_line(task: Task) -> str:
    """Say what is wrong with a task: that it cannot be read, or how it failed last."""
    if task.problems:
        return f"unreadable: {'; '.join(task.problems)}"
    if not task.errors:
        return ""
    error = task.errors[-1]
    return f"{'cleanup: ' if is_of_cleanup(task, error) else ''}{error.type}: {error.message}"


def is_of_cleanup(task: Task, error: TaskError) -> bool:
    """Tell an error of the cleanup after a cancellation from one of the task's own attempts.

    Both count from 1, but a handler's attempt that ends after the cancel leaves no error.
    """
    return task.cancel_attempts > 0 and task.cancelled_at is not None and error.at >= task.cancelled_at


def progress_line(progress: Progress, now: datetime) -> str:
    """Say how far a handler is: `40 %, page 4 of 10  (3 s ago)`."""
    fraction = "" if progress.fraction is None else f"{progress.fraction:.0%}".replace("%", " %")
    told = ", ".join(filter(None, (fraction, progress.message))) or "begun"
    return told if progress.at is None else f"{told}  ({ago(progress.at - now)})"


def standing(task: Task) -> str:
    """Say for people where a task stands: its status, and that it is cancelled or paused where no status says so."""
    if task.is_cancelled and task.status is TaskStatus.LEASED:
        return f"{task.status}, cancelled"
    return f"{task.status}, paused" if is_paused(task) and task.outcome is None else task.status


def how_many(number: int, what: str = "task") -> str:
    """Count in words: `1 task`, `2 tasks`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
