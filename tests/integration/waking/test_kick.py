"""`HttpKick` against real servers: what arrives, how few, and what an enqueue waits for."""

from __future__ import annotations

import asyncio
import functools
import http.server
import logging
import socket
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import functions_framework.aio
import pytest
from starlette.responses import RedirectResponse, Response

from oncetask.clock import Now
from oncetask.waking import HttpKick, kick
from tests.integration.waking.certificates import issue
from tests.integration.waking.servers import LIMIT, Scheduler, answering, served
from tests.support import T0, at, exactly

SHORT = 0.05
"""Seconds, the patience of kicks that are not meant to be answered in time."""


async def wake(waker: HttpKick, due: datetime = T0, now: Now | None = None) -> None:
    """Wake for what is due at the beginning of the tests' time, unless it is said otherwise."""
    async with asyncio.timeout(LIMIT):
        await waker.wake(due, env="default", now=now or exactly(T0))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what oncetask has warned of."""
    return [record.getMessage() for record in caplog.records if record.name == "oncetask"]


class Heard(logging.Handler):
    """Waits for the first warning."""

    def __init__(self) -> None:
        super().__init__()
        self._first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        logging.getLogger("oncetask").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Hear what is logged on the loop."""
        if not self._first.done():
            self._first.set_result(record.getMessage())

    async def first(self) -> str:
        """Give the first warning; fail loudly if there is none."""
        try:
            return await asyncio.wait_for(self._first, LIMIT)
        finally:
            logging.getLogger("oncetask").removeHandler(self)


@pytest.fixture
async def scheduler() -> Scheduler:
    """A scheduler function that answers when it is released."""
    return Scheduler()


@pytest.fixture
async def where(scheduler: Scheduler) -> AsyncIterator[str]:
    """Where the scheduler function listens."""
    async with served(scheduler) as address:
        yield address
        scheduler.release.set()


async def test_what_is_due_now_is_posted_at_once(scheduler: Scheduler, where: str) -> None:
    """One POST without body or token, to the path and query that were given; its answer ends the wait."""
    scheduler.release.set()
    await wake(HttpKick(f"http://{where}/tick?from=api", timeout=LIMIT))
    (request,) = scheduler.requests
    assert (request.method, request.url.path, request.url.query) == ("POST", "/tick", "from=api")
    assert request.headers["content-length"] == "0"
    assert "authorization" not in request.headers
    assert scheduler.ended == ["attended"]


async def test_what_is_later_than_a_second_is_left_to_the_ticks(scheduler: Scheduler, where: str) -> None:
    """Nothing is sent for it; the boundary is a second, to the microsecond."""
    scheduler.release.set()
    waker = HttpKick(f"http://{where}/", timeout=LIMIT)
    await wake(waker, at(1) + timedelta(microseconds=1))
    await wake(waker, datetime.max.replace(tzinfo=UTC))
    await waker.aclose()
    assert scheduler.requests == []


async def test_what_is_due_within_a_second_is_waited_for(scheduler: Scheduler, where: str) -> None:
    """The kick leaves when it is certainly due: by the earlier bound of the store's time."""
    scheduler.release.set()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await wake(HttpKick(f"http://{where}/", timeout=LIMIT), at(0.1), Now(T0, at(0.2)))
    assert len(scheduler.requests) == 1
    assert loop.time() - began >= 0.1


async def test_those_who_ask_at_the_same_time_share_a_kick(scheduler: Scheduler, where: str) -> None:
    """A hundred wakes at once make one request."""
    scheduler.release.set()
    waker = HttpKick(f"http://{where}/", timeout=LIMIT)
    await asyncio.gather(*(wake(waker) for _ in range(100)))
    assert len(scheduler.requests) == 1


async def test_a_kick_that_is_under_way_is_none_for_a_later_write(scheduler: Scheduler, where: str) -> None:
    """Those who ask while one is under way share the next one, which leaves when that is answered."""
    waker = HttpKick(f"http://{where}/", timeout=LIMIT)
    first = asyncio.create_task(wake(waker))
    await scheduler.received(1)
    others = [asyncio.create_task(wake(waker)) for _ in range(100)]
    scheduler.release.set()
    await asyncio.gather(first, *others)
    assert len(scheduler.requests) == 2
    await wake(waker)
    assert len(scheduler.requests) == 3


