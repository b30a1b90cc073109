"""`oncetask serve`: the HTTP API, with or without a worker beside it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from oncetask.cli.ending import run_to_the_end, stopped_by_signals
from oncetask.cli.extras import http_extra
from oncetask.cli.listening import listen, url_of
from oncetask.cli.logs import LogLevel, set_up_logging
from oncetask.cli.options import Concurrency, Env, Json, Level, Port, Store, Target
from oncetask.cli.output import Output
from oncetask.cli.session import place
from oncetask.cli.targets import load_app, load_app_with_handlers
from oncetask.client import connect
from oncetask.clock import seconds
from oncetask.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncetask.cli.serving import Serving
    from oncetask.client import Client

__all__ = ["serve"]

_log = logging.getLogger("oncetask")


def serve(
    *,
    target: Target,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="The name or address to listen on; 0.0.0.0: all of IPv4.")
    ] = "127.0.0.1",
    port: Port = 8000,
    worker: Annotated[bool, typer.Option("--worker", help="Run tasks too, by a worker in this process.")] = False,
    concurrency: Concurrency = 32,
    grace: Annotated[
        float,
        typer.Option("--grace", metavar="SECONDS", help="How long requests and tasks may go on once it is stopped."),
    ] = 8.0,
    log_level: Level = LogLevel.INFO,
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """Serve the HTTP API until stopped, with logs on stderr; GET /openapi.json describes it.

    It runs tasks only at POST /tick, or with --worker. Who may call is said by
    ONCETASK_AUTH: oidc (with ONCETASK_AUDIENCE and ONCETASK_CALLERS), or iam
    (behind Cloud Run's own check). Unset, it serves callers on this machine, and
    refuses to listen for others.

    SIGTERM or Ctrl-C: it takes no more requests and claims nothing more, lets
    what runs end within the grace, aborts the rest, and exits with 0. Exit 1 if
    it cannot listen there, 2 if nobody said who may call.

    With --json: JSON Lines, {"event": "started", "url", ...} and
    {"event": "stopped"} on stdout, logs on stderr.

    [bold]Example:[/bold] oncetask serve jobs:app --worker --port 8000
    """
    output = Output(as_json=json_)
    grace = seconds("grace", grace, zero=True)
    app = load_app_with_handlers(target) if worker else load_app(target)
    set_up_logging(log_level, as_json=json_)
    with http_extra():
        from oncetask.cli.serving import Serving, auth_for  # noqa: PLC0415  # not everybody has it
        from oncetask.http import asgi_app  # noqa: PLC0415  # as above
    auth = auth_for(host)
    client = connect(store, env=env)
    application = asgi_app(app, client, auth=auth, concurrency=concurrency)
    runner = Worker(app, client, concurrency=concurrency, grace=grace) if worker else None
    with listen(host, port) as listening:
        url = url_of(host, listening)
        serving = Serving(application, listening, grace=grace)
        runs = f"a worker runs {', '.join(sorted(app.handlers()))}" if worker else "tasks run at POST /tick only"
        told = f"{target} at {url} on {place(client)}; {type(auth).__name__} decides who may call; {runs}"
        event = {"url": url, "store": client.store.url, "env": client.store.env, "worker": worker}

        def started() -> None:
            _log.info("%s", told)
            output.event(event="started", **event)

        def stopped() -> None:
            _log.info("stopped")
            output.event(event="stopped")

        run_to_the_end(partial(_serve, client, serving, runner, started, stopped))


async def _serve(
    client: Client,
    serving: Serving,
    worker: Worker | None,
    started: Callable[[], None],
    stopped: Callable[[], None],
) -> None:
    """Serve until a signal comes, then stop serving and working at the same time."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(client)
        stop = stack.enter_context(stopped_by_signals())
        if worker is not None:
            await stack.enter_async_context(worker)
        await stack.enter_async_context(serving)
        started()
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait({asked, serving.running}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        await asyncio.gather(serving.stop(), *([] if worker is None else [worker.stop()]))
    stopped()
