"""A change together with new tasks: all of it, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from oncetask import lifecycle
from oncetask.errors import OncetaskError
from oncetask.store import TaskStore, Written
from oncetask.task import Outcome, Task
from tests.contract.backends import Backend
from tests.contract.places import FIRESTORE, only
from tests.integration.firestore.support import fail_once, failing, firestore, lose_answer, rpc_of
from tests.support import T0, a_task, at, commit_one, exactly, fetch, follow, stored

NOW = exactly(T0)


async def running(store: TaskStore, task_id: str = "parent") -> Task:
    """Give a stored task that a worker holds."""
    (task,) = await stored(store, a_task(task_id))
    return await follow(store, lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW))


async def test_change_and_new_tasks_are_stored_together(store: TaskStore) -> None:
    """The task is completed, and what its handler enqueued is there."""
    task = await running(store)

    written = await commit_one(store, lifecycle.complete(task, result=1, now=NOW), [a_task("a"), a_task("b")], None)

    parent, a, b = await store.get(["parent", "a", "b"])
    assert parent is not None
    assert a is not None
    assert b is not None
    assert (parent.outcome, parent.version) == (Outcome.COMPLETED, written.version)
    assert written.version is not None
    assert written.version > task.version


async def test_a_refused_change_creates_nothing(store: TaskStore) -> None:
    """A worker that lost its task leaves nothing of what its handler enqueued."""
    old = await running(store)
    new = await follow(store, lifecycle.renew(old, until=at(99)))

    written = await commit_one(store, lifecycle.complete(old, result=1, now=NOW), [a_task("a"), a_task("b")], None)

    assert (written.applied, written.error) == (False, None)
    assert await store.get(["a", "b"]) == [None, None]
    assert replace(await fetch(store, "parent"), read_at=new.read_at) == new


async def test_a_change_of_a_deleted_task_creates_nothing(store: TaskStore) -> None:
    """The same holds where the task is gone."""
    task = await running(store)
    await store.delete([task])

    written = await commit_one(store, lifecycle.complete(task, result=1, now=NOW), [a_task("a")], None)

    assert (written.applied, written.error) == (False, None)
    assert await store.get(["parent", "a"]) == [None, None]


async def test_a_new_task_that_exists_is_left_out(store: TaskStore) -> None:
    """What exists already stays as it is, and everything else is stored."""
    task = await running(store)
    await stored(store, a_task("b", create_id="earlier", data={"n": 1}))

    written = await commit_one(
        store, lifecycle.complete(task, result=1, now=NOW), [a_task("a"), a_task("b"), a_task("c")], None
    )

    assert written.applied
    a, b, c = await store.get(["a", "b", "c"])
    assert a is not None
    assert c is not None
    assert b is not None
    assert (b.create_id, b.data) == ("earlier", {"n": 1})
    assert (await fetch(store, "parent")).outcome is Outcome.COMPLETED


async def test_all_new_tasks_exist(store: TaskStore) -> None:
    """Where nothing is left to create, the change is stored all the same."""
    task = await running(store)
    await stored(store, a_task("a"), a_task("b"))

    assert (
        await commit_one(store, lifecycle.complete(task, result=1, now=NOW), [a_task("a"), a_task("b")], None)
    ).applied
    assert (await fetch(store, "parent")).outcome is Outcome.COMPLETED


async def test_refused_and_existing_together(store: TaskStore) -> None:
    """A refused change is refused, whether or not its new tasks exist."""
    old = await running(store)
    await follow(store, lifecycle.renew(old, until=at(99)))
    await stored(store, a_task("a"))

    written = await commit_one(store, lifecycle.complete(old, result=1, now=NOW), [a_task("a"), a_task("b")], None)

    assert (written.applied, written.error) == (False, None)
    assert await store.get(["b"]) == [None]


async def test_nothing_to_create(store: TaskStore) -> None:
    """A commit without new tasks is a change."""
    task = await running(store)

    assert (await commit_one(store, lifecycle.complete(task, result=1, now=NOW), [], None)).applied


async def test_of_racing_commits_one_is_stored(store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
    """Of many that end the same task, one does, and only its new tasks are there."""
    task = await running(store)
    stores = [store, open_store()]

    written = await asyncio.gather(
        *(
            commit_one(stores[n % 2], lifecycle.complete(task, result=n, now=NOW), [a_task(f"child {n}")], None)
            for n in range(10)
        )
    )

    (winner,) = [n for n, one in enumerate(written) if one.applied]
    assert (await fetch(store, "parent")).result == winner
    children = await store.get([f"child {n}" for n in range(10)])
    assert [n for n, child in enumerate(children) if child is not None] == [winner]


async def test_racing_commits_that_create_the_same_task(store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
    """Different tasks that enqueue the same new one are all completed, and it is there once."""
    tasks = [await running(store, f"parent {n}") for n in range(8)]
    stores = [store, open_store()]

    written = await asyncio.gather(
        *(
            commit_one(
                stores[n % 2], lifecycle.complete(task, result=n, now=NOW), [a_task("child", create_id=f"by {n}")], None
            )
            for n, task in enumerate(tasks)
        )
    )

    assert all(one.applied for one in written)
    assert (await fetch(store, "child")).create_id in {f"by {n}" for n in range(8)}


async def test_a_new_task_that_is_too_large_stops_it_all(backend: Backend, store: TaskStore) -> None:
    """Where one part cannot be stored, nothing is, and the answer says why; the task can still be ended."""
    task = await running(store)
    large = a_task("large", data={"x": "x" * 1_200_000})

    written = await commit_one(store, lifecycle.complete(task, result=1, now=NOW), [a_task("a"), large], None)

    if backend.largest_document is None:
        assert written.applied
    else:
        assert written.error is not None
        assert await store.get(["a", "large"]) == [None, None]
        assert (await follow(store, lifecycle.fail(task, written.error, delay=None, now=NOW))).outcome is Outcome.FAILED


@pytest.mark.parametrize("part", ["change", "new task"])
async def test_a_part_that_is_no_document_stops_it_all(store: TaskStore, part: str) -> None:
    """Where one part is what no store can hold, nothing is stored, and the answer says why."""
    task = await running(store)
    broken = object() if part == "change" else 1
    child = a_task("b", owner="\ud800" if part == "new task" else None)

    written = await commit_one(store, lifecycle.complete(task, result=broken, now=NOW), [a_task("a"), child], None)

    assert isinstance(written.error, OncetaskError)
    assert await store.get(["a", "b"]) == [None, None]
    assert (await fetch(store, "parent")).outcome is None


def completed(*tasks: Task) -> list[lifecycle.Transition]:
    """Complete tasks, each with its own id as the result."""
    return [lifecycle.complete(task, result=task.id, now=NOW) for task in tasks]


class TestSeveralChanges:
    """The completion of a batch: several tasks change together, or none of them does."""

    async def test_all_are_applied(self, store: TaskStore) -> None:
        """Each change is stored, and its answer, in the order of the changes, is its task's new version."""
        tasks = [await running(store, f"parent {n}") for n in range(3)]

        written = await store.commit(completed(*reversed(tasks)), [a_task("a")], None)

        found = await store.get([task.id for task in reversed(tasks)])
        assert [(task.version, task.result) for task in found if task] == [
            (one.version, task.id) for one, task in zip(written, reversed(tasks), strict=True)
        ]
        assert all((one.version or 0) > task.version for one, task in zip(written, reversed(tasks), strict=True))
        assert (await fetch(store, "a")).outcome is None

    async def test_the_next_writes_build_on_the_answers(self, store: TaskStore) -> None:
        """The versions that a commit gives are those on which each task can be written again."""
        tasks = [await running(store, f"parent {n}") for n in range(3)]
        renewals = [lifecycle.renew(task, until=at(99 + n)) for n, task in enumerate(tasks)]

        written = await store.commit(renewals, [], None)
        newest = [
            replace(renewal.after, version=one.version or 0) for renewal, one in zip(renewals, written, strict=True)
        ]

        assert all(one.applied for one in await store.commit(completed(*newest), [], None))
        assert {task.outcome for task in await store.get([task.id for task in tasks]) if task} == {Outcome.COMPLETED}

    async def test_changes_may_be_of_all_sorts(self, store: TaskStore) -> None:
        """Some tasks are completed while a cancelled one is let go, another one ended, in one commit."""
        a, b, c = [await running(store, task_id) for task_id in "abc"]
        cancels = [lifecycle.cancel(task, now=NOW) for task in (b, c)]
        b, c = [await follow(store, cancel) for cancel in cancels if cancel is not None]

        written = await store.commit(
            [
                lifecycle.complete(a, result=1, now=NOW, has_cleanup=True),
                lifecycle.complete(b, result=1, now=NOW, has_cleanup=True),
                lifecycle.complete(c, result=1, now=NOW, has_cleanup=False),
            ],
            [],
            None,
        )

        assert all(one.applied for one in written)
        assert [(task.outcome, task.lease_owner, task.result) for task in await store.get("abc") if task] == [
            (Outcome.COMPLETED, None, 1),
            (None, None, None),
            (Outcome.CANCELLED, None, None),
        ]

    async def test_many_at_once(self, store: TaskStore) -> None:
        """Hundreds of changes and new tasks fit into one commit."""
        tasks = await stored(store, *(a_task(f"parent {n}") for n in range(300)))

        written = await store.commit(completed(*tasks), [a_task(f"child {n}") for n in range(300)], None)

        assert all(one.applied for one in written)
        assert {task.outcome for task in await store.get([task.id for task in tasks]) if task} == {Outcome.COMPLETED}
        assert None not in await store.get([f"child {n}" for n in range(300)])

    @pytest.mark.parametrize("place_in_list", [0, 1, 2])
    async def test_where_one_is_refused_none_is_applied(self, store: TaskStore, place_in_list: int) -> None:
        """A task that was written since stops all of it, wherever it stands; every answer is a refusal."""
        tasks = [await running(store, f"parent {n}") for n in range(3)]
        newest = [*tasks]
        newest[place_in_list] = await follow(store, lifecycle.renew(tasks[place_in_list], until=at(99)))

        written = await store.commit(completed(*tasks), [a_task("a"), a_task("b")], None)

        assert written == [Written()] * 3
        assert await store.get(["a", "b"]) == [None, None]
        found = await store.get([task.id for task in tasks])
        assert [(task.version, task.outcome) for task in found if task] == [(task.version, None) for task in newest]

    async def test_where_one_is_deleted_none_is_applied(self, store: TaskStore) -> None:
        """A task that is gone stops all of it as well."""
        a, b = [await running(store, task_id) for task_id in "ab"]
        await store.delete([b])

        assert await store.commit(completed(a, b), [a_task("c")], None) == [Written()] * 2
        assert (await fetch(store, "a")).version == a.version
        assert await store.get("bc") == [None, None]

    async def test_the_others_can_go_on_after_a_refusal(self, store: TaskStore) -> None:
        """What was refused because of another one is still the newest record, and is applied without that one."""
        a, b, c = [await running(store, task_id) for task_id in "abc"]
        await follow(store, lifecycle.renew(b, until=at(99)))
        assert await store.commit(completed(a, b, c), [a_task("d")], None) == [Written()] * 3

        assert all(one.applied for one in await store.commit(completed(a, c), [a_task("d")], None))
        assert [task.outcome for task in await store.get("abcd") if task] == [
            Outcome.COMPLETED,
            None,
            Outcome.COMPLETED,
            None,
        ]

    async def test_new_tasks_that_exist_are_left_out(self, store: TaskStore) -> None:
        """What exists already stays as it is; all changes and the other new tasks are stored."""
        tasks = [await running(store, f"parent {n}") for n in range(2)]
        await stored(store, a_task("a", owner="first"))

        written = await store.commit(completed(*tasks), [a_task("a", owner="second"), a_task("b")], None)

        assert all(one.applied for one in written)
        assert (await fetch(store, "a")).owner == "first"
        assert {(await fetch(store, task.id)).outcome for task in tasks} == {Outcome.COMPLETED}
        assert (await fetch(store, "b")).id == "b"

    async def test_an_impossible_new_task_is_everybodys_error(self, store: TaskStore) -> None:
        """Where a new task is what no store can hold, nothing is stored, and each answer says why."""
        tasks = [await running(store, f"parent {n}") for n in range(3)]

        written = await store.commit(completed(*tasks), [a_task("a"), a_task("b", owner="\ud800")], None)

        assert len(written) == 3
        assert all(isinstance(one.error, OncetaskError) and not one.applied for one in written)
        assert await store.get(["a", "b"]) == [None, None]
        assert [(await fetch(store, task.id)).version for task in tasks] == [task.version for task in tasks]

    @pytest.mark.parametrize("place_in_list", [0, 1, 2])
    async def test_an_impossible_change_is_everybodys_error(self, store: TaskStore, place_in_list: int) -> None:
        """Where one change is what no store can hold, no other is stored, and each answer says why."""
        tasks = [await running(store, f"parent {n}") for n in range(3)]
        changes = completed(*tasks)
        changes[place_in_list] = lifecycle.complete(tasks[place_in_list], result=object(), now=NOW)

        written = await store.commit(changes, [a_task("a")], None)

        assert len(written) == 3
        assert all(isinstance(one.error, OncetaskError) and not one.applied for one in written)
        assert await store.get(["a"]) == [None]
        assert {(await fetch(store, task.id)).outcome for task in tasks} == {None}

    async def test_a_new_task_that_is_too_large_is_everybodys_error(self, backend: Backend, store: TaskStore) -> None:
        """Where a new task outgrows the store's documents, nothing is stored, and each answer says why."""
        tasks = [await running(store, f"parent {n}") for n in range(2)]
        large = a_task("large", data={"x": "x" * 1_200_000})

        written = await store.commit(completed(*tasks), [a_task("a"), large], None)

        if backend.largest_document is None:
            assert all(one.applied for one in written)
        else:
            assert all(isinstance(one.error, OncetaskError) and not one.applied for one in written)
            assert await store.get(["a", "large"]) == [None, None]
            assert {(await fetch(store, task.id)).outcome for task in tasks} == {None}

    async def test_of_racing_commits_that_share_a_task_one_is_stored(
        self, store: TaskStore, open_store: Callable[[], TaskStore]
    ) -> None:
        """Of many commits that have one task in common, one is applied as a whole, and the others not at all."""
        shared = await running(store, "shared")
        own = [await running(store, f"own {n}") for n in range(8)]
        stores = [store, open_store()]

        answers = await asyncio.gather(
            *(
                stores[n % 2].commit(completed(own[n], shared), [a_task(f"child {n}", create_id=f"by {n}")], None)
                for n in range(8)
            )
        )

        assert all(len({one.applied for one in written}) == 1 for written in answers)
        (winner,) = [n for n, written in enumerate(answers) if written[0].applied]
        ended = await store.get([f"own {n}" for n in range(8)])
        children = await store.get([f"child {n}" for n in range(8)])
        assert [n for n, task in enumerate(ended) if task is not None and task.outcome is not None] == [winner]
        assert [n for n, task in enumerate(children) if task is not None] == [winner]

    async def test_crossing_commits_get_in_nobodys_way(
        self, store: TaskStore, open_store: Callable[[], TaskStore]
    ) -> None:
        """Two commits of the same tasks in opposite order are settled: one is applied, the other refused."""
        tasks = [await running(store, f"parent {n}") for n in range(10)]

        one, other = await asyncio.gather(
            store.commit(completed(*tasks), [], None), open_store().commit(completed(*reversed(tasks)), [], None)
        )

        assert {tuple({w.applied for w in one}), tuple({w.applied for w in other})} == {(True,), (False,)}
        assert not any(w.error for w in (*one, *other))


