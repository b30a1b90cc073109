"""A worker, or a tick, that stops itself amidst its handlers: `python -m tests.integration.faults.stopping ROLE`.

The role "first" stops its own process (SIGSTOP) once all the handlers that were announced run, on the event loop
itself, so that what comes next, after SIGCONT, is the end of each handler. "second" is who takes over meanwhile. "tick"
is like "first", for one tick.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from oncetask import App, Context, Discard, FixedDelay, Payload, RetryAfter, Snooze, Worker, connect, tick

__all__ = ["SHORT_LEASE_SECONDS", "Ending", "KeyedEnding", "Probe", "an_app"]

SHORT_LEASE_SECONDS = 2.0
_LONG_LEASE_SECONDS = 60.0


class Ending(Payload, kind="ending"):
    """A handler that ends, in the process that was stopped, as `how` says."""

    how: str
    of: int
    """So many run in the first process when it stops."""
    gate: Path | None = None
    """A file; who takes over runs until it is there."""


class KeyedEnding(Ending, kind="keyed-ending"):
    """The same under a resource key."""

    key: str

    def resource_key(self) -> str:
        """Give the key."""
        return self.key


class Probe(Payload, kind="probe"):
    """Tells which process ran it."""


_RAISED: dict[str, Exception] = {
    "fails": RuntimeError("nobody wants to know"),
    "discards": Discard("nobody wants to know"),
    "snoozes": Snooze(3600),
    "retries later": RetryAfter(3600),
}


def an_app(role: str) -> App:
    """Give the App of a process with this role."""
    app = App("stopping", retry=FixedDelay(5, 0.05))
    running = 0
    all_run = asyncio.Event()

    async def run_first(ctx: Context, ending: Ending) -> str:
        nonlocal running
        running += 1
        ctx.enqueue(Probe(), task_id=f"staged-first-{ctx.task_id}", delay=3600)
        if running == ending.of:
            os.kill(os.getpid(), signal.SIGSTOP)
            all_run.set()
        await all_run.wait()
        if ending.how == "tells":
            ctx.progress(0.5, "of the first")
            await ctx.wait_aborted()
        if ending.how in _RAISED:
            raise _RAISED[ending.how]
        return "first"

    async def run_second(ctx: Context, ending: Ending) -> str:
        ctx.enqueue(Probe(), task_id=f"staged-second-{ctx.task_id}", delay=3600)
        if ending.gate is not None:
            while not await asyncio.to_thread(ending.gate.exists):  # noqa: ASYNC110  # another process makes it
                await asyncio.sleep(0.02)
        return "second"

    @app.handler(KeyedEnding, timeout=120)
    @app.handler(Ending, timeout=120)
    async def run(ctx: Context, ending: Ending) -> str:
        return await (run_second if role == "second" or ctx.attempt > 1 else run_first)(ctx, ending)

    @app.handler(Probe)
    async def probe(_: Context, __: Probe) -> int:
        return os.getpid()

    return app


async def main(role: str) -> None:
    """Work until told to stop; a tick says in the end what it did."""
    app = an_app(role)
    async with connect() as client:
        if role == "tick":
            report = await tick(app, client, budget=50)
            print(json.dumps(asdict(report), default=str))  # noqa: T201  # to the test
            return
        lease = SHORT_LEASE_SECONDS if role == "first" else _LONG_LEASE_SECONDS
        await Worker(app, client, lease=lease, grace=0.2).run(handle_signals=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    asyncio.run(main(sys.argv[1]))
