"""`oncetask worker`: run the tasks of an App until told to stop."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Annotated

import typer

from oncetask.cli.ending import run_to_the_end
from oncetask.cli.logs import LogLevel, set_up_logging
from oncetask.cli.options import Concurrency, Env, Json, Level, Store, Target
from oncetask.cli.output import Output
from oncetask.cli.session import place
from oncetask.cli.targets import load_app_with_handlers
from oncetask.client import Client, connect
from oncetask.worker import Worker

__all__ = ["worker"]

_log = logging.getLogger("oncetask")


def worker(
    *,
    target: Target,
    concurrency: Concurrency = 32,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", help="How long running tasks may go on once it is stopped.")
    ] = 8.0,
    log_level: Level = LogLevel.INFO,
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """Run tasks until stopped, with logs on stderr.

    SIGTERM or Ctrl-C: it claims nothing more, lets running tasks end within the
    grace, gives back the rest, and exits with 0. A second Ctrl-C ends it at
    once, as shells count it with 130.

    With --json: JSON Lines, {"event": "started"} and {"event": "stopped"} on
    stdout, logs on stderr.

    [bold]Example:[/bold] oncetask worker jobs:app --concurrency 8
    """
    output = Output(as_json=json_)
    app = load_app_with_handlers(target)
    set_up_logging(log_level, as_json=json_)
    kinds = sorted(app.handlers())
    client = connect(store, env=env)
    runner = Worker(app, client, concurrency=concurrency, grace=grace)
    told = f"{target} works on {place(client)}: {', '.join(kinds)}; {concurrency} at a time"
    event: dict[str, object] = {"event": "started", "store": client.store.url, "env": client.store.env, "kinds": kinds}
    run_to_the_end(partial(_work, runner, client, output, told, event))


async def _work(runner: Worker, client: Client, output: Output, told: str, event: dict[str, object]) -> None:
    async with client:
        running = asyncio.create_task(runner.run(handle_signals=True))
        started = asyncio.create_task(runner.started())
        await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            _log.info("%s", told)
            output.event(**event)
        started.cancel()
        await running
        _log.info("stopped")
        output.event(event="stopped")
