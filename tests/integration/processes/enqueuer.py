"""A backend that enqueues the same keys as another one: `python -m tests.integration.processes.enqueuer WITNESS`.

Each task that this process created leaves a line in the witness file.
"""

from __future__ import annotations

import asyncio

from oncetask import connect
from tests.integration.processes.program import Job, note

NUMBER = 400


async def main() -> None:
    """Enqueue one after the other."""
    async with connect() as client:
        for number in range(NUMBER):
            if (await client.enqueue(Job(number=number), task_id=f"job-{number}")).created:
                await asyncio.to_thread(note, f"created-{number}")


if __name__ == "__main__":
    asyncio.run(main())
