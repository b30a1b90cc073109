"""A request to the scheduler function, or to `POST /tick`, straight after an enqueue.

A tick answers when it has ended, which may be its whole budget later, so a kick asks for an answer that begins at once.
It waits for that only for a moment, since an instance may have to be started first. But it stays connected in the
background: a request whose caller has hung up may be dropped as long as it waits for an instance that has yet to start.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from oncetask.clock import Duration, Now, seconds
from oncetask.threads import in_thread
from oncetask.waking.checks import check_audience, check_url
from oncetask.waking.complaints import Complaints
from oncetask.waking.port import Waker

__all__ = ["HttpKick"]

_SOON = 1.0
"""Seconds ahead for which an enqueue waits, so that it can kick."""

_STAY = 60.0
"""Seconds for which a kick stays connected: a little longer than a tick takes."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750
_BEGUN = 202
_MOST_BYTES = 64 * 1024
_REFUSED = frozenset({401, 403})


class HttpKick(Waker):
    """Posts to a scheduler function for what is due now, or within a second; the rest is left to the ticks.

    A kick is under way until its answer begins, or for `timeout`. Those who ask meanwhile share the next one, which
    starts when that is over: so one process sends few kicks, and each enqueue is followed by one. It waits for that,
    at most twice the `timeout`.
    """

    def __init__(
        self,
        url: str,
        *,
        audience: str | None = None,
        token: Callable[[], str] | None = None,
        timeout: Duration = 1.0,
    ) -> None:
        """Kick one scheduler, of one environment.

        `url`: https, or http to this machine. `audience`: whom an identity token of this process's account is for;
        left out: no token. `token`: gives one instead; it is called in a thread for each kick, so it has to keep what
        is expensive. `timeout`: seconds for which an enqueue waits for the answer of a kick to begin. Raises TypeError
        and ValueError for what is none of that, and for an `audience` beside a `token`.
        """
        self._url = check_url("url", url, loopback=True)
        if audience is not None and token is not None:
            msg = f"audience and token exclude each other: {audience!r} and {token!r}"
            raise ValueError(msg)
        self._token = token if audience is None else _identity(check_audience("audience", audience))
        self._timeout = seconds("timeout", timeout)
        self._complaints = Complaints()
        self._tls: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def wake(self, at: datetime, *, env: str, now: Now) -> None:  # noqa: ARG002  # the url says which one it is
        """Kick; see `Waker.wake`."""
        ahead = (at - now.earliest).total_seconds()
        if ahead > _SOON:
            return
        if ahead > 0:
            await asyncio.sleep(ahead)
        self._be_here()
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._kick_after(self._running))
        await asyncio.wait({self._next})  # unlike awaiting it, this leaves it alone where the enqueue is cancelled

    async def aclose(self) -> None:
        """Wait for the kicks that have been asked for."""
        self._be_here()
        for kick in (self._running, self._next):
            if kick is not None:
                await asyncio.wait({kick})
        self._running = self._next = None

    def _be_here(self) -> None:
        """Forget what belongs to another event loop, such as one before a fork."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._running, self._next = loop, None, None

    async def _kick_after(self, former: asyncio.Task[None] | None) -> None:
        if former is not None:
            await asyncio.wait({former})
        # From here on this kick is too early for whoever asks.
        self._running, self._next = asyncio.current_task(), None
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[int | None] = loop.create_future()

        def begin(status: int) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(begun.set_result, status)

        answer = in_thread(self._post, begin)
        answer.add_done_callback(self._look_at)
        await asyncio.wait({answer, begun}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)

    def _post(self, begin: Callable[[int], None]) -> int | None:
        """Send the request, in a thread, and give the status of its answer; None: it takes longer than a tick.

        `begin`: is called with it where the answer begins before the tick has ended.
        """
        target = self._url.path or "/"
        if self._url.query:
            target += f"?{self._url.query}"
        headers = {"Prefer": "respond-async"}  # an oncetask that ticks answers at once that it does
        if self._token is not None:
            headers["Authorization"] = f"Bearer {_checked(self._token())}"
        connection = self._connection()
        try:
            connection.connect()
            connection.sock.settimeout(_STAY)
            connection.request("POST", target, headers=headers)
            try:
                answer = connection.getresponse()
                if answer.status == _BEGUN:
                    begin(answer.status)
                answer.read(_MOST_BYTES)  # it ends with the tick
            except TimeoutError:
                return None
            else:
                return answer.status
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host = self._url.hostname or ""
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, self._url.port, timeout=self._timeout)
        self._tls = self._tls or ssl.create_default_context()
        return http.client.HTTPSConnection(host, self._url.port, timeout=self._timeout, context=self._tls)

    def _look_at(self, answer: asyncio.Future[int | None]) -> None:
        where = f"{self._url.scheme}://{self._url.netloc}{self._url.path}"  # a query may hold a secret
        if (error := answer.exception()) is not None:
            self._complaints.say(f"POST {where} failed: {type(error).__name__}: {error}")
        elif (status := answer.result()) is not None and status not in range(200, 300):
            hint = " (may this account call it, and is the audience right?)" if status in _REFUSED else ""
            self._complaints.say(f"POST {where} was answered with {status}{hint}")


def _identity(audience: str) -> Callable[[], str]:
    from oncetask.waking.identity import IdentityToken  # noqa: PLC0415  # slow to import, and not always needed

    return IdentityToken(audience)


def _checked(token: object) -> str:
    """Check a token before it becomes part of a header, without ever telling it."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        msg = f"token() must give a bearer token (letters, digits and -._~+/), not this {type(token).__name__}"
        raise ValueError(msg)
    return token
