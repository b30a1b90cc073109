"""A store that is far: `python -m benchmarks.far HOST:PORT SECONDS` passes bytes on, both ways, each so much later.

It says at which host and port it listens. It is far, but not narrow: any number of bytes may be under way.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from benchmarks.others import say

__all__: list[str] = []


async def _serve(target: str, seconds: float) -> None:
    host, port = target.rsplit(":", 1)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pass_on(reader, back, seconds), _pass_on(there, writer, seconds))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        address, port_here = server.sockets[0].getsockname()[:2]
        say(f"{address}:{port_here}")
        await server.serve_forever()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seconds: float) -> None:
    """Write what comes, later; timers of one delay go off in the order in which they were set."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while data := await source.read(2**20):
            loop.call_later(seconds, sink.write, data)
    loop.call_later(seconds, sink.close)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], float(sys.argv[2])))
