"""A worker's program that lacks its guard: `python -m tests.integration.processes.unguarded WITNESS`."""

from __future__ import annotations

import asyncio

from oncetask import Worker, connect
from tests.integration.processes.crunching import app


async def main() -> None:
    """Work until told to stop."""
    async with connect() as client:
        await Worker(app, client, processes=1).run()


asyncio.run(main())
