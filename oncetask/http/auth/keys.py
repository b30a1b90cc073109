"""The public keys of an issuer: fetched beside the event loop, kept, fetched again when that may help."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import cryptography as _cryptography  # noqa: F401  # asked for here, since without it PyJWT finds every key unusable
import jwt

from oncetask.clock import Clock, SystemClock
from oncetask.http.auth.port import Refused
from oncetask.threads import in_thread

__all__ = ["ALGORITHMS", "Keys"]

ALGORITHMS = ("RS256", "ES256")
"""Signatures with a private key only; with HS256 whoever knows a public key could sign."""

TIMEOUT = 5.0
"""Seconds that a fetch may take; a request waits for it within its own ten."""

FRESH = 600.0
"""Seconds for which keys are used without asking again: how long a withdrawn one may still count."""

USABLE = 86_400.0
"""Seconds for which keys are used while their server does not answer."""

PAUSE = 30.0
"""Seconds between two fetches while there are keys, whatever tokens say: issuers publish keys long before use."""

PAUSE_WITHOUT = 3.0
"""Seconds between two fetches while there are none, and nobody can be admitted."""

_LARGEST = 1024 * 1024
_log = logging.getLogger("oncetask")


class Keys:
    """The keys at one url, by their names (`kid`).

    Whoever needs a fetch while one is under way waits for that one; it goes on when the one who began it has left.
    """

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        """`url`: of a JSON Web Key Set. `clock`: only its monotonic reading is used."""
        self._url = url
        self._clock = clock or SystemClock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._pause_until = float("-inf")
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Give the key of this name, or None where the issuer has none.

        Raises Refused (503) where nobody can tell, since the server of the keys did not answer.
        """
        if kid not in self._keys or self._age() > FRESH:
            await self._refresh()
        usable = self._age() <= USABLE
        if usable and kid in self._keys:
            return self._keys[kid]
        if self._failed or not usable:
            message = "callers cannot be checked at the moment: the issuer's keys are not to be had"
            raise Refused(503, message, headers={"Retry-After": f"{PAUSE_WITHOUT:.0f}"})
        return None

    def _age(self) -> float:
        return self._clock.monotonic() - self._fetched

    async def _refresh(self) -> None:
        """Join the fetch that is under way, or start one unless the last one was just now."""
        fetching = self._fetching
        # One of another loop may never end, if that loop has.
        if fetching is None or fetching.done() or fetching.get_loop() is not asyncio.get_running_loop():
            if self._clock.monotonic() < self._pause_until:
                return
            fetching = self._fetching = asyncio.create_task(self._fetch(), name="oncetask fetching keys")
        await asyncio.shield(fetching)

    async def _fetch(self) -> None:
        """Replace the keys, or keep them and log why; never raises."""
        try:
            async with asyncio.timeout(TIMEOUT):  # a thread's own limit is for each of its reads
                keys = await in_thread(_downloaded, self._url)
        except Exception as error:  # noqa: BLE001  # whatever it is, callers hear 503 and the next fetch may do better
            self._failed = True
            _log.warning("the keys at %s could not be fetched: %s: %s", self._url, type(error).__name__, error)
        else:
            self._failed = False
            self._keys, self._fetched = keys, self._clock.monotonic()
        self._pause_until = self._clock.monotonic() + (PAUSE if self._keys else PAUSE_WITHOUT)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:  # so that the answer counts as an error: it might lead to plain http
        return None


def _downloaded(url: str) -> dict[str, jwt.PyJWK]:
    """Fetch the keys that can verify a signature; raises what says why not."""
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310  # http and https only: checked by OIDC
    try:
        with build_opener(_NoRedirects()).open(request, timeout=TIMEOUT) as response:
            text = response.read(_LARGEST + 1)
    except HTTPError as error:
        error.close()  # it holds the connection
        raise
    if len(text) > _LARGEST:
        raise ValueError("more than 1 MiB")
    document = json.loads(text)
    if not isinstance(document, dict):
        raise TypeError("not a JSON object")
    keys = {
        key.key_id: key
        for key in jwt.PyJWKSet.from_dict(document).keys
        if key.key_id and key.algorithm_name in ALGORITHMS and key.public_key_use in {"sig", None}
    }
    if not keys:
        raise ValueError(f"no key for {' or '.join(ALGORITHMS)} that has a name (kid)")
    return keys
