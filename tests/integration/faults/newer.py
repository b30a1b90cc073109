"""A later version of oncetask, whose documents are of schema 2: `python -m tests.integration.faults.newer DOES`.

It is this version, taught that there is a schema 2; as a later one would, it runs tasks of both. It does `enqueue`, and
ends, or `work`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from oncetask import App, Context, Payload, Task, Worker, client, connect, lifecycle
from oncetask.enqueueing import new_task
from oncetask.task import SCHEMA

__all__ = ["NUMBER", "Job"]

NUMBER = 60


class Job(Payload, kind="job"):
    """What both versions have."""

    n: int = 0


class NewJob(Payload, kind="job"):
    """What the later one has made of it."""

    parts: list[int]


def become_newer() -> None:
    """Teach this process the next schema."""

    def newer(*arguments: Any, **options: Any) -> Task:
        return new_task(*arguments, **options).evolve(schema=SCHEMA + 1)

    for module, name, value in ((lifecycle, "SCHEMA", SCHEMA + 1), (client, "new_task", newer)):
        assert hasattr(module, name)
        setattr(module, name, value)


async def enqueue() -> None:
    """Enqueue one after the other."""
    async with connect() as connected:
        for n in range(NUMBER):
            await connected.enqueue(NewJob(parts=[n]), task_id=f"newer-{n}")


async def work() -> None:
    """Run what there is until told to stop."""
    app = App()

    @app.handler(NewJob)
    async def handle(_: Context, job: NewJob) -> list[int]:
        return job.parts

    async with connect() as connected:
        await Worker(app, connected).run(handle_signals=True)


if __name__ == "__main__":
    become_newer()
    asyncio.run({"enqueue": enqueue, "work": work}[sys.argv[1]]())
