"""`oncetask doctor`: what is wrong with a store, its set-up, its tasks and this machine's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from oncetask.cli.exits import NotDone
from oncetask.cli.findings import Finding, Note, Unhandled, examine, of_schedules
from oncetask.cli.options import AppOption, Env, Json, Store
from oncetask.cli.output import Output, printable
from oncetask.cli.records import iso
from oncetask.cli.session import place, with_client
from oncetask.cli.surroundings import look_around
from oncetask.cli.targets import load_app
from oncetask.schedules import survey
from oncetask.store import TaskFilter

if TYPE_CHECKING:
    from collections.abc import Collection

    from oncetask.client import Client
    from oncetask.store import TaskStore

__all__ = ["doctor"]

_PAGE = 500
_WORST_CLOCK_SECONDS = 5.0


@dataclass(slots=True)
class _Report:
    """What a visit found."""

    where: str
    round_trip_ms: float
    clock_offset: float | None
    scanned: int = 0
    complete: bool = True
    findings: list[Finding] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def doctor(
    *,
    app: AppOption = None,
    most: Annotated[
        int,
        typer.Option(
            "--most",
            metavar="N",
            min=1,
            help="How many tasks it reads at most, schedules apart (Firestore bills reads).",
        ),
    ] = 10_000,
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """Look for what is wrong: the store, its indexes and rules, the clock, tasks that no worker can run.

    It names unreadable documents, open ones that no query finds (for want of a
    kind or a dueAt), leases that ran out more than 5 minutes ago, tasks of a
    newer version, a clock that is off by more than 5 s, schedules whose rule
    cannot be read or that no code declares any more, and, with --app, kinds
    that have open tasks or schedules and no handler in it. On Firestore also
    indexes that are missing, and rules that let anybody read.

    It tells, as nothing wrong, which kinds are paused, who wakes (ONCETASK_WAKE)
    and who may call (ONCETASK_AUTH).

    Exit 1 if anything is wrong, 3 if the store cannot be reached.
    With --json: {"ok", "findings": [{"check", "taskId", "message"}],
    "notes": [{"about", "message"}], ...}.

    [bold]Example:[/bold] oncetask doctor --app jobs:app --env production
    """
    output = Output(as_json=json_)
    handled = frozenset(load_app(app).handlers()) if app is not None else None
    report = with_client(store, env, lambda client: _visit(client, handled, most))
    if output.as_json:
        output.document(_as_json(report))
    else:
        _print(output, report, handled, most)
    if report.findings:
        many = len(report.findings)
        raise NotDone(f"{many} {'thing is' if many == 1 else 'things are'} wrong in {report.where}")


async def _visit(client: Client, handled: Collection[str] | None, most: int) -> _Report:
    began = time.monotonic()
    await client.store.get(["oncetask-doctor"])
    report = _Report(place(client), (time.monotonic() - began) * 1_000, _clock_offset(client.store))
    if report.clock_offset is not None and abs(report.clock_offset) > _WORST_CLOCK_SECONDS:
        fast = "ahead of" if report.clock_offset > 0 else "behind"
        message = f"this machine's clock is {abs(report.clock_offset):.1f} s {fast} the store's: synchronise it (NTP)"
        report.findings.append(Finding("clock", message))
    async for seen in look_around(client):
        if isinstance(seen, Finding):
            report.findings.append(seen)
        else:
            report.notes.append(seen)
    await _scan(client.store, report, handled, most)
    report.findings += of_schedules(await survey(client.store), handled)
    return report


def _clock_offset(store: TaskStore) -> float | None:
    """Give the seconds by which this machine is ahead of the store; None: the store has no clock of its own."""
    if not store.clock.known:
        return None
    now, here = store.clock.now(), datetime.now(UTC)
    if now.earliest <= here <= now.latest:
        return 0.0
    return (here - now.latest if here > now.latest else here - now.earliest).total_seconds()


async def _scan(store: TaskStore, report: _Report, handled: Collection[str] | None, most: int) -> None:
    """Read all tasks, page by page, whatever their kind, status and state."""
    unhandled = Unhandled(handled)
    after: str | None = None
    while True:
        tasks = await store.find(TaskFilter(), limit=min(_PAGE, most - report.scanned + 1), after=after)
        if report.scanned + len(tasks) > most:
            report.complete, tasks = False, tasks[: most - report.scanned]
        report.scanned += len(tasks)
        now = store.clock.now().earliest
        for task in tasks:
            report.findings += examine(task, now)
            unhandled.note(task)
        if not report.complete or len(tasks) < _PAGE:
            break
        after = tasks[-1].id
    report.findings += unhandled.findings()


def _as_json(report: _Report) -> dict[str, object]:
    return {
        "ok": not report.findings,
        "where": report.where,
        "roundTripMs": round(report.round_trip_ms, 1),
        "clockOffsetSeconds": report.clock_offset,
        "scanned": report.scanned,
        "complete": report.complete,
        "notes": [{"about": note.about, "message": note.message} for note in report.notes],
        "findings": [{"check": f.check, "taskId": f.task_id, "message": f.message} for f in report.findings],
        "at": iso(datetime.now(UTC)),
    }


def _print(output: Output, report: _Report, handled: Collection[str] | None, most: int) -> None:
    output.text(f"store    {report.where}")
    output.text(f"         answers within {report.round_trip_ms:.1f} ms")
    offset = report.clock_offset
    output.text(f"clock    {'the store uses this one' if offset is None else f'off by {offset:.1f} s'}")
    for note in report.notes:
        output.text(f"{note.about:<9}{printable(note.message)}")
    end = "" if report.complete else f", the first of more (--most {most})"
    output.text(f"tasks    {report.scanned:,} read{end}")
    if handled is not None:
        output.text(f"app      handles {', '.join(sorted(handled)) or 'nothing'}")
    for finding in report.findings:
        task = f"{finding.task_id}: " if finding.task_id is not None else ""
        output.text(f"{'WRONG':<9}{finding.check}: {printable(task + finding.message)}", "red")
    if not report.findings:
        output.text("all is well", "green")
