"""Atomic commits that travel together: how few calls they are, and that each is told the truth about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.cloud.firestore import AsyncClient

from oncetask import lifecycle
from oncetask.errors import PayloadTooLarge, StoreUnavailable
from oncetask.lock import Lock, LockChange
from oncetask.store import Written
from oncetask.store.firestore import FirestoreStore
from oncetask.task import Outcome, Task
from tests.integration.firestore.conftest import MakeStore
from tests.integration.firestore.support import (
    after,
    claimed,
    completed,
    fail_once,
    failing,
    hold_back,
    lose_answer,
    read,
    refuse_all,
    some_tasks,
)
from tests.support import a_task, at, exactly, not_none, stored

pytestmark = pytest.mark.emulator

Answers = list[list[Written]]
LOST = grpc.StatusCode.UNAVAILABLE


async def pairs(store: FirestoreStore, number: int) -> list[tuple[Task, Task]]:
    """Give pairs of stored tasks: one that is held, and one that is free."""
    tasks = await stored(store, *some_tasks(2 * number))
    claims = [claimed(task) for task in tasks[:number]]
    held = [after(claim, one) for claim, one in zip(claims, await store.apply(claims), strict=True)]
    return list(zip(held, tasks[number:], strict=True))


async def hand_over(store: FirestoreStore, pair: tuple[Task, Task]) -> list[Written]:
    """End the one and claim the other."""
    return await store.commit([completed(pair[0]), claimed(pair[1])], [], None)


async def all_at_once(store: FirestoreStore, several: Sequence[tuple[Task, Task]]) -> tuple[Answers, int]:
    """Hand over all of them at the same time; gives the answers, and how many commits that took."""
    before = store.counters.rpcs["Commit"]
    answers = await asyncio.gather(*(hand_over(store, pair) for pair in several))
    return answers, store.counters.rpcs["Commit"] - before


async def versions(store: FirestoreStore, pair: tuple[Task, Task]) -> list[Written]:
    """Give the versions that are stored, in the form of answers."""
    return [Written((await read(store, task.id)).version) for task in pair]


async def was_handed_over(store: FirestoreStore, pair: tuple[Task, Task]) -> bool:
    """Tell whether both changes are stored; fails where one of them is."""
    ended, next_one = [await read(store, task.id) for task in pair]
    applied = {ended.outcome is Outcome.COMPLETED, next_one.lease_owner is not None}
    assert len(applied) == 1, "half of a commit is stored"
    return applied == {True}


async def taken(store: FirestoreStore, *keys: str) -> list[Lock]:
    """Lock keys, and give the locks with their versions."""
    locks = [Lock(resource_key=key, owner="lease-1", leased_until=at(60)) for key in keys]
    written = await store.commit([], [], None, [LockChange(lock.resource_key, None, lock) for lock in locks])
    return [replace(lock, version=not_none(one.version)) for lock, one in zip(locks, written, strict=True)]


class TestFewCalls:
    """What travels together, and what does not."""

    async def test_commits_of_the_same_moment_are_one_call(self, store: FirestoreStore) -> None:
        """Thirty-two workers' ends are one RPC, and each answer is the version of its own documents."""
        several = await pairs(store, 32)
        answers, calls = await all_at_once(store, several)
        assert calls == 1
        assert answers == [await versions(store, pair) for pair in several]
        assert all([await was_handed_over(store, pair) for pair in several])

    async def test_the_next_writes_build_on_the_answers(self, store: FirestoreStore) -> None:
        """Locks that were renewed together with tasks can be released with their ends, in one call again."""
        held = [pair[0] for pair in await pairs(store, 6)]
        locks = await taken(store, *(task.id for task in held))
        before = store.counters.rpcs["Commit"]
        for _ in range(2):
            later = [replace(lock, leased_until=at(120)) for lock in locks]
            renewals = [lifecycle.renew(task, until=at(120)) for task in held]
            written = await asyncio.gather(
                *(
                    store.commit([renewal], [], None, [LockChange(old.resource_key, old, new)])
                    for renewal, old, new in zip(renewals, locks, later, strict=True)
                )
            )
            held = [after(renewal, one) for renewal, (one, _) in zip(renewals, written, strict=True)]
            locks = [
                replace(lock, version=not_none(one.version)) for lock, (_, one) in zip(later, written, strict=True)
            ]
        ended = await asyncio.gather(
            *(
                store.commit([completed(task)], [], None, [lifecycle.unlock(lock)])
                for task, lock in zip(held, locks, strict=True)
            )
        )
        assert store.counters.rpcs["Commit"] - before == 3
        assert all(one.applied for answer in ended for one in answer)
        assert await store.locks([lock.resource_key for lock in locks]) == [None] * 6

    async def test_what_is_contended_goes_by_itself(self, store: FirestoreStore, native: AsyncClient) -> None:
        """Who takes a key, takes it over, creates tasks or writes documents of his own has a call of his own."""
        several = await pairs(store, 5)
        (lock,) = await taken(store, "theirs")
        new, over = [Lock(resource_key=key, owner="lease-2", leased_until=at(99)) for key in ("new", "theirs")]
        batch = store.new_batch()
        batch.set(native.document("users/1"), {})
        extras: list[tuple[Any, Any, Any]] = [
            ([], None, [LockChange("new", None, new)]),
            ([], None, [LockChange("theirs", lock, over)]),
            ([a_task("created")], None, []),
            ([], batch, []),
            ([], None, []),
        ]
        before = store.counters.rpcs["Commit"]
        answers = await asyncio.gather(
            *(store.commit([completed(pair[0])], *extra) for pair, extra in zip(several, extras, strict=True))
        )
        assert all(one.applied for answer in answers for one in answer)
        assert store.counters.rpcs["Commit"] - before == 5

    async def test_what_is_too_much_for_one_call_is_parted(self, store: FirestoreStore) -> None:
        """Thirty-two results of 200 kB each are three calls of at most 3 MiB."""
        several = await pairs(store, 32)
        before = store.counters.rpcs["Commit"]
        answers = await asyncio.gather(
            *(store.commit([completed(pair[0], "x" * 200_000)], [], None) for pair in several)
        )
        assert store.counters.rpcs["Commit"] - before == 3
        assert all(one.applied for answer in answers for one in answer)


