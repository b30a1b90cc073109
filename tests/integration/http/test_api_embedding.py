"""The HTTP API inside of somebody else's application."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from websockets.asyncio.client import connect as connect_websocket

from oncetask import Client, Payload
from oncetask.http import asgi_app
from tests.integration.http.api import an_app, asking, enqueued, serving


class Extra(Payload):
    """A kind that comes later."""


def in_starlette(api: ASGIApp) -> ASGIApp:
    """Mount it as a route."""
    return Starlette(routes=[Mount("/oncetask", api)])


def in_fastapi(api: ASGIApp) -> ASGIApp:
    """Mount it as FastAPI's users do."""
    app = FastAPI()
    app.mount("/oncetask", api)
    return app


def twice_deep(api: ASGIApp) -> ASGIApp:
    """Mount it in something that is mounted."""
    return Starlette(routes=[Mount("/oncetask", Starlette(routes=[Mount("/v1", api)]))])


@pytest.mark.parametrize(
    ("mount", "prefix"), [(in_starlette, "/oncetask"), (in_fastapi, "/oncetask"), (twice_deep, "/oncetask/v1")]
)
async def test_a_mounted_api_is_complete(mount: Callable[[ASGIApp], ASGIApp], prefix: str, client: Client) -> None:
    """Its routes, its errors and its document begin where it is mounted; no lifespan is needed."""
    application = mount(asgi_app(an_app(), client))
    async with asking(application) as caller:
        caller.base_url = caller.base_url.join(prefix)
        task_id = await enqueued(caller, taskId="a b")
        shown = await caller.get(f"/tasks/{task_id}")
        unknown = await caller.get("/nothing")
        document = (await caller.get("/openapi.json")).json()
    assert shown.json()["id"] == "a b"
    assert (unknown.status_code, list(unknown.json())) == (404, ["error"])
    assert document["servers"] == [{"url": prefix}]


async def test_a_mounted_websocket_is_served(client: Client) -> None:
    """Under the prefix, too."""
    async with (
        serving(in_fastapi(asgi_app(an_app(), client))) as address,
        connect_websocket(f"ws://{address}/oncetask/ws") as connection,
    ):
        await connection.send(json.dumps({"action": "get", "id": 1, "taskId": "nobody"}))
        assert json.loads(await connection.recv())["id"] == 1


async def test_by_itself_the_document_begins_at_the_root(client: Client) -> None:
    """Kinds that are registered later are in the next one."""
    app = an_app()
    async with asking(asgi_app(app, client)) as caller:
        before = (await caller.get("/openapi.json")).json()
        app.handler(Extra)(lambda _, __: None)
        after = (await caller.get("/openapi.json")).json()
    assert before["servers"] == [{"url": "/"}]
    assert "security" not in before
    assert set(after["components"]["schemas"]) - set(before["components"]["schemas"]) == {
        "NewTask.extra",
        "Payload.extra",
    }
