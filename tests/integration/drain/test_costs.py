"""What a tick asks of Firestore, in the units that are billed."""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from unittest.mock import patch

import pytest

from oncetask import App, Client, Payload, connect, tick
from oncetask.store.firestore import FirestoreStore
from tests.integration.places import Place
from tests.integration.stores import ON_FIRESTORE
from tests.integration.worker.support import Job, app_of, enqueue, raising

pytestmark = ON_FIRESTORE


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, these are ticks of less than a second, which listen to nothing."""
    monkeypatch.setattr("oncetask.drain._GLANCE_SECONDS", 3_600.0)


class Bill(NamedTuple):
    """What was asked for."""

    reads: int
    writes: int
    listens: int


def bill_of(client: Client) -> Bill:
    """Give what a client's store has asked for so far."""
    store = client.store
    assert isinstance(store, FirestoreStore)
    counters = store.counters
    return Bill(counters.documents_read + counters.listen_documents, counters.writes_sent, counters.rpcs["Listen"])


async def cost_of_a_tick(app: App, client: Client) -> Bill:
    """Let a tick run, not the first one of its client, and give what it has asked for."""
    before = bill_of(client)
    with patch("oncetask.engine._FRESH_SECONDS", 0.0):  # as if it had been opened long ago
        await tick(app, client)
    return Bill(*(after - then for after, then in zip(bill_of(client), before, strict=True)))


def app_of_thirty_kinds() -> App:
    """Give an App with as many kinds as one query can ask for."""
    app = App()
    for n in range(30):
        payload = type(f"Kind{n}", (Payload,), {"__module__": __name__}, kind=f"kind-{n}")
        app.handler(payload)(raising())
    return app


async def test_an_empty_queue(connected: Client) -> None:
    """It costs the query and the settings, and no write; up to thirty kinds cost no more than one."""
    for app in (app_of(raising()), app_of_thirty_kinds()):
        assert await cost_of_a_tick(app, connected) == Bill(reads=2, writes=0, listens=0)


async def test_the_first_one_of_a_process(place: Place) -> None:
    """Opening the store reads the settings, and that is enough."""
    async with connect(place.url) as client:
        await tick(app_of(raising()), client)
        assert bill_of(client) == Bill(reads=2, writes=0, listens=0)


async def test_ten_thousand_that_wait(connected: Client) -> None:
    """What is not due yet is not read."""
    await connected.enqueue_many([Job(n=n) for n in range(10_000)], delay=1_000)
    bill = await cost_of_a_tick(app_of(raising()), connected)
    assert (bill.reads <= 3, bill.writes, bill.listens) == (True, 0, 0)


async def test_one_short_task(connected: Client) -> None:
    """Nothing listens while a short task runs; it is written when it is claimed and when it ends."""
    await enqueue(connected, 1)
    bill = await cost_of_a_tick(app_of(raising()), connected)
    assert bill == Bill(reads=5, writes=2, listens=0)


async def test_a_hundred_short_tasks(connected: Client) -> None:
    """Under load the tasks themselves are what is read."""
    await asyncio.gather(enqueue(connected, *range(100)))
    bill = await cost_of_a_tick(app_of(raising()), connected)
    assert (bill.reads <= 120, bill.writes, bill.listens) == (True, 200, 0)
