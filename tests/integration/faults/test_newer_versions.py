"""A later version of the library at work beside this one: what this one does not know it leaves as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from oncetask import (
    App,
    Client,
    Context,
    OncetaskError,
    Outcome,
    Payload,
    Recurrence,
    Task,
    TaskStatus,
    Unsupported,
    Worker,
    lifecycle,
)
from oncetask.clock import EPOCH, Now
from oncetask.enqueueing import new_task
from tests.integration.faults.newer import NUMBER, Job
from tests.integration.faults.processes import LIMIT, Programs
from tests.integration.places import FirestorePlace, Place
from tests.integration.stores import ON_FIRESTORE

_NEWER = [f"newer-{n}" for n in range(NUMBER)]


class Keyed(Payload, kind="keyed"):
    """One of a line."""

    n: int = 0

    def resource_key(self) -> str:
        """All of them share one."""
        return "key"


def _an_app() -> App:
    app = App()

    async def handle(_: Context, __: Payload) -> str:
        return "by this version"

    app.handler(Job)(handle)
    app.handler(Keyed)(handle)
    return app


def _as_stored(tasks: list[Task]) -> list[Task]:
    return [replace(task, read_at=EPOCH) for task in tasks]


async def test_two_versions_side_by_side(connected: Client, programs: Programs) -> None:
    """While a later version enqueues, a worker of this one runs its own tasks, and touches none of the others."""
    async with Worker(_an_app(), connected):
        enqueuer = await programs.start("tests.integration.faults.newer", "enqueue")
        while enqueuer.process.returncode is None:
            own = await connected.enqueue(Job())
            assert (await connected.wait(own.task_id, LIMIT)).result == "by this version"
            await asyncio.sleep(0.02)  # the other one has its turn
        assert await enqueuer.ended() == 0
        own = await connected.enqueue(Job())
        await connected.wait(own.task_id, LIMIT)
        seen = await connected.get_tasks_by_ids(_NEWER)
        assert {(task.schema, task.status, task.attempts) for task in seen} == {(2, TaskStatus.PENDING, 0)}

        newer = await programs.start("tests.integration.faults.newer", "work")
        for task_id in _NEWER:
            await connected.wait(task_id, LIMIT)
    tasks = await connected.get_tasks_by_ids(_NEWER)
    assert [(task.result, task.attempts, task.schema) for task in tasks] == [([n], 1, 2) for n in range(NUMBER)]
    assert await newer.terminated() == 0


@pytest.fixture
async def foreign(connected: Client) -> list[Task]:
    """Tasks of a later version, in every state that a verb of a client's may change; as they were read."""
    now = (await connected.store.now()).earliest
    later = now + timedelta(hours=1)
    rule = Recurrence.every(timedelta(hours=1)).to_fields()

    def task(task_id: str, payload: Payload, **fields: Any) -> Task:
        made = new_task(payload, {"task_id": task_id}, Now(now, now))
        return made.evolve(schema=2, **fields)

    made = [
        task("waiting", Job()),
        task("keyed", Keyed()),
        task("leased", Job(), lease_owner="newer", leased_until=later, due_at=later, attempts=1),
        task("crashed", Job(), lease_owner="newer", leased_until=now, due_at=now, attempts=1),
        task("done", Job(), outcome=Outcome.COMPLETED, done_at=now, due_at=None),
        task("generator", Job(), recurrence=rule, wait_until=later, due_at=later),
    ]
    await connected.store.create(made)
    return _as_stored(await connected.get_tasks_by_ids(one.id for one in made))


async def test_they_can_be_read(connected: Client, foreign: list[Task]) -> None:
    """Tasks of a later version are listed, counted and followed as far as this version knows their fields."""
    assert _as_stored([task async for task in connected.iter_tasks()]) == sorted(foreign, key=lambda task: task.id)
    assert (await connected.get_task("done")).status is TaskStatus.DONE_COMPLETED
    assert (await connected.wait("done", LIMIT)).id == "done"
    assert sum(sum(counts.values()) for counts in (await connected.stats()).counts.values()) == len(foreign)


_VERBS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "cancel_task": lambda client: client.cancel_task("waiting"),
    "cancel a leased one": lambda client: client.cancel_task("leased"),
    "cancel_tasks_by_ids": lambda client: client.cancel_tasks_by_ids(["waiting", "crashed"]),
    "cancel_tasks_by_kind": lambda client: client.cancel_tasks_by_kind(Job),
    "cancel_tasks_by_resource_key": lambda client: client.cancel_tasks_by_resource_key(None, "key"),
    "reset_task": lambda client: client.reset_task("done"),
    "reset_tasks_by_ids": lambda client: client.reset_tasks_by_ids(["done"]),
    "delete_task": lambda client: client.delete_task("waiting"),
    "delete_tasks_by_ids": lambda client: client.delete_tasks_by_ids(["done", "crashed"]),
    "pause_schedule": lambda client: client.pause_schedule("generator"),
}