class TestSeveralCommitsAtOnce:
    """Commits of different callers that happen to be under way at the same time."""

    async def test_one_that_is_refused_does_not_refuse_the_others(self, store: TaskStore) -> None:
        """Each is applied as a whole or not at all, whatever becomes of the others."""
        pairs = [[await running(store, f"{n}{part}") for part in "ab"] for n in range(10)]
        for n in (3, 7):
            await follow(store, lifecycle.renew(pairs[n][1], until=at(99)))

        answers = await asyncio.gather(*(store.commit(completed(*pair), [], None) for pair in pairs))

        assert [n for n, written in enumerate(answers) if written == [Written()] * 2] == [3, 7]
        for n, (pair, written) in enumerate(zip(pairs, answers, strict=True)):
            found = [await fetch(store, task.id) for task in pair]
            if n in {3, 7}:
                assert [task.outcome for task in found] == [None, None]
            else:
                assert [(task.outcome, task.version) for task in found] == [
                    (Outcome.COMPLETED, one.version) for one in written
                ]

    async def test_one_that_is_impossible_is_its_own_error(self, store: TaskStore) -> None:
        """What no store can hold is an error of the one who wanted it stored."""
        a, b, c = [await running(store, task_id) for task_id in "abc"]
        changes = [lifecycle.complete(task, result=object() if task is b else 1, now=NOW) for task in (a, b, c)]

        answers = await asyncio.gather(*(store.commit([change], [], None) for change in changes))

        assert [(one.applied, one.error is None) for (one,) in answers] == [(True, True), (False, False), (True, True)]
        assert [(await fetch(store, task_id)).outcome for task_id in "abc"] == [
            Outcome.COMPLETED,
            None,
            Outcome.COMPLETED,
        ]

    async def test_of_those_that_share_a_task_the_first_is_applied(self, store: TaskStore) -> None:
        """Commits of one store that were begun in an order are judged in that order."""
        shared, *own = [await running(store, task_id) for task_id in "abcd"]

        answers = await asyncio.gather(*(store.commit(completed(task, shared), [], None) for task in own))

        assert [[one.applied for one in written] for written in answers] == [[True] * 2, [False] * 2, [False] * 2]
        assert [(await fetch(store, task.id)).outcome for task in own] == [Outcome.COMPLETED, None, None]


