"""`websocket_function`: users' functions behind a WebSocket, each message under a time limit.

No WebSocket server is among the dependencies, so most tests speak ASGI with the application as a server does; one
goes through Starlette's own client.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import math
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from oncetask import TaskTimeout
from oncetask.http import limits, websocket_function

LIMIT = 20.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""

SHORT = 0.05
"""Seconds, the limit of functions that are meant to reach it."""

TIMED_OUT = {"error": "the request reached its time limit of 0.05 s"}
INTERNAL = {"error": "internal error"}
NOT_JSON = {"error": "the message is not JSON"}


@pytest.fixture(autouse=True)
async def _nothing_left_behind() -> AsyncIterator[None]:
    """After each test the loop is as it was: no task runs on, and no timer of ours."""
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}
    loop: Any = asyncio.get_running_loop()
    timers = [timer._callback for timer in loop._scheduled if not timer.cancelled()]
    assert [timer for timer in timers if isinstance(getattr(timer, "__self__", None), limits.Limited)] == []


class Connection:
    """A client's connection to an endpoint in this process; leaving the block disconnects, and waits for the end."""

    def __init__(self, endpoint: Callable[[WebSocket], Any]) -> None:
        self._app = Starlette(routes=[WebSocketRoute("/", endpoint)])
        self._to_app: asyncio.Queue[Any] = asyncio.Queue()
        self._from_app: asyncio.Queue[Any] = asyncio.Queue()
        self._left = False

    async def __aenter__(self) -> Self:
        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": [], "subprotocols": []}
        self.serving = asyncio.create_task(self._app(scope, self._to_app.get, self._send))
        self._to_app.put_nowait({"type": "websocket.connect"})
        assert (await self.receive())["type"] == "websocket.accept"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        await asyncio.wait_for(asyncio.wait({self.serving}), LIMIT)
        if not self.serving.cancelled():
            self.serving.result()

    async def _send(self, message: Any) -> None:
        if self._left:
            msg = "the client has left"
            raise OSError(msg)  # as servers do
        self._from_app.put_nowait(message)

    def send(self, message: object) -> None:
        """Send JSON in a text frame."""
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        """Send a text frame."""
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    def send_bytes(self, content: bytes) -> None:
        """Send a binary frame."""
        self._to_app.put_nowait({"type": "websocket.receive", "bytes": content})

    def break_off(self) -> None:
        """Be no longer there, before the application is told of it: sending fails."""
        self._left = True

    def leave(self) -> None:
        """Disconnect, with no word."""
        self.break_off()
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def receive(self) -> Any:
        """Give the next thing that the application does."""
        return await asyncio.wait_for(self._from_app.get(), LIMIT)

    async def answer(self) -> Any:
        """Give the JSON of the next frame that the application sends."""
        message = await self.receive()
        assert message["type"] == "websocket.send"
        return json.loads(message["text"])

    async def ask(self, message: object) -> Any:
        """Send a message and give what is sent next."""
        self.send(message)
        return await self.answer()

    @property
    def silent(self) -> bool:
        """Whether all that was sent has been received."""
        return self._from_app.empty()


async def echo(_: WebSocket, message: Any) -> Any:
    """Send back what came."""
    return message


async def soon(event: asyncio.Event) -> None:
    """Wait for an event; fail loudly if it does not come."""
    await asyncio.wait_for(event.wait(), LIMIT)


