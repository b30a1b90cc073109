"""Identity tokens of the account that this process runs as, for functions that check who calls.

Imported only where tokens are asked for: Google's libraries take a while to import.
"""

from __future__ import annotations

import threading
from typing import Any

from google.auth.transport.requests import Request
from google.oauth2 import id_token

__all__ = ["IdentityToken"]

_SECONDS = 5.0
"""How long one question to the metadata server or a token endpoint may take."""


class IdentityToken:
    """Gives a token for an audience, from the metadata server or a service account's key file; kept until it expires.

    Blocks, so it is called in a thread.
    """

    def __init__(self, audience: str) -> None:
        """`audience`: whom the token is for, usually the url of the function."""
        self._audience = audience
        self._lock = threading.Lock()
        self._credentials: Any = None  # google.auth's, of several types

    def __call__(self) -> str:
        """Give a token that is good for some minutes. Raises google.auth's errors where there is none to be had."""
        request = _Request()
        with self._lock:
            if self._credentials is None:
                fetch: Any = id_token.fetch_id_token_credentials  # has no types
                self._credentials = fetch(self._audience, request=request)
            if not self._credentials.valid:
                self._credentials.refresh(request)
            return str(self._credentials.token)


class _Request(Request):
    """Google's way to ask, with a time limit that fits a kick; its own is two minutes."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Ask."""
        ask: Any = super().__call__  # has no types
        return ask(*args, **{"timeout": _SECONDS, **options})
