"""`WS /ws` on a real server: requests as messages, and watched tasks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket

from oncetask import Client, Worker
from oncetask.http import watches
from oncetask.store import Feed
from tests.integration.http.api import (
    LIMIT,
    MAIL,
    Hanging,
    Held,
    Hold,
    Order,
    SendEmail,
    an_api,
    an_app,
    calling,
    serving,
    soon,
)

SHORT = 0.05
"""Seconds, the limit of requests that are meant to reach it."""

MIB = 1_048_576


class Talk:
    """One connection, from the client's side."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, message: object) -> None:
        """Send a message."""
        await self.connection.send(json.dumps(message))

    async def hear(self) -> Any:
        """Give the next message."""
        return json.loads(await asyncio.wait_for(self.connection.recv(), LIMIT))

    async def ask(self, **message: Any) -> Any:
        """Send a message, and give the next one that comes."""
        await self.say(message)
        return await self.hear()


@asynccontextmanager
async def talking(client: Client, **options: Any) -> AsyncIterator[Talk]:
    """Serve the API, and connect to it."""
    async with (
        serving(an_api(client, **options)) as address,
        connect_websocket(f"ws://{address}/ws", max_size=None) as connection,
    ):
        yield Talk(connection)


@pytest.mark.parametrize(
    "opened_place", [pytest.param("firestore", marks=pytest.mark.emulator), "sqlite"], indirect=True
)
async def test_a_task_is_enqueued_and_followed_to_its_end(connected: Client) -> None:
    """The progress of the running task is told while it runs, and its end."""
    held = Held()
    app = an_app(held)
    async with talking(connected, app=app) as talk:
        receipt = await talk.ask(action="enqueue", id=1, kind="hold", data={})
        task_id = receipt["taskId"]
        watched = await talk.ask(action="watch", id="two", taskId=task_id)
        assert receipt == {"id": 1, "taskId": task_id, "created": True}
        assert (watched["id"], watched["task"]["id"], watched["task"]["status"]) == ("two", task_id, "pending")
        async with Worker(app, connected):
            event = await talk.hear()
            while event["task"]["progress"] is None:
                assert (event["event"], event["task"]["id"]) == ("task", task_id)
                event = await talk.hear()
            progress = event["task"]["progress"]
            assert (progress["fraction"], progress["message"]) == (0.5, "half of it")
            assert event["task"]["status"] == "leased"
            held.go_on.set()
            while event["task"]["status"] == "leased":
                event = await talk.hear()
        assert (event["task"]["status"], event["task"]["result"]) == ("done-completed", "held")
        assert (await talk.ask(action="get", id=3, taskId=task_id))["task"]["status"] == "done-completed"


