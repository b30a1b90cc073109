"""`oncetask tick`: one bounded drain, for cron and for whoever wants to see what would run."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic.alias_generators import to_camel

from oncetask.cli.ending import run_to_the_end
from oncetask.cli.logs import LogLevel, set_up_logging
from oncetask.cli.options import Concurrency, Env, Json, Level, Store, Target
from oncetask.cli.output import Output
from oncetask.cli.records import how_many, local
from oncetask.cli.session import place
from oncetask.cli.targets import load_app_with_handlers
from oncetask.client import connect
from oncetask.drain import tick as run_tick

if TYPE_CHECKING:
    from oncetask.drain import TickReport

__all__ = ["tick"]

_ENDED = ("completed", "failed", "retried", "cancelled", "expired", "interrupted")
_log = logging.getLogger("oncetask")


def tick(
    *,
    target: Target,
    budget: Annotated[
        float, typer.Option("--budget", metavar="SECONDS", help="How long tasks may run; it ends 5 s later at most.")
    ] = 50.0,
    linger: Annotated[
        float,
        typer.Option(
            "--linger", metavar="SECONDS", help="Stay so long, and run what becomes due meanwhile, to the second."
        ),
    ] = 0.0,
    concurrency: Concurrency = 32,
    log_level: Level = LogLevel.WARNING,
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """Run what is due, then report and end: a worker for cron.

    What the end of the budget, SIGTERM or Ctrl-C cuts off goes back, its attempt
    unspent. Ticks and workers may overlap: nothing runs twice. Exit 0 also where
    tasks failed: the report says so.

    With --json: {"claimed", "completed", "failed", "retried", "cancelled",
    "expired", "spawned", "interrupted", "nextDue", "more"}, as POST /tick gives
    it; "more" tells that due tasks were left because the budget was spent.

    [bold]Example:[/bold] oncetask tick jobs:app --budget 300
    """
    output = Output(as_json=json_)
    app = load_app_with_handlers(target)
    set_up_logging(log_level, as_json=json_)
    client = connect(store, env=env)

    async def work() -> None:
        # A scheduler's SIGTERM is to give back what runs, as Ctrl-C does.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
        async with client:
            try:
                report = await run_tick(app, client, budget=budget, linger=linger, concurrency=concurrency)
            except asyncio.CancelledError:
                _log.warning("interrupted; what ran was told to stop, and given back")
                raise
            if output.as_json:
                output.document({to_camel(name): value for name, value in asdict(report).items()})
            else:
                output.note(place(client))
                _print(output, report)

    run_to_the_end(work)


def _print(output: Output, report: TickReport) -> None:
    begun = [f"{how_many(report.claimed, 'attempt')} begun"] if report.claimed else []
    ended = [f"{number} {name}" for name in _ENDED if (number := getattr(report, name))]
    output.text(", ".join([*begun, *ended]) or "nothing was due")
    if report.spawned:
        output.text(f"{how_many(report.spawned, 'occurrence')} of schedules enqueued")
    if report.more:
        output.text("due tasks are left, because the budget was spent: tick again")
    elif report.next_due is not None:
        output.text(f"next due {local(report.next_due, datetime.now(UTC))}")
