"""`oncetask schedules --preview`: a rule in words, and its next runs, before there is a schedule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from oncetask.cli.exits import BadInput
from oncetask.cli.generators import runs_from, there, zone_of
from oncetask.cli.output import Column, printable
from oncetask.cli.phrases import weekday
from oncetask.cli.records import how_many, iso
from oncetask.cli.rules import RULE_PANEL, make_rule
from oncetask.cli.words import in_words
from oncetask.errors import InvalidRecurrence
from oncetask.recurrence import begin

if TYPE_CHECKING:
    from oncetask.cli.output import Output
    from oncetask.recurrence import Recurrence

__all__ = ["Number", "print_preview"]

_MOST = 1_000
_USUAL = 10

Number = Annotated[
    int | None,
    typer.Option(
        "-n",
        metavar="N",
        help=f"With --preview: how many runs, 1 to {_MOST:,}. Left out: {_USUAL}.",
        rich_help_panel=RULE_PANEL,
    ),
]


def print_preview(output: Output, text: str, *, timezone: str | None, dtstart: str | None, number: int | None) -> None:
    """Tell what a rule means, as a schedule that was enqueued now would run. Raises BadInput, InvalidRecurrence."""
    wanted = _USUAL if number is None else number
    if not 1 <= wanted <= _MOST:
        raise BadInput(f"-n must be a whole number from 1 to {_MOST}, not {number}")
    recurrence = _read(text, timezone, dtstart)
    runs = _runs(recurrence, datetime.now(UTC), wanted)
    zone, words = zone_of(recurrence), in_words(recurrence)
    if output.as_json:
        said = {"rule": text, "inWords": words, "timezone": recurrence.timezone, "dtstart": recurrence.dtstart}
        local = [run.astimezone(zone).isoformat() for run in runs]
        output.document({**said, "next": runs, "local": local, "ends": len(runs) < wanted})
        return
    output.text(f"{printable(words)}  ({recurrence.timezone})", "bold")
    rows = [[weekday(run.astimezone(zone).weekday())[:3], there(run, zone), iso(run)] for run in runs]
    output.table([Column("day"), Column("there"), Column("in UTC")], rows, drawn=True)
    if len(runs) < wanted:
        output.text(f"the rule ends there, after {how_many(len(runs), 'run')}" if runs else "the rule has ended")


def _read(text: str, timezone: str | None, dtstart: str | None) -> Recurrence:
    is_rrule = "FREQ=" in text.upper()
    try:
        return make_rule(text, is_rrule=is_rrule, timezone=timezone, dtstart=dtstart)
    except InvalidRecurrence as error:
        if is_rrule or "=" not in text:
            raise
        raise BadInput(f"{error}; without FREQ= it was read as a cron expression") from error


def _runs(recurrence: Recurrence, now: datetime, number: int) -> list[datetime]:
    try:
        first = begin(recurrence, now)
    except InvalidRecurrence:  # the last one has passed
        return []
    return runs_from(recurrence, first, number)