class Hanging:
    """A function that waits for ever when it is told to "hang", and tells how it fared; else an echo."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, _: WebSocket, message: Any) -> Any:
        """Wait, or send the message back."""
        if message != "hang":
            return message
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@pytest.mark.parametrize("message", [{"a": [1, None]}, [], "text", 0, False, "\u00e4\ud83d"])
async def test_each_message_is_answered_with_what_the_function_returns(message: object) -> None:
    """JSON of every form comes in as it is and goes out as it is."""
    async with Connection(websocket_function(timeout=timedelta(seconds=LIMIT))(echo)) as connection:
        assert await connection.ask(message) == message


async def test_starlettes_client_gets_its_answers() -> None:
    """A client that is not ours connects, is answered, sees a limit, is answered again and leaves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather have another HTTP library, which a WebSocket does not use
        from starlette.testclient import TestClient  # noqa: PLC0415  # within the block that forgives its warning

    hanging = Hanging()
    app = Starlette(routes=[WebSocketRoute("/", websocket_function(timeout=SHORT)(hanging))])

    def talk() -> list[Any]:
        with TestClient(app).websocket_connect("/") as websocket:
            answers = []
            for message in ("first", "hang", "last"):
                websocket.send_json(message)
                answers.append(websocket.receive_json())
            return answers

    assert await asyncio.wait_for(asyncio.to_thread(talk), LIMIT) == ["first", TIMED_OUT, "last"]


async def test_bytes_hold_json_too() -> None:
    """A binary frame is read as UTF-8; the answer is a text frame."""
    async with Connection(websocket_function(echo)) as connection:
        connection.send_bytes('{"name": "Zoë"}'.encode())
        assert await connection.answer() == {"name": "Zoë"}


async def test_none_is_not_sent() -> None:
    """A function that returns None has nothing to say; it may have sent by itself."""

    @websocket_function
    async def quiet(websocket: WebSocket, message: object) -> None:
        if message == "speak":
            await websocket.send_json("spoken")

    async with Connection(quiet) as connection:
        connection.send("say nothing")
        assert await connection.ask("speak") == "spoken"
        assert connection.silent


async def test_what_pydantic_can_write_is_sent() -> None:
    """A result may hold what JSON itself has no form for, such as a datetime."""

    @websocket_function
    async def when(_: WebSocket, __: object) -> object:
        return {"at": datetime(2030, 1, 1, tzinfo=UTC)}

    async with Connection(when) as connection:
        assert await connection.ask("when?") == {"at": "2030-01-01T00:00:00Z"}


async def test_after_its_limit_the_connection_lives_on() -> None:
    """At the limit the function is cancelled, the client told, `on_error` too; the next message is answered."""
    hanging = Hanging()
    errors: list[Exception] = []
    async with Connection(websocket_function(timeout=SHORT, on_error=errors.append)(hanging)) as connection:
        assert await connection.ask("hang") == TIMED_OUT
        assert hanging.cancelled.is_set()
        assert [type(error) for error in errors] == [TaskTimeout]
        assert await connection.ask("next") == "next"


