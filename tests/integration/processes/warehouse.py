"""Another service in the shop's environment: `python -m tests.integration.processes.warehouse`."""

from __future__ import annotations

import asyncio

from oncetask import App, Context, NoRetry, Payload
from tests.integration.processes.release_1 import serve


class Pick(Payload, kind="pick"):
    """Something to be fetched from a shelf."""

    shelf: int


app = App("warehouse", retry=NoRetry())


@app.handler(Pick)
async def pick(_: Context, payload: Pick) -> str:
    """Say whose work it was."""
    return f"warehouse: {payload!r}"


if __name__ == "__main__":
    asyncio.run(serve(app))
