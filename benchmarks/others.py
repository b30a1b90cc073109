"""Other processes that take part in a benchmark: they are told what to do, and tell what they saw, in lines of text."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from oncetask import Client

if TYPE_CHECKING:
    from oncetask.store.firestore.rpc import RpcCounter

__all__ = ["Other", "counted", "listening", "say", "started"]

_LINE_SECONDS = 300.0


class Other:
    """Another process, as whoever started it sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """`process`: with pipes for its input and output."""
        self._process = process

    def tell(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None  # noqa: S101  # asked for when it was started
        self._process.stdin.write(f"{line}\n".encode())

    async def hear(self) -> str:
        """Wait for its next line; exits the program where there is none within five minutes, or it has ended."""
        assert self._process.stdout is not None  # noqa: S101  # asked for when it was started
        try:
            async with asyncio.timeout(_LINE_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            sys.exit(f"another process said nothing for {_LINE_SECONDS:g} s: the figures mean nothing")
        if not line:
            sys.exit("another process ended early: the figures mean nothing")
        return line.decode().rstrip("\n")


@asynccontextmanager
async def started(module: str, *arguments: str, **environment: str) -> AsyncIterator[Other]:
    """Run `python -m module` beside this process, with further environment variables; it is killed in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Other(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def say(line: object) -> None:
    """Send a line to whoever started this process."""
    print(line, flush=True)


@asynccontextmanager
async def listening() -> AsyncIterator[asyncio.StreamReader]:
    """Give the lines that whoever started this process sends."""
    reader = asyncio.StreamReader()
    make = asyncio.get_running_loop().connect_read_pipe
    transport, _ = await make(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        yield reader
    finally:
        transport.close()


def counted(client: Client) -> dict[str, int]:
    """Give what a client's store has counted so far; nothing where it does not count."""
    counters: RpcCounter | None = getattr(client.store, "counters", None)
    if counters is None:
        return {}
    return {
        "reads": counters.documents_read + counters.listen_documents,
        "writes": counters.writes_sent,
        "refused": counters.writes_refused,
    }
