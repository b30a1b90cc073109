"""Functions whose tasks run as long as a test wants: until the test hangs up on them."""

from __future__ import annotations

import asyncio

import functions_framework.aio

from oncetask import App, Context, Payload, functions


class Hold(Payload, kind="hold"):
    """Whom to tell that it runs."""

    port: int


app = App("holding")


@app.handler(Hold)
async def hold(_: Context, call: Hold) -> str:
    """Call the test, and wait until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", call.port)
    await reader.read()
    writer.close()
    return "let go"


scheduler = functions_framework.aio.http(functions.scheduler(app, budget=30))