@only(FIRESTORE)
class TestSeveralChangesWhoseAnswerIsLost:
    """What is told of a commit that may have been applied."""

    async def test_it_is_told_as_applied(self, store: TaskStore) -> None:
        """All of it was stored once, and each answer has its task's version."""
        tasks = [await running(store, f"parent {n}") for n in range(2)]
        lose_answer(firestore(store), "commit")

        written = await store.commit(completed(*tasks), [a_task("a")], None)

        found = await store.get([task.id for task in tasks])
        assert [task.version for task in found if task] == [one.version for one in written]
        assert {task.outcome for task in found if task} == {Outcome.COMPLETED}
        assert (await fetch(store, "a")).create_id == "create-a"

    @pytest.mark.parametrize("how", ["written", "deleted"])
    async def test_one_of_them_has_changed_since(self, store: TaskStore, how: str) -> None:
        """The commit is told as applied for all; on the changed one's version nothing can be written."""
        a, b = [await running(store, task_id) for task_id in "ab"]
        renewals = [lifecycle.renew(task, until=at(99)) for task in (a, b)]

        async def change() -> None:
            newer = await fetch(store, "b")
            if how == "written":
                await follow(store, lifecycle.fail(newer, ValueError("no"), delay=5, now=NOW))
            else:
                await store.delete([newer])

        lose_answer(firestore(store), "commit", then=change)
        written = await store.commit(renewals, [a_task("c")], None)

        assert all(one.applied for one in written)
        assert (await fetch(store, "c")).id == "c"
        newest = [
            replace(renewal.after, version=one.version or 0) for renewal, one in zip(renewals, written, strict=True)
        ]
        answers = await store.apply(completed(*newest))
        assert [(one.applied, one.error) for one in answers] == [(True, None), (False, None)]

    async def test_it_was_not_applied_and_one_is_refused(self, store: TaskStore) -> None:
        """Where the call never reached the server and a task was written meanwhile, all of it is refused."""
        a, b = [await running(store, task_id) for task_id in "ab"]

        async def change() -> None:
            await follow(store, lifecycle.renew(b, until=at(99)))

        fail_once(store, "commit", grpc.StatusCode.UNAVAILABLE, then=change)

        assert await store.commit(completed(a, b), [a_task("c")], None) == [Written()] * 2
        assert (await fetch(store, "a")).outcome is None
        assert await store.get(["c"]) == [None]

    async def test_it_was_not_applied_and_is_repeated(self, store: TaskStore) -> None:
        """Where the call never reached the server and nobody wrote meanwhile, the next one is applied."""
        tasks = [await running(store, f"parent {n}") for n in range(2)]
        fail_once(store, "commit", grpc.StatusCode.UNAVAILABLE)

        assert all(one.applied for one in await store.commit(completed(*tasks), [a_task("a")], None))
        assert {(await fetch(store, task.id)).outcome for task in tasks} == {Outcome.COMPLETED}

    async def test_one_that_the_server_aborted_is_repeated(self, store: TaskStore) -> None:
        """Contention is no refusal."""
        tasks = [await running(store, f"parent {n}") for n in range(2)]
        fail_once(store, "commit", grpc.StatusCode.ABORTED)

        assert all(one.applied for one in await store.commit(completed(*tasks), [], None))

    async def test_the_answer_of_the_second_try_is_lost(self, store: TaskStore) -> None:
        """Also a commit that was repeated without a new task that exists is told as applied, all of it."""
        tasks = [await running(store, f"parent {n}") for n in range(2)]
        await stored(store, a_task("a", owner="first"))
        rpc = rpc_of(firestore(store))
        call = rpc.commit

        async def lose_success(writes: Sequence[Any]) -> Any:
            await call(writes)  # the first one raises: "a" exists
            rpc.commit = call  # type: ignore[method-assign]  # only once
            raise failing("Commit")

        rpc.commit = lose_success  # type: ignore[method-assign]  # the network's doing

        assert all(one.applied for one in await store.commit(completed(*tasks), [a_task("a"), a_task("b")], None))
        assert rpc.commit == call
        assert (await fetch(store, "a")).owner == "first"
        assert (await fetch(store, "b")).create_id == "create-b"
