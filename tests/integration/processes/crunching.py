"""A worker whose handlers run in processes: `python -m tests.integration.processes.crunching WITNESS`.

Payload and handler are of the program itself, `__main__`, which the other process has to find again.
"""

from __future__ import annotations

import asyncio
import os

from oncetask import App, Context, NoRetry, Payload, Worker, connect

app = App("crunching")


class Spin(Payload, kind="spin"):
    """Keeps a CPU busy for ever, or says at once where it is."""

    ever: bool = True


@app.handler(Spin, timeout=60, run_in="process", retry=NoRetry())
def spin(ctx: Context, job: Spin) -> int:
    """Say in which process this is, and stay there."""
    ctx.progress(None, data=os.getpid())
    while job.ever:
        pass
    return os.getpid()


async def main() -> None:
    """Work until told to stop."""
    async with connect() as client:
        await Worker(app, client, processes=1, lease=2, grace=0.2).run(handle_signals=True)


if __name__ == "__main__":
    asyncio.run(main())
