"""Celery on Redis."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from celery import Celery  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.peers.queueing import SERVER
from benchmarks.peers.starts import mark

app = Celery("noop", broker=os.environ[SERVER])
# Results that nobody reads are not kept, and many short tasks are fetched ahead: both by Celery's own advice.
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=128, broker_connection_retry_on_startup=True)
noop = app.task(mark, name="noop")


class Queue:
    """Celery has no call for many tasks; its advice is one producer for all of them."""

    async def enqueue(self, number: int) -> None:
        """Enqueue that many."""
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(number):
                noop.apply_async(producer=producer)

    async def left(self) -> int:
        """Count what waits, and what workers have fetched and not acknowledged."""
        with app.connection_for_read() as connection:
            client = connection.default_channel.client
            return int(client.llen("celery") + client.hlen("unacked"))


@asynccontextmanager
async def open_queue() -> AsyncIterator[Queue]:
    """Connect at the first use."""
    yield Queue()
