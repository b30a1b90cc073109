"""What a client sends, read ahead: a server tells of a client's leaving only to those who receive."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

from starlette.types import Message, Receive

__all__ = ["Incoming"]

_AHEAD = 64 * 1024
"""Bytes read ahead of their reader; beyond them the client waits, and its leaving goes unnoticed meanwhile."""

_LEAST = 1024
"""Bytes that a message counts for at least, so that a flood of tiny ones has a bound too."""


class Incoming:
    """The messages of one ASGI connection; `async with` reads ahead, and reads nothing any more when it ends.

    `gone` is done once the client has left, with the message that told it. `receive` stands in for the server's own,
    also after the end: what was read ahead comes first.
    """

    def __init__(self, receive: Receive) -> None:
        """`receive`: the server's, which nobody else may call until the end."""
        self._receive = receive
        self._ahead: deque[Message] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self.gone: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read(), name="oncetask reading ahead")
        self._reading.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.wait({self._reading})

    async def receive(self) -> Message:
        """Give the next message; once the client has left, its disconnect at once and every time.

        Raises what the server's own `receive` raised.
        """
        while True:
            if self.gone.done():
                return self.gone.result()
            if self._ahead:
                return self._taken()
            if self._reading.done():
                break
            self._news.clear()
            await self._news.wait()
        if not self._reading.cancelled():
            self._reading.result()  # raises: reading ends by itself only at a disconnect or by an error
        return await self._receive()

    async def _read(self) -> None:
        while True:
            while self._size >= _AHEAD:
                self._room.clear()
                await self._room.wait()
            message = await self._receive()
            if message["type"].endswith(".disconnect"):
                self.gone.set_result(message)
                return
            self._ahead.append(message)
            self._size += _weight(message)
            self._news.set()

    def _taken(self) -> Message:
        message = self._ahead.popleft()
        self._size -= _weight(message)
        self._room.set()
        return message


def _weight(message: Message) -> int:
    content = message.get("body") or message.get("text") or message.get("bytes") or b""
    return max(len(content), _LEAST)
