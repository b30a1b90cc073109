"""New tasks of one resource key: in atomic commits, one after the other, whatever happens to them on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from oncetask.errors import OncetaskError, PayloadTooLarge, StoreUnavailable
from oncetask.store import Written
from oncetask.store.firestore import FirestoreStore
from tests.integration.firestore.conftest import MakeStore
from tests.integration.firestore.support import (
    fail_once,
    failing,
    hold_back,
    lose_answer,
    record,
    refuse_all,
    rpc_of,
    some_tasks,
)
from tests.support import a_task, not_none

pytestmark = pytest.mark.emulator


async def test_commits(store: FirestoreStore) -> None:
    """A thousand tasks of one key are three commits, the tasks of keys that have but one travel as ever."""
    store.counters.rpcs.clear()
    tasks = [*some_tasks(1_000, resource_key="k"), a_task("a", resource_key="l"), a_task("b")]
    assert all(one.applied for one in await store.create(tasks))
    assert store.counters.rpcs == {"Commit": 3, "BatchWrite": 1}


async def test_no_commits_where_nothing_has_an_order(store: FirestoreStore) -> None:
    """Tasks of no key, or each of another one, are written side by side."""
    store.counters.rpcs.clear()
    await store.create([*some_tasks(10), *(a_task(f"k{n}", resource_key=f"k{n}") for n in range(10))])
    assert store.counters.rpcs == {"BatchWrite": 1}


async def test_one_after_the_other(store: FirestoreStore) -> None:
    """The next commit is sent after the answer to the one before, and what has no order does not wait for them."""
    calls = record(store, "commit")
    answers = hold_back(store, "commit")
    tasks = [*some_tasks(1_000, resource_key="k"), a_task("alone")]
    creating = asyncio.ensure_future(store.create(tasks))
    await answers.asked()
    while await store.get(["alone"]) == [None]:
        pass
    assert calls == []
    answers.let_go()
    assert all(one.applied for one in await creating)
    sent = [write.update.name.rpartition("/")[2] for writes in calls for write in writes]
    assert sent == [task.id for task in tasks[:1_000]]
    assert [len(writes) for writes in calls] == [400, 400, 200]


async def test_several_keys_keep_their_order_together(store: FirestoreStore) -> None:
    """The tasks of all such keys are sent in the order of the call."""
    calls = record(store, "commit")
    tasks = [replace(task, resource_key=f"k{n % 3}") for n, task in enumerate(some_tasks(500))]
    await store.create(tasks)
    assert [write.update.name.rpartition("/")[2] for writes in calls for write in writes] == [task.id for task in tasks]


async def test_big_documents(store: FirestoreStore) -> None:
    """Documents that are too much for one request together are sent by several."""
    calls = record(store, "commit")
    tasks = [a_task(f"t{n}", resource_key="k", data={"text": "x" * 900_000}) for n in range(7)]
    assert all(one.applied for one in await store.create(tasks))
    assert [len(writes) for writes in calls] == [3, 3, 1]


async def test_those_that_firestore_does_not_take(store: FirestoreStore) -> None:
    """Each fails by itself and with its own error, and the others are stored in their order."""
    tasks = some_tasks(40, resource_key="k")
    tasks[4] = a_task("__reserved__", resource_key="k")
    tasks[20] = a_task("large", resource_key="k", data={"text": "x" * 1_100_000})
    tasks[30] = a_task("larger", resource_key="k", data={"text": "x" * 5_000_000})
    calls = record(store, "commit")
    written = await store.create(tasks)
    assert [n for n, one in enumerate(written) if not one.applied] == [4, 20, 30]
    assert [type(written[n].error) for n in (4, 20, 30)] == [OncetaskError, PayloadTooLarge, PayloadTooLarge]
    versions = [one.version for one in written if one.version]
    assert versions == sorted(versions)
    assert len(calls) < 40


async def test_document_once_a_commit(store: FirestoreStore) -> None:
    """Firestore takes no two creations of one document together, so the second is sent after the first."""
    calls = record(store, "commit")
    tasks = some_tasks(4, resource_key="k")
    tasks[2] = replace(tasks[1], create_id="another")
    written = await store.create(tasks)
    assert [one.applied for one in written] == [True, True, False, True]
    assert [len(writes) for writes in calls] == [2, 2, 1]


@pytest.mark.parametrize("lost", [1, 2])
async def test_lost_answer(store: FirestoreStore, lost: int) -> None:
    """Tasks whose commit's answer got lost are applied, with their versions, and those behind them are sent."""
    tasks = some_tasks(900, resource_key="k")
    if lost == 2:
        await store.create(tasks[:400])
    lose_answer(store, "commit")
    written = await store.create(tasks)
    assert [one.version for one in written] == [task.version for task in await store.get([t.id for t in tasks]) if task]


