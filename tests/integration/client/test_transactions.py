"""`enqueue_in`: tasks that exist with the caller's own transaction or batch, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core.exceptions import AlreadyExists, Conflict
from google.cloud import firestore

from oncetask import Client, TaskStatus, Unsupported, connect_sync
from tests.integration.client.support import Greet, Note
from tests.integration.places import FirestorePlace
from tests.integration.stores import ON_FIRESTORE, ON_SQLITE


@pytest.fixture
def blocking(place: FirestorePlace) -> Iterator[firestore.Client]:
    """Google's blocking client."""
    client = firestore.Client(project=place.project)
    yield client
    client.close()  # type: ignore[no-untyped-call]  # has no types


@ON_FIRESTORE
async def test_an_async_transaction_takes_the_task_along(connected: Client, place: FirestorePlace) -> None:
    """The task exists with the transaction's commit, beside the caller's own write; nothing is sent before."""

    @firestore.async_transactional
    async def order(transaction: Any) -> str:
        transaction.set(place.native.document("orders", "1"), {"paid": True})
        task_id = connected.enqueue_in(transaction, Note(n=4), owner="me")
        assert await connected.get_tasks_by_ids([task_id]) == []
        return task_id

    task_id: str = await order(place.native.transaction())
    task = await connected.get_task(task_id)
    assert (task.data, task.owner, task.status) == ({"n": 4}, "me", TaskStatus.PENDING)
    assert (await place.native.document("orders", "1").get()).exists


@ON_FIRESTORE
async def test_an_async_batch_takes_the_task_along(connected: Client, place: FirestorePlace) -> None:
    """The tasks of a write batch exist once it is committed."""
    batch = place.native.batch()
    ids = [connected.enqueue_in(batch, Greet(name=name)) for name in ("Ada", "Bob")]
    assert await connected.get_tasks_by_ids(ids) == []
    await batch.commit()
    assert [task.id for task in await connected.get_tasks_by_ids(ids)] == ["greet:Ada", "greet:Bob"]


@ON_FIRESTORE
async def test_blocking_transactions_and_batches_are_as_good(
    connected: Client, place: FirestorePlace, blocking: firestore.Client
) -> None:
    """Google's blocking client is served alike, also through the blocking client of oncetask."""

    @firestore.transactional
    def order(transaction: Any) -> None:
        connected.enqueue_in(transaction, Note(), task_id="of-transaction")

    def work() -> None:
        order(blocking.transaction())
        batch = blocking.batch()
        with connect_sync(place.url) as client:
            client.enqueue_in(batch, Note(), task_id="of-batch")
        batch.commit()

    await asyncio.to_thread(work)
    assert len(await connected.get_tasks_by_ids(["of-transaction", "of-batch"])) == 2


@ON_FIRESTORE
async def test_a_task_that_exists_refuses_the_commit(connected: Client, place: FirestorePlace) -> None:
    """Where the id exists already the caller's commit fails as a whole."""
    await connected.enqueue(Greet(name="Ada"), owner="first")
    batch = place.native.batch()
    batch.set(place.native.document("orders", "1"), {"paid": True})
    connected.enqueue_in(batch, Greet(name="Ada"), owner="second")
    with pytest.raises((AlreadyExists, Conflict)):
        await batch.commit()
    assert not (await place.native.document("orders", "1").get()).exists
    assert (await connected.get_task("greet:Ada")).owner == "first"


@ON_FIRESTORE
async def test_an_abandoned_transaction_leaves_nothing(connected: Client, place: FirestorePlace) -> None:
    """A transaction that fails takes its tasks with it."""

    @firestore.async_transactional
    async def order(transaction: Any) -> None:
        connected.enqueue_in(transaction, Note(), task_id="never")
        raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed my mind"):
        await order(place.native.transaction())
    assert await connected.get_tasks_by_ids(["never"]) == []


@ON_SQLITE
async def test_sqlite_has_no_transactions_of_the_callers(connected: Client) -> None:
    """On SQLite `enqueue_in` raises `Unsupported`, which says what it needs."""
    with pytest.raises(Unsupported, match="Firestore"):
        connected.enqueue_in(object(), Note())
