"""The HTTP API as an ASGI application: for a server, for a function, and for somebody's own application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from oncetask.app import App
from oncetask.client import Client
from oncetask.clock import Duration, seconds
from oncetask.handlers import check_count
from oncetask.http.auth import Auth, Loopback
from oncetask.http.commands import Commands
from oncetask.http.conversation import conversations
from oncetask.http.endpoints import Endpoints, Guard, asked, healthy
from oncetask.http.limits import DEFAULT_TIMEOUT
from oncetask.http.openapi import Documents
from oncetask.http.requests import HttpEndpoint
from oncetask.http.ticking import Ticks
from oncetask.http.troubles import Answer, Trouble, explained

__all__ = ["asgi_app"]


def asgi_app(
    app: App,
    client: Client,
    *,
    auth: Auth | None = None,
    timeout: Duration = DEFAULT_TIMEOUT,
    budget: Duration = 50,
    linger: Duration = 0,
    concurrency: int = 32,
) -> Starlette:
    """Give the HTTP API of an App's tasks; `GET /openapi.json` describes it, `WS /ws` is for what changes.

    It can be served by itself, or mounted into another application: `Mount("/oncetask", asgi_app(app, client))`. It
    needs no lifespan: the client opens at its first use, on the loop that serves. It does not close the client:
    whoever made that does, once nothing is served any more.

    `auth`: who may call; None: callers on this machine, nobody else. Every request asks it first, but for
    `GET /healthz`, which tells nothing. What no route stands for is 404 or 405 to anybody. `timeout`: seconds or
    timedelta that a request, or a message of the WebSocket, may take; then its work is cancelled, as it is when the
    client hangs up. `budget`, `linger`, `concurrency`: of `POST /tick`, as `tick` takes them; a request may say its own
    budget and linger. It may take 5 s longer than its budget, and goes on when its caller hangs up.

    Raises TypeError and ValueError for bad arguments.
    """
    _check(app, client, auth)
    limit = seconds("timeout", timeout)
    check_count("concurrency", concurrency)
    ticks = Ticks(
        app,
        client,
        budget=seconds("budget", budget),
        linger=seconds("linger", linger, zero=True),
        concurrency=concurrency,
    )
    admits = Loopback() if auth is None else auth
    commands = Commands(app, client)
    endpoints, guard = Endpoints(commands), Guard(admits, timeout=limit)
    documents = Documents(app, has_tokens=not isinstance(admits, Loopback))

    def route(path: str, **functions: Callable[[Request], Awaitable[Response]]) -> Route:
        return _route(path, {method: guard.around(function) for method, function in functions.items()})

    api = Starlette(
        routes=[
            Route("/healthz", healthy, methods=["GET"]),
            route("/openapi.json", GET=documents.answer),
            route("/tasks", GET=endpoints.page, POST=endpoints.enqueue),
            route("/tasks/cancel", POST=endpoints.cancel_many),
            route("/tasks/{task_id}", GET=endpoints.get, DELETE=endpoints.delete),
            route("/tasks/{task_id}/cancel", POST=endpoints.cancel),
            route("/tasks/{task_id}/reset", POST=endpoints.reset),
            _route("/tick", {"POST": ticks.endpoint(guard)}),
            route("/kinds/{kind}/pause", POST=endpoints.pause),
            route("/kinds/{kind}/resume", POST=endpoints.resume),
            route("/stats", GET=endpoints.stats),
            WebSocketRoute("/ws", conversations(commands, client, admits, timeout=limit)),
        ],
        exception_handlers={HTTPException: _explain, Exception: _explain_unforeseen},
    )
    api.router.redirect_slashes = False  # a redirect would send callers to whatever the Host header says
    return api


def _route(path: str, endpoints: dict[str, HttpEndpoint]) -> Route:
    """Make one route of all methods of a path, so that a 405 can name them."""

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        answer: Response = await endpoints[method](request)
        return answer

    return Route(path, endpoint, methods=list(endpoints))


def _check(app: App, client: Client, auth: Auth | None) -> None:
    for name, value, wanted in (("app", app, App), ("client", client, Client)):
        if not isinstance(value, wanted):
            msg = f"{name} must be {'an App' if wanted is App else 'a Client, as connect() makes it'}, not {value!r}"
            raise TypeError(msg)
    if auth is not None and not isinstance(auth, Auth):
        msg = f"auth must be an Auth such as OIDC(...) or IAM(), or None for callers on this machine, not {auth!r}"
        raise TypeError(msg)


async def _explain(request: Request, error: Exception) -> Response:
    """Answer what no route stands for: 404 or 405."""
    trouble = explained(error, doing=asked(request))
    path = request.scope["path"]
    what = {404: f"there is no {path}", 405: f"{request.method} is not for {path}"}
    return Trouble(trouble.status, what.get(trouble.status, trouble.message), headers=trouble.headers).answer()


async def _explain_unforeseen(_: Request, __: Exception) -> Response:
    """Answer an error of ours; Starlette raises it once more, so that the server logs it."""
    return Answer({"error": "internal error"}, 500)
