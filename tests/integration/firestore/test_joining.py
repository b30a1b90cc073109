"""Tasks that join the caller's own transaction or write batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from google.api_core.exceptions import AlreadyExists
from google.cloud import firestore

from oncetask.store.firestore import FirestoreStore
from oncetask.task import Task
from tests.integration.firestore.support import read
from tests.support import a_task

pytestmark = pytest.mark.emulator


@pytest.fixture
def blocking(project_id: str) -> Iterator[firestore.Client]:
    """Google's blocking client."""
    client = firestore.Client(project=project_id)
    yield client
    client._firestore_api.transport.close()


@pytest.fixture
async def task(store: FirestoreStore) -> AsyncIterator[Task]:
    """A task that has to be in the store at the end, as it was given."""
    task = a_task(data={"deep": [{"x": None}]}, recurrence={"cron": "* * * * *", "timezone": "UTC"})
    yield task
    found = await read(store, task.id)
    assert replace(found, version=0, read_at=task.read_at) == task


async def test_async_transaction(store: FirestoreStore, native: firestore.AsyncClient, task: Task) -> None:
    """A task joins an asynchronous transaction."""

    @firestore.async_transactional
    async def run(transaction: firestore.AsyncTransaction) -> None:
        transaction.set(native.document("users/1"), {})
        store.create_in(transaction, task)

    await run(native.transaction())
    assert (await native.document("users/1").get()).exists


async def test_sync_transaction(store: FirestoreStore, blocking: firestore.Client, task: Task) -> None:
    """A task joins a blocking transaction, from a store that is not even open."""

    @firestore.transactional
    def run(transaction: firestore.Transaction) -> None:
        FirestoreStore(env="test").create_in(transaction, task)

    run(blocking.transaction())


async def test_async_batch(store: FirestoreStore, native: firestore.AsyncClient, task: Task) -> None:
    """A task joins an asynchronous write batch."""
    batch = native.batch()
    store.create_in(batch, task)
    await batch.commit()


async def test_sync_batch(store: FirestoreStore, blocking: firestore.Client, task: Task) -> None:
    """A task joins a blocking write batch."""
    batch = blocking.batch()
    store.create_in(batch, task)
    batch.commit()


async def test_exists(store: FirestoreStore, native: firestore.AsyncClient) -> None:
    """A task that exists already fails the caller's transaction: it is a create, never an overwrite."""
    await store.create([a_task()])
    batch = native.batch()
    store.create_in(batch, a_task(create_id="second"))
    with pytest.raises(AlreadyExists):
        await batch.commit()
