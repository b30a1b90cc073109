"""`oncetask worker`: run the tasks of an App until told to stop."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from oncetask.cli.exits import DONE, FAILED, INTERRUPTED, BadInput
from oncetask.cli.logs import LogLevel, set_up_logging
from oncetask.cli.options import Env, Json, Store
from oncetask.cli.output import Output
from oncetask.cli.session import place
from oncetask.cli.targets import load_app
from oncetask.client import Client, connect
from oncetask.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["worker"]

_LAST_SECONDS = 1.0
_log = logging.getLogger("oncetask")


def worker(
    *,
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE:APP", help="The App, found from the current folder.", show_default=False),
    ],
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", help="How many tasks it runs at a time.")
    ] = 32,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", help="How long running tasks may go on once it is stopped.")
    ] = 8.0,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = LogLevel.INFO,
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
    app = load_app(target)
    set_up_logging(log_level, as_json=json_)
    kinds = sorted(app.handlers())
    if not kinds:
        msg = f"{target} has no handler, so there is nothing that a worker could run: register one with @app.handler"
        raise BadInput(msg)
    client = connect(store, env=env)
    runner = Worker(app, client, concurrency=concurrency, grace=grace)
    told = f"{target} works on {place(client)}: {', '.join(kinds)}; {concurrency} at a time"
    event: dict[str, object] = {"event": "started", "store": client.store.url, "env": client.store.env, "kinds": kinds}
    _run_to_the_end(partial(_work, runner, client, output, told, event))


async def _work(runner: Worker, client: Client, output: Output, told: str, event: dict[str, object]) -> None:
    async with client:
        running = asyncio.create_task(runner.run(handle_signals=True))
        started = asyncio.create_task(runner.started())
        await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            _log.info("%s", told)
            _event(output, event)
        started.cancel()
        await running
        _log.info("stopped")
        _event(output, {"event": "stopped"})


def _event(output: Output, event: dict[str, object]) -> None:
    if output.as_json:
        output.line(event)


def _run_to_the_end(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run `work`, then leave, whatever of the user's handlers is still running: their leases say so.

    `asyncio.run` would wait for coroutines that ignore their cancellation, and the interpreter for their threads;
    but what was to end in order has ended when `work` has.
    """
    runner, code = asyncio.Runner(), FAILED
    try:
        runner.run(work())
        code = DONE
    except KeyboardInterrupt:  # before the worker listens to signals itself, or after it has ended
        _leave(INTERRUPTED)
    finally:
        limit = threading.Timer(_LAST_SECONDS, _leave, (code, "handlers are still running; not waiting for them"))
        limit.daemon = True
        limit.start()
        atexit.register(limit.cancel)  # all threads have ended by then
        runner.close()


def _leave(code: int, why: str = "") -> NoReturn:
    if why:
        _log.warning("%s", why)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
