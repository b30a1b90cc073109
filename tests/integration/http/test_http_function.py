"""`http_function`: users' functions behind HTTP, under a time limit."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import math
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import functions_framework.aio
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oncetask import TaskTimeout
from oncetask.http import DEFAULT_TIMEOUT, http_function, limits

LIMIT = 20.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""

SHORT = 0.05
"""Seconds, the limit of functions that are meant to reach it."""

Endpoint = Callable[[Request], Any]


@pytest.fixture(autouse=True)
async def _nothing_left_behind() -> AsyncIterator[None]:
    """After each test the loop is as it was: no task runs on, and no timer of ours."""
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}
    loop: Any = asyncio.get_running_loop()
    timers = [timer._callback for timer in loop._scheduled if not timer.cancelled()]
    assert [timer for timer in timers if isinstance(getattr(timer, "__self__", None), limits.Limited)] == []


@asynccontextmanager
async def served(endpoint: Endpoint) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an endpoint by uvicorn on a free port, and give a client of it."""
    app = Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])
    listening = socket.create_server(("127.0.0.1", 0))  # connections wait in it until the server takes them
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, LIMIT)


async def ask(endpoint: Endpoint) -> httpx.Response:
    """Send one request to an endpoint in this process; what it raises is raised here."""
    transport = httpx.ASGITransport(Starlette(routes=[Route("/", endpoint)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await asyncio.wait_for(client.get("/"), LIMIT)


async def soon(event: asyncio.Event | threading.Event) -> None:
    """Wait for an event, of the loop or of a thread; fail loudly if it does not come."""
    if isinstance(event, threading.Event):
        assert await asyncio.to_thread(event.wait, LIMIT)
    else:
        await asyncio.wait_for(event.wait(), LIMIT)


class Hanging:
    """A function that waits for ever, and tells how it fared."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        """Wait until it is cancelled."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Response()


class Stubborn:
    """A function that swallows its cancellation and ends when it is released."""

    def __init__(self, error: Exception | None = None) -> None:
        self.release = asyncio.Event()
        self.ended = asyncio.Event()
        self._error = error

    async def __call__(self, request: Request) -> Response:
        """Wait until it is released."""
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            await self.release.wait()
        self.ended.set()
        if self._error is not None:
            raise self._error
        return PlainTextResponse("too late")


async def test_an_answer_in_time_is_sent_as_it_is() -> None:
    """What the function returns within its limit reaches the client of a real server."""

    @http_function(timeout=timedelta(seconds=LIMIT))
    async def greet(request: Request) -> Response:
        return PlainTextResponse(f"Hello {request.query_params['name']}", status_code=201)

    async with served(greet) as client:
        answer = await client.get("/", params={"name": "Ada"})
    assert (answer.status_code, answer.text) == (201, "Hello Ada")


async def test_at_its_limit_the_function_is_cancelled_and_answered_with_504() -> None:
    """The client of a real server gets 504 and a JSON error, and `on_error` has had a `TaskTimeout` by then."""
    hanging = Hanging()
    errors: list[Exception] = []
    async with served(http_function(timeout=SHORT, on_error=errors.append)(hanging)) as client:
        answer = await client.get("/")
    assert answer.status_code == 504
    assert answer.json() == {"error": "the request reached its time limit of 0.05 s"}
    assert hanging.cancelled.is_set()
    assert [type(error) for error in errors] == [TaskTimeout]
    assert isinstance(errors[0], TimeoutError)
    assert str(errors[0]) == answer.json()["error"]


async def test_a_client_that_leaves_cancels_the_function() -> None:
    """When the connection of a request is closed its function is cancelled, which is no error."""
    hanging = Hanging()
    errors: list[Exception] = []
    async with served(http_function(timeout=LIMIT, on_error=errors.append)(hanging)) as client:
        asking = asyncio.create_task(client.post("/", content=b"never read"))
        await soon(hanging.started)
        asking.cancel()
        await soon(hanging.cancelled)
    assert errors == []


async def test_a_client_that_leaves_within_its_body_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A function that waits for the rest of a body is cancelled, or fails by the disconnect: nobody is told."""
    reading = asyncio.Event()
    ended = asyncio.Event()
    errors: list[Exception] = []

    @http_function(timeout=LIMIT, on_error=errors.append)
    async def read(request: Request) -> Response:
        try:
            async for _ in request.stream():
                reading.set()
        finally:
            ended.set()
        return Response()

    async def half() -> AsyncIterator[bytes]:
        yield b"half of it"
        await asyncio.Event().wait()

    async with served(read) as client:
        asking = asyncio.create_task(client.post("/", content=half()))
        await soon(reading)
        asking.cancel()
        await soon(ended)
    assert errors == []
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(("error", "warnings"), [(ClientDisconnect(), 0), (ValueError("unlucky"), 1)])
async def test_a_function_that_fails_as_its_client_leaves_is_no_error(
    error: Exception, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Where both happen at once nobody is answered or told; only what is more than the disconnect is logged."""
    waiting, leaving = asyncio.Event(), asyncio.Event()
    errors: list[Exception] = []

    async def receive() -> Any:
        await soon(waiting)
        leaving.set()
        return {"type": "http.disconnect"}

    @http_function(on_error=errors.append)
    async def fail(request: Request) -> Response:
        waiting.set()
        await leaving.wait()  # nothing between, so that it fails in the very turn of the loop
        raise error

    answer = await fail(Request({"type": "http", "method": "GET", "path": "/", "headers": []}, receive))
    assert answer.status_code == 499
    assert errors == []
    assert len([record for record in caplog.records if record.name == "oncetask"]) == warnings


async def test_a_body_of_any_size_is_read_whole() -> None:
    """Reading ahead loses and reorders nothing of a body far larger than what is read ahead."""
    content = bytes(range(256)) * 8192

    @http_function
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    async with served(echo) as client:
        answer = await client.post("/", content=content)
    assert answer.content == content


async def test_a_body_may_be_read_after_the_function_has_returned() -> None:
    """What was read ahead is not lost to a response that reads its request while it is being sent."""
    parts = [bytes([n]) * 20_000 for n in range(10)]
    messages = iter([{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts])
    full = asyncio.Event()
    taken = 0

    async def receive() -> Any:
        nonlocal taken
        taken += 1
        if taken == 4:
            full.set()
        return next(messages)

    @http_function
    async def later(request: Request) -> AsyncIterator[bytes]:
        await soon(full)
        return request.stream()

    stream = await later(Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive))
    assert taken == 4  # and no more, as long as nobody reads
    assert b"".join([part async for part in stream]) == b"".join(parts)


async def test_what_receiving_raises_reaches_the_function() -> None:
    """An error of the server's `receive` is raised where the function reads, and is no concern of one that does not."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def request() -> Request:
        failures = [HTTPException(413)]

        async def receive() -> Any:
            if failures:
                raise failures.pop()
            return {"type": "http.request"}

        return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)

    @http_function
    async def read(request: Request) -> bytes:
        return await request.body()

    @http_function
    async def ignore(_: Request) -> str:
        await asyncio.to_thread(lambda: None)  # so that reading ahead has begun
        return "fine"

    with pytest.raises(HTTPException, match="413"):
        await read(request())
    assert await ignore(request()) == "fine"
    gc.collect()  # asyncio complains when it lets go of an error that nobody has asked for
    assert complaints == []


async def test_a_cancellation_from_outside_cancels_the_function() -> None:
    """When the task around it is cancelled the function is, before the cancellation goes on."""
    hanging = Hanging()
    asking = asyncio.create_task(ask(http_function(hanging)))
    await soon(hanging.started)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert hanging.cancelled.is_set()


async def test_an_own_timeout_error_is_an_ordinary_error() -> None:
    """A `TimeoutError` that the function raises before its limit propagates; `on_error` sees it as it is."""
    own = TimeoutError("of the database")
    errors: list[Exception] = []

    @http_function(on_error=errors.append)
    async def fail(request: Request) -> Response:
        raise own

    with pytest.raises(TimeoutError) as raised:
        await ask(fail)
    assert raised.value is own
    assert errors == [own]


async def test_an_own_task_timeout_is_an_ordinary_error() -> None:
    """Even a `TaskTimeout` is not taken for the limit where the function itself raises it."""

    @http_function
    async def fail(request: Request) -> Response:
        raise TaskTimeout("of a task")

    with pytest.raises(TaskTimeout, match="of a task"):
        await ask(fail)


async def test_an_error_becomes_500_without_its_text() -> None:
    """The text of an exception does not leave the process."""
    errors: list[Exception] = []

    @http_function(on_error=errors.append)
    async def fail(request: Request) -> Response:
        raise ValueError("secret")

    async with served(fail) as client:
        answer = await client.get("/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert [str(error) for error in errors] == ["secret"]


@pytest.mark.parametrize(("status", "told"), [(404, 0), (499, 0), (500, 1), (503, 1)])
async def test_on_error_is_told_of_http_exceptions_from_500_on(status: int, told: int) -> None:
    """An `HTTPException` below 500 is an answer, not an error; all of them propagate."""
    errors: list[Exception] = []

    @http_function(on_error=errors.append)
    async def refuse(request: Request) -> Response:
        raise HTTPException(status)

    assert (await ask(refuse)).status_code == status
    assert len(errors) == told


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("in_a_thread", [True, False])
async def test_a_function_cannot_end_the_server(error: BaseException, in_a_thread: bool) -> None:
    """What would end the process is an error of its function only, on the loop and in a thread."""

    async def leave(request: Request) -> Response:
        raise error

    def leave_thread(request: Request) -> Response:
        raise error

    with pytest.raises(RuntimeError, match="tried to end its process"):
        await ask(http_function(leave_thread if in_a_thread else leave))


async def test_a_function_that_cancels_itself_has_failed() -> None:
    """A `CancelledError` from within is an error, not a cancellation of the request."""

    @http_function
    async def give_up(request: Request) -> Response:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled from within"):
        await ask(give_up)


async def test_a_function_that_swallows_its_cancellation_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The 504 is sent all the same after the grace; the function is logged and lives until it ends."""
    monkeypatch.setattr(limits, "GRACE", SHORT)
    stubborn = Stubborn()
    answer = await ask(http_function(timeout=SHORT)(stubborn))
    assert answer.status_code == 504
    assert not stubborn.ended.is_set()
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert ["abandoned, still running" in message for message in errors] == [True]
    stubborn.release.set()
    await soon(stubborn.ended)


async def test_the_late_error_of_an_abandoned_function_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What an abandoned function raises at last is told as a warning, and asyncio has nothing to complain about."""
    monkeypatch.setattr(limits, "GRACE", SHORT)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    stubborn = Stubborn(ValueError("at last"))
    assert (await ask(http_function(timeout=SHORT)(stubborn))).status_code == 504
    abandoned = asyncio.all_tasks() - {asyncio.current_task()}
    assert len(abandoned) == 1
    stubborn.release.set()
    await asyncio.wait_for(asyncio.wait(abandoned), LIMIT)
    del abandoned
    gc.collect()  # asyncio complains when it lets go of an error that nobody has asked for
    late = [record for record in caplog.records if record.exc_info and "told to stop" in record.message]
    assert [str(record.exc_info[1]) for record in late if record.exc_info] == ["at last"]
    assert complaints == []


async def test_a_result_after_the_limit_does_not_count() -> None:
    """A function that catches its cancellation and returns within the grace has been timed out all the same."""

    @http_function(timeout=SHORT)
    async def late(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return PlainTextResponse("half done")
        return PlainTextResponse("never")

    assert (await ask(late)).status_code == 504


async def test_a_def_function_runs_in_a_thread() -> None:
    """A `def` function does not run on the loop's thread, and its result is sent like any other."""

    @http_function
    def where(request: Request) -> Response:
        return PlainTextResponse(str(threading.get_ident()))

    answer = await ask(where)
    assert answer.status_code == 200
    assert answer.text != str(threading.get_ident())


async def test_a_thread_that_ends_late_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """At the limit a thread runs on, which is logged; the client has its 504, and the late error reaches nobody."""
    release, ended = threading.Event(), threading.Event()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    errors: list[Exception] = []

    @http_function(timeout=SHORT, on_error=errors.append)
    def slow(request: Request) -> Response:
        release.wait(LIMIT)
        ended.set()
        raise ValueError("too late")

    try:
        assert (await ask(slow)).status_code == 504
        assert not ended.is_set()
    finally:
        release.set()
    await soon(ended)
    assert [type(error) for error in errors] == [TaskTimeout]
    assert ["runs on" in record.message for record in caplog.records if record.levelno == logging.ERROR] == [True]
    assert complaints == []


async def fails(request: Request) -> Response:
    """Fail at once."""
    raise KeyError("own")


async def test_on_error_may_be_async() -> None:
    """An `async def on_error` is awaited before the answer, at the limit and after an error."""
    errors: list[Exception] = []

    async def tell(error: Exception) -> None:
        await asyncio.to_thread(lambda: None)
        errors.append(error)

    assert (await ask(http_function(timeout=SHORT, on_error=tell)(Hanging()))).status_code == 504
    assert [type(error) for error in errors] == [TaskTimeout]
    with pytest.raises(KeyError, match="own"):
        await ask(http_function(on_error=tell)(fails))
    assert [type(error) for error in errors] == [TaskTimeout, KeyError]


@pytest.mark.parametrize("error", [ValueError("of on_error"), SystemExit(3)])
async def test_an_on_error_that_raises_harms_nobody(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """What `on_error` raises is logged; the function's own error, or the 504, goes its way."""

    async def tell(_: Exception) -> None:
        raise error

    with pytest.raises(KeyError, match="own"):
        await ask(http_function(on_error=tell)(fails))
    assert (await ask(http_function(timeout=SHORT, on_error=tell)(Hanging()))).status_code == 504
    failures = [record for record in caplog.records if record.name == "oncetask" and "on_error" in record.message]
    assert [record.levelname for record in failures] == ["ERROR", "ERROR"]


async def test_an_on_error_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 504, or the function's error, goes its way while `on_error` goes on beside it."""
    monkeypatch.setattr(limits, "GRACE", SHORT)
    release = asyncio.Event()
    ended: asyncio.Queue[Exception] = asyncio.Queue()

    async def hang(error: Exception) -> None:
        await release.wait()
        ended.put_nowait(error)

    assert (await ask(http_function(timeout=SHORT, on_error=hang)(Hanging()))).status_code == 504
    with pytest.raises(KeyError, match="own"):
        await ask(http_function(on_error=hang)(fails))
    assert ended.empty()
    release.set()
    told = [await asyncio.wait_for(ended.get(), LIMIT) for _ in range(2)]
    assert [type(error) for error in told] == [TaskTimeout, KeyError]


async def test_an_on_error_that_does_not_end_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After its own limit `on_error` is cancelled, and that is logged."""
    monkeypatch.setattr(limits, "REPORT_SECONDS", SHORT)
    cancelled = asyncio.Event()

    async def hang(_: Exception) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(KeyError, match="own"):
        await ask(http_function(on_error=hang)(fails))
    await soon(cancelled)
    assert any("did not end within 0.05 s" in record.message for record in caplog.records)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "10", True, None, timedelta(0)])
def test_a_bad_timeout_is_refused_when_decorating(bad: Any) -> None:
    """What is no positive, finite duration raises at once, with the value in its message."""
    with pytest.raises((TypeError, ValueError), match="timeout") as raised:
        http_function(timeout=bad)
    assert repr(bad) in str(raised.value)


def test_what_cannot_be_called_is_refused() -> None:
    """A limit given by position, or an `on_error` that is no function, raises TypeError."""
    wrong: Any = 10
    with pytest.raises(TypeError, match="10"):
        http_function(wrong)
    with pytest.raises(TypeError, match="on_error"):
        http_function(on_error=wrong)(Hanging())


def test_the_endpoint_looks_like_the_function() -> None:
    """The endpoint has the name and docstring of the function, and is async where the function is not."""

    @http_function
    def greet(request: Request) -> str:
        """Greet somebody."""
        return "Hello"

    assert (greet.__name__, greet.__doc__) == ("greet", "Greet somebody.")
    assert inspect.iscoroutinefunction(greet)
    assert DEFAULT_TIMEOUT == 10


def test_without_starlette_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing `oncetask.http` without Starlette names the extra that brings it."""
    for name in [name for name in sys.modules if name.startswith("oncetask.http")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(ImportError, match=r'pip install "oncetask\[http\]"'):
        __import__("oncetask.http")


FUNCTIONS = """
import asyncio
from oncetask.http import http_function

@http_function
async def greet(request):
    return {"hello": (await request.json())["name"]}

@http_function
def refuse(request):
    return "not you", 403

@http_function(timeout=0.05)
async def hang(request):
    await asyncio.Event().wait()

@http_function
async def fail(request):
    raise ValueError("secret")
"""


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("greet", 200, '{"hello":"Ada"}'),
        ("refuse", 403, "not you"),
        ("hang", 504, '{"error":"the request reached its time limit of 0.05 s"}'),
        ("fail", 500, "Internal Server Error"),
    ],
)
async def test_it_is_a_function_of_the_functions_framework(
    target: str, status: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`functions_framework.aio` serves decorated functions from a source file, in every form of result."""
    source = tmp_path / "deployed_functions.py"
    source.write_text(FUNCTIONS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, source.stem, None)  # the framework puts the module here, for good
    for name in ("FUNCTION_TARGET", "FUNCTION_SIGNATURE_TYPE"):
        monkeypatch.setenv(name, "")  # as with these
    app = functions_framework.aio.create_asgi_app(target, source, "http")  # type: ignore[no-untyped-call]  # has no types
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await asyncio.wait_for(client.post("/", json={"name": "Ada"}), LIMIT)
    assert (answer.status_code, answer.text) == (status, text)
