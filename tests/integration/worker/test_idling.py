"""A worker with nothing to do asks for nothing, and wakes when somebody else has work for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from oncetask import Client, Worker
from oncetask.store.firestore import FirestoreStore
from oncetask.store.sqlite import SqliteStore
from tests.integration.places import Place
from tests.integration.worker.support import LIMIT, Job, app_of, done, enqueue, raising

_IDLE_SECONDS = 1.0
"""How long a worker is looked at; this is what is measured, nothing is waited for."""


def _requests(client: Client) -> Callable[[], object]:
    """Give a function that tells what the client's store has been asked so far."""
    store = client.store
    if isinstance(store, FirestoreStore):
        counters = store.counters
        return lambda: (dict(counters.rpcs), counters.documents_read, counters.writes_sent, counters.listen_documents)
    assert isinstance(store, SqliteStore)
    submit, jobs = store._connection._submit, []

    def counted(job: Any, **how: Any) -> Any:
        jobs.append(job)
        return submit(job, **how)

    store._connection._submit = counted  # type: ignore[method-assign]  # counts, and passes on
    return lambda: len(jobs)


async def _idle(asked: Callable[[], object]) -> bool:
    """Tell whether nothing is asked for a while."""
    before = asked()
    await asyncio.sleep(_IDLE_SECONDS)
    return asked() == before


async def test_an_idle_worker_asks_for_nothing_and_wakes(connected: Client, place: Place) -> None:
    """Once its line is dry a worker sends neither queries nor writes; another client's enqueue wakes it."""
    asked = _requests(connected)
    other = place.connect()
    async with Worker(app_of(raising()), connected, poll=3600):
        async with asyncio.timeout(LIMIT):
            while not await _idle(asked):
                pass
        await done(other, *await enqueue(other, 1))
        async with asyncio.timeout(LIMIT):
            while not await _idle(asked):
                pass
        await done(other, *await enqueue(other, 2, 3))


async def test_a_waiting_task_is_run_when_it_is_due(connected: Client, place: Place) -> None:
    """What another client has enqueued for later runs at its time, while the worker asks for nothing before."""
    other = place.connect()
    async with Worker(app_of(raising()), connected, poll=3600):
        receipt = await other.enqueue(Job(), delay=1)
        task = await other.wait(receipt.task_id, LIMIT)
    assert task.started_at is not None
    assert task.started_at - task.wait_until > timedelta(seconds=-0.5)  # the store's present is known to a few ms
