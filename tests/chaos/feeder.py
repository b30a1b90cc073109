"""A client that enqueues its share: `python -m tests.chaos.feeder FOLDER NUMBER TASKS CHUNK PAUSE BACKLOG SEED`.

Told so by SIGUSR1 it dies by kill -9 in the middle of its next call, and then the one that follows repeats that whole.
Now and then it enqueues again what is there already. Exits with 0 when all of its share is stored.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import sys
from contextlib import aclosing, closing
from pathlib import Path

from oncetask import Client, Receipt, StoreUnavailable, connect
from tests.chaos.tasks import feeder_of, numbered
from tests.chaos.witness import Witness

__all__: list[str] = []

_ASKS = "asks"
_DIES_SECONDS = 0.02
_BREATH_SECONDS, _LOOK_SECONDS = 0.1, 0.5
_REPEATS_ONE_IN = 5


async def _feed(folder: Path, number: int, *, tasks: int, chunk: int, pause: float, backlog: int, seed: str) -> None:
    lots = random.Random(f"{seed} feeder {number}")  # noqa: S311  # a test's lots
    with closing(Witness(folder, f"feeder-{number}")) as witness:
        async with aclosing(connect()) as client:  # opened at its first use, which is repeated where it fails
            doomed = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, doomed.set)
            witness.note("works")
            stored = witness.stored()
            for start in range(0, tasks, chunk):
                if feeder_of(start, chunk) != number or start in stored:
                    continue
                await _until_there_is_room(client, backlog)
                witness.note(_ASKS, start)
                if dies := doomed.is_set():
                    asyncio.get_running_loop().call_later(
                        lots.uniform(0, _DIES_SECONDS), signal.raise_signal, signal.SIGKILL
                    )
                receipts = await _enqueue(client, start, tasks=tasks, chunk=chunk)
                if dies:
                    await asyncio.Event().wait()  # for the end: nobody hears the answer
                witness.note("stored", start, *_told(receipts))
                stored.add(start)
                if lots.randrange(_REPEATS_ONE_IN) == 0:
                    repeated = lots.choice(sorted(stored))
                    witness.note("repeated", *_told(await _enqueue(client, repeated, tasks=tasks, chunk=chunk)))
                await asyncio.sleep(pause)


async def _until_there_is_room(client: Client, backlog: int) -> None:
    """Wait until fewer than so many tasks are open; 0: there is always room."""
    while backlog:
        try:
            if await client.pending_count() < backlog:
                return
        except StoreUnavailable:
            """Ask again."""
        await asyncio.sleep(_LOOK_SECONDS)


async def _enqueue(client: Client, start: int, *, tasks: int, chunk: int) -> list[Receipt]:
    """Enqueue a chunk, whole, until that is answered."""
    payloads = [numbered(n, tasks=tasks, chunk=chunk) for n in range(start, min(start + chunk, tasks))]
    while True:
        try:
            return await client.enqueue_many(payloads)
        except StoreUnavailable:
            await asyncio.sleep(_BREATH_SECONDS)


def _told(receipts: list[Receipt]) -> tuple[list[str], list[str]]:
    """Give all ids, and those that were created."""
    return [one.task_id for one in receipts], [one.task_id for one in receipts if one.created]


if __name__ == "__main__":
    logging.getLogger("oncetask").setLevel(logging.CRITICAL)  # the store is unavailable on purpose
    asyncio.run(
        _feed(
            Path(sys.argv[1]),
            int(sys.argv[2]),
            tasks=int(sys.argv[3]),
            chunk=int(sys.argv[4]),
            pause=float(sys.argv[5]),
            backlog=int(sys.argv[6]),
            seed=sys.argv[7],
        )
    )
