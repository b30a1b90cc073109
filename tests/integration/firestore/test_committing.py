"""The atomic commit: a transition, new tasks and the user's own writes share one fate."""

from __future__ import annotations

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.cloud.firestore import AsyncClient

from oncetask.errors import OncetaskError, PayloadTooLarge, StoreUnavailable
from oncetask.store import Written
from oncetask.store.firestore import FirestoreStore
from oncetask.task import Outcome, Task
from tests.integration.firestore.conftest import MakeStore
from tests.integration.firestore.support import (
    after,
    claimed,
    completed,
    failing,
    lose_answer,
    read,
    refuse_all,
    stored,
)
from tests.support import a_task, commit_one

pytestmark = pytest.mark.emulator


async def running(store: FirestoreStore, task_id: str = "greet:1") -> Task:
    """Give a task that has been claimed."""
    claim = claimed(await stored(store, a_task(task_id)))
    (written,) = await store.apply([claim])
    return after(claim, written)


async def test_all_of_it(store: FirestoreStore, native: AsyncClient) -> None:
    """Completion, new tasks and the handler's writes are stored together, at one version."""
    done = completed(await running(store))
    batch = store.new_batch()
    batch.set(native.document("users/1"), {"greeted": True})
    written = await commit_one(store, done, [a_task("next")], batch)
    assert written.version == (await read(store, "next")).version == (await read(store, "greet:1")).version
    assert (await native.document("users/1").get()).to_dict() == {"greeted": True}


async def test_new_task_exists(store: FirestoreStore) -> None:
    """New tasks that exist already are left out; the rest is stored."""
    done = completed(await running(store))
    await stored(store, a_task("exists", owner="first"))
    assert (await commit_one(store, done, [a_task("exists", owner="second"), a_task("next")], None)).applied
    assert (await read(store, "exists")).owner == "first"
    assert (await read(store, "next")).id == "next"


async def test_refused(store: FirestoreStore, native: AsyncClient) -> None:
    """Where the task was written since, nothing is stored: not the new tasks, nor the handler's writes."""
    task = await running(store)
    await store.apply([completed(task)])
    batch = store.new_batch()
    batch.set(native.document("users/1"), {"greeted": True})
    assert await commit_one(store, completed(task), [a_task("next")], batch) == Written()
    assert await store.get(["next"]) == [None]
    assert not (await native.document("users/1").get()).exists


async def test_lost_answer(store: FirestoreStore, native: AsyncClient) -> None:
    """A commit whose answer got lost is applied once, with all that was in it."""
    done = completed(await running(store))
    batch = store.new_batch()
    batch.create(native.document("users/1"), {})
    lose_answer(store, "commit")
    written = await commit_one(store, done, [a_task("next")], batch)
    assert written.version == (await read(store, "greet:1")).version
    assert (await read(store, "next")).id == "next"


async def test_users_write_refused(store: FirestoreStore, native: AsyncClient) -> None:
    """Where it is the handler's own write that cannot be, nothing is stored, and the error says so."""
    task = await running(store)
    await native.document("users/1").set({})
    batch = store.new_batch()
    batch.create(native.document("users/1"), {})
    written = await commit_one(store, completed(task), [a_task("next")], batch)
    assert isinstance(written.error, OncetaskError)
    assert "handler's batch" in str(written.error)
    assert (await read(store, task.id)).outcome is None
    assert await store.get(["next"]) == [None]


async def test_users_write_of_missing_document(store: FirestoreStore, native: AsyncClient) -> None:
    """An update of a document that is not there is the handler's fault, too."""
    batch = store.new_batch()
    batch.update(native.document("users/nobody"), {"x": 1})
    written = await commit_one(store, completed(await running(store)), [], batch)
    assert "handler's batch" in str(written.error)


async def test_too_large(store: FirestoreStore) -> None:
    """A commit with a document that Firestore does not take is an error of this commit."""
    task = await running(store)
    written = await commit_one(store, completed(task), [a_task("big", data={"text": "x" * 1_100_000})], None)
    assert isinstance(written.error, PayloadTooLarge)
    assert (await read(store, task.id)).outcome is None


async def test_unwritable_value(store: FirestoreStore) -> None:
    """A new task with a value that no Firestore document can hold is an error of this commit."""
    task = await running(store)
    written = await commit_one(store, completed(task), [a_task("bad", owner="half a surrogate \ud800")], None)
    assert written.error is not None
    assert (await read(store, task.id)).outcome is None


async def test_store_down(make_store: MakeStore) -> None:
    """A commit that cannot be settled raises."""
    store = make_store(patience=0.2)
    task = await running(store)
    refuse_all(store, "commit", failing("Commit"))
    with pytest.raises(StoreUnavailable, match="committing tasks failed"):
        await commit_one(store, completed(task), [], None)


async def test_contention(store: FirestoreStore) -> None:
    """A commit that the server aborted is tried again."""
    task = await running(store)
    rpc = store._session.rpc  # type: ignore[union-attr]  # it is open
    call = rpc.commit

    async def abort(writes: list[object]) -> object:
        rpc.commit = call  # type: ignore[method-assign]  # only once
        raise failing("Commit", grpc.StatusCode.ABORTED)

    rpc.commit = abort  # type: ignore[method-assign]  # the server's doing
    assert (await commit_one(store, completed(task), [], None)).applied
    assert (await read(store, task.id)).outcome is Outcome.COMPLETED
