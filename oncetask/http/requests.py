"""Users' functions behind HTTP."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, overload

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oncetask.clock import Duration, seconds
from oncetask.http.incoming import Incoming
from oncetask.http.limits import DEFAULT_TIMEOUT, Gone, Limited, OnError, Outcome, Raised, Returned, TimedOut

__all__ = ["http_function"]

HttpFunction = Callable[[Request], object]
HttpEndpoint = Callable[[Request], Coroutine[Any, Any, Any]]

_GATEWAY_TIMEOUT = 504
_CLIENT_CLOSED_REQUEST = 499  # no standard status; nginx made it usual in access logs, and no client gets to see it
_SERVER_ERRORS = 500


@overload
def http_function(function: HttpFunction, /) -> HttpEndpoint: ...
@overload
def http_function(
    *, timeout: Duration = DEFAULT_TIMEOUT, on_error: OnError | None = None
) -> Callable[[HttpFunction], HttpEndpoint]: ...
def http_function(
    function: HttpFunction | None = None,
    /,
    *,
    timeout: Duration = DEFAULT_TIMEOUT,
    on_error: OnError | None = None,
) -> HttpEndpoint | Callable[[HttpFunction], HttpEndpoint]:
    """Decorate a function of a Starlette request, so that its caller has an answer within a time limit.

    The result is an `async def` of the request, for a Starlette `Route` and for `functions_framework.aio`. What the
    function returns is passed on as it is. A `def` runs in a thread, where it can read the head of the request (the
    body can only be awaited). The limit counts until the function has returned its response, not until a streamed
    one is sent.

    At the limit the function is cancelled and its caller gets status 504 with `{"error": message}`, at the latest a
    second after the limit, even where the function ignores its cancellation; then it is abandoned, and logged. A
    thread runs on, and what it returns is dropped. A client that leaves, or a cancellation from outside, cancels the
    function too; its leaving goes unnoticed while more than 64 KiB of its body wait to be read.

    `timeout`: seconds or timedelta. `on_error`: a `def` or `async def` that is called with the `TaskTimeout` (a
    `TimeoutError`) at the limit, and with every error that the function raises, except an `HTTPException` below 500.
    The answer waits for it one second at the most; after ten seconds it is cancelled; what it raises is logged.
    Errors of the function propagate unchanged: the framework around answers them with 500.

    Raises TypeError or ValueError for a `timeout` that is no such duration, or zero, and for what cannot be called.
    """
    limit = seconds("timeout", timeout)

    def decorate(function: HttpFunction) -> HttpEndpoint:
        limited = Limited(function, timeout=limit, on_error=on_error)

        @functools.wraps(function)
        async def endpoint(request: Request) -> Any:
            async with Incoming(request.receive) as incoming:
                # In place: what was read of the request before is cached in it, and others may hold it too.
                request._receive = incoming.receive  # noqa: SLF001  # Starlette has no public way
                outcome = await limited.run(request, gone=incoming.gone)
            return await _answer(limited, outcome)

        return endpoint

    return decorate if function is None else decorate(function)


async def _answer(limited: Limited, outcome: Outcome) -> Any:
    """Give what the framework around makes a response of, or raise what the function raised."""
    match outcome:
        case Returned(value):
            return value
        case TimedOut(error):
            return JSONResponse({"error": str(error)}, status_code=_GATEWAY_TIMEOUT)
        case Gone():
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        case Raised(error):
            if not (isinstance(error, HTTPException) and error.status_code < _SERVER_ERRORS):
                await limited.report(error)
            raise error
