"""`oncetask.functions.on_task_created`: which events wake, and how many of them one tick is for."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cloudevents.http import CloudEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from oncetask import App, Client, Context, Payload, StoreUnavailable, TaskStatus, drain, functions
from oncetask.functions import EventFunction, on_task_created
from tests.functions.events import CREATED, Sent, binary, document, structured
from tests.integration.http.api import LIMIT, asking
from tests.integration.places import FilePlace, Place

app = App("events")


class Job(Payload, kind="job"):
    """Something to do."""


@app.handler(Job)
async def work(_: Context, __: Job) -> None:
    """Do it."""


class Ticks:
    """Stands in for `tick`: each one runs until the test lets it go on, or fails."""

    def __init__(self) -> None:
        self.begun = asyncio.Queue[asyncio.Future[None]]()
        self.number = 0

    async def __call__(self, *_: object, **__: object) -> None:
        """Tell the test, and wait for it."""
        self.number += 1
        goes_on = asyncio.get_running_loop().create_future()
        self.begun.put_nowait(goes_on)
        await goes_on

    async def next(self) -> asyncio.Future[None]:
        """Wait for the beginning of a tick; what is given ends it."""
        return await asyncio.wait_for(self.begun.get(), LIMIT)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Where the tasks are."""
    place = FilePlace(tmp_path / "folder")
    yield place
    await place.aclose()


@pytest.fixture
def client(place: Place, tmp_path: Path) -> Client:
    """The client of the function, and of the test."""
    (tmp_path / "folder").mkdir()
    return place.connect("production")


@pytest.fixture
async def sender(client: Client) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who sends events to the function, which is served as the framework does it."""
    async with asking(served(client)) as caller:
        yield caller


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    """Ticks that the test holds in its hand."""
    ticks = Ticks()
    monkeypatch.setattr(drain, "tick", ticks)
    return ticks


def served(client: Client) -> Starlette:
    """Give the function's application."""
    return Starlette(routes=[Route("/{path:path}", on_task_created(app, client=client), methods=["POST"])])


def send(sender: httpx.AsyncClient, event: Sent) -> asyncio.Task[httpx.Response]:
    """Send an event."""
    headers, content = event
    return asyncio.create_task(sender.post("/", headers=headers, content=content))


def production(make: Callable[..., Sent], **options: Any) -> Sent:
    """Make an event of the right environment."""
    return make(document("job:1", env="production"), **options)


HEARD = {
    "binary": production(binary),
    "structured": production(structured),
    "with who did it": production(binary, type=f"{CREATED}.withAuthContext"),
    "its path is encoded": binary(quote(document("job:ä b", env="production"), safe="")),
    "a body that nobody has to read": production(binary, body=b"x" * 20_000_000),
    "the body is text": production(binary, body=b"CgA="),
}


@pytest.mark.parametrize("event", HEARD.values(), ids=HEARD.keys())
async def test_a_new_task_wakes(sender: httpx.AsyncClient, client: Client, event: Sent) -> None:
    """However the event looks: what is due runs before the answer, be it of this event or not."""
    task_id = (await client.enqueue(Job())).task_id
    answer = await send(sender, event)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get_task(task_id)).status is TaskStatus.DONE_COMPLETED


IGNORED = {
    "another collection": binary(document("1", env="production", collection="onceLocks")),
    "another environment": binary(document("1", env="staging")),
    "an environment that begins alike": binary(document("1", env="production2")),
    "a document below": binary(document("1/parts/2", env="production")),
    "the collection itself": binary("oncetask/production/onceTasks"),
    "a path with something before it": binary(f"x/{document('1', env='production')}"),
    "changed": production(binary, type="google.cloud.firestore.document.v1.updated"),
    "written": production(binary, type="google.cloud.firestore.document.v1.written"),
    "deleted": production(binary, type="google.cloud.firestore.document.v1.deleted"),
    "of something else": production(binary, type="google.cloud.storage.object.v1.finalized"),
    "without a document": ({"ce-type": CREATED}, b""),
    "nothing": ({}, b""),
    "no JSON": ({"Content-Type": "application/cloudevents+json"}, b"\xff{"),
    "too deep": ({"Content-Type": "application/cloudevents+json"}, b"[" * 200_000),
    "a list": ({}, json.dumps([json.loads(production(structured)[1])]).encode()),
    "a null": ({}, b"null"),
    "numbers": ({}, json.dumps({"type": 1, "document": {"oncetask": []}}).encode()),
    "too large": ({}, production(structured)[1] + b" " * 3_000_000),
}


