"""The user's own writes, where the store has such a thing."""

from __future__ import annotations

from typing import Any

import pytest

from oncetask import lifecycle
from oncetask.errors import Unsupported
from oncetask.store import TaskStore
from oncetask.task import Outcome
from tests.contract.backends import Backend, FirestoreBackend
from tests.contract.places import FIRESTORE, SQLITE_FILE, SQLITE_MEMORY, only
from tests.support import T0, a_task, at, commit_one, exactly, fetch, follow, stored

NOW = exactly(T0)


@pytest.fixture
def firestore(backend: Backend) -> FirestoreBackend:
    """The backend whose users have write batches."""
    assert isinstance(backend, FirestoreBackend)
    return backend


@only(SQLITE_FILE, SQLITE_MEMORY)
async def test_without_batches_it_says_so(store: TaskStore) -> None:
    """A store that has no write batches refuses to make or take one."""
    (task,) = await stored(store, a_task())
    with pytest.raises(Unsupported, match="Firestore"):
        store.new_batch()
    with pytest.raises(Unsupported, match="Firestore"):
        store.create_in(object(), a_task())
    with pytest.raises(Unsupported, match="Firestore"):
        await commit_one(store, lifecycle.renew(task, until=at(60)), [], object())


@only(FIRESTORE)
async def test_the_users_writes_are_part_of_the_commit(firestore: FirestoreBackend, store: TaskStore) -> None:
    """What a handler put into its batch is stored with the completion."""
    (task,) = await stored(store, a_task())
    batch = store.new_batch()
    order = firestore.client.document("orders/1")
    batch.set(order, {"paid": True})

    written = await commit_one(store, lifecycle.complete(task, result=1, now=NOW), [a_task("child")], batch)

    assert written.applied
    assert (await order.get()).to_dict() == {"paid": True}
    assert (await fetch(store, "greet:1")).outcome is Outcome.COMPLETED
    assert (await fetch(store, "child")).id == "child"


@only(FIRESTORE)
async def test_a_refused_change_writes_nothing_of_the_users(firestore: FirestoreBackend, store: TaskStore) -> None:
    """A worker that lost its task writes nothing, the user's writes included."""
    (old,) = await stored(store, a_task())
    await follow(store, lifecycle.claim(old, lease_id="l1", until=at(60), now=NOW))
    batch = store.new_batch()
    order = firestore.client.document("orders/1")
    batch.set(order, {"paid": True})

    written = await commit_one(store, lifecycle.complete(old, result=1, now=NOW), [a_task("child")], batch)

    assert (written.applied, written.error) == (False, None)
    assert not (await order.get()).exists
    assert await store.get(["child"]) == [None]


@only(FIRESTORE)
async def test_an_existing_task_does_not_lose_the_users_writes(firestore: FirestoreBackend, store: TaskStore) -> None:
    """Where a new task exists already, the rest of the commit is stored, the user's writes once."""
    (task, _) = await stored(store, a_task(), a_task("child", create_id="earlier"))
    batch = store.new_batch()
    order = firestore.client.document("orders/1")
    batch.set(order, {"paid": True})

    written = await commit_one(store, lifecycle.complete(task, result=1, now=NOW), [a_task("child")], batch)

    assert written.applied
    assert (await order.get()).exists
    assert (await fetch(store, "child")).create_id == "earlier"


@only(FIRESTORE)
async def test_a_users_write_that_fails_stops_it_all(firestore: FirestoreBackend, store: TaskStore) -> None:
    """A precondition of the user's own that does not hold is an error, not a lost lease, and nothing is stored."""
    (task,) = await stored(store, a_task())
    batch = store.new_batch()
    batch.update(firestore.client.document("orders/none"), {"paid": True})

    written = await commit_one(store, lifecycle.complete(task, result=1, now=NOW), [a_task("child")], batch)

    assert written.error is not None
    assert await store.get(["child"]) == [None]
    assert (await fetch(store, "greet:1")).outcome is None


@only(FIRESTORE)
async def test_a_task_joins_the_users_batch(firestore: FirestoreBackend, store: TaskStore) -> None:
    """A task that is added to a batch is there once the user commits it, and not before."""
    batch = firestore.client.batch()
    batch.set(firestore.client.document("orders/1"), {"paid": False})

    store.create_in(batch, a_task(resource_key="r"))

    assert await store.get(["greet:1"]) == [None]
    await batch.commit()
    found = await fetch(store, "greet:1")
    assert (found.resource_key, found.problems) == ("r", ())
    assert [task.id for task in await store.due(["greet"], now=T0, limit=5)] == ["greet:1"]


@only(FIRESTORE)
async def test_a_task_joins_the_users_transaction(firestore: FirestoreBackend, store: TaskStore) -> None:
    """A task that is added to a transaction is there if it commits, and not if it is rolled back."""
    client: Any = firestore.client

    transaction = client.transaction()
    await transaction._begin()
    store.create_in(transaction, a_task("rolled back"))
    await transaction._rollback()
    transaction = client.transaction()
    await transaction._begin()
    store.create_in(transaction, a_task("committed"))
    await transaction._commit()

    assert [task and task.id for task in await store.get(["rolled back", "committed"])] == [None, "committed"]
