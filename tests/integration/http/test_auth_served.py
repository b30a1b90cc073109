"""`Loopback` behind a real server: what uvicorn makes of addresses and headers decides nothing by itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oncetask.http.auth import Loopback, Refused

LIMIT = 20.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""


async def guarded(request: Request) -> Response:
    """Answer those who are admitted."""
    try:
        await Loopback().admit(request)
    except Refused as refused:
        return PlainTextResponse(refused.message, refused.status)
    return PlainTextResponse("welcome")


@asynccontextmanager
async def served(listening: socket.socket, transport: httpx.AsyncHTTPTransport) -> AsyncIterator[httpx.AsyncClient]:
    """Serve `guarded` by uvicorn, with the options that it has by default, and give a client."""
    app = Starlette(routes=[Route("/", guarded)])
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with httpx.AsyncClient(transport=transport, timeout=LIMIT) as client:
            yield client
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, LIMIT)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"X-Forwarded-For": "203.0.113.7"}, 403),
        ({"X-Forwarded-For": "127.0.0.1"}, 403),
        ({"Forwarded": "for=127.0.0.1"}, 403),
        ({"Host": "rebound.example.com"}, 403),
        ({"Origin": "https://example.com"}, 403),
    ],
)
async def test_a_call_from_this_machine(headers: dict[str, str], status: int) -> None:
    """Uvicorn believes forwarding headers of a proxy on this machine, and replaces the address; `Loopback` does not."""
    listening = socket.create_server(("127.0.0.1", 0))
    async with served(listening, httpx.AsyncHTTPTransport()) as client:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        assert (await client.get(url, headers=headers)).status_code == status


async def test_a_call_by_a_unix_socket(tmp_path: Path) -> None:
    """It has no address, and is refused."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        async with served(listening, httpx.AsyncHTTPTransport(uds=path)) as client:
            answer = await client.get("http://localhost/")
    assert answer.status_code == 403
    assert "does not come from a loopback address" in answer.text