async def test_a_function_that_swallows_its_cancellation_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is told after the grace, the next message is answered, and the abandoned result is never sent."""
    monkeypatch.setattr(limits, "GRACE", SHORT)
    release, ended = asyncio.Event(), asyncio.Event()

    @websocket_function(timeout=SHORT)
    async def stubborn(_: WebSocket, message: object) -> object:
        if message == "hang":
            try:
                await release.wait()
            except asyncio.CancelledError:
                await release.wait()
            ended.set()
        return message

    async with Connection(stubborn) as connection:
        assert await connection.ask("hang") == TIMED_OUT
        assert any("abandoned, still running" in record.message for record in caplog.records)
        assert not ended.is_set()
        release.set()
        await soon(ended)
        assert await connection.ask("next") == "next"
        assert connection.silent


@pytest.mark.parametrize(
    "content", ["", "no", "{", "NaN", "[Infinity]", "[" * 100_000, "1" * 5000, b"\xff", b"\xfe\xff\x00\x31"]
)
async def test_what_is_not_json_is_answered_so(content: str | bytes) -> None:
    """The client is told that its message is not JSON; the function is not called, and the connection lives on."""
    messages: list[object] = []

    @websocket_function
    async def note(_: WebSocket, message: object) -> object:
        messages.append(message)
        return message

    async with Connection(note) as connection:
        if isinstance(content, str):
            connection.send_text(content)
        else:
            connection.send_bytes(content)
        assert await connection.answer() == NOT_JSON
        assert await connection.ask("next") == "next"
    assert messages == ["next"]


async def test_an_error_is_answered_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """What the function raises is logged and told to `on_error`; the client learns that something went wrong."""
    errors: list[Exception] = []

    @websocket_function(on_error=errors.append)
    async def fail(_: WebSocket, message: object) -> object:
        if message == "fail":
            raise ValueError("secret")
        return message

    async with Connection(fail) as connection:
        assert await connection.ask("fail") == INTERNAL
        assert [str(error) for error in errors] == ["secret"]
        assert await connection.ask("next") == "next"
    logged = [record.exc_info[1] for record in caplog.records if record.name == "oncetask" and record.exc_info]
    assert logged == errors


async def test_an_own_timeout_error_is_an_ordinary_error() -> None:
    """A `TimeoutError` that the function raises before its limit is answered like any other error."""
    errors: list[Exception] = []

    @websocket_function(on_error=errors.append)
    async def fail(_: WebSocket, __: object) -> object:
        raise TimeoutError("of the database")

    async with Connection(fail) as connection:
        assert await connection.ask("anything") == INTERNAL
    assert [type(error) for error in errors] == [TimeoutError]


@pytest.mark.parametrize("result", [object(), math.nan, [math.inf], {"deep": {1: object()}}])
async def test_a_result_that_is_not_json_is_an_error_of_the_function(result: object) -> None:
    """What cannot be sent as JSON is answered as an error, `on_error` is told, and the connection lives on."""
    errors: list[Exception] = []

    @websocket_function(on_error=errors.append)
    async def unfit(_: WebSocket, message: object) -> object:
        return result if message == "unfit" else message

    async with Connection(unfit) as connection:
        assert await connection.ask("unfit") == INTERNAL
        assert await connection.ask("next") == "next"
    assert [type(error) for error in errors] == [TypeError]
    assert type(result).__name__ in str(errors[0])


async def test_an_on_error_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """What `on_error` raises is logged, and the client is answered."""

    def tell(_: Exception) -> None:
        raise ValueError("of on_error")

    async with Connection(websocket_function(timeout=SHORT, on_error=tell)(Hanging())) as connection:
        assert await connection.ask("hang") == TIMED_OUT
        assert await connection.ask("next") == "next"
    assert any("on_error" in record.message for record in caplog.records if record.levelno == logging.ERROR)


async def test_messages_are_processed_one_at_a_time_and_in_order() -> None:
    """However many messages wait, one runs, and the answers come in the order of the messages."""
    running = most = 0

    @websocket_function
    async def count(_: WebSocket, message: object) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.to_thread(lambda: None)
        running -= 1
        return message

    async with Connection(count) as connection:
        for n in range(200):
            connection.send(n)
        assert [await connection.answer() for _ in range(200)] == list(range(200))
    assert most == 1


async def test_a_def_function_runs_in_a_thread() -> None:
    """A `def` function does not run on the loop's thread, and its result is sent like any other."""

    @websocket_function
    def where(_: WebSocket, __: object) -> object:
        return threading.get_ident()

    async with Connection(where) as connection:
        assert await connection.ask("where") not in (None, threading.get_ident())


async def test_a_thread_that_ends_late_is_dropped() -> None:
    """At its limit a `def` function runs on in its thread, and its result is never sent."""
    release, ended = threading.Event(), threading.Event()

    @websocket_function(timeout=SHORT)
    def hang(_: WebSocket, message: object) -> object:
        release.wait(LIMIT)
        ended.set()
        return message

    async with Connection(hang) as connection:
        try:
            assert await connection.ask("hang") == TIMED_OUT
            assert not ended.is_set()
        finally:
            release.set()
        assert await asyncio.to_thread(ended.wait, LIMIT)
    assert connection.silent


