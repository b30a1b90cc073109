"""What the tests start as processes of their own: `python -m tests.integration.processes.program worker|enqueuer`.

Each start of a handler, and each task that the enqueuer created, is a line on standard output. The store is the one of
ONCETASK_STORE.
"""

from __future__ import annotations

import asyncio
import os
import sys

from oncetask import App, Context, ExponentialBackoff, FixedDelay, Payload, Worker, connect

__all__ = ["KEYS", "LEASE", "Deadly", "Endless", "Keyed", "Touch"]

LEASE = 1.5
"""Seconds: short, so that a rescue is quick."""

KEYS = 400
_STDOUT = 1

app = App("processes", retry=ExponentialBackoff(max_attempts=1_000, base_delay=0.1, max_delay=1))


class Touch(Payload, kind="touch"):
    """A moment's work."""

    n: int


class Deadly(Payload, kind="deadly"):
    """Kills its worker."""


class Endless(Payload, kind="endless"):
    """Works until it is stopped."""

    n: int


class Keyed(Payload, kind="keyed"):
    """Exists once for each number."""

    n: int

    def idempotency_key(self) -> str:
        """Give the number."""
        return str(self.n)


def _tell(line: object) -> None:
    os.write(_STDOUT, f"{line}\n".encode())  # in one piece, whatever kills this process


@app.handler(Touch)
async def touch(_: Context, payload: Touch) -> None:
    """Say so, and take a moment."""
    _tell(payload.n)
    await asyncio.sleep(0.01)


@app.handler(Keyed)
async def keyed(_: Context, payload: Keyed) -> None:
    """Say so."""
    _tell(payload.n)


@app.handler(Endless)
async def endless(_: Context, payload: Endless) -> None:
    """Say so, and never end."""
    _tell(payload.n)
    await asyncio.Event().wait()


@app.handler(Deadly, retry=FixedDelay(2, 0))
def deadly(_: Context, __: Deadly) -> None:
    """Die as a crash would."""
    _tell("deadly")
    os._exit(9)


async def work() -> None:
    """Be a worker until a signal comes."""
    async with connect() as client:
        await Worker(app, client, concurrency=16, grace=0.5, lease=LEASE).run(handle_signals=True)


async def enqueue() -> None:
    """Enqueue every key, one call after the other, and tell of those that were created here."""
    async with connect() as client:
        for n in range(KEYS):
            if (await client.enqueue(Keyed(n=n))).created:
                _tell(n)


if __name__ == "__main__":
    asyncio.run({"worker": work, "enqueuer": enqueue}[sys.argv[1]]())
