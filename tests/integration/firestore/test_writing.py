"""Writes through the group commit: what travels together, and what becomes of each write when calls fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.cloud.firestore import AsyncClient

from oncetask import lifecycle
from oncetask.errors import OncetaskError, PayloadTooLarge, StoreUnavailable
from oncetask.store import Written
from oncetask.store.firestore import FirestoreStore
from oncetask.task import Outcome
from tests.integration.firestore.conftest import MakeStore
from tests.integration.firestore.support import (
    after,
    claimed,
    completed,
    failing,
    hold_back,
    lose_answer,
    read,
    record,
    refuse_all,
    some_tasks,
    stored,
)
from tests.support import T0, a_task, exactly

pytestmark = pytest.mark.emulator


async def test_together(store: FirestoreStore) -> None:
    """Writes that callers submit in the same iteration of the loop are one request."""
    tasks = [await stored(store, task) for task in some_tasks(10)]
    store.counters.rpcs.clear()
    written = await asyncio.gather(*(store.apply([claimed(task)]) for task in tasks))
    assert all(one.applied for (one,) in written)
    assert store.counters.rpcs == {"BatchWrite": 1}


async def test_queue_up(store: FirestoreStore) -> None:
    """Writes that come while calls are in flight travel together in the next one."""
    calls = record(store, "batch_write")
    answers = hold_back(store, "batch_write")
    tasks = some_tasks(40)
    creates = []
    for task in tasks[:2]:
        creates.append(asyncio.ensure_future(store.create([task])))
        await answers.asked()
    creates += [asyncio.ensure_future(store.create([task])) for task in tasks[2:]]
    answers.let_go()
    await asyncio.gather(*creates)
    assert [len(writes) for writes in calls] == [1, 1, 38]


async def test_document_once_a_call(store: FirestoreStore) -> None:
    """Two writes of one document go one after the other, in the order in which they were submitted."""
    calls = record(store, "batch_write")
    first, second = a_task("same"), replace(a_task("same"), create_id="another")
    written = await store.create([first, a_task("other"), second])
    assert [one.applied for one in written] == [True, True, False]
    assert [len(writes) for writes in calls] == [2, 1]
    assert (await read(store, "same")).create_id == first.create_id


async def test_many_creates(store: FirestoreStore) -> None:
    """Two thousand creates are four calls, and one to look at those refused, answered in the order of the tasks."""
    tasks = some_tasks(2_000)
    await store.create(tasks[500:501])
    store.counters.rpcs.clear()
    written = await store.create([replace(task, create_id="second") for task in tasks])
    assert [index for index, one in enumerate(written) if not one.applied] == [500]
    assert store.counters.rpcs == {"BatchWrite": 4, "BatchGetDocuments": 1}
    found = await store.get([tasks[0].id, tasks[1_999].id])
    assert [task.version for task in found if task] == [written[0].version, written[1_999].version]


async def test_big_documents(store: FirestoreStore) -> None:
    """Documents that are too much for one request together are written by several."""
    tasks = [a_task(f"t{index}", data={"text": "x" * 900_000}) for index in range(8)]
    calls = record(store, "batch_write")
    assert all(one.applied for one in await store.create(tasks))
    assert [len(writes) for writes in calls] == [4, 4]


async def test_invalid_write(store: FirestoreStore) -> None:
    """A document that Firestore does not take fails by itself; those that travelled with it are stored."""
    tasks = some_tasks(9)
    tasks[4] = a_task("__reserved__")
    written = await store.create(tasks)
    assert [one.applied for one in written] == [index != 4 for index in range(9)]
    assert isinstance(written[4].error, OncetaskError)
    assert "reserved" in str(written[4].error)


async def test_too_large(store: FirestoreStore) -> None:
    """A document beyond 1 MiB fails by itself with PayloadTooLarge."""
    written = await store.create([a_task("a"), a_task("b", data={"text": "x" * 1_100_000})])
    assert written[0].applied
    assert isinstance(written[1].error, PayloadTooLarge)


async def test_beyond_any_request(store: FirestoreStore) -> None:
    """A document that is too large for a request at all fails by itself, at once."""
    written = await store.create([a_task("a"), a_task("b", data={"text": "x" * 5_000_000})])
    assert written[0].applied
    assert isinstance(written[1].error, PayloadTooLarge)
    assert store.counters.rpcs["BatchWrite"] == 2


async def test_unwritable_value(store: FirestoreStore) -> None:
    """A value that no Firestore document can hold fails its own write, before anything is sent."""
    written = await store.create([a_task("a"), a_task("b", owner="half a surrogate \ud800")])
    assert written[0].applied
    assert isinstance(written[1].error, OncetaskError)


@pytest.mark.parametrize("loses", [True, False])
async def test_lost_create(store: FirestoreStore, *, loses: bool) -> None:
    """A create whose answer got lost is applied; one of somebody else's is not, whatever got lost."""
    await store.create([a_task("taken")])
    if loses:
        lose_answer(store, "batch_write")
    new, taken = await store.create([a_task("new"), replace(a_task("taken"), create_id="mine")])
    assert new.version == (await read(store, "new")).version
    assert taken == Written()


