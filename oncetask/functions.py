"""Cloud Functions, so that somebody's `main.py` is a few lines: a scheduler, an API, and a trigger.

They are for `functions_framework.aio`, which serves them on one event loop, each in a process of its own. All that one
process serves shares one client. The framework knows a function by its name: keep those that they have here.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oncetask.app import App
from oncetask.client import Client, connect
from oncetask.clock import Duration, seconds
from oncetask.errors import StoreUnavailable
from oncetask.handlers import check_count
from oncetask.http.auth import Auth, auth_from_environment
from oncetask.http.limits import DEFAULT_TIMEOUT
from oncetask.http.sharing import OneAtATime
from oncetask.http.troubles import Trouble

__all__ = ["api", "on_task_created", "scheduler"]

HttpFunction = Callable[[Request], Awaitable[Response]]
EventFunction = Callable[[Any], Awaitable[Response]]

_NO_CONTENT, _UNAVAILABLE = 204, 503
_DOCUMENT = re.compile(r"oncetask/([^/]+)/onceTasks/([^/]+)")
_ATTRIBUTES = ("type", "document")
_CREATED = "google.cloud.firestore.document.v1.created"
_MOST_BYTES = 2 * 1024 * 1024
"""Of an event, which carries its document, of up to 1 MiB, in base64."""
_AFTER_BUDGET = 5.0
"""Seconds after its budget at which a tick is cut off, as that of `POST /tick`; by its own account it ends earlier."""
_log = logging.getLogger("oncetask")


def scheduler(
    app: App,
    *,
    client: Client | None = None,
    budget: Duration = 50,
    linger: Duration = 0,
    concurrency: int = 32,
    auth: Auth | None = None,
) -> HttpFunction:
    """Give the function that Cloud Scheduler calls: one tick, answered with its report.

    It answers five seconds after its budget at the latest, so give the function a few seconds more. A caller that
    hangs up does not end it. `budget`, `linger` (seconds or timedelta) and `concurrency`: as `tick` takes them.
    `client`: left out, the one of this process, made by `connect()`. `auth`: who may call; left out, what ONCETASK_AUTH
    says, and nobody but callers on this machine where it says nothing.

    Raises ValueError and TypeError for bad arguments and for nonsense in the environment, and StoreUnavailable where
    no store is configured.
    """
    store, admits = _store(app, client), _admitting(auth)
    most, stays = seconds("budget", budget), seconds("linger", linger, zero=True)
    check_count("concurrency", concurrency)

    @functools.cache
    def endpoint() -> HttpFunction:
        from oncetask.http.endpoints import Guard  # noqa: PLC0415  # a process serves one of these functions, and
        from oncetask.http.ticking import Ticks  # noqa: PLC0415  # need not load what the others are made of

        ticks = Ticks(app, store, budget=most, linger=stays, concurrency=concurrency)
        return ticks.endpoint(Guard(admits, timeout=DEFAULT_TIMEOUT))

    async def scheduler(request: Request) -> Response:
        if request.method != "POST":  # a crawler, or a browser that looks ahead
            return Trouble(405, "a tick is asked for by POST", headers={"Allow": "POST"}).answer()
        return await endpoint()(request)

    return scheduler


def api(
    app: App, *, client: Client | None = None, auth: Auth | None = None, timeout: Duration = DEFAULT_TIMEOUT
) -> HttpFunction:
    """Give the function that serves the HTTP API, `oncetask.http.asgi_app`; but for its WebSocket.

    `functions_framework` passes no WebSockets on: serve `asgi_app` itself where they are needed. `timeout`: seconds or
    timedelta that a request may take. `client`, `auth` and errors: as for `scheduler`.
    """
    store, admits = _store(app, client), _admitting(auth)
    limit = seconds("timeout", timeout)

    @functools.cache
    def served() -> ASGIApp:
        from oncetask.http.api import asgi_app  # noqa: PLC0415  # as in `scheduler`

        return asgi_app(app, store, auth=admits, timeout=limit)

    async def api(_: Request) -> Response:
        return _Forwarded(served())

    return api


def on_task_created(
    app: App, *, client: Client | None = None, budget: Duration = 50, concurrency: int = 32
) -> EventFunction:
    """Give the function that Firestore's trigger on `oncetask/{env}/onceTasks/{id}` calls when a task was created.

    The event is a hint that there is work, and nothing else: what is due says the store. So one that is delivered
    twice, late, or never, does no harm. Events that come while a tick runs share the next one. Register it with
    `functions_framework.aio.http`: then events of other documents and rubbish are answered with 204, and not sent
    again; with `.cloud_event` the framework itself refuses rubbish. While the store is unavailable it answers 503.
    Who may call is decided by IAM, as for every trigger; whoever gets through can do no more than let a tick run.

    `client`, `budget`, `concurrency` and errors: as for `scheduler`.
    """
    store, most = _store(app, client), seconds("budget", budget)
    check_count("concurrency", concurrency)

    async def run() -> None:
        from oncetask.drain import tick  # noqa: PLC0415  # as in `scheduler`

        async with asyncio.timeout(most + _AFTER_BUDGET):  # others wait for its end
            await tick(app, store, budget=most, concurrency=concurrency)

    ticks = OneAtATime(run)

    async def on_task_created(event: Any) -> Response:
        attributes = await _attributes(event)
        if not _is_of_new_task(attributes, store.store.env):
            _log.warning("ignored, being no event of a new task in environment %r: %.300r", store.store.env, attributes)
            return Response(status_code=_NO_CONTENT)
        try:
            await ticks.run()
        except (StoreUnavailable, TimeoutError) as error:
            if not isinstance(event, Request):
                raise  # `.cloud_event` looks at no answer
            _log.error("no tick after an event: %s", str(error) or "it did not end")  # the sender may try again
            return Response(status_code=_UNAVAILABLE)
        return Response(status_code=_NO_CONTENT)

    return on_task_created


def _store(app: App, client: Client | None) -> Client:
    """Give the client that a function of an App works with. Raises TypeError for what is no App or no Client."""
    if not isinstance(app, App):
        raise TypeError(f"app must be an App, not {app!r}")
    if client is not None and not isinstance(client, Client):
        raise TypeError(f"client must be a Client, as connect() makes it, or None, not {client!r}")
    return client or _client()


def _admitting(auth: Auth | None) -> Auth:
    """Give what decides who may call. Raises TypeError for what is no Auth, ValueError for a wrong environment."""
    if auth is not None and not isinstance(auth, Auth):
        raise TypeError(f"auth must be an Auth such as OIDC(...) or IAM(), or None for ONCETASK_AUTH, not {auth!r}")
    return auth or auth_from_environment()


@functools.cache
def _client() -> Client:
    """Make the client of this process; it opens at its first use, on the loop that serves."""
    return connect()


class _Forwarded(Response):
    """Stands for the answer of an application, which answers by itself."""

    def __init__(self, served: ASGIApp) -> None:
        super().__init__()
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._served(scope, receive, send)
        except Exception:  # noqa: BLE001  # it has been answered by now, and a second answer would be an error, too
            _log.exception("%s %s failed", scope["method"], scope["path"])


async def _attributes(event: Any) -> dict[str, str]:
    """Read type and document of an event, from the request that brings it or as the framework gives it.

    What it does not say, or says in no readable way, is empty.
    """
    if not isinstance(event, Request):
        found: Any = {name: event.get(name) for name in _ATTRIBUTES}
    elif "ce-type" in event.headers:
        found = {name: unquote(event.headers.get(f"ce-{name}", "")) for name in _ATTRIBUTES}
    else:
        found = await _structured(event)
    return {name: value for name in _ATTRIBUTES if isinstance(value := found.get(name), str)}


async def _structured(request: Request) -> dict[str, Any]:
    """Read an event that is all in the body; nothing, where that is none, too large, or not sent to its end."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                return {}
        event = json.loads(body)
    except (ClientDisconnect, ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _is_of_new_task(attributes: dict[str, str], env: str) -> bool:
    """Tell whether an event says that a task was created in an environment.

    One that a task was changed would be answered by a tick, whose own changes would bring the next one.
    """
    found = _DOCUMENT.fullmatch(attributes.get("document", ""))
    return found is not None and found[1] == env and attributes.get("type", "").startswith(_CREATED)
