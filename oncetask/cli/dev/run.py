"""`oncetask dev` at work: the functions are served and ticks come on one loop, beside an emulator if there is one.

It needs the extra `http`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from oncetask.cli.dev.emulator import Startable, answers
from oncetask.cli.dev.example import curl
from oncetask.cli.dev.functions import application, register_trigger
from oncetask.cli.dev.place import opened
from oncetask.cli.ending import run_to_the_end, stopped_by_signals
from oncetask.cli.listening import listen, url_of
from oncetask.cli.serving import Serving
from oncetask.client import connect
from oncetask.drain import tick
from oncetask.errors import StoreUnavailable
from oncetask.waking import NoWaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncetask.app import App
    from oncetask.cli.dev.place import DevPlace
    from oncetask.cli.output import Output
    from oncetask.client import Client

__all__ = ["Ticks", "run_dev"]

_HOST = "127.0.0.1"
_GRACE_SECONDS = 2.0
_log = logging.getLogger("oncetask")


def run_dev(
    app: App, place: DevPlace, output: Output, *, env: str | None, port: int, every: float, budget: float
) -> None:
    """Run all of it until stopped. `every`, `budget`: seconds."""
    client = connect(place.url, env=env, waker=NoWaker())
    with listen(_HOST, port) as listening:
        url = url_of(_HOST, listening)
        serving = Serving(application(app, client, budget=budget), listening, grace=_GRACE_SECONDS)
        ticks = Ticks(app, client, budget=budget, every=every, emulator=place.host)
        if isinstance(place.emulator, Startable) and not output.as_json:
            output.note("starting the Firestore emulator ...")
        with opened(place, functions=url.removeprefix("http://")):
            is_triggered = _is_triggered(place, client.store.env)

            def started() -> None:
                where = {"store": client.store.url, "env": client.store.env, "emulator": place.host}
                if output.as_json:
                    output.event(event="started", url=url, **where, trigger=is_triggered)
                    return
                told = [
                    f"tasks      {', '.join(sorted(app.handlers()))}; environment {client.store.env}",
                    f"store      {place.url}: {place.why}",
                    f"api        {url}  (GET /openapi.json describes it, WS /ws)",
                    f"scheduler  {url}/scheduler  (POST; there is a tick every {every:g} s by itself)",
                    *([f"trigger    {url} is told by the emulator what is created"] if is_triggered else []),
                    f"others     {place.variables}  (for your own programs)",
                    f"try        {curl(url, app)}",
                    "Ctrl-C ends all of it. After a change of the code, start it again.",
                ]
                for line in told:
                    output.note(line)

            run_to_the_end(partial(_run, client, serving, ticks, started))
    _log.info("stopped")
    output.event(event="stopped")


def _is_triggered(place: DevPlace, env: str) -> bool:
    """Have an emulator of our own post what is created, and tell whether it does."""
    if not isinstance(place.emulator, Startable) or place.host is None:
        return False
    if trouble := register_trigger(place.host, place.project, env):
        _log.warning("no trigger on created tasks, so they wait for the next tick: %s", trouble)
    return not trouble


class Ticks:
    """One tick after the other, as a scheduler that knows seconds would ask for them."""

    def __init__(self, app: App, client: Client, *, budget: float, every: float, emulator: str | None) -> None:
        """`budget`, `every`: seconds. `emulator`: its `host:port`; without it there is nothing to go on with."""
        self._app = app
        self._client = client
        self._budget = budget
        self._every = every
        self._emulator = emulator

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until told to stop. Raises StoreUnavailable where the emulator is gone, and what users' code raises."""
        while not stop.is_set():
            if not await self._tick():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._every):
                        await stop.wait()

    async def _tick(self) -> bool:
        """Run a tick; tells whether the next one is to begin at once."""
        try:
            return (await tick(self._app, self._client, budget=self._budget)).more
        except StoreUnavailable as error:
            if self._emulator is not None and not await asyncio.to_thread(answers, self._emulator):
                msg = f"the emulator at {self._emulator} has ended, and with it all that was in it"
                raise StoreUnavailable(msg) from error
            _log.error("no tick: %s", error)  # told; the next one may succeed
            return False


async def _run(client: Client, serving: Serving, ticks: Ticks, started: Callable[[], None]) -> None:
    """Serve and tick until a signal comes, or one of both ends by itself; then what runs is given back."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(client)
        stop = stack.enter_context(stopped_by_signals())
        await stack.enter_async_context(serving)
        started()
        ticking, asked = asyncio.create_task(ticks.run(stop)), asyncio.create_task(stop.wait())
        await asyncio.wait({ticking, asked, serving.running}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.gather(serving.stop(), _end(ticking))


async def _end(ticking: asyncio.Task[None]) -> None:
    await asyncio.wait({ticking}, timeout=_GRACE_SECONDS)
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
