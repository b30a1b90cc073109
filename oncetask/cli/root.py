"""All commands under one roof."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from oncetask.cli import change, stats, tasks
from oncetask.cli.cancel import cancel
from oncetask.cli.demo import demo
from oncetask.cli.dev import dev
from oncetask.cli.doctor import doctor
from oncetask.cli.enqueue import EnqueueCommand, enqueue
from oncetask.cli.exits import USAGE
from oncetask.cli.pause import pause, resume
from oncetask.cli.schedules import schedules
from oncetask.cli.serve import serve
from oncetask.cli.tick import tick
from oncetask.cli.worker import worker

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"oncetask {version('oncetask')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Background tasks on Firestore (or SQLite), without a broker.

    Start with [bold]oncetask demo[/bold].
    Results go to stdout, messages and logs to stderr; --json makes both JSON.

    [bold]Exit codes[/bold]
      0    done
      1    what was asked for failed, or was not found
      2    wrong usage, or wrong input
      3    the store is unavailable
      130  interrupted
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


app.command("demo", rich_help_panel="Start")(demo)
app.command("dev", rich_help_panel="Start")(dev)
app.command("worker", rich_help_panel="Run")(worker)
app.command("tick", rich_help_panel="Run")(tick)
app.command("serve", rich_help_panel="Run")(serve)
app.command("enqueue", rich_help_panel="Tasks", cls=EnqueueCommand)(enqueue)
app.command("list", rich_help_panel="Tasks")(tasks.list_tasks)
app.command("show", rich_help_panel="Tasks")(tasks.show)
app.command("cancel", rich_help_panel="Tasks")(cancel)
app.command("reset", rich_help_panel="Tasks")(change.reset)
app.command("delete", rich_help_panel="Tasks")(change.delete)
app.command("schedules", rich_help_panel="Schedules")(schedules)
app.command("pause", rich_help_panel="Operations")(pause)
app.command("resume", rich_help_panel="Operations")(resume)
app.command("stats", rich_help_panel="Operations")(stats.stats)
app.command("doctor", rich_help_panel="Operations")(doctor)
