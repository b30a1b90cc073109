"""A server of ASGI as simple as one can be, for requests that no client library would send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

__all__ = ["Answer", "Conversation", "Request", "ask"]

LIMIT = 20.0
"""Seconds after which nothing comes any more; nothing takes nearly as long."""


@dataclass(frozen=True)
class Request:
    """What comes over the wire."""

    method: str
    path: bytes
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: tuple[bytes, ...] = field(default=(b"",))
    """In chunks."""

    def scope(self, kind: str = "http") -> dict[str, Any]:
        """Give what uvicorn makes of it."""
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": unquote(self.path.decode("ascii")),
            "raw_path": self.path,
            "query_string": self.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in self.headers],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 80),
            "extensions": {},
        }


@dataclass(frozen=True)
class Answer:
    """What the application sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What the body says."""
        return json.loads(self.body)


async def ask(application: ASGIApp, request: Request) -> Answer:
    """Let an application answer; whatever it raises is raised."""
    chunks, sent = list(request.body), list[Message]()

    async def receive() -> Message:
        if not chunks:
            await asyncio.Event().wait()  # the client stays
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    await asyncio.wait_for(application(request.scope(), receive, send), LIMIT)
    start, *bodies = sent
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(message.get("body", b"") for message in bodies))


class Conversation(AbstractAsyncContextManager["Conversation"]):
    """A WebSocket from the client's side, open while the block runs."""

    def __init__(self, application: ASGIApp) -> None:
        """`application`: what serves it at /ws."""
        self._application = application
        self._to, self._from = asyncio.Queue[Message](), asyncio.Queue[Message]()

    async def __aenter__(self) -> Self:
        """Connect."""
        scope = {**Request("GET", b"/ws").scope("websocket"), "scheme": "ws", "subprotocols": []}
        self._to.put_nowait({"type": "websocket.connect"})
        self._serving = asyncio.ensure_future(self._serve(scope))
        assert (await self._next())["type"] == "websocket.accept"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave, and raise what the application raised."""
        self._to.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(self._serving, LIMIT)

    def say(self, *messages: str | bytes) -> None:
        """Send frames."""
        for message in messages:
            self._to.put_nowait({"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message})

    async def hear_until(self, request_id: str) -> list[Any]:
        """Give what is sent, up to the answer with this id."""
        heard: list[Any] = []
        while not heard or heard[-1].get("id") != request_id:
            message = await self._next()
            assert message["type"] == "websocket.send", message
            heard.append(json.loads(message["text"]))
        return heard

    async def _serve(self, scope: dict[str, Any]) -> None:
        await self._application(scope, self._to.get, self._from.put)

    async def _next(self) -> Message:
        coming = asyncio.ensure_future(self._from.get())
        done: Iterable[Any] = (
            await asyncio.wait({coming, self._serving}, timeout=LIMIT, return_when="FIRST_COMPLETED")
        )[0]
        assert coming in done, self._serving
        return coming.result()