@pytest.mark.parametrize("verb", _VERBS)
async def test_they_are_not_changed(connected: Client, foreign: list[Task], verb: str) -> None:
    """A verb that would write what it does not understand raises, names the task and what would help, and does not."""
    with pytest.raises(Unsupported, match=r"task '\w+' is of schema 2, .* knows 1: use a newer oncetask"):
        await _VERBS[verb](connected)
    assert _as_stored(await connected.get_tasks_by_ids(task.id for task in foreign)) == foreign


async def test_the_others_are_changed(connected: Client, foreign: list[Task]) -> None:
    """A bulk verb does what it was asked for with all tasks of this version, and then raises for the others."""
    own = await connected.enqueue(Job())
    with pytest.raises(OncetaskError, match="schema 2"):
        await connected.cancel_tasks_by_kind(Job)
    assert (await connected.get_task(own.task_id)).is_cancelled


async def test_they_silence_nobody(connected: Client, place: Place) -> None:
    """An idle worker to which tasks of a later version come hears of its own that come behind these."""
    other = place.connect()
    async with Worker(_an_app(), connected, poll=3600):
        for number in range(2):
            first = await other.enqueue(Job())
            await other.wait(first.task_id, LIMIT)
            now = await other.store.now()
            made = [new_task(Job(), {"task_id": f"newer-{number}-{n}"}, now).evolve(schema=2) for n in range(3)]
            await other.store.create(made)
            own = await other.enqueue(Job())
            await other.wait(own.task_id, 5)


async def test_a_key_that_a_later_version_holds(connected: Client) -> None:
    """A key whose former holder is a later version with a task of its own kind is not taken over."""
    await connected.enqueue(Keyed(), task_id="own")
    now = await connected.store.now()
    (task,) = [new_task(Keyed(), {"task_id": "newer"}, now)]
    held = task.evolve(schema=2, attempts=1, lease_owner="newer", leased_until=now.earliest, due_at=now.earliest)
    lock = lifecycle.lock("key", None, owner="newer", until=now.earliest - timedelta(seconds=1))
    await connected.store.commit([], [held], None, [lock])
    before = _as_stored(await connected.get_tasks_by_ids(["newer", "own"]))
    async with Worker(_an_app(), connected):
        other = await connected.enqueue(Job())
        await connected.wait(other.task_id, LIMIT)
    assert _as_stored(await connected.get_tasks_by_ids(["newer", "own"])) == before


async def test_the_line_of_a_key_stands_still(connected: Client, foreign: list[Task]) -> None:
    """Behind a later version's task this one starts none of the same key: it does not know what the other may do."""
    behind = await connected.enqueue(Keyed(n=1))
    async with Worker(_an_app(), connected):
        other = await connected.enqueue(Job())
        await connected.wait(other.task_id, LIMIT)
        assert (await connected.get_task(behind.task_id)).attempts == 0
        assert await connected.store.locks(["key"]) == [None]
    assert _as_stored(await connected.get_tasks_by_ids(task.id for task in foreign)) == foreign


@ON_FIRESTORE
async def test_a_lock_of_a_later_version_is_left_alone(connected: Client, place: FirestorePlace) -> None:
    """A key whose lock is of a later schema counts as taken, for as long as the lock is there."""
    receipt = await connected.enqueue(Keyed())
    (name,) = [connected.store._session.names.lock("key")]  # type: ignore[attr-defined]  # Firestore's
    path = name.partition("/documents/")[2]
    now = (await connected.store.now()).earliest
    await place.native.document(path).set({"schema": 2, "leaseOwner": "newer", "leasedUntil": now - timedelta(hours=1)})
    async with Worker(_an_app(), connected):
        other = await connected.enqueue(Job())
        await connected.wait(other.task_id, LIMIT)
        before = (await place.native.document(path).get()).to_dict()
        assert (await connected.get_task(receipt.task_id)).attempts == 0
        assert before is not None
        assert before["leaseOwner"] == "newer"
        await place.native.document(path).delete()
        assert (await connected.wait(receipt.task_id, LIMIT)).result == "by this version"
