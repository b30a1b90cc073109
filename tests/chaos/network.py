"""A network between a process and the emulator that is slow, breaks, or goes silent, for that process alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.integration.firestore.proxy import Proxy

__all__ = ["Wire"]


class Wire(Proxy):
    """Passes bytes on, both ways: later, or not for a while, or not at all."""

    def __init__(self, target: str) -> None:
        """`target`: host:port."""
        super().__init__(target)
        self.delay = 0.0
        """Seconds that each piece takes."""
        self.refuses = False
        """No connection can be made."""
        self._flows = asyncio.Event()
        self._flows.set()

    def silence(self) -> None:
        """Let nothing through, and break nothing: who waits for an answer goes on waiting."""
        self._flows.clear()

    def mend(self) -> None:
        """Let everything through again; what was under way arrives."""
        self.delay, self.refuses = 0.0, False
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        await super()._accept(reader, writer)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        sink.close()
        with suppress(OSError):
            await sink.wait_closed()
        self._writers.discard(sink)