async def test_a_client_that_leaves_cancels_what_runs() -> None:
    """A disconnect while a message is processed cancels the function; what waits behind it is never begun."""
    hanging = Hanging()
    errors: list[Exception] = []
    begun: list[object] = []

    @websocket_function(timeout=LIMIT, on_error=errors.append)
    async def noting(websocket: WebSocket, message: object) -> object:
        begun.append(message)
        return await hanging(websocket, message)

    async with Connection(noting) as connection:
        connection.send("hang")
        connection.send("never begun")
        await soon(hanging.started)
        connection.leave()
        await soon(hanging.cancelled)
    assert begun == ["hang"]
    assert errors == []


async def test_a_send_to_a_client_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Where sending shows that nobody is there the connection ends, and nobody is told of an error."""
    errors: list[Exception] = []

    @websocket_function(on_error=errors.append)
    async def speak(websocket: WebSocket, __: object) -> None:
        connection.break_off()
        await websocket.send_json("anybody there?")

    connection = Connection(speak)
    async with connection:
        connection.send("anything")
        await asyncio.wait_for(asyncio.wait({connection.serving}), LIMIT)
    assert errors == []
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_an_answer_to_a_client_that_left_is_dropped() -> None:
    """A result that comes when the client has just left is sent to nobody, and the connection ends."""

    @websocket_function
    async def too_late(_: WebSocket, message: object) -> object:
        connection.break_off()
        return message

    connection = Connection(too_late)
    async with connection:
        connection.send("anything")
        await asyncio.wait_for(asyncio.wait({connection.serving}), LIMIT)
        assert connection.silent


async def test_the_function_may_close_the_connection() -> None:
    """After a close by the function nothing more is sent or processed."""

    @websocket_function
    async def close(websocket: WebSocket, message: object) -> object:
        await websocket.close(1008)
        return message

    async with Connection(close) as connection:
        connection.send("first")
        connection.send("second")
        assert (await connection.receive())["code"] == 1008
        await asyncio.wait_for(asyncio.wait({connection.serving}), LIMIT)
        assert connection.silent


async def test_a_connection_that_was_accepted_before_is_not_accepted_twice() -> None:
    """Somebody around the endpoint may accept the connection, with a subprotocol say."""
    inner = websocket_function(echo)

    async def around(websocket: WebSocket) -> None:
        await websocket.accept("chat")
        await inner(websocket)

    async with Connection(around) as connection:
        assert await connection.ask("hello") == "hello"


async def test_a_cancellation_from_outside_cancels_the_function() -> None:
    """When the task of the connection is cancelled the function is, before the cancellation goes on."""
    hanging = Hanging()
    async with Connection(websocket_function(hanging)) as connection:
        connection.send("hang")
        await soon(hanging.started)
        connection.serving.cancel()
        await asyncio.wait_for(asyncio.wait({connection.serving}), LIMIT)
        assert connection.serving.cancelled()
        assert hanging.cancelled.is_set()


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "10", True, None, timedelta(0)])
def test_a_bad_timeout_is_refused_when_decorating(bad: Any) -> None:
    """What is no positive, finite duration raises at once, with the value in its message."""
    with pytest.raises((TypeError, ValueError), match="timeout") as raised:
        websocket_function(timeout=bad)
    assert repr(bad) in str(raised.value)


def test_what_cannot_be_called_is_refused() -> None:
    """A limit given by position, or an `on_error` that is no function, raises TypeError."""
    wrong: Any = 10
    with pytest.raises(TypeError, match="10"):
        websocket_function(wrong)
    with pytest.raises(TypeError, match="on_error"):
        websocket_function(on_error=wrong)(echo)


def test_the_endpoint_looks_like_the_function() -> None:
    """The endpoint has the name and docstring of the function, and is async where the function is not."""

    @websocket_function
    def greet(_: WebSocket, __: object) -> str:
        """Greet somebody."""
        return "Hello"

    assert (greet.__name__, greet.__doc__) == ("greet", "Greet somebody.")
    assert inspect.iscoroutinefunction(greet)
