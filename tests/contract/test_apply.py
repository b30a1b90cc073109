"""Changes: each by itself, and only where the record is still the one that was decided on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from oncetask import lifecycle
from oncetask.errors import OncetaskError
from oncetask.store import TaskStore
from oncetask.task import Outcome, Progress, TaskError, TaskStatus
from tests.contract.backends import Backend
from tests.support import T0, a_task, at, exactly, fetch, follow, stored

NOW = exactly(T0)


async def test_a_change_is_stored(store: TaskStore) -> None:
    """What a transition says holds afterwards, under the version that was given."""
    (task,) = await stored(store, a_task())
    transition = lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW)

    (written,) = await store.apply([transition])
    found = await fetch(store, task.id)

    assert written.version is not None
    assert found == replace(transition.after, version=written.version, read_at=found.read_at)


async def test_a_whole_life_is_stored(store: TaskStore) -> None:
    """Claimed, failed, claimed again, completed and reset: each record is the one that was decided."""
    (task,) = await stored(store, a_task(timeout=5.0, resource_key="r"))
    task = await follow(store, lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW))
    task = await follow(store, lifecycle.renew(task, until=at(120)))
    task = await follow(store, lifecycle.fail(task, ValueError("no"), delay=5, now=exactly(at(70))))
    assert task.errors == (TaskError(at(70), 1, "ValueError", "no"),)
    task = await follow(store, lifecycle.claim(task, lease_id="l2", until=at(140), now=exactly(at(80))))
    task = await follow(store, lifecycle.complete(task, result=[[1]], now=exactly(at(90))))

    done = await fetch(store, task.id)
    assert replace(done, read_at=task.read_at) == task
    assert (done.status, done.result, done.attempts) == (TaskStatus.DONE_COMPLETED, [[1]], 2)

    transition = lifecycle.reset(done, now=exactly(at(100)))
    assert transition is not None
    fresh = await follow(store, transition)
    assert replace(await fetch(store, task.id), read_at=fresh.read_at) == fresh
    assert [found.id for found in await store.due(["greet"], now=at(100), limit=5)] == [task.id]


async def test_a_done_task_has_no_due_at(backend: Backend, store: TaskStore) -> None:
    """`dueAt` and the lease are gone from the document once the task is done, not merely empty."""
    (task,) = await stored(store, a_task())
    task = await follow(store, lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW))

    await follow(store, lifecycle.complete(task, result=None, now=NOW))

    fields = await backend.raw_get(task.id)
    assert fields["outcome"] == "completed"
    assert not {"dueAt", "leasedUntil", "result", "resultJson", "progress"} & set(fields)


async def test_a_change_of_an_older_record_is_refused(store: TaskStore) -> None:
    """Whoever decided on a record that is not the newest any more is refused, and changes nothing."""
    (old,) = await stored(store, a_task())
    new = await follow(store, lifecycle.claim(old, lease_id="l1", until=at(60), now=NOW))

    (refused,) = await store.apply([lifecycle.claim(old, lease_id="l2", until=at(99), now=NOW)])

    assert (refused.applied, refused.error) == (False, None)
    assert replace(await fetch(store, old.id), read_at=new.read_at) == new


async def test_a_change_of_a_deleted_task_is_refused(store: TaskStore) -> None:
    """A task that is gone stays gone."""
    (task,) = await stored(store, a_task())
    await store.delete([task])

    (refused,) = await store.apply([lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW)])

    assert (refused.applied, refused.error) == (False, None)
    assert await store.get([task.id]) == [None]


async def test_a_change_of_an_earlier_life_is_refused(store: TaskStore) -> None:
    """A task that was deleted and created again is another one, though nothing else about it differs."""
    (old,) = await stored(store, a_task())
    await store.delete([old])
    (new,) = await stored(store, a_task())

    (refused,) = await store.apply([lifecycle.claim(old, lease_id="l1", until=at(60), now=NOW)])

    assert not refused.applied
    assert new.version > old.version


async def test_a_change_of_what_never_existed_is_refused(store: TaskStore) -> None:
    """A transition makes no task."""
    (refused,) = await store.apply([lifecycle.claim(a_task(version=5), lease_id="l1", until=at(60), now=NOW)])

    assert (refused.applied, refused.error) == (False, None)
    assert await store.get(["greet:1"]) == [None]


async def test_versions_rise(store: TaskStore) -> None:
    """Each write gives a version greater than all before it, one right after the other."""
    (task,) = await stored(store, a_task())
    versions = [task.version]
    for n in range(20):
        task = await follow(store, lifecycle.renew(task, until=at(n)))
        versions.append(task.version)

    assert versions == sorted(set(versions))
    assert (await fetch(store, task.id)).version == versions[-1]


async def test_a_change_that_changes_nothing(store: TaskStore) -> None:
    """Writing what is there already is applied, and the task can be written to with the version that it gives."""
    (task,) = await stored(store, a_task(lease_owner="l1", leased_until=at(60)))
    same = await follow(store, lifecycle.renew(task, until=at(60)))

    done = await follow(store, lifecycle.complete(same, result=1, now=NOW))

    assert (await fetch(store, task.id)).outcome == done.outcome == Outcome.COMPLETED


async def test_each_is_answered_by_itself_and_in_order(store: TaskStore) -> None:
    """Applied and refused ones stand in the places of their transitions."""
    tasks = await stored(store, *(a_task(f"t{n}") for n in range(6)))
    for task in tasks[::2]:
        await follow(store, lifecycle.renew(task, until=at(1)))

    written = await store.apply([lifecycle.claim(t, lease_id="l1", until=at(60), now=NOW) for t in tasks])

    assert [one.applied for one in written] == [False, True] * 3


async def test_two_changes_of_one_record_in_one_call(store: TaskStore) -> None:
    """Of two transitions of the same record the first is applied, the second refused."""
    (task,) = await stored(store, a_task())

    written = await store.apply([lifecycle.claim(task, lease_id=f"l{n}", until=at(60), now=NOW) for n in range(2)])

    assert [one.applied for one in written] == [True, False]
    assert (await fetch(store, task.id)).lease_owner == "l0"


async def test_nothing_to_apply(store: TaskStore) -> None:
    """No transitions are no problem."""
    assert await store.apply([]) == []


async def test_of_two_racing_workers_one_wins_each_task(store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
    """Two stores that claim the same two hundred tasks at once share them: each is claimed exactly once."""
    tasks = await stored(store, *(a_task(f"t{n:03}") for n in range(200)))
    stores = {"one": store, "two": open_store()}

    async def claim(worker: str, start: int) -> list[bool]:
        claims = [lifecycle.claim(t, lease_id=worker, until=at(60), now=NOW) for t in tasks[start : start + 10]]
        return [one.applied for one in await stores[worker].apply(claims)]

    async def claim_all(worker: str) -> list[bool]:
        parts = await asyncio.gather(*(claim(worker, start) for start in range(0, 200, 10)))
        return [won for part in parts for won in part]

    one, two = await asyncio.gather(claim_all("one"), claim_all("two"))

    assert [a + b for a, b in zip(one, two, strict=True)] == [1] * 200
    owners = [task and task.lease_owner for task in await store.get([task.id for task in tasks])]
    assert owners == ["one" if won else "two" for won in one]
    attempts = [task and task.attempts for task in await store.get([task.id for task in tasks])]
    assert attempts == [1] * 200


async def test_a_crowd_wins_one_task_once(store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
    """Of fifty that want one task at the same time, one gets it."""
    (task,) = await stored(store, a_task())
    stores = [store, open_store()]

    written = await asyncio.gather(
        *(stores[n % 2].apply([lifecycle.claim(task, lease_id=f"l{n}", until=at(60), now=NOW)]) for n in range(50))
    )

    assert sum(one.applied for (one,) in written) == 1


async def test_unknown_fields_survive(backend: Backend, store: TaskStore) -> None:
    """What a newer version or somebody else added to a document is still there after a change."""
    await stored(store, a_task())
    await backend.raw_set("greet:1", "newer", "kept")
    task = await fetch(store, "greet:1")

    await follow(store, lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW))

    fields = await backend.raw_get("greet:1")
    assert (fields["newer"], fields["leaseOwner"]) == ("kept", "l1")


async def test_unnamed_fields_stay(store: TaskStore) -> None:
    """A change writes what it names and nothing else, though its record says otherwise."""
    (task,) = await stored(store, a_task(owner="ada", progress=Progress(0.5)))
    transition = lifecycle.claim(replace(task, owner="bob", progress=None), lease_id="l1", until=at(60), now=NOW)

    await follow(store, transition)

    found = await fetch(store, task.id)
    assert (found.owner, found.progress) == ("ada", Progress(0.5))


async def test_one_that_is_too_large_fails_by_itself(backend: Backend, store: TaskStore) -> None:
    """A change that the store cannot take is answered with an error, the others are applied, the task stays."""
    tasks = await stored(store, *(a_task(f"t{n}", lease_owner="l", leased_until=at(9)) for n in range(5)))
    results = ["small", "small", "x" * 1_200_000, "small", "small"]

    written = await store.apply(
        [lifecycle.complete(task, result=result, now=NOW) for task, result in zip(tasks, results, strict=True)]
    )

    taken = backend.largest_document is None
    assert [one.applied for one in written] == [True, True, taken, True, True]
    assert (await fetch(store, "t2")).outcome == (Outcome.COMPLETED if taken else None)
    if not taken:
        assert isinstance(written[2].error, OncetaskError)
        failed = await follow(store, lifecycle.fail(tasks[2], written[2].error, delay=None, now=NOW))
        assert failed.outcome is Outcome.FAILED


async def test_one_that_is_no_document_fails_by_itself(store: TaskStore) -> None:
    """A change to what no store can hold is answered with an error, and the others are applied."""
    tasks = await stored(store, *(a_task(f"t{n}", lease_owner="l", leased_until=at(9)) for n in range(3)))
    results = [1, object(), 3]

    written = await store.apply(
        [lifecycle.complete(task, result=result, now=NOW) for task, result in zip(tasks, results, strict=True)]
    )

    assert [one.applied for one in written] == [True, False, True]
    assert isinstance(written[1].error, OncetaskError)
    assert (await fetch(store, "t1")).outcome is None


async def test_many_large_ones_together(store: TaskStore) -> None:
    """Changes that together are larger than one request takes are all applied."""
    tasks = await stored(store, *(a_task(f"t{n}", lease_owner="l", leased_until=at(9)) for n in range(20)))

    written = await store.apply([lifecycle.complete(task, result="x" * 600_000, now=NOW) for task in tasks])

    assert all(one.applied for one in written)
    assert [len(task.result) for task in await store.get([t.id for t in tasks]) if task] == [600_000] * 20
