"""Locks of resource keys: read by key, and written only together with what they are taken for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from oncetask import lifecycle
from oncetask.clock import EPOCH
from oncetask.errors import OncetaskError
from oncetask.lock import Lock, LockChange
from oncetask.store import TaskFilter, TaskStore, Written
from oncetask.task import Outcome, Task
from tests.contract.backends import Backend, FirestoreBackend
from tests.contract.places import FIRESTORE, SQLITE_FILE, only
from tests.integration.firestore.support import fail_once, firestore, lose_answer
from tests.support import MICROSECOND, T0, a_task, at, exactly, fetch, follow, not_none, stored

NOW = exactly(T0)


def a_lock(key: str = "user:1", *, owner: str = "l1", seconds: float = 60) -> Lock:
    """Give a lock that is not stored yet."""
    return Lock(resource_key=key, owner=owner, leased_until=at(seconds))


def take(lock: Lock) -> LockChange:
    """Lock a key that nobody holds."""
    return LockChange(lock.resource_key, None, lock)


def renew(lock: Lock, *, owner: str | None = None, seconds: float = 120) -> LockChange:
    """Give a stored lock another end, or another owner."""
    after = replace(lock, owner=owner or lock.owner, leased_until=at(seconds))
    return LockChange(lock.resource_key, lock, after)


def release(lock: Lock) -> LockChange:
    """Remove a stored lock."""
    return LockChange(lock.resource_key, lock, None)


async def taken(store: TaskStore, lock: Lock) -> Lock:
    """Lock a key that nobody holds, and give the lock with its version."""
    (written,) = await store.commit([], [], None, [take(lock)])
    return replace(lock, version=not_none(written.version))


async def lock_of(store: TaskStore, key: str = "user:1") -> Lock | None:
    """Read the lock of a key."""
    (lock,) = await store.locks([key])
    return lock


def claimed(task: Task, lease_id: str = "l1") -> lifecycle.Transition:
    """Claim a task for a minute."""
    return lifecycle.claim(task, lease_id=lease_id, until=at(60), now=NOW)


def completed(task: Task) -> lifecycle.Transition:
    """Complete a task."""
    return lifecycle.complete(task, result=1, now=NOW)


async def running(store: TaskStore, task_id: str) -> Task:
    """Give a stored task that a worker holds."""
    (task,) = await stored(store, a_task(task_id, resource_key="user:1"))
    return await follow(store, claimed(task))


class TestReading:
    """What is told of the locks that there are."""

    async def test_a_key_that_nobody_holds_has_none(self, store: TaskStore) -> None:
        """There is no lock before somebody makes one; no keys have no locks."""
        assert await store.locks(["user:1", "user:2"]) == [None, None]
        assert await store.locks([]) == []

    async def test_a_lock_is_read_as_it_was_given(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """Owner and end come back to the microsecond, with the version that the commit gave, in every store."""
        lock = Lock(resource_key="user:1", owner="é😀", leased_until=T0 + MICROSECOND)

        (written,) = await store.commit([], [], None, [take(lock)])

        assert await open_store().locks(["user:1"]) == [replace(lock, version=not_none(written.version))]

    async def test_they_come_in_the_order_of_the_keys(self, store: TaskStore) -> None:
        """Each key has its place in the answer, twice where it is named twice."""
        b, a = [await taken(store, a_lock(key)) for key in "ba"]

        assert await store.locks(["b", "none", "a", "b"]) == [b, None, a, b]

    async def test_hundreds_at_once(self, store: TaskStore) -> None:
        """More keys than one request takes are answered like few."""
        keys = [f"user:{n}" for n in range(700)]
        written = await store.commit([], [], None, [take(a_lock(key)) for key in keys[::3]])

        found = await store.locks(keys)

        assert [lock.resource_key for lock in found if lock] == keys[::3]
        assert [lock.version for lock in found if lock] == [one.version for one in written]

    @pytest.mark.parametrize("key", ["é/ü", "..", "__x__", "x" * 1_000, "😀", "'", " "], ids=lambda key: key[:5])
    async def test_any_key_will_do(self, store: TaskStore, key: str) -> None:
        """A key may hold any character, at any length that is allowed."""
        lock = await taken(store, a_lock(key))

        assert await store.locks([key, key[:-1] or "-"]) == [lock, None]

    @pytest.mark.parametrize(
        ("owner", "leased_until"),
        [(b"l1", T0), ("l1", "tomorrow"), ("l1", b"1970"), ([], {})],
        ids=["bytes", "text for an end", "bytes for an end", "both"],
    )
    async def test_one_that_cannot_be_read_is_nobodys(
        self, backend: Backend, store: TaskStore, owner: Any, leased_until: Any
    ) -> None:
        """Rubbish that somebody else wrote counts as a lock that ended long ago, and can be taken over or removed."""
        await store.open()
        for key in ("user:1", "user:2"):
            await backend.raw_put_lock(key, owner=owner, leased_until=leased_until)

        first, second = [not_none(lock) for lock in await store.locks(["user:1", "user:2"])]

        assert (first.owner, first.leased_until) == ("", EPOCH)
        written = await store.commit([], [], None, [renew(first, owner="l2"), release(second)])
        assert all(one.applied for one in written)
        assert await store.locks(["user:1", "user:2"]) == [
            Lock(resource_key="user:1", owner="l2", leased_until=at(120), version=not_none(written[0].version)),
            None,
        ]

    @only(FIRESTORE)
    @pytest.mark.parametrize(
        "fields",
        [{}, {"leaseOwner": "l1"}, {"leasedUntil": T0}, {"leaseOwner": None, "leasedUntil": T0}],
        ids=["empty", "no end", "no owner", "null"],
    )
    async def test_one_without_its_fields_is_nobodys(
        self, backend: Backend, store: TaskStore, fields: dict[str, Any]
    ) -> None:
        """A document that lacks owner or end is a lock at its version, and nobody's."""
        assert isinstance(backend, FirestoreBackend)
        await backend.lock_document("user:1").set(fields)

        found = not_none(await lock_of(store))

        assert (found.owner, found.leased_until) == ("", EPOCH)
        assert [one.applied for one in await store.commit([], [], None, [renew(found)])] == [True]

    @only(FIRESTORE)
    async def test_the_document(self, backend: Backend, store: TaskStore) -> None:
        """A lock's document says which key it is of, and when Firestore may delete it; taking it over rewrites it."""
        assert isinstance(backend, FirestoreBackend)
        document = backend.lock_document("user:1")
        await document.set({"theirs": 1})

        await store.commit([], [], None, [renew(not_none(await lock_of(store)), owner="l2", seconds=60)])

        assert (await document.get()).to_dict() == {
            "resourceKey": "user:1",
            "leaseOwner": "l2",
            "leasedUntil": at(60),
            "schema": 1,
            "expireAt": at(60) + timedelta(days=1),
        }

    async def test_locks_are_no_tasks(self, store: TaskStore) -> None:
        """No list, count or line shows a lock."""
        await taken(store, a_lock())

        assert await store.find(TaskFilter(), limit=5) == []
        assert await store.count(TaskFilter()) == 0
        assert await store.stats() == {}
        assert await store.line(["user:1"], now=at(10**6), limit=5) == []

    @only(SQLITE_FILE, FIRESTORE)
    async def test_environments_have_locks_of_their_own(self, backend: Backend, store: TaskStore) -> None:
        """The same key in another environment is another lock."""
        ours = await taken(store, a_lock())
        other = backend.open_store("staging")

        assert await other.locks(["user:1"]) == [None]
        theirs = await taken(other, a_lock(owner="theirs"))
        assert await other.commit([], [], None, [release(ours)]) == [Written()]
        assert (await lock_of(store), await lock_of(other)) == (ours, theirs)