class TestCompany:
    """One that cannot be applied costs the others a call, and no more."""

    async def test_one_that_is_refused_does_not_refuse_the_others(self, store: FirestoreStore) -> None:
        """Each goes by itself then, and the one leaves nothing behind."""
        several = await pairs(store, 6)
        await store.apply([lifecycle.renew(several[2][0], until=at(99))])
        answers, calls = await all_at_once(store, several)
        assert calls == 1 + 6
        assert answers.pop(2) == [Written()] * 2
        assert not await was_handed_over(store, several.pop(2))
        assert answers == [await versions(store, pair) for pair in several]
        assert all([await was_handed_over(store, pair) for pair in several])

    async def test_one_whose_task_is_gone_does_not_refuse_the_others(self, store: FirestoreStore) -> None:
        """A document that is missing is one group's refusal."""
        several = await pairs(store, 3)
        await store.delete([several[0][1]])
        answers, calls = await all_at_once(store, several)
        assert calls == 1 + 3
        assert [[one.applied for one in answer] for answer in answers] == [[False] * 2, [True] * 2, [True] * 2]

    async def test_one_whose_lock_is_lost_does_not_refuse_the_others(self, store: FirestoreStore) -> None:
        """Nor does a lock that somebody else has taken over."""
        several = await pairs(store, 3)
        locks = await taken(store, "a", "b", "c")
        over = replace(locks[1], owner="lease-2")
        await store.commit([], [], None, [LockChange("b", locks[1], over)])
        answers = await asyncio.gather(
            *(
                store.commit([completed(pair[0])], [], None, [lifecycle.unlock(lock)])
                for pair, lock in zip(several, locks, strict=True)
            )
        )
        assert [[one.applied for one in answer] for answer in answers] == [[True] * 2, [False] * 2, [True] * 2]
        assert [lock and lock.owner for lock in await store.locks("abc")] == [None, "lease-2", None]

    async def test_one_that_is_too_large_is_its_own_error(self, store: FirestoreStore) -> None:
        """A result that Firestore does not take keeps nobody else from ending."""
        several = await pairs(store, 3)
        results = ["small", "x" * 1_100_000, "small"]
        answers = await asyncio.gather(
            *(
                store.commit([completed(one, result), claimed(other)], [], None)
                for (one, other), result in zip(several, results, strict=True)
            )
        )
        assert [type(one.error) for one in answers.pop(1)] == [PayloadTooLarge] * 2
        assert not await was_handed_over(store, several.pop(1))
        assert answers == [await versions(store, pair) for pair in several]

    async def test_contention_is_no_refusal(self, store: FirestoreStore) -> None:
        """Where the server aborts the call, each goes by itself."""
        several = await pairs(store, 4)
        fail_once(store, "commit", grpc.StatusCode.ABORTED)
        answers, calls = await all_at_once(store, several)
        assert calls == 4
        assert answers == [await versions(store, pair) for pair in several]

    async def test_of_two_with_one_document_the_first_is_applied(self, store: FirestoreStore) -> None:
        """The second, which was submitted in the same moment, is refused; nobody else has anything of it."""
        (a, b), (_, c), other = await pairs(store, 3)
        answers, calls = await all_at_once(store, [(a, b), (a, c), other])
        assert calls == 2
        assert [[one.applied for one in answer] for answer in answers] == [[True] * 2, [False] * 2, [True] * 2]
        assert (await read(store, c.id)).lease_owner is None


