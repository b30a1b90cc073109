"""Serves an ASGI application on the loop of a command, to callers who may call.

It needs the extra `http`, so that commands import it only when they are called.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oncetask.cli.exits import BadInput
from oncetask.http.auth import Auth, Loopback, auth_from_environment
from oncetask.http.auth.loopback import is_loopback_name

__all__ = ["Serving", "auth_for"]

_ANSWER = JSONResponse({"error": "this server is being stopped"}, 503, {"Retry-After": "5"})
_TO_END_SECONDS = 4.0
"""What is cancelled may take so long; a tick that gives back what it runs needs three seconds."""


class Serving:
    """`async with` begins to serve in the background, and stops in the end."""

    def __init__(self, application: ASGIApp, listening: socket.socket, *, grace: float) -> None:
        """`listening` is closed in the end. `grace`: seconds for requests in flight then; the rest is cancelled."""
        config = uvicorn.Config(
            _CutOff(application),
            lifespan="off",
            log_config=None,  # the command has set logging up
            access_log=False,
            proxy_headers=False,  # who calls is not for the caller to say
            server_header=False,
            timeout_graceful_shutdown=math.ceil(grace),
        )
        self._server = _Server(config)
        self._listening = listening
        self.running: asyncio.Task[None]
        """Done when it has ended, whatever ended it."""

    async def __aenter__(self) -> Self:
        """Begin."""
        self.running = asyncio.create_task(self._server.serve(sockets=[self._listening]))
        return self

    async def stop(self) -> None:
        """Take no more connections, and let requests in flight end. Raises what ended it early."""
        self._server.should_exit = True
        await self.running
        if left := set(self._server.server_state.tasks):  # cancelled, but not waited for
            await asyncio.wait(left, timeout=_TO_END_SECONDS)

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()


class _CutOff:
    """Answers 503 to requests that are cancelled when the grace is over, where nothing was answered yet."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a WebSocket."""
        is_answered = False

        async def sending(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._application(scope, receive, sending)
        except asyncio.CancelledError:  # nobody but the stopping server cancels, and it would log this as an error
            if scope["type"] == "http" and not is_answered:
                await _ANSWER(scope, receive, send)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command, which has more to end than this."""
        yield


def auth_for(host: str) -> Auth:
    """Give what the environment says about callers. Raises BadInput where others could call and it says nothing."""
    auth = auth_from_environment()
    if isinstance(auth, Loopback) and not is_loopback_name(host):
        msg = (
            f"--host {host} lets callers on other machines in, and nothing says who of them may call: set "
            "ONCETASK_AUTH=oidc with ONCETASK_AUDIENCE and ONCETASK_CALLERS, or ONCETASK_AUTH=iam where Cloud Run "
            "checks the callers, or listen on 127.0.0.1"
        )
        raise BadInput(msg)
    return auth
