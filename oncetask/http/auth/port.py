"""The port: who may call, and what a caller is told who may not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from starlette.requests import HTTPConnection

from oncetask.errors import OncetaskError

__all__ = ["Auth", "Refused", "unauthorized"]


class Refused(OncetaskError):
    """The caller may not call, or (503) nobody can tell at the moment whether he may.

    - `status`: 401 without a valid token, 403 for a caller who may not call, 503 where the check itself is impossible.
    - `message`: safe to be sent to the caller; it holds nothing of what he sent.
    - `headers`: what belongs to the answer: `WWW-Authenticate` with 401, `Retry-After` with 503.
    """

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Keep what the answer is made of."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.status, self.message), vars(self)


class Auth(ABC):
    """Decides about each request, and about each WebSocket before it is accepted."""

    @abstractmethod
    async def admit(self, connection: HTTPConnection) -> None:
        """Return for a caller who may call, and raise Refused for all others; it reads headers, never a body.

        An implementation logs why it refused: `Refused.message` tells a caller less than its operator wants to know.
        It does not block the event loop.
        """


def unauthorized(message: str, *, error: str | None = None) -> Refused:
    """Make a refusal with status 401; `error` is a code of RFC 6750, left out where the caller sent no token."""
    challenge = 'Bearer realm="oncetask"'
    if error is not None:
        challenge += f', error="{error}", error_description="{message}"'
    return Refused(401, message, headers={"WWW-Authenticate": challenge})
