"""Threads that do not obey, in a tick."""

from __future__ import annotations

import threading

from oncetask import Client, Context, NoRetry, tick
from tests.integration.stores import ON_SQLITE
from tests.integration.worker.support import Job, app_of, enqueue

pytestmark = ON_SQLITE


async def test_a_thread_that_keeps_the_last_slot(connected: Client) -> None:
    """What is due, and was left because a thread does not obey, is run in time or reported as due."""
    released = threading.Event()

    def handler(_: Context, job: Job) -> None:
        if job.n == 0:
            released.wait()

    await enqueue(connected, 0, 1)
    try:
        app = app_of(handler, timeout=0.1, retry=NoRetry())
        report = await tick(app, connected, budget=2, concurrency=1, abort_grace=0.1)
    finally:
        released.set()
    assert report.completed == 1 or report.more
