"""`oncetask schedules`: what recurs, when it runs next, and what a rule would mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from oncetask.cli.exits import BadInput
from oncetask.cli.generators import (
    app_of,
    as_json,
    last_run,
    next_runs,
    rule_of,
    standing,
    there,
    zone_of,
)
from oncetask.cli.options import Env, Json, Store, Yes
from oncetask.cli.output import Column, Output, printable
from oncetask.cli.preview import Number, print_preview
from oncetask.cli.prune import print_pruned
from oncetask.cli.records import ago, iso
from oncetask.cli.rules import Dtstart, Timezone
from oncetask.cli.session import place, with_client
from oncetask.cli.words import in_words
from oncetask.schedules import survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oncetask.client import Client
    from oncetask.schedules import Found

__all__ = ["schedules"]

_COLUMNS = tuple(
    map(
        Column,
        [
            *("id", "app", "name", "kind", "rule", "in words", "timezone", "catch up", "overlap"),
            *("standing", "next", "last", "outcome"),
        ],
    )
)


def schedules(
    *,
    preview: Annotated[
        str | None,
        typer.Option("--preview", metavar="RULE", help="Show what a rule means: an RRULE or a cron expression."),
    ] = None,
    timezone: Timezone = None,
    dtstart: Dtstart = None,
    number: Number = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Cancel the declared schedules that no code declares any more.")
    ] = False,
    yes: Yes = False,
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """List the schedules: their rules in words, how they stand, the next runs, the last one.

    In a pipe a heading, then a line a schedule, its fields separated by tabs,
    times in UTC. A schedule that an App declared, and does not any more, goes
    on; --prune cancels all such, and asks before, unless --yes is given.
    --preview opens no store.

    With --json: {"schedules": [{"taskId", "app", "name", "rule", "next", ...}]};
    with --prune {"cancelled": n, "ids": [...]}; with --preview
    {"inWords", "next": [...], "local": [...], ...}.

    [bold]Example:[/bold] oncetask schedules --env production

    [bold]A rule:[/bold] oncetask schedules --preview "0 9 * * MON-FRI" --timezone Europe/Berlin -n 5
    """
    output = Output(as_json=json_)
    _check_way({"--timezone": timezone, "--dtstart": dtstart, "-n": number}, preview, prune=prune, yes=yes)
    if preview is not None:
        print_preview(output, preview, timezone=timezone, dtstart=dtstart, number=number)
    elif prune:
        print_pruned(output, store, env, yes=yes)
    else:
        _list(output, store, env)


def _check_way(of_preview: dict[str, object], preview: str | None, *, prune: bool, yes: bool) -> None:
    if preview is not None and prune:
        raise BadInput("--preview and --prune exclude each other: one opens no store, the other cancels what is there")
    if yes and not prune:
        raise BadInput("--yes goes with --prune, which alone asks before it does something")
    idle = [name for name, value in of_preview.items() if value is not None]
    if idle and preview is None:
        raise BadInput(f"{idle[0]} goes with --preview: schedules in a store have their own")


def _list(output: Output, store: str | None, env: str | None) -> None:
    async def work(client: Client) -> tuple[list[Found], str]:
        return await survey(client.store), place(client)

    found, where = with_client(store, env, work)
    if output.as_json:
        output.document({"schedules": [as_json(one) for one in found]})
    elif not found:
        output.note(f"no schedules: {where}")
    elif output.is_terminal:
        _draw(output, found)
    else:
        output.table(_COLUMNS, map(_fields, found))


def _draw(output: Output, found: list[Found]) -> None:
    for place_, one in enumerate(found):
        if place_:
            output.text("")
        output.text(printable(one.name), "bold cyan")
        for name, text, style in _lines(one):
            output.text(f"  {name:<10}{printable(text)}", style)


def _lines(found: Found) -> Iterator[tuple[str, str, str]]:
    """Give what people are told of a schedule: a name, a text and a style each."""
    task, recurrence, zone = found.task, found.recurrence, zone_of(found.recurrence)
    app, last = app_of(found), last_run(found)
    yield "id", task.id + ("" if app is None else f"  (declared by the app {app})"), ""
    yield "kind", task.kind, ""
    if recurrence is None:
        yield "rule", rule_of(found) or "none", ""
    else:
        yield "rule", f"{in_words(recurrence)}  ({rule_of(found)})", ""
        yield "zone", recurrence.timezone, ""
        yield "policy", f"catch-up {recurrence.catch_up}, overlap {recurrence.overlap}", ""
    yield "standing", standing(found), "red" if found.problem else "yellow" if found.is_vanished else ""
    for number, run in enumerate(next_runs(task, recurrence) if recurrence else []):
        yield "" if number else "next", f"{there(run, zone)}  ({ago(run - task.read_at)})", ""
    if last is None:
        yield "last", "none yet", ""
    else:
        outcome = last["status"] or "its task is not there any more"
        yield "last", f"{there(last['at'], zone)}  ({ago(last['at'] - task.read_at)}): {outcome}", ""


def _fields(found: Found) -> list[str]:
    """Give what a pipe is told of a schedule."""
    recurrence, last = found.recurrence, last_run(found)
    task_id, app, kind = found.task.id, app_of(found) or "", found.task.kind
    rule = [""] * 4
    if recurrence is not None:
        rule = [in_words(recurrence), recurrence.timezone, recurrence.catch_up, recurrence.overlap]
    runs = " ".join(map(iso, next_runs(found.task, recurrence) if recurrence else []))
    outcome = ["", ""] if last is None else [iso(last["at"]), last["status"] or "gone"]
    return [task_id, app, found.name, kind, rule_of(found), *rule, standing(found), runs, *outcome]
