"""The HTTP edge: users' own functions behind HTTP and WebSocket, each under a time limit; and who may call.

Needs Starlette, which comes with the extra `http`. The parts are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

try:
    import starlette as _starlette  # noqa: F401  # asked for here, so that the error below says what is missing
except ImportError as error:
    raise ImportError('oncetask.http needs Starlette: pip install "oncetask[http]"', name="starlette") from error

from oncetask.http.auth import IAM, OIDC, Auth, Refused
from oncetask.http.limits import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from oncetask.http.api import asgi_app
    from oncetask.http.requests import http_function
    from oncetask.http.websockets import websocket_function

__all__ = ["DEFAULT_TIMEOUT", "IAM", "OIDC", "Auth", "Refused", "asgi_app", "http_function", "websocket_function"]

_LATER = {
    "asgi_app": "oncetask.http.api",
    "http_function": "oncetask.http.requests",
    "websocket_function": "oncetask.http.websockets",
}

if not TYPE_CHECKING:  # a checker would take every name for one of these

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(_import_module(_LATER[name]), name)
        return found
