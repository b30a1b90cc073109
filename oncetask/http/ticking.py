"""`POST /tick`: what is due is run within the request, as Cloud Scheduler asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict

from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oncetask.app import App
from oncetask.client import Client
from oncetask.drain import TickReport, tick
from oncetask.http.endpoints import Guard
from oncetask.http.inputs import TickOptions
from oncetask.http.limits import Limited, Raised, Returned, TimedOut
from oncetask.http.reading import json_body, query_of
from oncetask.http.requests import HttpEndpoint
from oncetask.http.sharing import OneAtATime
from oncetask.http.troubles import Answer, Trouble, explained

__all__ = ["Ticks"]

AFTER_BUDGET = 5.0
"""Seconds after its budget at which a tick is cut off; by its own account it ends half a second earlier."""


_RESPOND_ASYNC = "respond-async"


class _Begun(Response):
    """An answer that begins before it is known."""

    def __init__(self, end: Callable[[], Awaitable[Response]]) -> None:
        """`end`: gives what the body will be; its status comes too late."""
        super().__init__(
            status_code=202,
            media_type="application/json",
            headers={"Cache-Control": "no-store", "Preference-Applied": _RESPOND_ASYNC},
        )
        del self.headers["Content-Length"]
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        ending = asyncio.ensure_future(self._end())  # whether or not the caller stays
        try:
            with suppress(OSError):  # which a server may raise for a caller that has left
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b" ", "more_body": True})  # so that nobody waits
            answer = await ending
            with suppress(OSError):
                await send({"type": "http.response.body", "body": answer.body})
        finally:
            ending.cancel()


class Ticks:
    """Runs ticks of an App; several may overlap, and nothing runs twice."""

    def __init__(self, app: App, client: Client, *, budget: float, linger: float, concurrency: int) -> None:
        """`budget` and `linger`, in seconds, are those of a request that says nothing."""
        self._app = app
        self._client = client
        self._budget = budget
        self._linger = linger
        self._concurrency = concurrency
        self._shared = OneAtATime(lambda: self._run({}))

    def endpoint(self, guard: Guard) -> HttpEndpoint:
        """Give the endpoint. A request is read within the guard's limit; the tick has the budget and 5 s.

        With `Prefer: respond-async` the answer begins at once, with 202, and ends with the tick: who kicks knows then
        that somebody is there, and on Cloud Run the tick still happens within a request. Such requests that come while
        a tick runs share the next one, whatever budget they ask for.

        A caller that hangs up does not end a tick: the tasks are not the caller's, who only said that it is time to
        look for them. An impatient alarm clock would abort whatever it has woken, again and again.
        """
        read = guard.around(self._read)

        async def tick_endpoint(request: Request) -> Response:
            found = await read(request)
            if isinstance(found, Response):
                return found
            if _RESPOND_ASYNC in request.headers.get("prefer", "").lower():
                return _Begun(self._shared.run)
            return await self._run(found)

        return tick_endpoint

    async def _read(self, request: Request) -> dict[str, float]:
        """Admitted by now: read what the body says, and the query, which counts more."""
        sent = TickOptions.read(await json_body(request, optional=True)).given()
        return {**sent, **TickOptions.read(query_of(request), strict=False).given()}

    async def _run(self, options: dict[str, float]) -> Response:
        budget, linger = options.get("budget", self._budget), options.get("linger", self._linger)
        limited = Limited(self._tick, timeout=budget + AFTER_BUDGET, on_error=None)
        nobody_leaves = asyncio.get_running_loop().create_future()
        match await limited.run(budget, linger, gone=nobody_leaves):
            case Returned(TickReport() as report):
                return Answer({to_camel(name): value for name, value in asdict(report).items()})
            case TimedOut(error):
                return Trouble(504, str(error)).answer()
            case Raised(error):
                return explained(error, doing="a tick").answer()
        raise AssertionError

    async def _tick(self, budget: float, linger: float) -> TickReport:
        return await tick(self._app, self._client, budget=budget, linger=linger, concurrency=self._concurrency)
