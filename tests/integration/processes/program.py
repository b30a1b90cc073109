"""A worker's program, as a user would write one: `python -m tests.integration.processes.program WITNESS`.

The store is the one of ONCETASK_STORE. Each run of a handler leaves a line in the witness file, which nothing of
oncetask knows.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from oncetask import App, Context, FixedDelay, Payload, Worker, connect

app = App("processes")


class Job(Payload, kind="job"):
    """Takes a moment, and says that it ran."""

    number: int


class Killer(Payload, kind="killer"):
    """Takes its worker down with it."""


class Patient(Payload, kind="patient"):
    """Ends only when it is told to stop."""

    number: int


class Guarded(Payload, kind="guarded"):
    """Runs until it is cancelled, and has something to clean up."""


class GuardedThread(Guarded, kind="guarded-thread"):
    """The same in a thread."""


def note(line: object) -> None:
    """Append a line to the witness file; appends of one line are atomic."""
    with Path(sys.argv[1]).open("a") as witness:
        witness.write(f"{line}\n")


@app.handler(Job, timeout=5, retry=FixedDelay(50, 0.05))
async def work(_: Context, job: Job) -> None:
    """Take a moment."""
    await asyncio.sleep(0.005)
    note(job.number)


@app.handler(Killer, timeout=5, retry=FixedDelay(2, 0.05))
async def kill(_: Context, __: Killer) -> None:
    """End the process without a word."""
    note("killer")
    os._exit(9)


@app.handler(Patient, timeout=60)
async def wait(ctx: Context, patient: Patient) -> None:
    """Wait to be told to stop."""
    note(patient.number)
    await ctx.wait_aborted()


@app.handler(Guarded, timeout=60)
async def guard(ctx: Context, _: Guarded) -> None:
    """Wait for the end, and say why it came."""
    note("guarding")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note(f"stopped-{ctx.abort_reason}")
        raise


@app.handler(GuardedThread, timeout=60)
def guard_in_a_thread(ctx: Context, _: GuardedThread) -> None:
    """Look at the signal, and say why it came."""
    note("guarding")
    ctx.wait_aborted_sync()
    note(f"stopped-{ctx.abort_reason}")


@app.cancellation_handler(GuardedThread, retry=FixedDelay(5, 0.05))
@app.cancellation_handler(Guarded, retry=FixedDelay(5, 0.05))
async def clean_up(ctx: Context, _: Guarded) -> None:
    """Say that it ran."""
    note(f"cleanup-{ctx.attempt}")


async def main() -> None:
    """Work until told to stop. A short lease, so that a test need not wait long for a rescue."""
    async with connect() as client:
        await Worker(app, client, concurrency=16, lease=2, grace=0.2).run(handle_signals=True)


if __name__ == "__main__":
    asyncio.run(main())
