"""Callers with a token of an OpenID Connect issuer."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from oncetask.clock import Duration, seconds
from oncetask.http.auth.loopback import is_loopback_name
from oncetask.http.auth.port import Auth, Refused, unauthorized

__all__ = ["GOOGLE_ISSUERS", "GOOGLE_KEYS", "OIDC"]

GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
"""Both stand in tokens of Google's."""

GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"
"""Where Google publishes the keys of its tokens."""

LONGEST_LEEWAY = 300.0
"""Seconds; clocks that differ by more are to be set, not to be humoured."""

LONGEST_HEADER = 8 * 1024
"""Bytes of an Authorization header; Google's tokens have about 1,000."""

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_EMAIL = re.compile(r"[^\s@:,*]+@[^\s@:,*]+")
_SUBJECT = re.compile(r"[^\s@,*]+")
_TEXT = re.compile(r"[^\s,*]+")
_log = logging.getLogger("oncetask")


class OIDC(Auth):
    """Admits the callers of a list, who show a token (JWT) of an issuer in `Authorization: Bearer ...`.

    A token counts if all of this holds: RS256 or ES256 with a key that the issuer publishes; `iss`, `aud`, `exp`,
    `iat` and `sub` are there, and `nbf`, if it is, has begun; issuer and audience are among those given. Then its
    `email` (with `email_verified` true) or its `sub` has to be on the list. Refused are: a missing, malformed, forged
    or expired token, or one for somebody else, with 401; a right token of a stranger with 403; and with 503 those about
    whom nobody can tell, since the issuer's keys cannot be had. Headers of more than 8 KiB are not read.

    Browsers' WebSockets cannot send the header and are refused; other clients' can. A token in a url would end up in
    logs, and is not looked at.

    The keys are fetched at the first call and kept for ten minutes; an issuer that does not answer then does no harm
    for a day. Cloud Run removes the signatures of tokens that it has checked itself: behind its check use `IAM`.
    """

    def __init__(
        self,
        audience: str | Iterable[str],
        callers: str | Iterable[str],
        *,
        issuers: str | Iterable[str] = GOOGLE_ISSUERS,
        jwks_url: str = GOOGLE_KEYS,
        leeway: Duration = 10,
    ) -> None:
        """Check the arguments; no I/O.

        `audience`: what tokens must be for, usually the service's url; one or several. `callers`: whole email
        addresses, or values of `sub` (without "@"), one or several; no patterns. `issuers`: values of `iss`.
        `jwks_url`: where their keys are; https, or http on this machine. `leeway`: seconds or timedelta by which
        clocks may differ, at most five minutes.

        Raises TypeError and ValueError, which name the argument, and ImportError without PyJWT and cryptography.
        """
        try:
            from oncetask.http.auth.tokens import Tokens  # noqa: PLC0415  # a tenth of a second that others need not pay
        except ImportError as error:
            raise ImportError('OIDC needs PyJWT and cryptography: pip install "oncetask[http]"') from error
        names = _texts("callers", callers, "someone@my-project.iam.gserviceaccount.com")
        self._emails, self._subjects = _sorted_callers(names)
        self._tokens = Tokens(
            _checked_url(jwks_url),
            audience=_texts("audience", audience, "https://my-service-abc.a.run.app"),
            issuers=_texts("issuers", issuers, GOOGLE_ISSUERS[0]),
            leeway=_checked_leeway(leeway),
        )

    async def admit(self, connection: HTTPConnection) -> None:
        """Return for a caller of the list; raises Refused: 401, 403 or 503."""
        claims = await self._tokens.claims(_bearer(connection.headers))
        if not self._knows(claims):
            _log.warning("refused a caller who is not on the list: %.200r", claims["sub"])
            raise Refused(403, "this caller is not on the list of callers")

    def _knows(self, claims: Mapping[str, Any]) -> bool:
        by_email = claims.get("email_verified") is True and _is_among(claims.get("email"), self._emails)
        return by_email or _is_among(claims["sub"], self._subjects)


def _bearer(headers: Headers) -> str:
    """Give the token of the request; raises Refused (401) unless there is exactly one."""
    given = headers.getlist("authorization")
    if not given:
        _log.info("refused a caller: no Authorization header")
        raise unauthorized("a bearer token is needed in the Authorization header")
    matched = _BEARER.fullmatch(given[0]) if len(given) == 1 and len(given[0]) <= LONGEST_HEADER else None
    if matched is None:
        _log.warning("refused a caller: %d Authorization header(s), no bearer token of at most 8 KiB", len(given))
        raise unauthorized(
            "the Authorization header must hold one bearer token of at most 8 KiB", error="invalid_request"
        )
    return matched[1]


def _is_among(claim: object, entries: Iterable[bytes]) -> bool:
    """Compare with every entry, also after a match, so that the time taken tells nothing of the list."""
    if not isinstance(claim, str):
        return False
    given = claim.encode(errors="surrogatepass")  # JSON may hold half a character, which UTF-8 otherwise refuses
    found = False
    for entry in entries:
        found |= hmac.compare_digest(given, entry)
    return found


def _texts(name: str, given: str | Iterable[str], example: str) -> tuple[str, ...]:
    """Check one or several texts; raises TypeError or ValueError."""
    right = f"such as {example!r}"
    if not isinstance(given, str | Iterable) or isinstance(given, bytes):
        raise TypeError(f"{name} must be a text or several, {right}, not {given!r}")
    texts = (given,) if isinstance(given, str) else tuple(given)
    if not texts:
        raise ValueError(f"{name} must not be empty: name at least one, {right}")
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name} must be texts, {right}, not {text!r}")
        if not _TEXT.fullmatch(text):
            raise ValueError(
                f"each of {name} must be a text without spaces, commas and wildcards, {right}, not {text!r}"
            )
    return texts


def _sorted_callers(names: tuple[str, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Tell emails and subjects apart: a subject that looks like somebody's email must not pass for it."""
    for name in names:
        if not (_EMAIL.fullmatch(name) or _SUBJECT.fullmatch(name)):
            raise ValueError(
                "each of callers must be a whole email address, without a prefix such as 'serviceAccount:', or a sub "
                f"without '@', not {name!r}"
            )
    return (
        tuple(name.encode() for name in names if "@" in name),
        tuple(name.encode() for name in names if "@" not in name),
    )


def _checked_url(url: str) -> str:
    right = f"an https url such as {GOOGLE_KEYS!r} (http only on this machine)"
    if not isinstance(url, str):
        raise TypeError(f"jwks_url must be {right}, not {url!r}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # which raises for a port that is none
    except ValueError as error:
        raise ValueError(f"jwks_url must be {right}, not {url!r}") from error
    if not (host and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback_name(host)))):
        raise ValueError(f"jwks_url must be {right}, not {url!r}")
    return url


def _checked_leeway(leeway: Duration) -> float:
    number = seconds("leeway", leeway, zero=True)
    if number > LONGEST_LEEWAY:
        raise ValueError(f"leeway must be at most {LONGEST_LEEWAY:g} seconds, not {leeway!r}")
    return number
