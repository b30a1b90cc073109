"""Busy keys and everybody else: who has to wait for a key, and who must not."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import pytest

from oncetask import Client, EnqueueOptions, TaskStatus, Worker
from oncetask.store import TaskStore
from oncetask.store.firestore import FirestoreStore
from tests.integration.places import Place
from tests.integration.worker.keys_support import (
    Commits,
    Keyed,
    Stage,
    enqueue_keyed,
    held_by_hand,
    keyed_app,
    lock_of,
)
from tests.integration.worker.support import done

HOUR = 3_600.0


@pytest.fixture
def _looks_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a worker look again after a moment, in place of two seconds, at busy keys and for cancelled tasks."""
    monkeypatch.setattr("oncetask.keyrun._LOOK_PAST_SECONDS", 0.2)
    monkeypatch.setattr("oncetask.line._BEFORE_SECONDS", 0.2)


@pytest.fixture
def _looks_never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away the looks that come by themselves: what nothing else leads to hangs then."""
    monkeypatch.setattr("oncetask.keyrun._LOOK_PAST_SECONDS", HOUR)
    monkeypatch.setattr("oncetask.line._BEFORE_SECONDS", HOUR)


class Queries:
    """Counts the queries for what is due, but not those for generators."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: TaskStore) -> None:
        """`store`: of one client."""
        self.sent = 0
        self._due = store.due
        monkeypatch.setattr(store, "due", self)

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Ask."""
        self.sent += not options.get("generators")
        return await self._due(*arguments, **options)


class TestBusyKeys:
    """A busy key in front of the line."""

    @pytest.mark.parametrize("by", ["this worker", "another"])
    async def test_a_crowd_of_a_busy_key_holds_up_nobody(
        self, connected: Client, place: Place, monkeypatch: pytest.MonkeyPatch, by: str
    ) -> None:
        """Behind thousands of a busy key a free task is found by the third query, and one that comes later at once."""
        crowd = 3_000 if isinstance(connected.store, FirestoreStore) else 10_000
        ids = await enqueue_keyed(connected, *range(1, crowd + 1))
        await enqueue_keyed(connected, -1, user=None)
        if by == "another":
            await held_by_hand(place.connect(), ids[0])
        stage, queries = Stage(1), Queries(monkeypatch, connected.store)
        async with Worker(keyed_app(stage), connected, poll=HOUR, grace=0):
            await stage.started(-1)
            assert queries.sent <= 3
            for number in (-2, -3):
                await done(connected, *await enqueue_keyed(place.connect(), number, user=None))
            await done(connected, *await enqueue_keyed(place.connect(), -4, user="bob"))
        assert [number for number in stage.numbers if number < 0] == [-1, -2, -3, -4]
        assert [number for number in stage.numbers if number > 0] == ([1] if by == "this worker" else [])

    async def test_a_crowd_of_many_busy_keys_holds_up_nobody(self, connected: Client, place: Place) -> None:
        """Behind forty busy keys of others, with fifty tasks each, a free task and those of a free key run."""
        other = place.connect()
        receipts = await connected.enqueue_many([Keyed(n=n, user=f"user {n % 40}") for n in range(2_000)])
        free = [*await enqueue_keyed(connected, -1, user=None), *await enqueue_keyed(connected, -2, -3, user="bob")]
        await asyncio.gather(*(held_by_hand(other, receipt.task_id) for receipt in receipts[:40]))
        stage = Stage()
        async with Worker(keyed_app(stage), connected, concurrency=4, poll=HOUR):
            await done(connected, *free)
        assert sorted(stage.numbers) == [-3, -2, -1]
        assert stage.by_user()["bob"] == [-2, -3]

    @pytest.mark.usefixtures("_looks_again_soon")
    @pytest.mark.parametrize("seconds", [-60.0, 0.3], ids=["passed", "passes soon"])
    @pytest.mark.parametrize("by", ["this worker", "another"])
    async def test_expired_tasks_wait_for_nobody(
        self, connected: Client, place: Place, monkeypatch: pytest.MonkeyPatch, by: str, seconds: float
    ) -> None:
        """Tasks of a busy key whose deadline passes end done-expired while it is busy; their handler never runs."""
        deadline = (await connected.store.now()).latest + timedelta(seconds=seconds)
        (first,) = await enqueue_keyed(connected, 1)
        expiring = await enqueue_keyed(connected, 2, 3, deadline=deadline)
        (last,) = await enqueue_keyed(connected, 4)
        if by == "another":
            await held_by_hand(place.connect(), first)
        stage = Stage(1)
        async with Worker(keyed_app(stage), connected, poll=HOUR, grace=0.05):
            if by == "this worker":
                await stage.started(1)
            tasks = await done(connected, *expiring)
            assert await lock_of(connected) is not None
            assert (await connected.get_task(first)).status is TaskStatus.LEASED
        assert [(task.outcome, task.attempts, task.errors[0].type) for task in tasks] == [
            ("expired", 0, "TaskExpired")
        ] * 2
        assert stage.numbers == ([1] if by == "this worker" else [])
        assert (await connected.get_task(last)).attempts == 0

    @pytest.mark.usefixtures("_looks_again_soon")
    @pytest.mark.parametrize("how", ["cancelled", "expired"])
    async def test_one_of_a_crowd_that_will_not_run_waits_for_nobody(self, connected: Client, how: str) -> None:
        """Of fifty tasks that wait for a busy key, one that is cancelled, or expires, ends while the key is busy."""
        stage = Stage(1)
        ids = await enqueue_keyed(connected, *range(1, 31))
        deadline = (await connected.store.now()).latest + timedelta(seconds=1)
        options = EnqueueOptions(deadline=deadline) if how == "expired" else EnqueueOptions()
        (one,) = await enqueue_keyed(connected, 31, **options)
        ids += await enqueue_keyed(connected, *range(32, 51))
        async with Worker(keyed_app(stage), connected, poll=1, grace=0.05):
            await stage.started(1)
            await done(connected, *await enqueue_keyed(connected, -1, user="bob"))
            if how == "cancelled":
                await connected.cancel_task(one)
            (task,) = await done(connected, one)
            assert (await connected.get_task(ids[0])).status is TaskStatus.LEASED
        assert (task.outcome, stage.numbers) == (how, [1, -1])

    async def test_an_expired_task_holds_up_nobody(self, connected: Client) -> None:
        """Those behind a task of their key that has expired run, and it does not."""
        deadline = (await connected.store.now()).latest - timedelta(seconds=1)
        (expired,) = await enqueue_keyed(connected, 1, deadline=deadline)
        ids = await enqueue_keyed(connected, 2, 3)
        stage = Stage()
        async with Worker(keyed_app(stage), connected):
            tasks = await done(connected, expired, *ids)
        assert [task.outcome for task in tasks] == ["expired", "completed", "completed"]
        assert stage.numbers == [2, 3]


class TestBoundedRuns:
    """A key does not keep a slot for ever."""

    async def test_keys_take_turns_where_slots_are_scarce(self, connected: Client) -> None:
        """With one slot neither of two keys runs more than twenty tasks in a row while the other waits."""
        stage, ids = Stage(), []
        for user, start in (("ada", 0), ("bob", 100)):
            ids += await enqueue_keyed(connected, *range(start, start + 60), user=user)
        async with Worker(keyed_app(stage), connected, concurrency=1):
            await done(connected, *ids)
        assert stage.by_user() == {"ada": list(range(60)), "bob": list(range(100, 160))}
        runs = [len(list(run)) for _, run in itertools.groupby(n >= 100 for n in stage.numbers)]
        assert runs == [20] * 6

    async def test_a_free_task_takes_its_turn(self, connected: Client) -> None:
        """With one slot a task without a key, behind sixty of one key, starts after twenty of them at the latest."""
        stage = Stage()
        ids = [*await enqueue_keyed(connected, *range(60)), *await enqueue_keyed(connected, 100, user=None)]
        async with Worker(keyed_app(stage), connected, concurrency=1):
            await done(connected, *ids)
        assert stage.numbers.index(100) <= 20
        assert [n for n in stage.numbers if n < 100] == list(range(60))

    async def test_with_free_slots_a_key_is_held_to_its_end(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where slots are free, a line of sixty runs under one lock."""
        stage, commits = Stage(), Commits(monkeypatch, connected.store)
        ids = await enqueue_keyed(connected, *range(60))
        async with Worker(keyed_app(stage), connected, concurrency=2):
            await done(connected, *ids)
        assert stage.numbers == list(range(60))
        assert (commits.taken, commits.released) == (1, 1)

    @pytest.mark.usefixtures("_looks_never_again")
    async def test_a_key_by_itself_goes_on_after_twenty(self, connected: Client) -> None:
        """With one slot and one key nothing is waited for after twenty tasks, no look that comes by itself either."""
        stage = Stage()
        ids = await enqueue_keyed(connected, *range(65))
        async with Worker(keyed_app(stage), connected, concurrency=1, poll=HOUR):
            await done(connected, *ids)
        assert stage.numbers == list(range(65))
