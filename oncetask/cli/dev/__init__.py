"""`oncetask dev`: everything that a deployment has, on a laptop, in one command."""

from __future__ import annotations

from typing import Annotated

import typer

from oncetask.cli.dev.place import choose
from oncetask.cli.extras import http_extra
from oncetask.cli.logs import LogLevel, set_up_logging
from oncetask.cli.options import Env, Json, Level, Port, Target
from oncetask.cli.output import Output
from oncetask.cli.targets import load_app_with_handlers
from oncetask.clock import seconds

__all__ = ["dev"]


def dev(
    *,
    target: Target,
    port: Port = 8080,
    every: Annotated[float, typer.Option("--every", metavar="SECONDS", help="The pause between two ticks.")] = 2.0,
    budget: Annotated[
        float, typer.Option("--budget", metavar="SECONDS", help="How long tasks may run, as for oncetask tick.")
    ] = 50.0,
    no_emulator: Annotated[
        bool, typer.Option("--no-emulator", help="SQLite in ./oncetask.db, also where there is an emulator.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="Where the tasks are, as it stands; left out: an emulator or SQLite, never what ONCETASK_STORE says.",
            rich_help_panel="Where",
        ),
    ] = None,
    env: Env = None,
    log_level: Level = LogLevel.INFO,
    json_: Json = False,
) -> None:
    """Run everything on this machine: the store, the functions, and a tick every few seconds.

    The Firestore emulator is taken from FIRESTORE_EMULATOR_HOST (one that runs),
    ONCETASK_EMULATOR_JAR, the gcloud SDK or the cache of firebase-tools, and
    started with ./firestore.rules if that is there; it needs Java. Where there
    is none, the tasks are in SQLite, in ./oncetask.db.

    It serves this machine only, without asking who calls: the HTTP API with its
    WebSocket, POST /scheduler, and, for an emulator that it has started,
    on_task_created. It does not see changes of the code: restart it.

    SIGTERM or Ctrl-C ends all of it, the emulator too, and exits with 0. Exit 1
    if it cannot listen or the emulator does not start, 3 if the emulator is gone.

    With --json: JSON Lines, {"event": "started", "url", "store", "emulator",
    ...} and {"event": "stopped"} on stdout, logs on stderr.

    [bold]Example:[/bold] oncetask dev jobs:app --every 1
    """
    output = Output(as_json=json_)
    set_up_logging(log_level, as_json=json_)
    place = choose(store, use_emulator=not no_emulator)
    app = load_app_with_handlers(target)
    with http_extra():
        from oncetask.cli.dev.run import run_dev  # noqa: PLC0415  # not everybody has it
    run_dev(app, place, output, env=env, port=port, every=seconds("every", every), budget=seconds("budget", budget))