class TestLostAnswers:
    """What is told where nobody knows whether the call was applied."""

    async def test_it_was_applied(self, store: FirestoreStore) -> None:
        """Each is told as applied, at the versions that are stored, and nothing is stored twice."""
        several = await pairs(store, 5)
        lose_answer(store, "commit")
        answers, _ = await all_at_once(store, several)
        assert answers == [await versions(store, pair) for pair in several]
        assert all([await was_handed_over(store, pair) for pair in several])

    async def test_it_was_applied_and_somebody_went_on(self, store: FirestoreStore) -> None:
        """Who finds his task written or deleted since is told as applied, at a version that nothing can build on."""
        several = await pairs(store, 4)

        async def go_on() -> None:
            written, deleted = [await read(store, several[n][1].id) for n in (1, 2)]
            await store.apply([lifecycle.fail(written, ValueError("no"), delay=5, now=exactly(at(2)))])
            await store.delete([deleted])

        lose_answer(store, "commit", then=go_on)
        answers, _ = await all_at_once(store, several)
        assert all(one.applied for answer in answers for one in answer)
        claims = [after(claimed(pair[1]), answer[1]) for pair, answer in zip(several, answers, strict=True)]
        late = await store.apply([completed(claim) for claim in claims])
        assert [one.applied for one in late] == [True, False, False, True]

    async def test_it_was_applied_with_locks(self, store: FirestoreStore) -> None:
        """A release, a release with an end, and a renewal are each told as applied."""
        (task, _), (other, _) = await pairs(store, 2)
        a, b, c = await taken(store, "a", "b", "c")
        renewal = lifecycle.renew(other, until=at(120))
        longer = LockChange("c", c, replace(c, leased_until=at(120)))
        lose_answer(store, "commit")
        released, ended, renewed = await asyncio.gather(
            store.commit([], [], None, [lifecycle.unlock(a)]),
            store.commit([completed(task)], [], None, [lifecycle.unlock(b)]),
            store.commit([renewal], [], None, [longer]),
        )
        assert all(one.applied for one in (*released, *ended))
        *gone, kept = await store.locks("abc")
        assert gone == [None, None]
        assert [one.version for one in renewed] == [(await read(store, other.id)).version, not_none(kept).version]
        assert (await read(store, task.id)).outcome is Outcome.COMPLETED

    async def test_it_was_not_applied(self, store: FirestoreStore) -> None:
        """Each is applied by itself."""
        several = await pairs(store, 5)
        fail_once(store, "commit", LOST)
        answers, calls = await all_at_once(store, several)
        assert calls == 5
        assert answers == [await versions(store, pair) for pair in several]
        assert all([await was_handed_over(store, pair) for pair in several])

    async def test_it_was_not_applied_and_somebody_was_faster(self, store: FirestoreStore) -> None:
        """Who finds his task written since is refused, and the others are applied."""
        several = await pairs(store, 4)

        async def interfere() -> None:
            await store.apply([lifecycle.renew(several[0][0], until=at(99)), claimed(several[3][1], "lease-2")])

        fail_once(store, "commit", LOST, then=interfere)
        answers, _ = await all_at_once(store, several)
        assert [[one.applied for one in answer] for answer in answers] == [
            [False] * 2,
            [True] * 2,
            [True] * 2,
            [False] * 2,
        ]
        assert [await was_handed_over(store, pair) for pair in several[:3]] == [False, True, True]
        assert (await read(store, several[3][0].id)).outcome is None

    async def test_of_two_with_one_document_the_second_is_refused(self, store: FirestoreStore) -> None:
        """The one whose answer got lost keeps its documents until it knows; then the other finds them changed."""
        (a, b), (_, c), other = await pairs(store, 3)
        lose_answer(store, "commit")
        answers, _ = await all_at_once(store, [(a, b), (a, c), other])
        assert [[one.applied for one in answer] for answer in answers] == [[True] * 2, [False] * 2, [True] * 2]

    async def test_the_store_is_down(self, make_store: MakeStore) -> None:
        """Each caller is told, once the store's patience is at its end."""
        store = make_store(patience=0.2)
        several = await pairs(store, 3)
        refuse_all(store, "commit", failing("Commit"))
        told = await asyncio.gather(*(hand_over(store, pair) for pair in several), return_exceptions=True)
        assert [type(one) for one in told] == [StoreUnavailable] * 3
        assert all("committing tasks failed" in str(one) for one in told)

    async def test_the_store_does_not_answer(self, make_store: MakeStore) -> None:
        """Who waits for the answer to somebody else waits as long as the store's patience, and then is not sent."""
        store = make_store(patience=0.2)
        (a, b), (_, c) = await pairs(store, 2)
        held = hold_back(store, "commit")
        first = asyncio.create_task(hand_over(store, (a, b)))
        await held.asked()
        with pytest.raises(StoreUnavailable, match=r"committing tasks failed on .*were not answered in time"):
            async with asyncio.timeout(20):
                await hand_over(store, (a, c))
        held.let_go()
        assert all(one.applied for one in await first)
        assert store.counters.rpcs["Commit"] == 1


