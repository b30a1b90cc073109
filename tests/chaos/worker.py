"""A worker's program: `python -m tests.chaos.worker FOLDER NAME LEASE SEED`; the store is the one of ONCETASK_STORE."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from contextlib import aclosing, closing
from pathlib import Path

from oncetask import Client, StoreUnavailable, Worker, connect
from tests.chaos.tasks import make_app
from tests.chaos.witness import Witness

__all__: list[str] = []

_BREATH_SECONDS = 0.2


async def _work(folder: Path, name: str, lease: float, seed: str) -> None:
    lots = random.Random(f"{seed} {name}")  # noqa: S311  # a test's lots
    with closing(Witness(folder, name)) as witness:
        async with aclosing(connect()) as client:
            await _open(client)
            worker = Worker(make_app(witness, lots, lease=lease), client, lease=lease, poll=5)
            working = asyncio.create_task(worker.run(handle_signals=True))
            started = asyncio.create_task(worker.started())
            await asyncio.wait({working, started}, return_when=asyncio.FIRST_COMPLETED)
            witness.note("works")
            await working
            witness.note("stopped")


async def _open(client: Client) -> None:
    """Wait for the store to be there, as a supervisor would that starts the process again and again."""
    while True:
        try:
            await client.store.open()
        except StoreUnavailable:
            await asyncio.sleep(_BREATH_SECONDS)
        else:
            return


if __name__ == "__main__":
    logging.getLogger("oncetask").setLevel(logging.CRITICAL)  # it fails, and loses leases, on purpose
    asyncio.run(_work(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]))