async def test_lost_answer_and_somebody_elses_task(store: FirestoreStore) -> None:
    """What exists of somebody else's is refused, whatever got lost."""
    tasks = some_tasks(10, resource_key="k")
    await store.create([replace(tasks[3], create_id="another's")])
    lose_answer(store, "batch_get")
    written = await store.create(tasks)
    assert [n for n, one in enumerate(written) if one == Written()] == [3]
    assert sum(one.applied for one in written) == 9


@pytest.mark.parametrize("code", [grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE])
async def test_a_passing_failure(store: FirestoreStore, code: grpc.StatusCode) -> None:
    """A commit that failed for a passing reason is sent again."""
    fail_once(store, "commit", code)
    assert all(one.applied for one in await store.create(some_tasks(10, resource_key="k")))


async def test_one_that_is_gone_when_it_is_looked_for(store: FirestoreStore) -> None:
    """Where the task that was in the way has been deleted meanwhile, the commit is sent again."""
    fail_once(store, "commit", grpc.StatusCode.ALREADY_EXISTS)
    assert all(one.applied for one in await store.create(some_tasks(10, resource_key="k")))


@pytest.mark.parametrize("code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED])
async def test_a_refusal_that_no_task_explains(store: FirestoreStore, code: grpc.StatusCode) -> None:
    """What no task is the reason of is not tried for ever: it is raised with what the server said."""
    tried = refuse_all(store, "commit", failing("Commit", code, "the database is not what you think"))
    with pytest.raises(StoreUnavailable, match=r"creating tasks failed on .*not what you think"):
        await store.create(some_tasks(10, resource_key="k"))
    assert len(tried) == 1


async def test_receipts(make_store: MakeStore) -> None:
    """A create that failed midway tells what was settled until then, in order; nothing behind it was sent."""
    store = make_store(patience=0)
    await store.open()
    rpc = rpc_of(store)
    call, calls = rpc.commit, []

    async def fail_second(writes: Sequence[Any]) -> Any:
        calls.append(len(writes))
        if len(calls) >= 2:
            raise failing()
        return await call(writes)

    rpc.commit = fail_second  # type: ignore[method-assign]  # the server's doing
    tasks = some_tasks(1_200, resource_key="k")
    tasks[7::100] = [a_task(f"u{n}") for n in range(12)]
    tasks[450] = a_task("bad", resource_key="k", owner="\ud800")
    with pytest.raises(StoreUnavailable) as caught:
        await store.create(tasks)
    receipts = [one if isinstance(one, Written) else None for one in caught.value.receipts]
    alone = set(range(7, 1_200, 100))
    assert [n for n, one in enumerate(receipts) if one] == sorted({*range(405), *alone, 450} - {404})
    assert isinstance(not_none(receipts[450]).error, OncetaskError)
    assert calls == [400, 400]
    found = await store.get([task.id for task in tasks])
    assert [n for n, task in enumerate(found) if task] == [n for n, one in enumerate(receipts) if one and one.applied]


async def test_gone_caller(store: FirestoreStore) -> None:
    """What was not sent yet is not sent once its caller has been cancelled."""
    held = hold_back(store, "commit")
    waiting = asyncio.ensure_future(store.create(some_tasks(10, resource_key="k")))
    await held.asked()
    waiting.cancel()
    held.let_go()
    await asyncio.wait({waiting})
    assert await store.get(["t-00000"]) == [None]
