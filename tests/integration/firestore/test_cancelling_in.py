"""`cancel_in`: cancels that are stored with the caller's own transaction or write batch, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from google.api_core.exceptions import FailedPrecondition, NotFound
from google.cloud import firestore

from oncetask import Client, Payload, TaskStatus, connect_sync
from oncetask.store.firestore import FirestoreStore
from oncetask.task import NO_WAIT, Outcome
from tests.integration.firestore.support import after, claimed, completed, read, stored
from tests.support import T0, a_task, at

pytestmark = pytest.mark.emulator

Add = Callable[[Any], bool]


class Note(Payload, kind="note"):
    """A task that comes in place of a cancelled one."""


@dataclass
class Own:
    """What is the caller's own: a client of Google's, and a way to commit with it."""

    client: Any
    commit: Callable[[Add], Awaitable[bool]]
    """Make a transaction or batch, let a function add to it, commit; gives what the function gave."""

    async def orders(self) -> bool:
        """Tell whether the caller's own document is there."""
        found = self.client.document("orders/1").get()
        return bool((found if isinstance(found, firestore.DocumentSnapshot) else await found).exists)


@pytest.fixture
def blocking(project_id: str) -> Iterator[firestore.Client]:
    """Google's blocking client."""
    client = firestore.Client(project=project_id)
    yield client
    client._firestore_api.transport.close()


@pytest.fixture(params=["batch", "transaction", "async batch", "async transaction"])
def own(request: pytest.FixtureRequest, native: firestore.AsyncClient, blocking: firestore.Client) -> Own:
    """Each of the four things that a caller may have."""

    async def batch(add: Add) -> bool:
        batch = blocking.batch()
        answer = add(batch)
        batch.commit()
        return answer

    async def transaction(add: Add) -> bool:
        return bool(firestore.transactional(add)(blocking.transaction()))

    async def async_batch(add: Add) -> bool:
        batch = native.batch()
        answer = add(batch)
        await batch.commit()
        return answer

    async def async_transaction(add: Add) -> bool:
        async def run(transaction: firestore.AsyncTransaction) -> bool:
            return add(transaction)

        return bool(await firestore.async_transactional(run)(native.transaction()))

    ways: dict[str, Own] = {
        "batch": Own(blocking, batch),
        "transaction": Own(blocking, transaction),
        "async batch": Own(native, async_batch),
        "async transaction": Own(native, async_transaction),
    }
    return ways[request.param]


@pytest.fixture
def client(store: FirestoreStore) -> Client:
    """A client of the store."""
    return Client(store)


async def document(native: firestore.AsyncClient, task_id: str) -> dict[str, Any]:
    """Read a task's document as it is stored."""
    return (await native.document(f"oncetask/test/onceTasks/{task_id}").get()).to_dict() or {}


async def test_it_is_stored_with_the_callers_writes(client: Client, store: FirestoreStore, own: Own) -> None:
    """The answer is True, and with the commit the task is cancelled and the caller's own document is there."""
    task = await stored(store, a_task(wait_until=at(9)))

    def add(batch: Any) -> bool:
        batch.set(own.client.document("orders/1"), {"paid": False})
        return client.cancel_in(batch, task)

    assert await own.commit(add) is True

    found = await read(store, task.id)
    assert found.cancelled_at is not None
    assert found == replace(
        task,
        is_cancelled=True,
        cancelled_at=found.cancelled_at,
        wait_until=NO_WAIT,
        due_at=NO_WAIT,
        version=found.version,
        read_at=found.read_at,
    )
    assert found.status is TaskStatus.CANCELLATION_PENDING
    assert await own.orders()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"resource_key": "r", "timeout": 5.0}, id="waiting"),
        pytest.param({"leased_until": at(9), "attempts": 1}, id="rescued"),
        pytest.param({"lease_owner": "l1", "leased_until": at(60), "attempts": 1, "started_at": T0}, id="leased"),
        pytest.param({"recurrence": {"cron": "* * * * *"}}, id="generator"),
        pytest.param({"data": {"deep": [[1]]}}, id="JSON text"),
    ],
)
async def test_the_document_is_as_cancel_task_leaves_it(
    client: Client, store: FirestoreStore, native: firestore.AsyncClient, own: Own, fields: dict[str, Any]
) -> None:
    """A document that was cancelled in a commit of the caller's has the same fields as one that `cancel_task` wrote."""
    task = await stored(store, a_task("joined", create_id="c", **fields))
    await stored(store, a_task("by itself", create_id="c", **fields))

    await own.commit(lambda batch: client.cancel_in(batch, task))
    await client.cancel_task("by itself")

    joined, by_itself = await document(native, "joined"), await document(native, "by itself")
    assert {**joined, "cancelledAt": None} == {**by_itself, "cancelledAt": None}
    assert (joined["isCancelled"], joined["waitUntil"]) == (True, NO_WAIT)
    assert type(joined["cancelledAt"]) is type(by_itself["cancelledAt"])


