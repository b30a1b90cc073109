"""What `oncetask doctor` finds wrong with a task, a schedule, or what an App handles."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from oncetask.cli.prune import vanished
from oncetask.cli.records import ago, how_many
from oncetask.lifecycle import is_generator, is_paused
from oncetask.task import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from oncetask.schedules import Found
    from oncetask.task import Task

__all__ = ["Check", "Finding", "Note", "Unhandled", "examine", "of_schedules"]

Check = Literal[
    "clock",
    "indexes",
    "rules",
    "callers",
    "unreadable",
    "unreachable",
    "abandoned",
    "unhandled",
    "newer",
    "vanished",
]

_LONG_AGO = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong."""

    check: Check
    message: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know that is not wrong."""

    about: str
    message: str


class Unhandled:
    """Counts open tasks whose kind has no handler; schedules are named one by one instead."""

    def __init__(self, handled: Collection[str] | None) -> None:
        """`handled`: the kinds that have one; None: nobody knows."""
        self._handled = handled
        self._open: Counter[str] = Counter()
        self._cancelled: Counter[str] = Counter()

    def note(self, task: Task) -> None:
        """Look at a task."""
        if self._handled is None or task.kind in self._handled or task.outcome is not None or not _has_kind(task):
            return
        if task.is_cancelled or not is_generator(task):
            self._open[task.kind] += 1
            self._cancelled[task.kind] += task.is_cancelled

    def findings(self) -> Iterator[Finding]:
        """Give what is wrong, a finding for each kind."""
        for kind, number in sorted(self._open.items()):
            message = f"{how_many(number, 'open task')} of kind {kind!r}, which has no handler in this app"
            if self._cancelled[kind]:
                message += f" ({self._cancelled[kind]} cancelled: only a worker that handles this kind ends them)"
            yield Finding("unhandled", message)


def examine(task: Task, now: datetime) -> Iterator[Finding]:
    """Give what is wrong with a task by itself."""
    if task.problems:
        yield Finding("unreadable", "; ".join(task.problems), task.id)
    if task.outcome is not None:
        return
    has_due = task.due_at is not None or is_paused(task)
    missing = [*(["kind"] if not _has_kind(task) else []), *([] if has_due else ["dueAt"])]
    if missing:
        message = f"open, but no query finds it for want of {' and '.join(missing)}: mend or delete the document"
        yield Finding("unreachable", message, task.id)
    if task.schema > SCHEMA:
        message = f"written by a newer version of oncetask (schema {task.schema}; this one knows {SCHEMA})"
        yield Finding("newer", message, task.id)
    if task.lease_owner is not None and task.leased_until is not None and task.leased_until < now - _LONG_AGO:
        message = f"its lease ran out {ago(task.leased_until - now)}, and no worker of kind {task.kind!r} took it over"
        yield Finding("abandoned", message, task.id)


def _has_kind(task: Task) -> bool:
    return not any(problem.startswith("kind:") for problem in task.problems)


def of_schedules(found: Sequence[Found], handled: Collection[str] | None) -> Iterator[Finding]:
    """Give what is wrong with schedules. `handled`: as for `Unhandled`."""
    if gone := vanished(found):
        many = "1 schedule goes" if len(gone) == 1 else f"{len(gone)} schedules go"
        ids = ", ".join(one.task.id for one in gone)
        message = f"{many} on that no code declares any more: {ids} (`oncetask schedules --prune` cancels them)"
        yield Finding("vanished", message)
    for one in found:
        task = one.task
        if task.outcome is not None or task.is_cancelled:
            continue
        if one.recurrence is None:
            yield Finding("unreadable", f"its recurrence cannot be read: {one.problem}", task.id)
        if handled is not None and task.kind not in handled and _has_kind(task):
            message = f"a schedule of kind {task.kind!r}, which has no handler in this app: no worker of it looks at it"
            yield Finding("unhandled", message, task.id)
