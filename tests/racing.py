"""A race of workers for the same generators, and a witness of what they ran; for a test and a benchmark."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from oncetask import App, Client, Context, Payload, Recurrence, Worker
from tests.support import Shift, not_none

__all__ = ["Witness", "an_app", "race"]

PATIENCE = 60.0


class Job(Payload, kind="job"):
    """What they run."""

    n: int = 0


class Witness:
    """A table outside of the queue: which generator's instant was run how often."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[int, datetime]] = Counter()
        self._grown = asyncio.Event()

    def saw(self, n: int, ctx: Context) -> None:
        """Note a run."""
        self.runs[n, not_none(ctx.task.occurrence_timestamp)] += 1
        self._grown.set()

    async def has(self, number: int) -> None:
        """Wait until so many different ones were run."""
        async with asyncio.timeout(PATIENCE):
            while len(self.runs) < number:
                self._grown.clear()
                await self._grown.wait()


def an_app(witness: Witness) -> App:
    """Give an App whose handler does nothing but tell the witness."""
    app = App(timeout=timedelta(days=1))  # no lease runs out because a test moves the time

    @app.handler(Job)
    async def handler(ctx: Context, job: Job) -> None:
        witness.saw(job.n, ctx)

    return app


async def race(
    clients: Sequence[Client], shift: Shift, *, generators: int, runs: int
) -> tuple[Witness, set[tuple[int, datetime]]]:
    """Let generators run for so many minutes under three workers, of which one drains, ends and begins anew.

    Gives the witness, and what it has to have seen: each instant of each generator.
    """
    start = (await clients[0].store.now()).latest.replace(microsecond=0) + timedelta(minutes=1)
    rule, witness = Recurrence(f"FREQ=MINUTELY;COUNT={runs}", start, catch_up="all"), Witness()
    await asyncio.gather(
        *(clients[n % 3].enqueue(Job(n=n), task_id=f"g{n}", recurrence=rule) for n in range(generators))
    )
    app = an_app(witness)
    lease = timedelta(days=1)

    async def come_and_go() -> None:
        while True:
            async with Worker(app, clients[2], poll=0.05, lease=lease, concurrency=8):
                await witness.has(len(witness.runs) + 1)

    async with Worker(app, clients[0], poll=0.05, lease=lease), Worker(app, clients[1], poll=0.05, lease=lease):
        coming_and_going = asyncio.create_task(come_and_go())
        for run in range(1, runs + 1):
            shift.advance(60)
            # Often the time runs on before everything was done, so that they are late and have to catch up.
            await witness.has(generators * (run if run % 3 == 0 or run == runs else run - 1))
        coming_and_going.cancel()
        await asyncio.wait({coming_and_going})
    return witness, {(n, start + timedelta(minutes=m)) for n in range(generators) for m in range(runs)}