@pytest.mark.parametrize(
    "fields",
    [
        *({"outcome": outcome, "done_at": T0} for outcome in Outcome),
        {"is_cancelled": True, "wait_until": NO_WAIT},
        {"is_cancelled": True, "lease_owner": "l1", "leased_until": at(60), "cancel_attempts": 1},
    ],
    ids=[*Outcome, "cancelled before", "being cleaned up"],
)
async def test_there_is_nothing_to_cancel(
    client: Client, store: FirestoreStore, own: Own, fields: dict[str, Any]
) -> None:
    """Of a task that is done or cancelled the answer is False, and the commit holds the caller's writes only."""
    task = await stored(store, a_task(**fields))

    def add(batch: Any) -> bool:
        batch.set(own.client.document("orders/1"), {"paid": False})
        return client.cancel_in(batch, task)

    assert await own.commit(add) is False
    assert (await read(store, task.id)).version == task.version
    assert await own.orders()


async def test_a_change_since_the_look_refuses_it_all(client: Client, store: FirestoreStore, own: Own) -> None:
    """Where the task was claimed since it was read, the commit fails as a whole."""
    task = await stored(store, a_task())
    (written,) = await store.apply([claimed(task)])
    running = after(claimed(task), written)

    def add(batch: Any) -> bool:
        batch.set(own.client.document("orders/1"), {"paid": False})
        return client.cancel_in(batch, task)

    with pytest.raises(FailedPrecondition):
        await own.commit(add)
    found = await read(store, task.id)
    assert replace(found, read_at=running.read_at) == running
    assert not await own.orders()


async def test_a_deleted_task_stays_deleted(client: Client, store: FirestoreStore, own: Own) -> None:
    """Where the task was deleted since it was read, the commit fails, and no fragment of a task comes to be."""
    task = await stored(store, a_task())
    await store.delete([task])

    def add(batch: Any) -> bool:
        batch.set(own.client.document("orders/1"), {"paid": False})
        return client.cancel_in(batch, task)

    with pytest.raises((NotFound, FailedPrecondition)):
        await own.commit(add)
    assert await store.get([task.id]) == [None]
    assert not await own.orders()


async def test_a_caller_who_changes_his_mind(client: Client, store: FirestoreStore, own: Own) -> None:
    """A transaction or batch that is given up takes its cancel with it."""
    task = await stored(store, a_task())

    def add(batch: Any) -> bool:
        assert client.cancel_in(batch, task)
        raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed my mind"):
        await own.commit(add)
    assert (await read(store, task.id)).version == task.version


async def test_a_running_task_is_overtaken(client: Client, store: FirestoreStore, own: Own) -> None:
    """A leased task keeps its lease, and the completion that its worker decided before is refused."""
    task = await stored(store, a_task())
    (written,) = await store.apply([claimed(task)])
    running = after(claimed(task), written)

    assert await own.commit(lambda batch: client.cancel_in(batch, running))

    (late,) = await store.apply([completed(running, result="fine")])
    assert (late.applied, late.error) == (False, None)
    found = await read(store, task.id)
    assert (found.lease_owner, found.leased_until, found.due_at) == ("lease-1", at(60), at(60))
    (written,) = await store.apply([completed(found, result="fine")])
    assert written.applied
    assert (await read(store, task.id)).status is TaskStatus.DONE_CANCELLED


async def test_many_in_one_commit(client: Client, store: FirestoreStore, own: Own) -> None:
    """Several cancels, and the tasks that come in their place, are one commit."""
    tasks = [await stored(store, a_task(name)) for name in ("a", "b")]

    def add(batch: Any) -> bool:
        client.enqueue_in(batch, Note(), task_id="instead")
        return all(client.cancel_in(batch, task) for task in tasks)

    assert await own.commit(add)
    assert [task and task.is_cancelled for task in await store.get(["a", "b", "instead"])] == [True, True, False]


async def test_nothing_is_sent_before_the_commit(
    client: Client, store: FirestoreStore, native: firestore.AsyncClient
) -> None:
    """Adding a cancel asks nothing of Firestore, and the task is as it was until the commit."""
    task, batch = await stored(store, a_task()), native.batch()
    store.counters.rpcs.clear()

    assert client.cancel_in(batch, task)

    assert not store.counters.rpcs
    assert (await read(store, task.id)).version == task.version
    await batch.commit()
    assert (await read(store, task.id)).is_cancelled


async def test_a_client_that_was_never_used(store: FirestoreStore, native: firestore.AsyncClient) -> None:
    """A client that has not been opened cancels as well: the connection is the caller's."""
    task, batch = await stored(store, a_task()), native.batch()

    assert Client(FirestoreStore(env="test")).cancel_in(batch, task)

    await batch.commit()
    assert (await read(store, task.id)).is_cancelled


async def test_the_blocking_client_does_it_too(
    store: FirestoreStore, blocking: firestore.Client, project_id: str
) -> None:
    """Through oncetask's blocking client a task is read, cancelled in a transaction, and refused a second time."""
    await stored(store, a_task())

    def work() -> list[bool]:
        with connect_sync(f"firestore://{project_id}", env="test") as client:
            cancel = firestore.transactional(client.cancel_in)
            return [cancel(blocking.transaction(), client.get_task("greet:1")) for _ in range(2)]

    assert await asyncio.to_thread(work) == [True, False]
