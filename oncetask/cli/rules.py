"""Rules as they are given on the command line, and the options that go with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from oncetask.cli.exits import BadInput
from oncetask.cli.options import instant
from oncetask.clock import EPOCH
from oncetask.recurrence import Recurrence

__all__ = [
    "RULE_PANEL",
    "CatchUpOption",
    "CronOption",
    "Dtstart",
    "OverlapOption",
    "RruleOption",
    "Timezone",
    "given_rule",
    "make_rule",
]

RULE_PANEL = "Rule"
"""Where --help lists the options of a rule."""

RruleOption = Annotated[
    str | None,
    typer.Option(
        "--rrule", metavar="RULE", help="By a rule of RFC 5545: FREQ=DAILY;BYHOUR=9", rich_help_panel=RULE_PANEL
    ),
]
CronOption = Annotated[
    str | None,
    typer.Option("--cron", metavar="RULE", help="By a cron expression: '0 9 * * MON-FRI'", rich_help_panel=RULE_PANEL),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        "--timezone",
        metavar="ZONE",
        help="The IANA zone on whose wall clock the rule is expanded. Left out: UTC.",
        rich_help_panel=RULE_PANEL,
    ),
]
Dtstart = Annotated[
    str | None,
    typer.Option(
        "--dtstart",
        metavar="TIME",
        help="Where the rule begins: ISO 8601, with a zone; what an RRULE leaves open is taken from it. Left out: now.",
        rich_help_panel=RULE_PANEL,
    ),
]
CatchUpOption = Annotated[
    str | None,
    typer.Option(
        "--catch-up",
        metavar="HOW",
        help="Of instants that passed while nothing ran: one (the last one), all, or skip. Left out: one.",
        rich_help_panel=RULE_PANEL,
    ),
]
OverlapOption = Annotated[
    str | None,
    typer.Option(
        "--overlap",
        metavar="HOW",
        help="While the last run is not done: allow, skip, or cancel-previous. Left out: allow.",
        rich_help_panel=RULE_PANEL,
    ),
]


def given_rule(*, rrule: str | None, cron: str | None, **options: str | None) -> Recurrence | None:
    """Make the recurrence that was asked for; None: none was. `options`, and what it raises besides: as `make_rule`."""
    if rrule is not None and cron is not None:
        raise BadInput(f"--rrule and --cron exclude each other: {rrule!r} and {cron!r}")
    text = cron if rrule is None else rrule
    if text is not None:
        return make_rule(text, is_rrule=rrule is not None, **options)
    for name, value in options.items():
        if value is not None:
            raise BadInput(f"--{name.replace('_', '-')} goes with --rrule or --cron, and neither is given")
    return None


def make_rule(
    text: str,
    *,
    is_rrule: bool,
    timezone: str | None = None,
    dtstart: str | None = None,
    catch_up: str | None = None,
    overlap: str | None = None,
) -> Recurrence:
    """Make a recurrence of an RRULE or of a cron expression. Raises BadInput for `dtstart`, InvalidRecurrence."""
    options: dict[str, Any] = {"timezone": timezone, "catch_up": catch_up, "overlap": overlap}
    given = {name: value for name, value in options.items() if value is not None}
    start = None if dtstart is None else instant("dtstart", dtstart)
    if is_rrule:
        return Recurrence(text, start or datetime.now(UTC), **given)
    return Recurrence.cron(text, start=start or EPOCH, **given)
