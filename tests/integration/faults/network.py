"""A network between a store and its emulator that is slow, cut off, silent, or leads to another one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

__all__ = ["Network"]


class Network:
    """Passes bytes on as it is told to; what its attributes say holds for all connections, from now on."""

    def __init__(self, target: str) -> None:
        """`target`: host:port."""
        self.target = target
        """Where new connections lead to."""
        self.delay = 0.0
        """Seconds that every piece of data takes longer, each way."""
        self.reset_after: int | None = None
        """Break a connection once so many bytes have come through it; None: never."""
        self._is_cut = False
        self._silent: set[asyncio.StreamWriter] = set()
        self._sinks: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.resets = 0
        """How many connections were broken because of `reset_after`."""

    @property
    def host(self) -> str:
        """Where it listens, as host:port."""
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break every connection, and every new one, until it is mended."""
        self._is_cut = True
        for sink in self._sinks:
            sink.transport.abort()

    def mend(self) -> None:
        """Let new connections through."""
        self._is_cut = False

    def fall_silent(self) -> None:
        """Swallow what comes through the connections that there are, for ever; new ones work."""
        self._silent |= self._sinks

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        host, port = self.target.rsplit(":", 1)
        try:
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        for source, sink, other in ((reader, back, writer), (there, writer, back)):
            self._sinks.add(sink)
            task = asyncio.create_task(self._pass_on(source, sink, other))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, other: asyncio.StreamWriter
    ) -> None:
        passed = 0
        try:
            with suppress(OSError):
                while data := await source.read(65_536):
                    if self.delay:
                        await asyncio.sleep(self.delay)
                    passed += len(data)
                    if self.reset_after is not None and passed > self.reset_after:
                        self.resets += 1
                        other.transport.abort()
                        break
                    if sink not in self._silent:
                        sink.write(data)
                        await sink.drain()
        finally:
            sink.transport.abort()
            self._sinks.discard(sink)
            self._silent.discard(sink)
