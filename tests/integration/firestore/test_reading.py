"""Reads and queries: what they ask of Firestore, and documents that somebody else wrote."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.cloud.firestore import AsyncClient, GeoPoint
from google.cloud.firestore_v1.vector import Vector

from oncetask.errors import StoreUnavailable
from oncetask.store import Cursor, TaskFilter
from oncetask.store.document import FIELDS, encode
from oncetask.store.firestore import FirestoreStore
from oncetask.task import Outcome, Task
from tests.integration.firestore.support import failing, read, record, refuse_all, some_tasks
from tests.support import T0, a_task, at

pytestmark = pytest.mark.emulator


async def test_many_kinds(store: FirestoreStore) -> None:
    """More than thirty kinds are several queries, and one line; a cursor goes on in all of them."""
    kinds = [f"k{number:02}" for number in range(70)]
    tasks = [a_task(f"t-{n:02}", kind=kinds[-n], wait_until=at(n % 35)) for n in range(70)]
    await store.create(tasks)
    calls = record(store, "run_query")
    line = sorted(tasks, key=lambda task: (task.wait_until, task.id))
    first = await store.due(kinds, now=at(100), limit=40)
    assert [task.id for task in first] == [task.id for task in line[:40]]
    rest = await store.due(kinds, now=at(100), limit=40, after=Cursor(at(19), first[-1].id))
    assert [task.id for task in rest] == [task.id for task in line[40:]]
    assert len(calls) == 6


async def test_busy_keys_are_not_read(store: FirestoreStore) -> None:
    """What stands in front with a busy key is left out by the server: one request, and only what is given is read."""
    keys = [f"busy-{n}" for n in range(29)]
    await store.create([a_task(f"a{n:03}", resource_key=keys[n % 29], wait_until=at(n - 900)) for n in range(300)])
    await store.create(some_tasks(3))
    store.counters.rpcs.clear()
    before = store.counters.documents_read
    found = await store.due(["greet"], now=at(9), limit=5, without=keys)
    assert [task.id for task in found] == [task.id for task in some_tasks(3)]
    assert store.counters.rpcs == {"RunQuery": 1}
    assert store.counters.documents_read - before == 3


async def test_the_first_of_many_keys_are_not_read(store: FirestoreStore) -> None:
    """Of more keys than a query can leave out, those are left to the server that are named first."""
    keys = [f"busy-{n:02}" for n in reversed(range(50))]
    crowd = [a_task(f"a{n:03}", resource_key=keys[0], wait_until=at(n - 900)) for n in range(300)]
    await store.create([*crowd, *(a_task(f"b{n}", resource_key=key) for n, key in enumerate(keys)), a_task("c")])
    before = store.counters.documents_read
    assert [task.id for task in await store.due(["greet"], now=T0, limit=5, without=keys)] == ["c"]
    assert store.counters.documents_read - before == 50 - 29 + 1


async def test_going_on_behind_a_task(store: FirestoreStore) -> None:
    """A cursor does not say which lane its task stands in, so that is read; then only what is behind it."""
    await store.create([a_task(f"t{n:02}", resource_key=f"k{n % 3}") for n in range(30)])
    first = await store.due(["greet"], now=T0, limit=12, without=["k0"])
    store.counters.rpcs.clear()
    before = store.counters.documents_read
    rest = await store.due(["greet"], now=T0, limit=12, without=["k0"], after=Cursor(T0, first[-1].id))
    assert {task.id for task in (*first, *rest)} == {f"t{n:02}" for n in range(30) if n % 3}
    assert store.counters.rpcs == {"RunQuery": 1, "BatchGetDocuments": 1}
    assert store.counters.documents_read - before == 8 + 1


async def test_many_locks(store: FirestoreStore) -> None:
    """The locks of many keys are read in a few requests, one for a handful."""
    store.counters.rpcs.clear()
    assert await store.locks([f"k{n % 5}" for n in range(20)]) == [None] * 20
    assert store.counters.rpcs == {"BatchGetDocuments": 1}
    await store.locks([f"k{n}" for n in range(700)])
    assert store.counters.rpcs == {"BatchGetDocuments": 4}


async def test_no_kinds(store: FirestoreStore) -> None:
    """A line of no kinds is empty, and costs nothing."""
    store.counters.rpcs.clear()
    assert await store.due([], now=T0, limit=5) == []
    assert not store.counters.rpcs


async def test_rubbish_is_not_due(store: FirestoreStore, native: AsyncClient) -> None:
    """Only instants are due: no null, number or text."""
    collection = native.collection("oncetask/test/onceTasks")
    values: list[Any] = [None, 0, -1.5, "1970-01-01", True, b"", [], {}, GeoPoint(0, 0)]
    for number, rubbish in enumerate(values):
        await collection.document(f"r{number}").set({**encode(a_task()), "dueAt": rubbish})
    await store.create([a_task("sound")])
    assert [task.id for task in await store.due(["greet"], now=T0, limit=5)] == ["sound"]


async def test_instant_before_1970(store: FirestoreStore) -> None:
    """An instant long ago is due like any other, so that somebody mends it."""
    early = datetime(1, 1, 1, tzinfo=UTC)
    await store.create([replace(a_task("ancient"), due_at=early), a_task("now")])
    line = await store.due(["greet"], now=T0, limit=5)
    assert [(task.id, task.due_at) for task in line] == [("ancient", early), ("now", T0)]


@pytest.mark.parametrize("field", FIELDS.values())
async def test_foreign_values(store: FirestoreStore, native: AsyncClient, field: str) -> None:
    """A value of any type in any field never raises."""
    values: list[Any] = [
        None,
        True,
        -1,
        2**62,
        float("nan"),
        float("-inf"),
        "",
        "text",
        b"\xff",
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        GeoPoint(1, 2),
        native.document("a/b"),
        Vector([1.0, 2.0]),
        [],
        [None, {"at": [1]}],
        {},
        {"at": b"x"},
    ]
    batch = native.batch()
    for number, value in enumerate(values):
        document = {**encode(a_task()), field: value}
        batch.set(native.document(f"oncetask/test/onceTasks/f{number:02}"), document)
    await batch.commit()
    tasks = await store.find(TaskFilter(), limit=100)
    assert [task.id for task in tasks] == [f"f{number:02}" for number in range(len(values))]
    for task in tasks:
        assert isinstance(task, Task)
        assert isinstance(repr(task.problems), str)


async def test_foreign_fields(store: FirestoreStore, native: AsyncClient) -> None:
    """A document of nothing, and one of nothing that we know, are tasks with problems."""
    await native.document("oncetask/test/onceTasks/empty").set({})
    await native.document("oncetask/test/onceTasks/other").set(
        {"where": GeoPoint(1, 2), "who": [native.document("a/b")]}
    )
    for task_id in ("empty", "other"):
        assert "kind: is missing" in (await read(store, task_id)).problems[0]


async def test_pages(store: FirestoreStore) -> None:
    """Lists go on behind an id, whether it still exists or not."""
    await store.create(some_tasks(5))
    page = await store.find(TaskFilter(kind="greet"), limit=2, after="t-00001x")
    assert [task.id for task in page] == ["t-00002", "t-00003"]


async def test_done(store: FirestoreStore) -> None:
    """Done means any of the four outcomes, still in the order of the ids."""
    outcomes = [Outcome.FAILED, None, Outcome.COMPLETED, Outcome.EXPIRED, None, Outcome.CANCELLED]
    tasks = [a_task(f"t{number}", outcome=outcome, owner="o") for number, outcome in enumerate(outcomes)]
    await store.create(tasks)
    which = TaskFilter(kind="greet", owner="o", done=True)
    assert [task.id for task in await store.find(which, limit=9)] == ["t0", "t2", "t3", "t5"]
    assert await store.count(which) == 4
    assert [task.id for task in await store.find(which, limit=9, after="t2")] == ["t3", "t5"]


async def test_contradiction(store: FirestoreStore) -> None:
    """Open tasks of an outcome cannot be, and nobody is asked for them."""
    await store.create([a_task(outcome=Outcome.FAILED)])
    store.counters.rpcs.clear()
    which = TaskFilter(done=False, outcome=Outcome.FAILED)
    assert (await store.find(which, limit=5), await store.count(which)) == ([], 0)
    assert not store.counters.rpcs


async def test_many_ids(store: FirestoreStore) -> None:
    """Many ids are read in a few requests; the order is that of the ids, twice where they are twice."""
    tasks = some_tasks(700)
    await store.create(tasks)
    store.counters.rpcs.clear()
    ids = [task.id for task in reversed(tasks)] + ["missing", tasks[0].id]
    found = await store.get(ids)
    assert [task.id if task else None for task in found] == [*ids[:700], None, tasks[0].id]
    assert store.counters.rpcs == {"BatchGetDocuments": 3}


async def test_missing_index(store: FirestoreStore) -> None:
    """A query without its index says which file to deploy, and is not tried again."""
    error = failing("RunQuery", grpc.StatusCode.FAILED_PRECONDITION, "The query requires an index.")
    tried = refuse_all(store, "run_query", error)
    with pytest.raises(StoreUnavailable, match=r"firestore\.indexes\.json"):
        await store.due(["greet"], now=T0, limit=1)
    assert len(tried) == 1


async def test_transient_failure(store: FirestoreStore) -> None:
    """A read that fails for a passing reason is tried again."""
    rpc = store._session.rpc  # type: ignore[union-attr]  # it is open
    call = rpc.batch_get

    async def fail(names: list[str]) -> list[object]:
        rpc.batch_get = call  # type: ignore[method-assign]  # only once
        raise failing("BatchGetDocuments")

    rpc.batch_get = fail  # type: ignore[method-assign]  # the server's doing
    assert await store.get(["missing"]) == [None]
