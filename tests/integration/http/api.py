"""An App with an HTTP API, and ways to ask it: in this process, or through a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from pydantic import BaseModel, ConfigDict
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from oncetask import App, Client, Context, NoRetry, Payload
from oncetask.http import asgi_app
from oncetask.http.auth import Auth, Refused

LIMIT = 20.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""

JSON = {"Content-Type": "application/json"}
HERE = "http://localhost"
MAIL: dict[str, Any] = {"kind": "send-email", "data": {"to": "ada@example.com"}}


class Address(BaseModel):
    """A part of a payload."""

    model_config = ConfigDict(strict=True, extra="forbid")

    city: str
    lines: list[str] = []


class SendEmail(Payload, kind="send-email"):
    """What most tests enqueue."""

    model_config = ConfigDict(strict=True, extra="forbid")

    to: str
    copies: int = 1
    address: Address | None = None


class Order(Payload, kind="order"):
    """A payload that says its id and its resource key."""

    model_config = ConfigDict(strict=True, extra="forbid")

    number: int

    def idempotency_key(self) -> str:
        """One task for each number."""
        return str(self.number)

    def resource_key(self) -> str:
        """All of them in one line."""
        return "orders"


class Hold(Payload, kind="hold"):
    """A task that reports, and runs until the test lets it go."""


class Held:
    """What the handler of `Hold` is told, and tells."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()


def an_app(held: Held | None = None) -> App:
    """Give an App with the kinds above."""
    app = App("shop", retry=NoRetry())

    @app.handler(SendEmail)
    async def send(ctx: Context, email: SendEmail) -> str:
        return f"sent to {email.to}"

    @app.handler(Order)
    async def order(ctx: Context, order: Order) -> None:
        if order.number < 0:
            msg = "no such order"
            raise ValueError(msg)

    @app.handler(Hold)
    async def hold(ctx: Context, payload: Hold) -> str:
        if held is None:
            return "not held"
        ctx.progress(0.5, "half of it")
        held.started.set()
        try:
            await held.go_on.wait()
        except asyncio.CancelledError:
            held.cancelled.set()
            raise
        return "held"

    return app


class Everybody(Auth):
    """Admits all callers."""

    async def admit(self, connection: HTTPConnection) -> None:
        """Return."""


class Nobody(Auth):
    """Refuses all callers, and counts them."""

    def __init__(self, status: int = 401) -> None:
        self.status = status
        self.asked = 0

    async def admit(self, connection: HTTPConnection) -> None:
        """Raise Refused."""
        self.asked += 1
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        raise Refused(self.status, "not you", headers=headers)


@asynccontextmanager
async def asking(application: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of an application in this process; what it raises is answered as a server would."""
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as caller:
        yield caller


@asynccontextmanager
async def serving(application: ASGIApp) -> AsyncIterator[str]:
    """Serve an application by uvicorn on a free port of this machine, and give `127.0.0.1:PORT`."""
    listening = socket.create_server(("127.0.0.1", 0))  # connections wait in it until the server takes them
    server = uvicorn.Server(uvicorn.Config(application, lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(running, LIMIT)


@asynccontextmanager
async def calling(application: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an application, and give a client of it."""
    async with (
        serving(application) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=LIMIT, trust_env=False) as caller,
    ):
        yield caller


async def enqueued(caller: httpx.AsyncClient, **fields: Any) -> str:
    """Enqueue a task through the API, and give its id."""
    answer = await caller.post("/tasks", json={**MAIL, **fields})
    assert answer.status_code == 202, answer.text
    task_id: str = answer.json()["taskId"]
    return task_id


async def soon(event: asyncio.Event) -> None:
    """Wait for an event; fail loudly if it does not come."""
    await asyncio.wait_for(event.wait(), LIMIT)


def an_api(client: Client, **options: Any) -> ASGIApp:
    """Give the API of an App with the kinds above."""
    return asgi_app(options.pop("app", None) or an_app(), client, **options)


class Hanging:
    """Stands in for a method of a client: it waits until it is cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, *_: object, **__: object) -> Any:
        """Wait."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