class TestLocksByThemselves:
    """A commit of nothing but locks."""

    async def test_taken_renewed_taken_over_and_released(self, store: TaskStore) -> None:
        """Each change builds on the version that the one before gave, and each version is greater."""
        lock = await taken(store, a_lock())
        for change in (renew(lock), renew(lock, owner="l2", seconds=180)):
            assert change.after is not None
            (written,) = await store.commit([], [], None, [replace(change, before=lock)])
            newer = replace(change.after, version=not_none(written.version))
            assert newer.version > lock.version
            assert await lock_of(store) == newer
            lock = newer

        (written,) = await store.commit([], [], None, [release(lock)])

        assert written.applied
        assert await lock_of(store) is None

    async def test_a_key_that_is_locked_is_not_locked_again(self, store: TaskStore) -> None:
        """Whoever believes that there is no lock is refused, and the lock stays."""
        lock = await taken(store, a_lock())

        assert await store.commit([], [], None, [take(a_lock(owner="l2"))]) == [Written()]
        assert await lock_of(store) == lock

    @pytest.mark.parametrize("late", [renew, release])
    async def test_who_knows_an_older_lock_is_refused(
        self, store: TaskStore, late: Callable[[Lock], LockChange]
    ) -> None:
        """Neither a renewal nor a release is applied where the lock was written since."""
        old = await taken(store, a_lock())
        await store.commit([], [], None, [renew(old, owner="l2")])
        new = await lock_of(store)

        assert await store.commit([], [], None, [late(old)]) == [Written()]
        assert await lock_of(store) == new

    @pytest.mark.parametrize("late", [renew, release])
    async def test_who_knows_a_lock_that_is_gone_is_refused(
        self, store: TaskStore, late: Callable[[Lock], LockChange]
    ) -> None:
        """The same holds where the lock was removed, and where the very same one was made anew."""
        old = await taken(store, a_lock())
        await store.commit([], [], None, [release(old)])

        assert await store.commit([], [], None, [late(old)]) == [Written()]
        assert await lock_of(store) is None

        again = await taken(store, a_lock())
        assert await store.commit([], [], None, [late(old)]) == [Written()]
        assert await lock_of(store) == again

    async def test_several_together(self, store: TaskStore) -> None:
        """One is taken, one renewed, one released, in one commit; the answers stand in the order of the changes."""
        a, b = [await taken(store, a_lock(key)) for key in "ab"]

        written = await store.commit([], [], None, [release(a), take(a_lock("c")), renew(b)])

        assert all(one.applied for one in written)
        found = await store.locks("abc")
        assert [lock and lock.version for lock in found] == [None, written[2].version, written[1].version]

    @pytest.mark.parametrize("place_in_list", [0, 1, 2])
    async def test_where_one_is_refused_none_is_applied(self, store: TaskStore, place_in_list: int) -> None:
        """A lock of somebody else's stops all of it, wherever it stands."""
        a, b, c = [await taken(store, a_lock(key)) for key in "abc"]
        changes = [renew(a), release(b), renew(c)]
        changes.insert(place_in_list, take(a_lock("d", owner="l2")))
        d = await taken(store, a_lock("d"))

        assert await store.commit([], [], None, changes) == [Written()] * 4
        assert await store.locks("abcd") == [a, b, c, d]

    async def test_of_many_who_race_for_a_key_one_gets_it(
        self, store: TaskStore, open_store: Callable[[], TaskStore]
    ) -> None:
        """Whether the key is free or its lock has ended, one of many takes it, and the others are refused."""
        stores = [store, open_store()]
        before = None
        for turn in range(2):
            locks = [a_lock(owner=f"l{turn}-{n}") for n in range(10)]

            written = await asyncio.gather(
                *(stores[n % 2].commit([], [], None, [LockChange("user:1", before, locks[n])]) for n in range(10))
            )

            (winner,) = [n for n, (one,) in enumerate(written) if one.applied]
            before = not_none(await lock_of(store))
            assert before.owner == locks[winner].owner
            assert {one.error for (one,) in written} == {None}


