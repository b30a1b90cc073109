"""The HTTP API on a real server: time limits, callers who hang up, and bodies without an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from oncetask import App, Client, UnknownKind
from oncetask.http import ticking
from tests.integration.http.api import (
    JSON,
    LIMIT,
    MAIL,
    Hanging,
    Held,
    Hold,
    an_api,
    an_app,
    calling,
    serving,
    soon,
)

SHORT = 0.05
"""Seconds, the limit of requests that are meant to reach it."""

MIB = 1_048_576


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection to a server."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


def head(method: str, path: str, **headers: str) -> bytes:
    """Give the head of a request."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def status_of(reader: asyncio.StreamReader) -> int:
    """Read the status of an answer."""
    line = await asyncio.wait_for(reader.readline(), LIMIT)
    return int(line.split()[1])


async def test_at_its_limit_a_request_is_answered_with_504(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work is cancelled, and the server goes on serving."""
    hanging = Hanging()
    monkeypatch.setattr(client, "get_task", hanging)
    async with calling(an_api(client, timeout=SHORT)) as caller:
        answer = await caller.get("/tasks/any")
        health = await caller.get("/healthz")
    assert (answer.status_code, answer.json()) == (504, {"error": "the request reached its time limit of 0.05 s"})
    assert answer.headers["Content-Type"] == "application/json"
    assert hanging.cancelled.is_set()
    assert health.status_code == 200


async def test_a_body_that_never_ends_is_answered_with_504(client: Client) -> None:
    """The limit counts from the head of the request on, so a slow sender holds nothing for longer."""
    async with (
        serving(an_api(client, timeout=SHORT)) as address,
        connection(address) as (reader, writer),
    ):
        writer.write(head("POST", "/tasks", Content_Type="application/json", Content_Length="100") + b'{"kind": ')
        assert await status_of(reader) == 504


async def test_a_caller_who_hangs_up_cancels_the_work(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants the answer any more."""
    hanging = Hanging()
    monkeypatch.setattr(client, "enqueue", hanging)
    async with calling(an_api(client)) as caller:
        asking = asyncio.create_task(caller.post("/tasks", json=MAIL))
        await soon(hanging.started)
        asking.cancel()
        await soon(hanging.cancelled)


async def test_a_caller_who_hangs_up_does_not_end_a_tick(client: Client) -> None:
    """What it runs is not the caller's: it runs to its end."""
    held = Held()
    receipt = await client.enqueue(Hold())
    async with calling(an_api(client, app=an_app(held))) as caller:
        ticking_away = asyncio.create_task(caller.post("/tick"))
        await soon(held.started)
        ticking_away.cancel()
        await asyncio.wait({ticking_away})
        await caller.get("/healthz")  # the server has seen what came before
        assert not held.cancelled.is_set()
        held.go_on.set()
        task = await client.wait(receipt.task_id, timeout=LIMIT)
    assert (task.status, task.result, held.cancelled.is_set()) == ("done-completed", "held", False)


async def test_a_tick_cuts_off_what_its_budget_does_not_allow(client: Client) -> None:
    """A request's budget is a tick's, beyond the limit of other requests."""
    held = Held()
    await client.enqueue(Hold())
    async with calling(an_api(client, app=an_app(held), timeout=SHORT)) as caller:
        answer = await caller.post("/tick", params={"budget": 0.5})
    assert answer.status_code == 200
    assert answer.json()["claimed"] == 1
    assert held.cancelled.is_set()


async def test_a_tick_that_does_not_end_is_cut_off(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its budget and a few seconds; then the answer is 504, and it is cancelled."""
    hanging = Hanging()
    monkeypatch.setattr(ticking, "tick", hanging)
    monkeypatch.setattr(ticking, "AFTER_BUDGET", SHORT)
    async with calling(an_api(client, budget=0.1)) as caller:
        answer = await caller.post("/tick")
    assert answer.status_code == 504
    assert answer.json() == {"error": "the request reached its time limit of 0.15 s"}
    assert hanging.cancelled.is_set()


async def test_an_app_that_is_wrong_itself_is_no_fault_of_the_caller(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A cleanup of a kind without a handler, say: 500, and the log says why."""
    app = App()
    app.cancellation_handler(Hold)(lambda _, __: None)
    async with calling(an_api(client, app=app)) as caller:
        answers = [await caller.post("/tick"), await caller.post("/tasks", json=MAIL)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(500, {"error": "internal error"})] * 2
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [UnknownKind] * 2


async def test_a_body_that_is_announced_as_too_large_is_not_awaited(client: Client) -> None:
    """413 comes before a byte of it is sent, and the connection ends."""
    async with serving(an_api(client)) as address, connection(address) as (reader, writer):
        writer.write(head("POST", "/tasks", Content_Type="application/json", Content_Length=str(MIB + 1)))
        assert await status_of(reader) == 413
        assert b'{"error":"the body may have at most 1,048,576 bytes"}' in await asyncio.wait_for(reader.read(), LIMIT)


async def test_a_body_without_an_end_is_read_to_its_limit_only(client: Client) -> None:
    """A chunked body says nothing of its length: 413 comes once it is too long, while its sender goes on sending."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head("POST", "/tasks", Content_Type="application/json", Transfer_Encoding="chunked"))
        while True:
            writer.write(chunk)
            await writer.drain()

    async with serving(an_api(client)) as address, connection(address) as (reader, writer):
        sending = asyncio.create_task(send(writer))
        assert await status_of(reader) == 413
        await asyncio.wait_for(asyncio.wait({sending}), LIMIT)  # the server hung up: nobody reads the rest
        assert isinstance(sending.exception(), ConnectionError)


async def test_a_chunked_body_is_read(client: Client) -> None:
    """One without a length is as good as one with it; a tick's too."""

    async def pieces(content: bytes) -> AsyncIterator[bytes]:
        for place in range(0, len(content), 10):
            yield content[place : place + 10]

    async with calling(an_api(client)) as caller:
        enqueue = await caller.post("/tasks", content=pieces(json.dumps(MAIL).encode()), headers=JSON)
        tick = await caller.post("/tick", content=pieces(b'{"budget": 5}'), headers=JSON)
    assert (enqueue.status_code, tick.json()["completed"]) == (202, 1)


async def test_many_ask_at_once(client: Client) -> None:
    """Requests do not wait for each other."""
    async with calling(an_api(client)) as caller:
        answers = await asyncio.gather(*(caller.post("/tasks", json=MAIL) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {httpx.codes.ACCEPTED}
    assert await client.pending_count() == 50
