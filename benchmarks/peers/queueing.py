"""The process that enqueues: `python -m benchmarks.peers.queueing MODULE`, one request and one answer a line.

It is a process of its own so that the libraries of a runner, its connections and its garbage burden nobody else.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol, cast

__all__ = ["SERVER", "Queue", "QueueModule"]

SERVER = "ONCETASK_PEERS_SERVER"
"""The environment variable that tells where the server is."""


class Queue(Protocol):
    """The queue of a task runner."""

    async def enqueue(self, number: int) -> None:
        """Enqueue that many no-op tasks."""
        ...

    async def left(self) -> int:
        """Count the tasks that are not acknowledged yet."""
        ...


class QueueModule(Protocol):
    """What each module `on_…` has."""

    def open_queue(self) -> AbstractAsyncContextManager[Queue]:
        """Connect, and prepare what the runner needs in an empty store."""
        ...


async def serve(module: QueueModule) -> None:
    """Answer `enqueue N` with the seconds before and after, `left` with a number, until the input ends."""
    async with module.open_queue() as queue:
        # Nothing else has to happen on this loop between two requests, so it may as well wait here.
        for line in sys.stdin:
            match line.split():
                case ["enqueue", number]:
                    began = time.monotonic()
                    await queue.enqueue(int(number))
                    _answer([began, time.monotonic()])
                case ["left"]:
                    _answer(await queue.left())
                case _:
                    raise ValueError(f"request {line!r}: must be `enqueue N` or `left`")


def _answer(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(cast("QueueModule", importlib.import_module(f"benchmarks.peers.{sys.argv[1]}"))))