async def test_a_task_is_cancelled(client: Client) -> None:
    """The answer tells whether this message did it."""
    await client.enqueue(SendEmail(to="a"), task_id="t")
    async with talking(client) as talk:
        answers = [await talk.ask(action="cancel", id=n, taskId="t") for n in range(2)]
    assert answers == [{"id": 0, "cancelled": True}, {"id": 1, "cancelled": False}]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"action": "get", "taskId": "nobody"}, "no task has the id 'nobody' in this environment"),
        ({"action": "cancel", "taskId": "nobody"}, "no task has the id 'nobody' in this environment"),
        ({"action": "watch", "taskId": "nobody"}, "no task has the id 'nobody' in this environment"),
        ({"action": "watch"}, "taskId: Field required"),
        ({"action": "get", "taskId": "a/b"}, "taskId: String should match pattern"),
        ({"action": "unwatch", "taskId": "t", "task_id": "t"}, "task_id: Extra inputs are not permitted"),
        ({"action": "dance"}, "action: must be one of enqueue, get, cancel, watch, unwatch"),
        ({}, "action: must be one of enqueue, get, cancel, watch, unwatch"),
        ({"action": "enqueue", "kind": "nope", "data": {}}, "kind 'nope' has no handler in this app"),
        (
            {"action": "enqueue", "kind": "send-email", "data": {"copies": "x"}},
            "data.to: Field required; data.copies: ",
        ),
    ],
)
async def test_what_is_wrong_is_answered_and_the_connection_lives_on(
    message: dict[str, Any], error: str, client: Client
) -> None:
    """The error comes with the id of its message, and with the wrong fields."""
    async with talking(client) as talk:
        answer = await talk.ask(id="mine", **message)
        assert answer["id"] == "mine"
        assert answer["error"].startswith(error)
        assert [field["field"] for field in answer.get("fields", [])] == [
            part.split(":")[0] for part in answer["error"].split("; ") if answer.get("fields")
        ]
        assert (await talk.ask(id=2, **{"action": "enqueue", **MAIL}))["created"] is True


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ("{", "the message is not JSON"),
        (b"\xff", "the message is not JSON"),
        ("[" * 100_000, "the message is not JSON"),
        ('{"id": 1e999}', "the message is not JSON"),
        ("[1]", "a message must be a JSON object, such as"),
        ('{"id": true}', "id: must be a whole number, or a text of at most 200 characters"),
        ('{"id": {"a": 1}}', "id: must be a whole number"),
        (json.dumps({"id": "x" * 201}), "id: must be a whole number"),
        (json.dumps({"id": 1, "x": "y" * MIB}), "a message may have at most 1,048,576 bytes"),
        (
            json.dumps({"id": 1, "x": "ä" * (MIB // 2)}, ensure_ascii=False),
            "a message may have at most 1,048,576 bytes",
        ),
    ],
)
async def test_a_message_that_cannot_be_read(sent: str | bytes, error: str, client: Client) -> None:
    """It is answered without an id, and the connection lives on."""
    async with talking(client) as talk:
        await talk.connection.send(sent)
        answer = await talk.hear()
        assert "id" not in answer
        assert answer["error"].startswith(error)
        assert await talk.ask(action="unwatch", id=-7, taskId="t") == {"id": -7, "unwatched": False}


async def test_at_its_limit_a_message_is_answered_with_an_error(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its work is cancelled, its id is told, and the connection lives on."""
    hanging = Hanging()
    monkeypatch.setattr(client, "get_task", hanging)
    async with talking(client, timeout=SHORT) as talk:
        answer = await talk.ask(action="get", id=5, taskId="t")
        assert hanging.cancelled.is_set()
        assert answer == {"id": 5, "error": "the request reached its time limit of 0.05 s"}
        assert (await talk.ask(action="unwatch", id=6, taskId="t")) == {"id": 6, "unwatched": False}


async def test_a_watch_that_cannot_begin_in_time_is_none(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cancelled like any other work, and watched tasks are counted without it."""
    hanging = Hanging()

    async def watch(_: str) -> AsyncIterator[Any]:
        yield await hanging()

    monkeypatch.setattr(client, "watch", watch)
    async with talking(client, timeout=SHORT) as talk:
        answer = await talk.ask(action="watch", id=5, taskId="t")
        assert answer == {"id": 5, "error": "the request reached its time limit of 0.05 s"}
        await soon(hanging.cancelled)
        assert (await talk.ask(action="unwatch", id=6, taskId="t")) == {"id": 6, "unwatched": False}


async def test_what_fails_inside_stays_inside(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unforeseen error is logged, and its text is not sent."""

    async def fail(_: str) -> None:
        raise RuntimeError("swordfish")

    monkeypatch.setattr(client, "cancel_task", fail)
    async with talking(client) as talk:
        assert await talk.ask(action="cancel", id=1, taskId="t") == {"id": 1, "error": "internal error"}
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


async def test_what_is_watched_no_longer_is_silent(client: Client) -> None:
    """After the answer to `unwatch` no event of that task comes."""
    await client.enqueue_many([Order(number=1), Order(number=2)])
    async with talking(client) as talk:
        for task_id in ("order:1", "order:2"):
            await talk.ask(action="watch", taskId=task_id)
        assert await talk.ask(action="unwatch", id=1, taskId="order:1") == {"id": 1, "unwatched": True}
        await client.cancel_task("order:1")
        await client.cancel_task("order:2")
        event = await talk.hear()
    assert event["task"]["id"] == "order:2"


async def test_a_task_that_is_deleted_ends_its_watch(client: Client) -> None:
    """The watcher is told why nothing more comes."""
    await client.enqueue(Order(number=1))
    async with talking(client) as talk:
        await talk.ask(action="watch", taskId="order:1")
        await client.delete_task("order:1")
        event = await talk.hear()
        assert event == {
            "event": "error",
            "taskId": "order:1",
            "error": "no task has the id 'order:1' in this environment",
        }
        assert await talk.ask(action="unwatch", taskId="order:1") == {"unwatched": False}


async def test_a_task_that_is_done_is_told_once(client: Client) -> None:
    """Its watch is over with the answer."""
    await client.enqueue(Order(number=1))
    async with calling(an_api(client)) as caller:
        await caller.post("/tick")
    async with talking(client) as talk:
        answer = await talk.ask(action="watch", id=1, taskId="order:1")
        assert answer["task"]["status"] == "done-completed"
        assert await talk.ask(action="unwatch", id=2, taskId="order:1") == {"id": 2, "unwatched": False}


async def test_a_task_is_watched_once_per_connection(client: Client) -> None:
    """A second `watch` answers too, and events come once."""
    await client.enqueue(Order(number=1))
    async with talking(client) as talk:
        for number in range(2):
            assert (await talk.ask(action="watch", id=number, taskId="order:1"))["id"] == number
        await client.cancel_task("order:1")
        assert (await talk.hear())["task"]["isCancelled"] is True
        assert await talk.ask(action="unwatch", id=9, taskId="order:1") == {"id": 9, "unwatched": True}


async def test_a_connection_watches_so_many_tasks_at_most(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, until one of them is let go."""
    monkeypatch.setattr(watches, "MOST_WATCHES", 2)
    await client.enqueue_many([Order(number=number) for number in range(3)])
    async with talking(client) as talk:
        answers = [await talk.ask(action="watch", taskId=f"order:{number}") for number in range(3)]
        await talk.ask(action="unwatch", taskId="order:0")
        last = await talk.ask(action="watch", taskId="order:2")
    assert ["task" in answer for answer in answers] == [True, True, False]
    assert answers[2] == {"error": "a connection may watch at most 2 tasks at a time: unwatch one first"}
    assert last["task"]["id"] == "order:2"


async def test_watches_end_with_their_connection(client: Client) -> None:
    """Nothing follows a task for a client who has left, and what was asked for is cancelled."""
    before = asyncio.all_tasks()
    await client.enqueue_many([Order(number=number) for number in range(10)])
    async with talking(client) as talk:
        for number in range(10):
            await talk.ask(action="watch", taskId=f"order:{number}")
    assert not [task for task in asyncio.all_tasks() - before if task.get_name().startswith("oncetask watching")]


async def test_a_client_who_leaves_cancels_what_it_asked_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a request."""
    hanging = Hanging()
    monkeypatch.setattr(client, "get_task", hanging)
    async with talking(client) as talk:
        await talk.say({"action": "get", "taskId": "t"})
        await soon(hanging.started)
        await talk.connection.close()
        await soon(hanging.cancelled)


async def test_a_slow_reader_gets_the_newest_and_holds_no_memory(client: Client) -> None:
    """While nobody reads, changes replace each other: the task as it is at last comes, not every state on its way."""
    feed: Feed[Any] = Feed()
    receipt = await client.enqueue(Hold())
    task = await client.get_task(receipt.task_id)
    reading, caught_up = asyncio.Event(), asyncio.Event()
    sent: list[int] = []

    async def watch(_: str) -> AsyncIterator[Any]:
        while True:
            yield await feed.get()

    async def send(message: Any) -> None:
        sent.append(message["task"]["attempts"])
        if sent[-1] == 1_000:
            caught_up.set()
        if len(sent) > 1:
            await reading.wait()

    slow = Client(client.store)
    slow.watch = watch  # type: ignore[method-assign, assignment]
    watching = watches.Watches(slow, send)
    feed.put(task)
    await watching.add(task.id, lambda task: {"task": {"attempts": task.attempts}})
    for attempts in range(1, 1_001):
        feed.put(task.evolve(attempts=attempts))
        await asyncio.sleep(0)
    reading.set()
    await soon(caught_up)
    await watching.drop_all()
    assert len(sent) < 10
