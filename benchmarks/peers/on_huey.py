"""huey on SQLite."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from huey import SqliteHuey  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.peers.queueing import SERVER
from benchmarks.peers.starts import mark

huey = SqliteHuey(filename=os.environ[SERVER])
noop = huey.task(name="noop")(mark)


class Queue:
    """huey has no call for many tasks."""

    async def enqueue(self, number: int) -> None:
        """Enqueue that many, one after the other."""
        for _ in range(number):
            noop()

    async def left(self) -> int:
        """Count what is in the queue; a worker takes a task out of it before it runs, and acknowledges nothing."""
        return int(huey.pending_count())


@asynccontextmanager
async def open_queue() -> AsyncIterator[Queue]:
    """Make the file, as importing this module has done."""
    yield Queue()
