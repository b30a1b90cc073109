"""The requests of the HTTP API: each admitted, answered in JSON whatever happens, and within its time limit."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from oncetask.clock import Duration
from oncetask.http.auth import Auth
from oncetask.http.commands import Commands
from oncetask.http.reading import json_body, query_of
from oncetask.http.requests import HttpEndpoint, http_function
from oncetask.http.troubles import Answer, explained

__all__ = ["Endpoints", "Guard", "asked", "healthy"]

_ACCEPTED = 202
_PLAIN = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"  # beside letters and digits; neither blanks nor the mark of a quotation
"""What stands for itself in a header that holds an id; `%` and what is no ASCII does not."""


class Guard:
    """What is around every request but that for the health of the service."""

    def __init__(self, auth: Auth, *, timeout: Duration) -> None:
        """`auth`: decides before anything is read. `timeout`: of one request, admission included."""
        self._auth = auth
        self._timeout = timeout

    def around(self, function: Callable[[Request], Awaitable[object]]) -> HttpEndpoint:
        """Admit the caller, call the function within the time limit, and make an answer of whatever it raises."""

        @http_function(timeout=self._timeout)
        @functools.wraps(function)
        async def endpoint(request: Request) -> object:
            try:
                await self._auth.admit(request)
                return await function(request)
            except ClientDisconnect:  # nobody is there to read an answer
                raise
            except Exception as error:  # noqa: BLE001  # an answer is made of all of them
                return explained(error, doing=asked(request)).answer()

        return endpoint


class Endpoints:
    """The requests that are answered at once; each takes a Starlette request and gives a response."""

    def __init__(self, commands: Commands) -> None:
        """`commands`: what they do."""
        self._commands = commands

    async def enqueue(self, request: Request) -> Response:
        """`POST /tasks`."""
        receipt = await self._commands.enqueue(await json_body(request))
        headers = {"X-Task-Id": quote(receipt.task_id, safe=_PLAIN)}
        return Answer({"taskId": receipt.task_id, "created": receipt.created}, _ACCEPTED, headers)

    async def get(self, request: Request) -> Response:
        """`GET /tasks/{taskId}`."""
        return Answer(await self._commands.get(_named(request, "task_id")))

    async def page(self, request: Request) -> Response:
        """`GET /tasks`."""
        return Answer(await self._commands.page(query_of(request)))

    async def cancel(self, request: Request) -> Response:
        """`POST /tasks/{taskId}/cancel`."""
        return Answer(await self._commands.cancel(_named(request, "task_id")))

    async def cancel_many(self, request: Request) -> Response:
        """`POST /tasks/cancel`."""
        return Answer(await self._commands.cancel_many(await json_body(request)))

    async def reset(self, request: Request) -> Response:
        """`POST /tasks/{taskId}/reset`."""
        return Answer(await self._commands.reset(_named(request, "task_id")))

    async def delete(self, request: Request) -> Response:
        """`DELETE /tasks/{taskId}`."""
        return Answer(await self._commands.delete(_named(request, "task_id")))

    async def pause(self, request: Request) -> Response:
        """`POST /kinds/{kind}/pause`."""
        return Answer(await self._commands.pause(_named(request, "kind")))

    async def resume(self, request: Request) -> Response:
        """`POST /kinds/{kind}/resume`."""
        return Answer(await self._commands.resume(_named(request, "kind")))

    async def stats(self, _: Request) -> Response:
        """`GET /stats`."""
        return Answer(await self._commands.stats())


async def healthy(_: Request) -> Response:
    """`GET /healthz`: this process answers; whether the store does too is not asked, since a restart would not help."""
    return Answer({"status": "ok"})


def asked(request: Request) -> str:
    """Say for the log what was asked for; not by `request.url`, which a strange Host header breaks."""
    return f"{request.method} {request.scope['path']!r}"


def _named(request: Request, name: str) -> str:
    """Give a part of the path."""
    return str(request.path_params[name])
