"""Callers on this machine, and those whom Cloud Run has checked."""

from __future__ import annotations

import logging
import os
import re
from ipaddress import ip_address

from starlette.requests import HTTPConnection

from oncetask.http.auth.port import Auth, Refused

__all__ = ["IAM", "Loopback", "is_loopback_address", "is_loopback_name"]

_FORWARDING = frozenset(
    {
        "cf-connecting-ip",
        "forwarded",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "x-real-ip",
    }
)
"""Headers by which a proxy says that it asks for somebody else, beside all that begin with X-Forwarded."""

_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]{1,5})?")
_log = logging.getLogger("oncetask")


class Loopback(Auth):
    """Admits callers on this machine and nobody else: what `auth=None` means.

    A caller is on this machine where all of this holds; what is missing counts against him:

    - The connection comes from a loopback address. (A server on a Unix socket knows no address: nobody is admitted,
      since it is usually a proxy that asks there.)
    - No header says that it was forwarded for somebody else.
    - The Host header names this machine. A page of another site can make a browser connect to this machine, by a name
      of its own that leads here, but it cannot choose that header.
    - It is not a browser that asks for a page of another origin: `Origin`, if there is one, is the host that is asked,
      and `Sec-Fetch-Site`, if there is one, is `same-origin` or `none`. That goes for WebSockets too.
    """

    async def admit(self, connection: HTTPConnection) -> None:
        """Return for a caller on this machine; raises Refused (403) with what to configure for others."""
        _refuse_strangers(
            connection,
            "to serve others set ONCETASK_AUTH=oidc with ONCETASK_AUDIENCE and ONCETASK_CALLERS, or ONCETASK_AUTH=iam "
            "where Cloud Run checks the callers, or pass auth=",
        )


class IAM(Auth):
    """Says in so many words: Cloud Run's own IAM has checked the caller before the request got here.

    It admits everybody, so the service has to be deployed with `--no-allow-unauthenticated`, and its callers given the
    role `roles/run.invoker`; nothing in here can make up for that. A request without any token is a sign that this was
    forgotten, and logged once.

    Elsewhere than on Cloud Run (or Cloud Functions, which run on it) nobody has checked anything: there it admits what
    `Loopback` admits. It is Cloud Run where `K_SERVICE` is set, and neither `KUBERNETES_SERVICE_HOST` (Knative on a
    cluster of somebody's own sets K_SERVICE too) nor `FUNCTIONS_EMULATOR` (so does the emulator of Firebase).
    """

    def __init__(self) -> None:
        """Look where this runs, once."""
        self._checked = bool(os.environ.get("K_SERVICE")) and not (
            os.environ.get("KUBERNETES_SERVICE_HOST") or os.environ.get("FUNCTIONS_EMULATOR")
        )
        self._warned = False
        if not self._checked:
            _log.warning(
                "IAM() relies on Cloud Run's check of callers, and this is not Cloud Run: only callers on this machine "
                "are served"
            )

    async def admit(self, connection: HTTPConnection) -> None:
        """Return for everybody on Cloud Run; elsewhere raises Refused (403) for callers who are not on this machine."""
        if not self._checked:
            _refuse_strangers(connection, "IAM checks nobody outside Cloud Run: there use OIDC (ONCETASK_AUTH=oidc)")
        elif not self._warned and not {"authorization", "x-serverless-authorization"} & set(connection.headers):
            self._warned = True
            _log.warning(
                "a caller without any token was served, because IAM() relies on Cloud Run's check: make sure that this "
                "service was deployed with --no-allow-unauthenticated"
            )


def is_loopback_address(text: str) -> bool:
    """Tell whether this is an IP address of the machine itself: IPv4, IPv6, or IPv4 inside IPv6."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_loopback_name(name: str) -> bool:
    """Tell whether a host's name, or its address (IPv6 in brackets or not), can mean nothing but this machine."""
    return name.lower() == "localhost" or is_loopback_address(name.removeprefix("[").removesuffix("]"))


def _refuse_strangers(connection: HTTPConnection, advice: str) -> None:
    strange = _strangeness(connection)
    if strange is not None:
        _log.warning("refused a caller: %s", strange)
        raise Refused(403, f"only callers on this machine are served, and {strange}; {advice}")


def _strangeness(connection: HTTPConnection) -> str | None:
    """Say what speaks against a caller on this machine, in fixed words, or None."""
    headers = connection.headers
    client = connection.client
    if client is None or not is_loopback_address(client.host):
        return "the connection does not come from a loopback address"
    if any(name in _FORWARDING or name.startswith("x-forwarded") for name in headers):
        return "a header such as X-Forwarded-For says that somebody else asked"
    hosts = headers.getlist("host")
    named = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if named is None or not is_loopback_name(named[1]):
        return "the Host header does not name this machine (localhost, 127.0.0.1 or [::1])"
    host = hosts[0].lower()
    if any(origin.lower() not in {f"http://{host}", f"https://{host}"} for origin in headers.getlist("origin")):
        return "the Origin header names another origin than the one that is asked"
    if any(site.lower() not in {"same-origin", "none"} for site in headers.getlist("sec-fetch-site")):
        return "a browser asks for a page of another site"
    return None