class TestGoing:
    """Callers who are cancelled, and closing."""

    async def test_what_waits_is_not_sent_without_its_caller(self, store: FirestoreStore) -> None:
        """A commit that waits for one in flight is dropped with its caller, and leaves nothing."""
        (a, b), (_, c), other = await pairs(store, 3)
        held = hold_back(store, "commit")
        first = asyncio.create_task(hand_over(store, (a, b)))
        await held.asked()
        waits = asyncio.create_task(hand_over(store, (a, c)))
        third = asyncio.create_task(hand_over(store, other))
        await held.asked()  # the second was passed by
        waits.cancel()
        held.let_go()
        assert all(one.applied for one in (*await first, *await third))
        await store.aclose()
        assert waits.cancelled()
        assert store.counters.rpcs["Commit"] == 2

    async def test_what_was_sent_is_settled_without_its_callers(
        self, store: FirestoreStore, make_store: MakeStore
    ) -> None:
        """Closing waits for it, also where it goes by itself after a refusal; all but the refused one is there then."""
        several = await pairs(store, 3)
        await store.apply([lifecycle.renew(several[0][0], until=at(99))])
        held = hold_back(store, "commit")
        callers = [asyncio.create_task(hand_over(store, pair)) for pair in several]
        await held.asked()
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        assert all(caller.cancelled() for caller in callers)
        closing = asyncio.create_task(store.aclose())
        held.let_go()
        await closing
        assert [await was_handed_over(make_store(), pair) for pair in several] == [False, True, True]

    async def test_closing_waits_for_what_is_queued(self, store: FirestoreStore, make_store: MakeStore) -> None:
        """What has not left when the store is closed is sent and settled."""
        (a, b), (c, d) = await pairs(store, 2)
        held = hold_back(store, "commit")
        first = asyncio.create_task(hand_over(store, (a, b)))
        await held.asked()
        waits = asyncio.create_task(hand_over(store, (c, b)))  # for "b"
        third = asyncio.create_task(hand_over(store, (c, d)))  # for "c"
        closing = asyncio.create_task(store.aclose())
        held.let_go()
        await closing
        assert all(one.applied for one in await first)
        assert await waits == [Written()] * 2
        assert all(one.applied for one in await third)
        assert await was_handed_over(make_store(), (c, d))