@pytest.mark.parametrize("event", IGNORED.values(), ids=IGNORED.keys())
async def test_anything_else_is_ignored(
    sender: httpx.AsyncClient, client: Client, caplog: pytest.LogCaptureFixture, event: Sent
) -> None:
    """It is answered with 204, so that nobody sends it again, it is logged, and nothing runs."""
    task_id = (await client.enqueue(Job())).task_id
    answer = await send(sender, event)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get_task(task_id)).status is TaskStatus.PENDING
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("ignored, being no event of a new task in environment 'production'")
    assert len(record.message) < 500


async def test_a_sender_may_hang_up(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """An event that does not come to its end is ignored like any other that says nothing."""
    parts: list[Message] = [
        {"type": "http.request", "body": b'{"type":', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send_back(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    await served(client)(scope, receive, send_back)
    assert sent[0]["status"] == 204
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_registered_as_cloud_event(client: Client, place: Place, tmp_path: Path) -> None:
    """The framework's own reading of an event is as good; where no tick is possible, that is raised for it."""
    attributes = {"type": CREATED, "source": "//firestore.googleapis.com/"}
    task_id = (await client.enqueue(Job())).task_id
    await on_task_created(app, client=client)(CloudEvent(attributes, {}))
    assert (await client.get_task(task_id)).status is TaskStatus.PENDING
    event = CloudEvent({**attributes, "document": document("1", env="production")}, {})
    await on_task_created(app, client=client)(event)
    assert (await client.get_task(task_id)).status is TaskStatus.DONE_COMPLETED
    nowhere = FilePlace(tmp_path / "nowhere").connect("production")
    with pytest.raises(StoreUnavailable):
        await on_task_created(app, client=nowhere)(event)


async def test_without_the_store(place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While the store is not available the sender is told to try again; then it works, without a new process."""
    async with asking(served(place.connect("production"))) as sender:
        answer = await send(sender, production(binary))
        assert (answer.status_code, answer.content) == (503, b"")
        (record,) = caplog.records
        assert (record.levelname, "no tick after an event" in record.message) == ("ERROR", True)
        (tmp_path / "folder").mkdir()
        assert (await send(sender, production(binary))).status_code == 204


async def test_fifty_events_share_two_ticks(client: Client, ticks: Ticks) -> None:
    """Those that come while a tick runs share the next one, which began after they had come."""
    function = on_task_created(app, client=client)
    first = await arriving(function)
    running = await ticks.next()
    others = [await arriving(function) for _ in range(49)]
    running.set_result(None)
    assert (await first).status_code == 204
    following = await ticks.next()
    assert not any(other.done() for other in others)
    following.set_result(None)
    assert {(await other).status_code for other in others} == {204}
    assert ticks.number == 2


async def test_a_tick_that_fails_is_shared_as_well(client: Client, ticks: Ticks) -> None:
    """All who waited for it are told; whoever comes afterwards has one that works."""
    function = on_task_created(app, client=client)
    first = await arriving(function)
    running = await ticks.next()
    others = [await arriving(function) for _ in range(2)]
    running.set_exception(StoreUnavailable("away"))
    assert (await first).status_code == 503
    failing = await ticks.next()
    late = await arriving(function)
    failing.set_exception(StoreUnavailable("still away"))
    assert [(await other).status_code for other in others] == [503, 503]
    (await ticks.next()).set_result(None)
    assert (await late).status_code == 204


async def test_a_tick_that_does_not_end_is_cut_off(
    client: Client, ticks: Ticks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that never answers keeps nobody waiting for ever: the sender is told, and the next event has its tick."""
    monkeypatch.setattr(functions, "_AFTER_BUDGET", 0.05)
    function = on_task_created(app, client=client, budget=0.05)
    stuck = await arriving(function)
    running = await ticks.next()
    monkeypatch.setattr(functions, "_AFTER_BUDGET", LIMIT)  # for the next one
    waiting = await arriving(function)
    assert (await stuck).status_code == 503
    assert running.cancelled()
    (await ticks.next()).set_result(None)
    assert (await waiting).status_code == 204
    assert [record.message for record in caplog.records] == ["no tick after an event: it did not end"]


async def test_who_leaves_stops_no_tick(client: Client, ticks: Ticks) -> None:
    """A caller that is gone takes its tick from nobody else."""
    function = on_task_created(app, client=client)
    first = await arriving(function)
    running = await ticks.next()
    leaving, staying = await arriving(function), await arriving(function)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    running.set_result(None)
    (await ticks.next()).set_result(None)
    assert [(await answer).status_code for answer in (first, staying)] == [204, 204]
    assert ticks.number == 2


async def arriving(function: EventFunction) -> asyncio.Future[Response]:
    """Bring an event to a function; when this returns it waits for its tick."""
    headers, _ = production(binary)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    answer = asyncio.ensure_future(function(Request({"type": "http", "headers": raw})))
    await asyncio.sleep(0)  # its first step: nothing has to be read of it
    return answer
