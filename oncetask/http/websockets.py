"""Users' functions behind a WebSocket."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any, overload

from pydantic_core import to_jsonable_python
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from oncetask.clock import Duration, seconds
from oncetask.http.incoming import Incoming
from oncetask.http.limits import DEFAULT_TIMEOUT, Limited, OnError, Raised, Returned, TimedOut
from oncetask.http.reading import json_of

__all__ = ["converse", "send", "websocket_function"]

WebSocketFunction = Callable[[WebSocket, Any], object]
WebSocketEndpoint = Callable[[WebSocket], Coroutine[Any, Any, None]]

_log = logging.getLogger("oncetask")


@overload
def websocket_function(function: WebSocketFunction, /) -> WebSocketEndpoint: ...
@overload
def websocket_function(
    *, timeout: Duration = DEFAULT_TIMEOUT, on_error: OnError | None = None
) -> Callable[[WebSocketFunction], WebSocketEndpoint]: ...
def websocket_function(
    function: WebSocketFunction | None = None,
    /,
    *,
    timeout: Duration = DEFAULT_TIMEOUT,
    on_error: OnError | None = None,
) -> WebSocketEndpoint | Callable[[WebSocketFunction], WebSocketEndpoint]:
    """Decorate a function of a WebSocket and a message, so that each message is answered within a time limit.

    The result is an `async def` of the WebSocket, for a Starlette `WebSocketRoute`. It accepts the connection, unless
    somebody around it has, and calls the function with each message, one after the other, in their order. A message
    is JSON in a text frame, or in a binary one as UTF-8. What the function returns is sent as JSON (of pydantic
    models, dataclasses and datetimes too), except None. The function may send by itself and close the connection,
    but not receive. A `def` runs in a thread.

    The connection lives on after everything that goes wrong with a message: what is no JSON, a function at its limit
    and one that raises (or returns what is no JSON) are answered with `{"error": message}`; nothing of an exception's
    text is sent. At the limit the function is cancelled; one that ignores it is abandoned after another second, and
    logged; a thread runs on, and what it returns is dropped.

    When the client leaves, what runs is cancelled and what waits is dropped: a client that wants its message
    processed has to wait for the answer. Its leaving goes unnoticed while more than 64 KiB of messages wait.

    `timeout`: seconds or timedelta, for each message. `on_error`: a `def` or `async def` that is called with the
    `TaskTimeout` (a `TimeoutError`) at the limit, and with every error of the function. The answer waits for it one
    second at the most; after ten seconds it is cancelled; what it raises is logged.

    Raises TypeError or ValueError for a `timeout` that is no such duration, or zero, and for what cannot be called.
    """
    limit = seconds("timeout", timeout)

    def decorate(function: WebSocketFunction) -> WebSocketEndpoint:
        limited = Limited(function, timeout=limit, on_error=on_error)

        @functools.wraps(function)
        async def endpoint(websocket: WebSocket) -> None:
            await converse(websocket, limited)

        return endpoint

    return decorate if function is None else decorate(function)


def _error(_: object, text: str) -> object:
    return {"error": text}


async def converse(
    websocket: WebSocket,
    limited: Limited,
    *,
    complaint: Callable[[object, str], object] = _error,
    most_bytes: int | None = None,
) -> None:
    """Answer each message of a WebSocket, until either side closes it: what `websocket_function` decorates with.

    `complaint`: makes the answer to a message (None: it could not be read) of what went wrong with it. `most_bytes`:
    a longer message is not read; None: the server's own limit is enough.
    """
    if websocket.application_state is WebSocketState.CONNECTING:
        await websocket.accept()
    async with Incoming(websocket.receive) as incoming:
        while _is_open(websocket) and (frame := await incoming.receive())["type"] == "websocket.receive":
            content = _content(frame)
            answer: str | None
            if most_bytes is not None and _size(content) > most_bytes:
                answer = json.dumps(complaint(None, f"a message may have at most {most_bytes:,} bytes"))
            else:
                answer = await _answer(limited, websocket, content, incoming, complaint)
            if answer is not None:
                await send(websocket, answer)


async def send(websocket: WebSocket, text: str) -> None:
    """Send a text frame, unless the connection is closed: then nothing happens."""
    if _is_open(websocket):
        try:
            await websocket.send_text(text)
        except WebSocketDisconnect:
            _log.debug("a client left before its answer was sent")


async def _answer(
    limited: Limited,
    websocket: WebSocket,
    content: str | bytes,
    incoming: Incoming,
    complaint: Callable[[object, str], object],
) -> str | None:
    """Give the text that answers a message, or None."""
    try:
        message = json_of(content)
    except (ValueError, RecursionError):
        return json.dumps(complaint(None, "the message is not JSON"))
    match await limited.run(websocket, message, gone=incoming.gone):
        case TimedOut(error):
            return json.dumps(complaint(message, str(error)))
        case Raised(error) if not isinstance(error, WebSocketDisconnect):
            failure = error
        case Returned(value) if value is not None:
            try:
                return json.dumps(to_jsonable_python(value), allow_nan=False)
            except Exception as error:  # noqa: BLE001  # a serialiser is user code and may raise anything
                failure = TypeError(f"the function's result, a {type(value).__name__}, is not JSON: {error}")
        case _:  # nothing to say, or nobody there to hear it
            return None
    _log.error("%s failed", limited.name, exc_info=failure)  # nobody above gets to see it, as with HTTP
    await limited.report(failure)
    return json.dumps(complaint(message, "internal error"))


def _content(frame: Message) -> str | bytes:
    text: str | None = frame.get("text")
    if text is not None:
        return text
    content: bytes = frame["bytes"]
    return content


def _size(content: str | bytes) -> int:
    return len(content.encode() if isinstance(content, str) else content)


def _is_open(websocket: WebSocket) -> bool:
    """Tell whether neither the function nor a failed send has closed it; whether the client did, says `receive`."""
    return websocket.application_state is WebSocketState.CONNECTED
