"""arq on Redis."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool  # type: ignore[import-not-found,unused-ignore]
from arq.connections import ArqRedis, RedisSettings  # type: ignore[import-not-found,unused-ignore]
from arq.constants import default_queue_name  # type: ignore[import-not-found,unused-ignore]

from benchmarks.peers.queueing import SERVER
from benchmarks.peers.starts import mark

QUIET = {"version": 1, "disable_existing_loggers": False}


async def noop(_: dict[Any, Any]) -> None:
    """Do nothing."""
    mark()


class WorkerSettings:
    """What arq's own worker reads."""

    functions = (noop,)
    redis_settings = RedisSettings.from_dsn(os.environ[SERVER])
    max_jobs = 32
    # Seconds. A poll starts at most five times `max_jobs`, so that arq's own 0.5 allows for 320 tasks a second.
    poll_delay = 0.01


class Queue:
    """arq has no call for many tasks, so that they are enqueued 32 at a time."""

    def __init__(self, pool: ArqRedis) -> None:
        self._pool = pool

    async def enqueue(self, number: int) -> None:
        """Enqueue that many."""
        for first in range(0, number, 32):
            await asyncio.gather(*(self._pool.enqueue_job("noop") for _ in range(first, min(first + 32, number))))

    async def left(self) -> int:
        """Count what is in the queue; a task is taken out of it once its result is stored."""
        return int(await self._pool.zcard(default_queue_name))


@asynccontextmanager
async def open_queue() -> AsyncIterator[Queue]:
    """Connect."""
    pool = await create_pool(WorkerSettings.redis_settings)
    try:
        yield Queue(pool)
    finally:
        await pool.aclose()