async def test_a_long_tick_keeps_an_enqueue_for_the_timeout_only(
    scheduler: Scheduler, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request goes on without it: the function is not deserted, and answers later, which is no failure."""
    waker = HttpKick(f"http://{where}/", timeout=SHORT)
    await wake(waker)
    await scheduler.received(1)
    await wake(waker)
    await scheduler.received(2)
    assert scheduler.ended == []
    scheduler.release.set()
    await scheduler.answered(2)
    assert scheduler.ended == ["attended", "attended"]
    assert warnings(caplog) == []


async def test_a_late_failure_is_told_of(scheduler: Scheduler, where: str, caplog: pytest.LogCaptureFixture) -> None:
    """A tick that fails after the enqueue has returned is logged all the same."""
    scheduler.response = Response(status_code=503)
    await wake(HttpKick(f"http://{where}/", timeout=SHORT))
    await scheduler.received(1)
    assert warnings(caplog) == []
    heard = Heard()
    scheduler.release.set()
    assert "was answered with 503" in await heard.first()


async def test_a_function_runs_on_when_the_kick_hangs_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """functions-framework neither cancels nor drops a request whose caller has left."""
    here = "tests.integration.waking.test_kick"
    source = tmp_path / "main.py"
    source.write_text(
        "import functions_framework.aio\n"
        f"from {here} import FUNCTION\n"
        "@functions_framework.aio.http\n"
        "async def scheduler(request):\n"
        "    return await FUNCTION[0](request)\n"
    )
    monkeypatch.setattr(kick, "_STAY", SHORT)
    function = Scheduler()
    monkeypatch.setattr(f"{here}.FUNCTION", [function])
    create: Any = functions_framework.aio.create_asgi_app  # has no types
    async with served(create("scheduler", str(source), "http")) as address:
        await wake(HttpKick(f"http://{address}/", timeout=SHORT))
        await function.received(1)
        async with asyncio.timeout(LIMIT):
            while (await function.requests[0].receive())["type"] != "http.disconnect":
                pass  # the end of the empty body
        function.release.set()
        await function.answered(1)
    assert warnings(caplog) == []


FUNCTION: list[Scheduler] = []
"""The function that the last test's `main.py` serves."""


async def test_a_cancelled_enqueue_kicks_all_the_same(scheduler: Scheduler, where: str) -> None:
    """The task is stored, whether its caller still waits or not; the next kick is not disturbed either."""
    waker = HttpKick(f"http://{where}/", timeout=LIMIT)
    first = asyncio.create_task(wake(waker))
    await scheduler.received(1)
    second = await begun(waker)
    first.cancel()
    second.cancel()
    scheduler.release.set()
    await waker.aclose()
    assert first.cancelled()
    assert second.cancelled()
    assert len(scheduler.requests) == 2


async def test_closing_waits_for_what_was_asked_for(scheduler: Scheduler, where: str) -> None:
    """Afterwards the waker can be used again."""
    waker = HttpKick(f"http://{where}/", timeout=LIMIT)
    asking = asyncio.create_task(wake(waker))
    await scheduler.received(1)
    closing = asyncio.create_task(waker.aclose())
    done, _ = await asyncio.wait({closing}, timeout=SHORT)
    assert not done
    scheduler.release.set()
    await asyncio.gather(asking, closing)
    await wake(waker)
    await waker.aclose()
    assert len(scheduler.requests) == 2


async def begun(waker: HttpKick) -> asyncio.Task[None]:
    """Let an enqueue ask for a kick, and do not wait for it."""
    asking = asyncio.create_task(wake(waker))
    await asyncio.sleep(0)
    return asking


def test_a_waker_serves_one_loop_after_the_other() -> None:
    """What is left of an event loop that stands still, as after a fork, keeps nobody waiting."""
    seen: list[str] = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        serving.start()
        waker = HttpKick(f"http://127.0.0.1:{server.server_port}/tick", timeout=LIMIT)
        with asyncio.Runner() as left:
            asking = left.run(begun(waker))
            with asyncio.Runner() as other:
                other.run(wake(waker))
                other.run(waker.aclose())
            left.run(asyncio.wait_for(asking, LIMIT))
        server.shutdown()
        serving.join(LIMIT)
    assert seen == ["/tick", "/tick"]


async def test_the_token_is_asked_for_each_time(scheduler: Scheduler, where: str) -> None:
    """It is called in a thread, so it may block, and goes along as a bearer token."""
    scheduler.release.set()
    tokens = iter(["aaa.bbb.ccc", "ddd.eee.fff"])
    threads: list[threading.Thread] = []

    def token() -> str:
        threads.append(threading.current_thread())
        return next(tokens)

    waker = HttpKick(f"http://{where}/", token=token, timeout=LIMIT)
    await wake(waker)
    await wake(waker)
    sent = [request.headers["authorization"] for request in scheduler.requests]
    assert sent == ["Bearer aaa.bbb.ccc", "Bearer ddd.eee.fff"]
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("token", ["secret\r\nX-Forged: 1", "", None, b"secret"])
async def test_a_token_that_is_none_is_not_sent_nor_told(
    scheduler: Scheduler, where: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning says what a token is, and not what this one was."""
    scheduler.release.set()
    await wake(HttpKick(f"http://{where}/", token=lambda: token, timeout=LIMIT))
    (warning,) = warnings(caplog)
    assert "token() must give a bearer token" in warning
    assert "secret" not in warning
    assert scheduler.requests == []


async def test_a_token_that_cannot_be_had_is_a_warning(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the provider raises is named."""

    def token() -> str:
        msg = "no metadata server"
        raise OSError(msg)

    await wake(HttpKick(f"http://{where}/", token=token, timeout=LIMIT))
    (warning,) = warnings(caplog)
    assert "OSError: no metadata server" in warning


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (Response(status_code=403), "was answered with 403 (may this account call it, and is the audience right?)"),
        (Response(status_code=500), "was answered with 500"),
        (RedirectResponse("/elsewhere"), "was answered with 307"),
    ],
)
async def test_another_answer_than_success_is_a_warning(
    scheduler: Scheduler, where: str, response: Response, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A redirect is not followed, since the token is for this address; the query, which may be secret, is left out."""
    scheduler.release.set()
    scheduler.response = response
    await wake(HttpKick(f"http://{where}/tick?key=secret", token=lambda: "aaa", timeout=LIMIT))
    (warning,) = warnings(caplog)
    assert f"POST http://{where}/tick {says}" in warning
    assert [request.url.path for request in scheduler.requests] == ["/tick"]


@pytest.mark.parametrize("answer", [b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 "])
async def test_a_server_that_talks_rubbish_is_a_warning(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """An enqueue does not fail of it."""
    async with answering(answer) as address:
        await wake(HttpKick(f"http://{address}/", timeout=LIMIT))
    (warning,) = warnings(caplog)
    assert f"POST http://{address}/ failed" in warning


async def test_many_failures_are_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody listens: ten thousand enqueues would say so ten thousand times."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    waker = HttpKick(f"http://127.0.0.1:{port}/", timeout=LIMIT)
    for _ in range(20):
        await wake(waker)
    (warning,) = warnings(caplog)
    assert "ConnectionRefusedError" in warning
    assert caplog.records[0].levelno == logging.WARNING


async def test_https_is_spoken_to_servers_with_a_good_certificate(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent to one whose certificate is of nobody that is trusted."""
    scheduler.release.set()
    certificate, key = issue(tmp_path, "127.0.0.1")
    serve = functools.partial(served, ssl_certfile=str(certificate), ssl_keyfile=str(key))
    async with serve(scheduler) as address:
        await wake(HttpKick(f"https://{address}/", token=lambda: "aaa", timeout=LIMIT))
        (warning,) = warnings(caplog)
        assert "SSLCertVerificationError" in warning
        assert scheduler.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        await wake(HttpKick(f"https://{address}/", token=lambda: "aaa", timeout=LIMIT))
    assert [request.url.scheme for request in scheduler.requests] == ["https"]