class TestLocksWithTasks:
    """A lock shares the fate of what it is taken for."""

    async def test_a_key_is_taken_with_the_claims_of_its_tasks(self, store: TaskStore) -> None:
        """Claims, lock and new tasks are stored together; the answers are the tasks' versions, then the lock's."""
        tasks = await stored(store, a_task("a"), a_task("b"))

        written = await store.commit([claimed(task) for task in tasks], [a_task("c")], None, [take(a_lock())])

        found = await store.get("abc")
        assert [task.lease_owner for task in found if task] == ["l1", "l1", None]
        assert [one.version for one in written] == [
            *(task.version for task in found[:2] if task),
            not_none(await lock_of(store)).version,
        ]

    async def test_a_key_is_released_with_the_completion(self, store: TaskStore) -> None:
        """The task is done and the lock gone in the same moment, and the next one can take the key."""
        task = await running(store, "a")
        lock = await taken(store, a_lock())

        written = await store.commit([completed(task)], [a_task("b")], None, [release(lock)])

        assert len(written) == 2
        assert all(one.applied for one in written)
        assert (await fetch(store, "a")).outcome is Outcome.COMPLETED
        assert await lock_of(store) is None
        assert (await taken(store, a_lock(owner="l2"))).version

    async def test_the_next_writes_build_on_the_answers(self, store: TaskStore) -> None:
        """The versions that a commit gives are those on which task and lock can be written again."""
        (task,) = await stored(store, a_task("a"))
        claim, lock = claimed(task), a_lock()
        one, other = await store.commit([claim], [], None, [take(lock)])
        task, lock = replace(claim.after, version=one.version or 0), replace(lock, version=other.version or 0)

        renewal = lifecycle.renew(task, until=at(120))
        one, other = await store.commit([renewal], [], None, [renew(lock)])
        task, lock = (
            replace(renewal.after, version=one.version or 0),
            replace(lock, leased_until=at(120), version=other.version or 0),
        )

        assert await lock_of(store) == lock
        assert all(one.applied for one in await store.commit([completed(task)], [], None, [release(lock)]))

    async def test_a_refused_lock_stops_all_of_it(self, store: TaskStore) -> None:
        """Where somebody else holds the key, nothing is claimed and nothing created."""
        (task,) = await stored(store, a_task("a"))
        lock = await taken(store, a_lock(owner="another"))

        assert await store.commit([claimed(task)], [a_task("b")], None, [take(a_lock())]) == [Written()] * 2
        assert (await fetch(store, "a")).version == task.version
        assert await store.get(["b"]) == [None]
        assert await lock_of(store) == lock

    async def test_a_refused_task_leaves_the_locks_as_they_are(self, store: TaskStore) -> None:
        """Where a task was written since, no lock is made, changed or removed."""
        task = await running(store, "a")
        await follow(store, lifecycle.renew(task, until=at(99)))
        b, c = [await taken(store, a_lock(key)) for key in "bc"]

        written = await store.commit([completed(task)], [], None, [take(a_lock("a")), renew(b), release(c)])

        assert written == [Written()] * 4
        assert await store.locks("abc") == [None, b, c]

    async def test_a_refused_lock_among_new_tasks_that_exist(self, store: TaskStore) -> None:
        """A refused lock is refused, whether or not the new tasks exist."""
        (task, _) = await stored(store, a_task("a"), a_task("b", owner="first"))
        await taken(store, a_lock(owner="another"))

        written = await store.commit([claimed(task)], [a_task("b"), a_task("c")], None, [take(a_lock())])

        assert written == [Written()] * 2
        assert await store.get(["c"]) == [None]

    @pytest.mark.parametrize("with_task", [True, False])
    async def test_new_tasks_that_exist_are_left_out(self, store: TaskStore, *, with_task: bool) -> None:
        """What exists already stays as it is; lock, change and the other new tasks are stored."""
        task, _ = await stored(store, a_task("a"), a_task("b", owner="first"))
        transitions = [claimed(task)] if with_task else []

        written = await store.commit(transitions, [a_task("b"), a_task("c")], None, [take(a_lock())])

        assert [one.applied for one in written] == [True] * (len(transitions) + 1)
        assert ((await fetch(store, "b")).owner, (await fetch(store, "c")).id) == ("first", "c")
        assert await lock_of(store) is not None

    async def test_an_impossible_new_task_is_everybodys_error(self, store: TaskStore) -> None:
        """Where a new task is what no store can hold, nothing is stored, and each answer says why."""
        task = await running(store, "a")
        lock = await taken(store, a_lock())

        written = await store.commit([completed(task)], [a_task("b", owner="\ud800")], None, [release(lock)])

        assert [type(one.error) for one in written] == [OncetaskError] * 2
        assert await lock_of(store) == lock
        assert (await fetch(store, "a")).outcome is None

    async def test_an_impossible_lock_is_everybodys_error(self, store: TaskStore) -> None:
        """Where a lock is what no store can hold, nothing is stored, and each answer says why."""
        (task,) = await stored(store, a_task("a"))

        written = await store.commit([claimed(task)], [a_task("b")], None, [take(a_lock(owner="\ud800"))])

        assert [type(one.error) for one in written] == [OncetaskError] * 2
        assert (await fetch(store, "a")).version == task.version
        assert await store.get(["b"]) == [None]
        assert await lock_of(store) is None

    async def test_of_workers_that_race_with_tasks_one_starts(
        self, store: TaskStore, open_store: Callable[[], TaskStore]
    ) -> None:
        """Of many workers that each claim another task of a free key, one does, and its lease is on the lock."""
        tasks = await stored(store, *(a_task(f"t{n}", resource_key="user:1") for n in range(8)))
        stores = [store, open_store()]

        written = await asyncio.gather(
            *(
                stores[n % 2].commit([claimed(task, f"l{n}")], [], None, [take(a_lock(owner=f"l{n}"))])
                for n, task in enumerate(tasks)
            )
        )

        assert all(len({one.applied for one in answers}) == 1 for answers in written)
        (winner,) = [n for n, answers in enumerate(written) if answers[0].applied]
        assert not_none(await lock_of(store)).owner == f"l{winner}"
        owners = [task.lease_owner for task in await store.get([task.id for task in tasks]) if task]
        assert owners == [f"l{n}" if n == winner else None for n in range(8)]