async def test_lost_change(store: FirestoreStore) -> None:
    """A change whose answer got lost is applied, and its version is the one to go on from."""
    task = await stored(store, a_task())
    lose_answer(store, "batch_write")
    claim = claimed(task)
    (written,) = await store.apply([claim])
    assert written.version == (await read(store, task.id)).version
    (done,) = await store.apply([completed(after(claim, written), result={"x": [1, 2.5, None]})])
    assert done.applied


async def test_lost_change_overtaken(store: FirestoreStore, make_store: MakeStore) -> None:
    """A change that was applied, and then written over, is reported with a version that nothing can build on."""
    task = await stored(store, a_task())
    claim = claimed(task)
    another = make_store()

    async def cancel() -> None:
        held = await read(another, task.id)
        cancelled = replace(held, is_cancelled=True)
        (written,) = await another.apply([lifecycle.Transition("cancel", held, cancelled, {"is_cancelled": True})])
        assert written.applied

    lose_answer(store, "batch_write", then=cancel)
    (written,) = await store.apply([claim])
    assert written.applied
    (late,) = await store.apply([completed(after(claim, written))])
    assert late == Written()
    assert (await read(store, task.id)).outcome is None


async def test_lost_change_of_another(store: FirestoreStore) -> None:
    """A change that was refused is refused, also where an answer got lost."""
    task = await stored(store, a_task())
    await store.apply([claimed(task, "another's")])
    lose_answer(store, "batch_write")
    assert await store.apply([claimed(task, "mine")]) == [Written()]


async def test_lost_delete(store: FirestoreStore) -> None:
    """A deletion whose answer got lost is applied."""
    task = await stored(store, a_task())
    lose_answer(store, "batch_write")
    (written,) = await store.delete([task])
    assert written.applied
    assert await store.get([task.id]) == [None]


async def test_delete_of_older_record(store: FirestoreStore) -> None:
    """A task that was written since it was read is not deleted."""
    task = await stored(store, a_task())
    await store.apply([claimed(task)])
    assert await store.delete([task, a_task("never there", version=1)]) == [Written(), Written()]


async def test_contention_of_one_write(store: FirestoreStore) -> None:
    """A write that alone was aborted is tried again; the others are not."""
    rpc = store._session.rpc  # type: ignore[union-attr]  # it is open
    call, sent = rpc.batch_write, []

    async def abort_one(writes: list[object]) -> object:
        sent.append(len(writes))
        if len(sent) > 1:
            return await call(writes)
        answer = await call(writes[1:])
        answer.status.insert(0, type(answer.status[0])(code=grpc.StatusCode.ABORTED.value[0]))
        answer.write_results.insert(0, type(answer.write_results[0])())
        return answer

    rpc.batch_write = abort_one  # type: ignore[method-assign]  # the server's doing
    written = await store.create(some_tasks(3))
    assert all(one.applied for one in written)
    assert sent == [3, 1]


