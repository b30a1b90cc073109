"""Ticks that a waker asks for: it is answered as soon as one is to run."""

from __future__ import annotations

import asyncio
import json

import httpx

from oncetask import Client, HttpKick
from tests.integration.http.api import LIMIT, Held, Hold, SendEmail, an_api, an_app, calling, serving, soon

ASYNC = {"Prefer": "respond-async"}


async def test_the_answer_begins_before_the_tick_ends(client: Client) -> None:
    """202 and the head at once, the report in the end."""
    held = Held()
    await client.enqueue(Hold())
    async with (
        calling(an_api(client, app=an_app(held))) as caller,
        caller.stream("POST", "/tick", headers=ASYNC) as answer,
    ):
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
        await soon(held.started)
        held.go_on.set()
        report = json.loads(await answer.aread())
    assert (report["claimed"], report["completed"]) == (1, 1)


async def test_those_that_come_meanwhile_share_the_next_one(client: Client) -> None:
    """However many kicks come while a tick runs, one more follows, and it begins after they have come."""
    held = Held()
    await client.enqueue(Hold())
    async with calling(an_api(client, app=an_app(held))) as caller:
        first = asyncio.create_task(caller.post("/tick", headers=ASYNC))
        await soon(held.started)
        receipt = await client.enqueue(SendEmail(to="ada@example.com"))
        others = [asyncio.create_task(caller.post("/tick", headers=ASYNC)) for _ in range(10)]
        held.go_on.set()
        reports = [answer.json() for answer in await asyncio.gather(first, *others)]
        task = await client.wait(receipt.task_id, LIMIT)
    assert task.status.is_done
    assert sum(report["completed"] for report in reports[:2]) == 2
    assert len({json.dumps(report) for report in reports[1:]}) == 1


async def test_a_caller_who_hangs_up_does_not_end_it(client: Client) -> None:
    """As with every tick."""
    held = Held()
    receipt = await client.enqueue(Hold())
    async with calling(an_api(client, app=an_app(held))) as caller:
        async with caller.stream("POST", "/tick", headers=ASYNC):
            await soon(held.started)
        await caller.get("/healthz")  # the server has seen that the caller has left
        held.go_on.set()
        assert (await client.wait(receipt.task_id, LIMIT)).result == "held"


async def test_who_may_not_call_is_refused_first(client: Client) -> None:
    """Admission comes before the answer begins."""
    async with calling(an_api(client)) as caller:
        answer = await caller.post("/tick", headers={**ASYNC, "Origin": "https://elsewhere.example"})
    assert answer.status_code == 403


async def test_an_enqueue_does_not_wait_for_the_tick_that_it_kicks(client: Client) -> None:
    """It returns when the answer begins, long before its time limit; the tick runs what was enqueued."""
    held = Held()
    async with serving(an_api(client, app=an_app(held))) as address:
        enqueuer = Client(client.store, waker=HttpKick(f"http://{address}/tick", timeout=LIMIT))
        async with asyncio.timeout(LIMIT / 2):
            receipt = await enqueuer.enqueue(Hold())
            await enqueuer.enqueue(SendEmail(to="ada@example.com"))
        await soon(held.started)
        held.go_on.set()
        assert (await client.wait(receipt.task_id, LIMIT)).result == "held"
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as caller:
            while await client.pending_count():  # the second kick's tick
                await caller.get("/healthz")