@only(FIRESTORE)
class TestAnswersThatAreLost:
    """What is told of a commit that may have been applied."""

    async def test_it_is_told_as_applied(self, store: TaskStore) -> None:
        """Claim and lock were stored once, and the answers are their versions."""
        (task,) = await stored(store, a_task("a"))
        lose_answer(firestore(store), "commit")

        written = await store.commit([claimed(task)], [a_task("b")], None, [take(a_lock())])

        versions = (await fetch(store, "a")).version, not_none(await lock_of(store)).version
        assert tuple(one.version for one in written) == versions
        assert (await fetch(store, "b")).id == "b"

    async def test_a_completion_with_its_release(self, store: TaskStore) -> None:
        """The task tells that the lock was released by this very commit, even where the key is another's by now."""
        task = await running(store, "a")
        lock = await taken(store, a_lock())

        async def take_next() -> None:
            await taken(store, a_lock(owner="l2"))

        lose_answer(firestore(store), "commit", then=take_next)
        written = await store.commit([completed(task)], [], None, [release(lock)])

        assert all(one.applied for one in written)
        assert not_none(await lock_of(store)).owner == "l2"
        assert await store.commit([], [], None, [release(replace(lock, version=written[1].version or 0))]) == [
            Written()
        ]

    @pytest.mark.parametrize("what", ["take", "renew", "release", "all"])
    async def test_locks_tell_by_themselves(self, store: TaskStore, what: str) -> None:
        """A commit without tasks is told as applied by the locks that it left, or by the one that is gone."""
        a, b = [await taken(store, a_lock(key)) for key in "ab"]
        changes = {"take": [take(a_lock("c"))], "renew": [renew(a)], "release": [release(b)]}
        changes["all"] = [change for some in changes.values() for change in some]
        lose_answer(firestore(store), "commit")

        written = await store.commit([], [], None, changes[what])

        assert all(one.applied for one in written)
        left = [lock for lock in await store.locks([change.resource_key for change in changes[what]]) if lock]
        assert [lock.version for lock in left] == [one.version for one in written][: len(left)]

    async def test_the_lock_tells_where_the_task_was_written_since(self, store: TaskStore) -> None:
        """The commit is told as applied; on the version of the task nothing can be written."""
        task = await running(store, "a")
        lock = await taken(store, a_lock())
        renewal = lifecycle.renew(task, until=at(120))

        async def go_on() -> None:
            await follow(store, lifecycle.fail(await fetch(store, "a"), ValueError("no"), delay=5, now=NOW))

        lose_answer(firestore(store), "commit", then=go_on)
        one, other = await store.commit([renewal], [], None, [renew(lock)])

        assert other.version == not_none(await lock_of(store)).version
        assert one.applied
        (late,) = await store.apply([completed(replace(renewal.after, version=one.version or 0))])
        assert late == Written()

    @pytest.mark.parametrize("how", ["renewed", "released", "taken over"])
    async def test_it_was_not_applied_and_the_lock_is_anothers(self, store: TaskStore, how: str) -> None:
        """Where the call never reached the server and the lock was written meanwhile, all of it is refused."""
        task = await running(store, "a")
        lock = await taken(store, a_lock())

        async def interfere() -> None:
            changes = {"renewed": renew(lock), "released": release(lock), "taken over": renew(lock, owner="l2")}
            await store.commit([], [], None, [changes[how]])

        fail_once(store, "commit", grpc.StatusCode.UNAVAILABLE, then=interfere)

        assert await store.commit([completed(task)], [a_task("b")], None, [release(lock)]) == [Written()] * 2
        assert (await fetch(store, "a")).version == task.version
        assert await store.get(["b"]) == [None]

    async def test_a_lock_that_is_gone_does_not_speak_for_tasks_of_others(
        self, store: TaskStore, open_store: Callable[[], TaskStore]
    ) -> None:
        """Where the task was taken over and its lock released by somebody else, the commit is refused."""
        somebody = open_store()
        task = await running(store, "a")
        lock = await taken(store, a_lock())

        async def take_over() -> None:
            again = await follow(somebody, claimed(task, "l2"))
            (written,) = await somebody.commit([], [], None, [renew(lock, owner="l2")])
            other = replace(lock, owner="l2", leased_until=at(120), version=written.version or 0)
            await somebody.commit([lifecycle.renew(again, until=at(99))], [], None, [release(other)])

        fail_once(store, "commit", grpc.StatusCode.UNAVAILABLE, then=take_over)

        assert await store.commit([completed(task)], [], None, [release(lock)]) == [Written()] * 2
        assert (await fetch(store, "a")).outcome is None

    async def test_a_lock_that_is_as_it_was_says_that_nothing_was_applied(
        self, store: TaskStore, open_store: Callable[[], TaskStore]
    ) -> None:
        """Of two locks, the one that has not changed tells that the other was released by somebody else."""
        somebody = open_store()
        a, b = [await taken(store, a_lock(key)) for key in "ab"]

        async def interfere() -> None:
            await somebody.commit([], [], None, [release(a)])

        fail_once(store, "commit", grpc.StatusCode.UNAVAILABLE, then=interfere)

        assert await store.commit([], [], None, [release(a), release(b)]) == [Written()] * 2
        assert await lock_of(store, "b") == b

    async def test_it_was_not_applied_and_is_repeated(self, store: TaskStore) -> None:
        """Where the call never reached the server and nobody wrote meanwhile, the next one is applied."""
        (task,) = await stored(store, a_task("a"))
        fail_once(store, "commit", grpc.StatusCode.UNAVAILABLE)

        assert all(one.applied for one in await store.commit([claimed(task)], [], None, [take(a_lock())]))
