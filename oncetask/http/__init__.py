"""The HTTP edge: users' own functions behind HTTP and WebSocket, each under a time limit.

Needs Starlette, which comes with the extra `functions`.
"""

from __future__ import annotations

try:
    import starlette as _starlette  # noqa: F401  # asked for here, so that the error below says what is missing
except ImportError as error:
    raise ImportError('oncetask.http needs Starlette: pip install "oncetask[functions]"', name="starlette") from error

from oncetask.http.limits import DEFAULT_TIMEOUT
from oncetask.http.requests import http_function
from oncetask.http.websockets import websocket_function

__all__ = ["DEFAULT_TIMEOUT", "http_function", "websocket_function"]