async def test_unknown_fields_stay(store: FirestoreStore, native: AsyncClient) -> None:
    """A change leaves the fields that it does not name as they are, and removes what became None."""
    task = await stored(store, a_task())
    reference = native.document(f"oncetask/test/onceTasks/{task.id}")
    await reference.update({"theirs": [1, 2]})
    claim = claimed(await read(store, task.id))
    (written,) = await store.apply([claim])
    (written,) = await store.apply([completed(after(claim, written))])
    fields = (await reference.get()).to_dict() or {}
    assert fields["theirs"] == [1, 2]
    assert fields["outcome"] == "completed"
    assert fields["leaseOwner"] is None
    assert not {"dueAt", "leasedUntil"} & set(fields)


async def test_change_of_nothing(store: FirestoreStore) -> None:
    """A transition that changes no field leaves the document, and its version, as they are."""
    task = await stored(store, a_task())
    (written,) = await store.apply([lifecycle.realign(task)])
    assert written.version == task.version
    assert (await read(store, task.id)).version == task.version


async def test_store_down(make_store: MakeStore) -> None:
    """Where trying again does not help, the error names what was tried and where, and has the cause."""
    store = make_store(patience=0.2)
    await store.open()
    tried = refuse_all(store, "batch_write", failing("BatchWrite", details="no route"))
    with pytest.raises(
        StoreUnavailable, match=r"writing tasks failed after \d tries on Firestore projects/test-"
    ) as caught:
        await store.apply([claimed(a_task())])
    assert "no route" in str(caught.value.__cause__)
    assert len(tried) > 1


async def test_receipts(make_store: MakeStore) -> None:
    """A create that failed midway tells what was settled until then; the rest was not sent."""
    store = make_store(patience=0)
    await store.open()
    rpc = store._session.rpc  # type: ignore[union-attr]  # it is open
    call, calls = rpc.batch_write, []

    async def fail_third(writes: list[object]) -> object:
        calls.append(len(writes))
        if len(calls) >= 3:
            raise failing()
        return await call(writes)

    rpc.batch_write = fail_third  # type: ignore[method-assign]  # the server's doing
    tasks = some_tasks(10_000)
    with pytest.raises(StoreUnavailable) as caught:
        await store.create(tasks)
    receipts = caught.value.receipts
    assert len(receipts) == 10_000
    assert sum(isinstance(one, Written) for one in receipts) == 1_000
    assert len(calls) < 20
    found = await store.get([task.id for task, one in zip(tasks, receipts, strict=True) if one is not None])
    assert all(found)


async def test_gone_caller(store: FirestoreStore) -> None:
    """A write that was not sent yet is not sent once its caller has been cancelled."""
    calls = record(store, "batch_write")
    waiting = asyncio.ensure_future(store.create([a_task("unwanted")]))
    await asyncio.sleep(0)
    waiting.cancel()
    await store.create([a_task("wanted")])
    assert [len(writes) for writes in calls] == [1]
    assert await store.get(["unwanted"]) == [None]


async def test_permission(store: FirestoreStore) -> None:
    """A write without permission raises at once, and says what would help."""
    error = failing("BatchWrite", grpc.StatusCode.PERMISSION_DENIED, "Missing or insufficient permissions.")
    tried = refuse_all(store, "batch_write", error)
    with pytest.raises(StoreUnavailable, match=r"roles/datastore\.user"):
        await store.create([a_task()])
    assert len(tried) == 1


async def test_counters(store: FirestoreStore) -> None:
    """The counters tell the requests and what was in them."""
    task = await stored(store, a_task())
    await store.apply([claimed(task)])
    await store.apply([claimed(task)])
    await store.get([task.id, "missing"])
    counters = store.counters
    assert counters.rpcs == {"BatchGetDocuments": 2, "BatchWrite": 3}
    assert (counters.writes_sent, counters.writes_refused, counters.documents_read) == (3, 1, 3)


async def test_end_of_life(store: FirestoreStore) -> None:
    """What a completed task keeps reads back as it was written."""
    task = await stored(store, a_task(data={"n": 1, "f": 1.5, "deep": [{"a": [None, True]}], "s": "ü"}))
    claim = claimed(task)
    (written,) = await store.apply([claim])
    done = lifecycle.complete(after(claim, written), result=[[1], [2]], now=exactly(T0))
    (written,) = await store.apply([done])
    found = await read(store, task.id)
    assert replace(found, read_at=task.read_at) == after(done, written)
    assert found.outcome is Outcome.COMPLETED
