"""A user's program, for `oncetask worker tests.integration.faults.busy:app`: some tasks take long, most end at once."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from oncetask import App, Context, FixedDelay, Payload

__all__ = ["LONG", "QUICK", "Long", "Quick", "Stubborn", "app"]

LONG, QUICK = 20, 200
app = App("busy", timeout=60, retry=FixedDelay(3, 0.02))


class Quick(Payload, kind="quick"):
    """Ends at once."""

    n: int


class Long(Payload, kind="long"):
    """Ends when it is told to, and not before, unless the environment says so."""

    n: int


class Stubborn(Payload, kind="stubborn"):
    """Does not end when it is told to, the first time."""


@app.handler(Quick)
async def quick(_: Context, __: Quick) -> None:
    """Take a moment."""
    await asyncio.sleep(0.005)


@app.handler(Long)
async def long(_: Context, __: Long) -> None:
    """Wait to be cancelled."""
    if "LONG_TASKS_END" not in os.environ:
        await asyncio.Event().wait()


@app.handler(Stubborn)
async def stubborn(ctx: Context, _: Stubborn) -> None:
    """Take no notice of being cancelled."""
    while not ctx.task.errors:  # of the attempt before, which was lost with its worker
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
