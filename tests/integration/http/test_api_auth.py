"""Who may use the HTTP API: every route asks, before it reads anything."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
import websockets
from starlette.requests import HTTPConnection
from starlette.routing import Route
from websockets.asyncio.client import connect as connect_websocket
from websockets.typing import Origin

from oncetask import Client
from oncetask.http import asgi_app
from oncetask.http.auth import Auth
from tests.integration.http.api import HERE, JSON, LIMIT, Everybody, Nobody, an_api, an_app, asking, serving

SHORT = 0.05
"""Seconds, the limit of requests that are meant to reach it."""


class Slow(Auth):
    """Decides about nobody, ever."""

    async def admit(self, connection: HTTPConnection) -> None:
        """Wait."""
        await asyncio.Event().wait()


class Broken(Auth):
    """Fails."""

    async def admit(self, connection: HTTPConnection) -> None:
        """Raise something else than Refused."""
        msg = "swordfish"
        raise RuntimeError(msg)


def requests(client: Client) -> list[tuple[str, str]]:
    """Give method and path of everything that the API has a route for."""
    routes = [route for route in asgi_app(an_app(), client).routes if isinstance(route, Route)]
    return [
        (method, route.path.format(task_id="x", kind="order")) for route in routes for method in route.methods or ()
    ]


@pytest.mark.parametrize(("status", "challenge"), [(401, "Bearer"), (403, None)])
async def test_every_route_but_that_for_the_health_asks(status: int, challenge: str | None, client: Client) -> None:
    """A stranger gets the status, the sentence and the headers of the refusal, whatever he asks for."""
    nobody = Nobody(status)
    asked = [request for request in requests(client) if request[1] != "/healthz"]
    async with asking(an_api(client, auth=nobody)) as stranger:
        answers = [await stranger.request(method, path) for method, path in asked]
        health = await stranger.get("/healthz")
    assert len(asked) >= 12
    assert {answer.status_code for answer in answers} == {status}
    assert {answer.headers.get("WWW-Authenticate") for answer in answers} == {challenge}
    assert all(answer.json() == {"error": "not you"} for answer in answers if answer.request.method != "HEAD")
    assert (health.status_code, nobody.asked) == (200, len(asked))


async def test_a_stranger_is_refused_before_his_body_is_read(client: Client) -> None:
    """Neither its size nor its content matter, nor whether it ever comes."""
    async with serving(an_api(client, auth=Nobody())) as address:
        url = f"http://{address}/tasks"
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as stranger:
            for content in (b"{", b" " * 2_000_000):
                assert (await stranger.post(url, content=content, headers=JSON)).status_code == 401
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /tick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        assert b" 401 " in await asyncio.wait_for(reader.readline(), LIMIT)
        writer.close()


async def test_without_an_auth_only_this_machine_may_call(client: Client) -> None:
    """It fails closed: another address, or another name for this one, is refused."""
    api = an_api(client)
    elsewhere = httpx.ASGITransport(api, client=("203.0.113.9", 1234))
    async with httpx.AsyncClient(transport=elsewhere, base_url=HERE) as stranger, asking(api) as neighbour:
        answers = [
            await stranger.get("/tasks"),
            await neighbour.get("/tasks", headers={"Host": "rebound.example"}),
            await neighbour.post("/tick", headers={"Origin": "https://elsewhere.example"}),
            await neighbour.get("/tasks"),
        ]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 200]


async def test_an_admission_that_takes_too_long_is_504(client: Client) -> None:
    """The limit of a request includes it, that of a WebSocket too."""
    api = an_api(client, auth=Slow(), timeout=SHORT)
    async with asking(api) as caller, serving(api) as address:
        answers = [await caller.get("/stats"), await caller.post("/tick")]
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect_websocket(f"ws://{address}/ws")
    assert [answer.status_code for answer in answers] == [504, 504]
    assert refused.value.response.status_code == 504


async def test_an_admission_that_fails_admits_nobody(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged, and its text stays here."""
    api = an_api(client, auth=Broken())
    async with asking(api) as caller, serving(api) as address:
        answer = await caller.get("/stats")
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect_websocket(f"ws://{address}/ws")
    assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})
    assert refused.value.response.status_code == 500
    assert len([record for record in caplog.records if record.exc_info]) == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_a_websocket_of_a_stranger_is_never_accepted(status: int, client: Client) -> None:
    """Its handshake is answered as a request would be."""
    async with serving(an_api(client, auth=Nobody(status))) as address:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect_websocket(f"ws://{address}/ws")
    response = refused.value.response
    assert (response.status_code, json.loads(response.body)) == (status, {"error": "not you"})
    assert response.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)


async def test_a_server_that_cannot_answer_a_handshake_closes_with_a_code(client: Client) -> None:
    """4401 and 4403 stand for 401 and 403."""
    sent: list[object] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [], "subprotocols": []}
    await asgi_app(an_app(), client, auth=Nobody(403))(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 4403, "reason": ""}]


async def test_a_page_of_another_origin_cannot_open_a_websocket_here(client: Client) -> None:
    """Browsers let it try, and tell whose page it is."""
    async with serving(an_api(client)) as address:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect_websocket(f"ws://{address}/ws", origin=Origin("https://elsewhere.example"))
        async with connect_websocket(f"ws://{address}/ws"):
            pass
    assert refused.value.response.status_code == 403


async def test_who_is_admitted_is_served(client: Client) -> None:
    """From anywhere, where the auth says so."""
    elsewhere = httpx.ASGITransport(an_api(client, auth=Everybody()), client=("203.0.113.9", 1234))
    async with httpx.AsyncClient(transport=elsewhere, base_url="https://tasks.example") as caller:
        assert (await caller.get("/stats")).status_code == 200
