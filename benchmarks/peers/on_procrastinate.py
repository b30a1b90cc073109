"""Procrastinate on PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found,unused-ignore]

from benchmarks.peers.queueing import SERVER
from benchmarks.peers.starts import mark

app = App(connector=PsycopgConnector(conninfo=os.environ[SERVER]))


@app.task(name="noop")  # type: ignore[untyped-decorator,unused-ignore]
async def noop() -> None:
    """Do nothing."""
    mark()


_UNDONE = "SELECT count(*) AS number FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"


class Queue:
    """Many tasks go in one statement, a thousand at a time."""

    async def enqueue(self, number: int) -> None:
        """Enqueue that many."""
        for first in range(0, number, 1_000):
            await noop.batch_defer_async(*({} for _ in range(first, min(first + 1_000, number))))

    async def left(self) -> int:
        """Count what waits, and what runs."""
        return int((await app.connector.execute_query_one_async(_UNDONE))["number"])


@asynccontextmanager
async def open_queue() -> AsyncIterator[Queue]:
    """Connect, and make the tables."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        yield Queue()
