"""What the tests of the worker build: payloads, and a worker around one task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Unpack

from oncetask import App, Client, Context, EnqueueOptions, FixedDelay, Payload, Task, Worker

__all__ = ["LIMIT", "SOON", "Job", "Other", "app_of", "done", "enqueue", "outcome_of", "raising", "stop_while"]

LIMIT = 20.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""

SOON = FixedDelay(3, 0)
"""Three attempts without a wait between them."""


class Job(Payload, kind="job"):
    """What most tests run."""

    n: int = 0


class Other(Payload, kind="other"):
    """A second kind."""

    n: int = 0


def app_of(handler: Callable[[Context, Job], Any], **options: Any) -> App:
    """Give an App in which this function handles `Job`; a failing one has three attempts, one right after the other."""
    app = App()
    app.handler(Job, **{"retry": SOON, **options})(handler)
    return app


def raising(*errors: BaseException | None) -> Callable[[Context, Job], Any]:
    """Give a handler whose attempts raise these errors in turn; None, and every one after them: it returns."""
    left = list(errors)

    async def handler(_: Context, __: Job) -> str:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return "done at last"

    return handler


async def enqueue(client: Client, *numbers: int) -> list[str]:
    """Enqueue jobs with these numbers and give their ids."""
    return [receipt.task_id for receipt in await client.enqueue_many([Job(n=n) for n in numbers])]


async def done(client: Client, *task_ids: str) -> list[Task]:
    """Wait until tasks are done."""
    return list(await asyncio.gather(*(client.wait(task_id, LIMIT) for task_id in task_ids)))


async def stop_while(worker: Worker, what_runs_goes_on: asyncio.Event) -> None:
    """Tell a worker to stop, then let go on what runs, and wait until it has stopped."""
    stop = asyncio.create_task(worker.stop())
    await asyncio.sleep(0)
    what_runs_goes_on.set()
    await asyncio.wait_for(stop, LIMIT)


async def outcome_of(app: App, client: Client, **options: Unpack[EnqueueOptions]) -> Task:
    """Enqueue one job, let a worker run it to its end, and give its last record."""
    async with Worker(app, client):
        receipt = await client.enqueue(Job(n=7), **options)
        return await client.wait(receipt.task_id, LIMIT)
