"""Schedules as people and programs are told of them: how one stands, when it runs next, and how it ran last."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from oncetask.cli.output import printable
from oncetask.cli.words import in_words
from oncetask.errors import InvalidRecurrence
from oncetask.lifecycle import DECLARED_BY, is_paused
from oncetask.recurrence import Recurrence
from oncetask.task import occurrence_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oncetask.schedules import Found
    from oncetask.task import Task

__all__ = [
    "app_of",
    "as_json",
    "last_run",
    "next_runs",
    "rule_lines",
    "rule_of",
    "runs_from",
    "standing",
    "there",
    "zone_of",
]

_NEXT_RUNS = 5


def runs_from(
    recurrence: Recurrence, first: datetime | None, number: int, *, until: datetime | None = None
) -> list[datetime]:
    """Give the runs from `first` on, at most `number`. `until`: none from there on."""
    runs: list[datetime] = []
    while first is not None and len(runs) < number and (until is None or first < until):
        runs.append(first)
        first = recurrence.next_after(first)
    return runs


def next_runs(task: Task, recurrence: Recurrence, number: int = _NEXT_RUNS) -> list[datetime]:
    """Give the instants of a generator that are to come, as of when it was read; none where it spawns nothing."""
    if task.outcome is not None or task.is_cancelled or is_paused(task):
        return []
    is_to_come = task.wait_until >= task.read_at
    first = task.wait_until if is_to_come else recurrence.next_after(task.read_at)
    return runs_from(recurrence, first, number, until=task.deadline)


def standing(found: Found) -> str:
    """Say how a schedule stands: `active`, `paused, not declared any more`, `unreadable: ...`."""
    task = found.task
    words = []
    if task.outcome is not None:
        words.append(str(task.status))
    elif task.is_cancelled or not found.problem:
        words.append("cancelled" if task.is_cancelled else "paused" if is_paused(task) else "active")
    if found.is_vanished:
        words.append("not declared any more")
    if found.problem:
        words.append(f"unreadable: {found.problem}")
    return ", ".join(words)


def app_of(found: Found) -> str | None:
    """Give the name of the App that declared a schedule; None: it was enqueued."""
    app = (found.task.recurrence or {}).get(DECLARED_BY[0])
    return None if app is None else str(app)


def rule_of(found: Found) -> str:
    """Give the rule as it is stored: an RRULE, or a cron expression."""
    fields = found.task.recurrence or {}
    return str(fields.get("rrule") or fields.get("cron") or "")


def zone_of(recurrence: Recurrence | None) -> ZoneInfo:
    """Give the zone of a recurrence; of one that cannot be read UTC."""
    return ZoneInfo("UTC" if recurrence is None else recurrence.timezone)


def there(instant: datetime, zone: ZoneInfo) -> str:
    """Give an instant on the clocks of a zone, with its distance from UTC."""
    try:
        local = instant.astimezone(zone)
    except OverflowError:  # the year 10000 has begun there
        local = instant.astimezone(UTC)
    return local.replace(microsecond=0).isoformat(" ")


def last_run(found: Found) -> dict[str, Any] | None:
    """Give when a schedule ran last, as which task, and how that stands (None: it is not there any more)."""
    at = found.task.occurrence_timestamp
    if at is None:
        return None
    status = None if found.last is None else str(found.last.status)
    return {"at": at, "taskId": occurrence_id(found.task.id, at), "status": status}


def as_json(found: Found) -> dict[str, Any]:
    """Give a schedule for programs; what cannot be read of it is null."""
    task, recurrence = found.task, found.recurrence
    return {
        "taskId": task.id,
        "app": app_of(found),
        "name": found.name,
        "kind": task.kind,
        "rule": rule_of(found) or None,
        "inWords": recurrence and in_words(recurrence),
        "timezone": recurrence and recurrence.timezone,
        "catchUp": recurrence and recurrence.catch_up,
        "overlap": recurrence and recurrence.overlap,
        "status": task.status,
        "paused": is_paused(task),
        "vanished": found.is_vanished,
        "problem": found.problem or None,
        "next": next_runs(task, recurrence) if recurrence else [],
        "lastRun": last_run(found),
    }


def rule_lines(task: Task) -> Iterator[tuple[str, str, str]]:
    """Give what `show` says of the rule of a generator; nothing of another task."""
    if task.recurrence is None:
        return
    try:
        recurrence = Recurrence.from_fields(task.recurrence)
    except InvalidRecurrence as error:
        yield "unreadable", printable(str(error)), "red"
        return
    yield "rule", f"{in_words(recurrence)}  ({recurrence.timezone})", ""
    runs = [there(run, zone_of(recurrence)) for run in next_runs(task, recurrence)]
    if runs:
        yield "next runs", "\n".join(runs), ""
