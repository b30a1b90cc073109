"""Resource keys: one task of a key at a time, in the order of its line, and what that costs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from oncetask import (
    Client,
    Context,
    FixedDelay,
    NoRetry,
    Recurrence,
    Snooze,
    Task,
    TaskStatus,
    Worker,
    lifecycle,
)
from oncetask.payload import kind_of
from oncetask.store.firestore import FirestoreStore
from tests.integration.places import Place
from tests.integration.stores import ON_FIRESTORE
from tests.integration.worker.keys_support import (
    KEY,
    Also,
    Commits,
    Keyed,
    Stage,
    enqueue_keyed,
    held_by_hand,
    keyed_app,
    lock_of,
    shifted,
    soon,
)
from tests.integration.worker.support import LIMIT, done, stop_while
from tests.support import Shift, not_none, until

HOUR = 3_600.0


@pytest.fixture
def _looks_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a worker look again after a moment, in place of two seconds, at busy keys and for cancelled tasks."""
    monkeypatch.setattr("oncetask.keyrun._LOOK_PAST_SECONDS", 0.2)
    monkeypatch.setattr("oncetask.line._BEFORE_SECONDS", 0.2)


class TestOrder:
    """Who of a key runs when."""

    async def test_tasks_of_a_key_run_one_at_a_time_in_the_order_of_the_list(self, connected: Client) -> None:
        """A worker of 32 slots runs what one call has enqueued of a key one by one, in the order of the list."""
        stage = Stage()
        numbers = [3, 1, 4, 15, 9, 2, 6, 5, 35, 8, 97, 93, 23, 84, 62, 64, 33, 83, 27, 95, 0, 28, 84_1, 97_1, 69]
        ids = await enqueue_keyed(connected, *numbers)
        async with Worker(keyed_app(stage), connected):
            tasks = await done(connected, *ids)
        assert (stage.numbers, stage.overlaps) == (numbers, [])
        assert {(task.status, task.attempts) for task in tasks} == {(TaskStatus.DONE_COMPLETED, 1)}

    async def test_who_waits_longer_comes_first(self, connected: Client) -> None:
        """The line is ordered by `wait_until`, then by creation, whoever was enqueued first."""
        stage = Stage()
        now = (await connected.store.now()).earliest
        ids = []
        for number, ago in ((5, 10), (2, 30), (3, 20), (1, 40), (6, 10), (4, 20), (7, 10)):
            ids += await enqueue_keyed(connected, number, wait_until=now - timedelta(seconds=ago))
        async with Worker(keyed_app(stage), connected):
            await done(connected, *ids)
        assert stage.numbers == [1, 2, 3, 4, 5, 6, 7]

    @pytest.mark.usefixtures("_looks_again_soon")
    async def test_a_key_is_one_for_all_workers(self, connected: Client, place: Place) -> None:
        """Two workers with clients of their own run the tasks of a key one by one and in order, as one would."""
        stage = Stage(1)
        ids = await enqueue_keyed(connected, *range(1, 31))
        app = keyed_app(stage)
        async with Worker(app, connected), Worker(app, place.connect()):
            await stage.started(1)
            (beside,) = await enqueue_keyed(connected, 0, user="bob")
            await done(connected, beside)  # so both have looked at what there is
            stage.let_go(1)
            await done(connected, *ids)
        assert ([n for n in stage.numbers if n], stage.overlaps) == (list(range(1, 31)), [])

    async def test_tasks_of_other_keys_run_beside_them(self, connected: Client) -> None:
        """While a task of a key runs, so do one of another key and one without any, though they came after others."""
        stage = Stage(1, 10, 20)
        ids = [
            *await enqueue_keyed(connected, 1, 2),
            *await enqueue_keyed(connected, 10, 11, user="bob"),
            *await enqueue_keyed(connected, 20, user=None),
        ]
        async with Worker(keyed_app(stage), connected):
            for number in (1, 10, 20):
                await stage.started(number)
            assert sorted(stage.numbers) == [1, 10, 20]
            stage.let_go(1, 10, 20)
            await done(connected, *ids)
        assert stage.by_user() == {"ada": [1, 2], "bob": [10, 11], "": [20]}
        assert stage.overlaps == []

    async def test_a_key_is_one_for_all_kinds(self, connected: Client) -> None:
        """Two kinds that share a key take turns as the line says, and never run together."""
        stage = Stage()
        line = [Keyed(n=1), Also(n=2), Also(n=3), Keyed(n=4), Also(n=5), Keyed(n=6), Keyed(n=7), Also(n=8)]
        receipts = await connected.enqueue_many(line)
        async with Worker(keyed_app(stage, Keyed, Also), connected):
            await done(connected, *(receipt.task_id for receipt in receipts))
        assert stage.starts == [(kind_of(type(payload)), payload.n) for payload in line]
        assert stage.overlaps == []

    async def test_the_key_of_the_enqueue_counts(self, connected: Client) -> None:
        """`resource_key=` stands in for the payload's own key, and None takes it away."""
        stage = Stage(1)
        (first,) = await enqueue_keyed(connected, 1)
        (same,) = await enqueue_keyed(connected, 2, user="bob", resource_key=KEY)
        (none,) = await enqueue_keyed(connected, 3, resource_key=None)
        async with Worker(keyed_app(stage), connected):
            await stage.started(1)
            await done(connected, none)
            assert sorted(stage.numbers) == [1, 3]
            stage.let_go(1)
            await done(connected, first, same)


class TestCost:
    """What is written for the sake of a key."""

    @ON_FIRESTORE
    async def test_a_run_of_tasks_costs_three_writes_each(self, connected: Client) -> None:
        """Twenty tasks of a key need 3.2 writes each, enqueue and lock included; no lock is left behind."""
        assert isinstance(connected.store, FirestoreStore)
        ids = await enqueue_keyed(connected, *range(20))
        async with Worker(keyed_app(Stage()), connected):
            await done(connected, *ids)
        assert connected.store.counters.writes_sent <= 3.2 * len(ids)
        assert await lock_of(connected) is None

    async def test_a_key_is_let_go_when_its_line_is_empty(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A line is run under one lock, which goes with the completion of the last task."""
        commits = Commits(monkeypatch, connected.store)
        ids = await enqueue_keyed(connected, *range(15))
        async with Worker(keyed_app(Stage()), connected):
            await done(connected, ids[-1])
            assert await lock_of(connected) is None
        assert (commits.taken, commits.released) == (1, 1)
        assert [step.event for step in commits.sent[-1][0]] == ["completed"]

    async def test_a_task_without_a_key_takes_none(self, connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is committed jointly, and no lock is asked for, where no task has a key."""
        commits = Commits(monkeypatch, connected.store)

        async def locks(_: object) -> Any:
            pytest.fail("a lock was asked for")

        monkeypatch.setattr(connected.store, "locks", locks)
        ids = await enqueue_keyed(connected, *range(5), user=None)
        async with Worker(keyed_app(Stage()), connected):
            await done(connected, *ids)
        assert commits.sent == []


class Trying:
    """A handler whose number 1 raises these errors in turn, then returns; it notes what it ran."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.numbers: list[int] = []

    async def __call__(self, _: Context, payload: Keyed) -> None:
        """Run."""
        self.numbers.append(payload.n)
        if payload.n == 1 and self._errors:
            raise self._errors.pop(0)


class TestStrictOrder:
    """Whether the others of a key wait for one that has to be tried again."""

    @pytest.mark.parametrize("error", [ValueError("boom"), Snooze(HOUR)], ids=["fails", "snoozes"])
    async def test_by_default_one_that_has_to_wait_steps_aside(self, connected: Client, error: Exception) -> None:
        """While a failed task waits for its retry, and a snoozed one for its time, those behind it run."""
        trying = Trying(error)
        ids = await enqueue_keyed(connected, 1, 2, 3)
        async with Worker(keyed_app(trying, retry=FixedDelay(3, HOUR)), connected):
            await done(connected, *ids[1:])
        assert trying.numbers == [1, 2, 3]
        assert (await connected.get_task(ids[0])).status is TaskStatus.WAITING
        assert await lock_of(connected) is None

    @pytest.mark.usefixtures("_looks_again_soon")
    @pytest.mark.parametrize("snoozes", [False, True], ids=["fails", "snoozes"])
    async def test_in_strict_order_the_others_wait(self, connected: Client, place: Place, snoozes: bool) -> None:
        """With `strict_order` none of the key starts before one that failed or snoozed is done; others do."""
        errors: list[Exception] = [Snooze(HOUR), Snooze(HOUR)] if snoozes else [ValueError("1"), ValueError("2")]
        trying, shift = Trying(*errors), Shift()
        app = keyed_app(trying, strict_order=True, retry=FixedDelay(3, HOUR))
        shift.of(connected.store)
        ids = await enqueue_keyed(connected, 1, 2, 3)
        before = await connected.get_task(ids[0])
        async with (
            Worker(app, connected, poll=0.1, lease=timedelta(days=9)),
            Worker(app, await shifted(place, shift), poll=0.1, lease=timedelta(days=9)),
        ):
            for number, attempts in enumerate([0, 0] if snoozes else [1, 2], 1):
                waiting = await _put_back(connected, ids[0], times=number, of=trying)
                assert (waiting.wait_until, waiting.attempts) == (before.wait_until, attempts)
                await done(connected, *await enqueue_keyed(connected, 10 * number, user="bob"))
                shift.advance(HOUR + 1)
            await done(connected, *ids)
        assert [n for n in trying.numbers if n < 10] == [1, 1, 1, 2, 3]

    async def test_in_strict_order_a_failure_for_good_lets_the_others_go(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those behind a task that ended done-failed run at once, after all of its attempts, without another look."""
        monkeypatch.setattr("oncetask.keyrun._LOOK_PAST_SECONDS", HOUR)
        monkeypatch.setattr("oncetask.line._BEFORE_SECONDS", HOUR)
        trying = Trying(ValueError("1"), ValueError("2"))
        app = keyed_app(trying, strict_order=True, retry=FixedDelay(2, 0.1))
        ids = await enqueue_keyed(connected, 1, 2, 3)
        async with Worker(app, connected, poll=HOUR):
            tasks = await done(connected, *ids)
        assert trying.numbers == [1, 1, 2, 3]
        assert [task.outcome for task in tasks] == ["failed", "completed", "completed"]

    @pytest.mark.usefixtures("_looks_again_soon")
    async def test_in_strict_order_a_cancelled_task_lets_the_others_go(self, connected: Client) -> None:
        """One that waits for its retry in front of the others is no longer waited for once it is cancelled."""
        trying = Trying(ValueError("boom"))
        app = keyed_app(trying, strict_order=True, retry=FixedDelay(3, HOUR))
        ids = await enqueue_keyed(connected, 1, 2, 3)
        async with Worker(app, connected):
            await _put_back(connected, ids[0], times=1, of=trying)
            await connected.cancel_task(ids[0])
            tasks = await done(connected, *ids)
        assert trying.numbers == [1, 2, 3]
        assert [task.outcome for task in tasks] == ["cancelled", "completed", "completed"]

    async def test_without_a_key_strict_order_changes_nothing(self, connected: Client) -> None:
        """A task without a key that failed gets a new place, whatever its handler says, and holds up nobody."""
        trying = Trying(ValueError("boom"))
        app = keyed_app(trying, strict_order=True, retry=FixedDelay(3, HOUR))
        ids = await enqueue_keyed(connected, 1, 2, 3, user=None)
        before = await connected.get_task(ids[0])
        async with Worker(app, connected, concurrency=1):
            await done(connected, *ids[1:])
            after = await _put_back(connected, ids[0], times=1, of=trying)
        assert after.leased_until is None
        assert after.wait_until - before.wait_until >= timedelta(hours=1)


async def _put_back(client: Client, task_id: str, *, times: int, of: Trying) -> Task:
    """Wait until a task was run so often, and waits for its time."""
    async with client.store.watch_tasks([task_id]) as feed:
        (task,) = await until(
            feed,
            lambda found: (
                of.numbers.count(1) == times
                and found[0] is not None
                and found[0].started_at is not None
                and found[0].lease_owner is None
            ),
        )
    return not_none(task)


class TestCleanups:
    """A cancellation handler works under the key as well."""

    async def test_the_cleanup_of_a_running_task_holds_the_key(self, connected: Client, place: Place) -> None:
        """Cancelling a running task starts its cleanup under the same lock, and the next one runs after that."""
        stage, goes_on, cleaning = Stage(1), asyncio.Event(), asyncio.Event()
        app = keyed_app(stage)

        @app.cancellation_handler(Keyed)
        async def undo(ctx: Context, payload: Keyed) -> None:
            cleaning.set()
            await goes_on.wait()
            await stage(ctx, payload)

        ids = await enqueue_keyed(connected, 1, 2, 3)
        async with Worker(app, connected), Worker(app, place.connect()):
            await stage.started(1)
            before = not_none(await lock_of(connected))
            await connected.cancel_task(ids[0])
            await soon(cleaning)
            during = not_none(await lock_of(connected))
            await done(connected, *await enqueue_keyed(connected, 10, user="bob"))
            assert [n for n in stage.numbers if n < 10] == [1]
            goes_on.set()
            tasks = await done(connected, *ids)
        assert during.owner == before.owner
        assert [start for start in stage.starts if start[1] < 10] == [
            ("keyed", 1),
            ("undo-keyed", 1),
            ("keyed", 2),
            ("keyed", 3),
        ]
        assert [task.outcome for task in tasks] == ["cancelled", "completed", "completed"]
        assert stage.overlaps == []

    async def test_cleanups_go_first(self, connected: Client) -> None:
        """Cancelled tasks that wait for their key are cleaned up one by one, before all that are not cancelled."""
        stage = Stage()
        app = keyed_app(stage)
        app.cancellation_handler(Keyed)(stage)
        ids = await enqueue_keyed(connected, *range(1, 7))
        await connected.cancel_tasks_by_ids([ids[4], ids[2]])
        async with Worker(app, connected):
            tasks = await done(connected, *ids)
        kinds, numbers = zip(*stage.starts, strict=True)
        assert (set(numbers[:2]), numbers[2:], stage.overlaps) == ({3, 5}, (1, 2, 4, 6), [])
        assert kinds == ("undo-keyed", "undo-keyed", "keyed", "keyed", "keyed", "keyed")
        assert [task.outcome for task in tasks] == ["completed"] * 2 + ["cancelled", "completed"] * 2

    async def test_what_is_cancelled_while_its_line_runs_takes_its_turn(self, connected: Client) -> None:
        """A task that is cancelled while others of its key run is cleaned up, not run, and beside none of them."""
        stage = Stage(1)
        app = keyed_app(stage)
        app.cancellation_handler(Keyed)(stage)
        ids = await enqueue_keyed(connected, *range(1, 7))
        async with Worker(app, connected):
            await stage.started(1)
            await connected.cancel_tasks_by_ids([ids[4], ids[2]])
            stage.let_go(1)
            tasks = await done(connected, *ids)
        assert stage.overlaps == []
        assert [number for kind, number in stage.starts if kind == "keyed"] == [1, 2, 4, 6]
        assert sorted(number for kind, number in stage.starts if kind == "undo-keyed") == [3, 5]
        assert [task.outcome for task in tasks] == ["completed"] * 2 + ["cancelled", "completed"] * 2

    async def test_a_cancelled_task_goes_first_only_after_the_running_one(self, connected: Client) -> None:
        """Cancelling the running task, whose kind has no cleanup, ends it and lets the next one start."""
        stage = Stage(1)
        ids = await enqueue_keyed(connected, 1, 2)
        async with Worker(keyed_app(stage), connected):
            await stage.started(1)
            await connected.cancel_task(ids[0])
            tasks = await done(connected, *ids)
        assert (stage.numbers, stage.overlaps) == ([1, 2], [])
        assert [task.outcome for task in tasks] == ["cancelled", "completed"]

    @pytest.mark.usefixtures("_looks_again_soon")
    @pytest.mark.parametrize("by", ["this worker", "another"])
    async def test_without_a_cleanup_a_cancelled_task_waits_for_nobody(
        self, connected: Client, place: Place, by: str
    ) -> None:
        """Cancelled waiting tasks whose kind has no cleanup end at once, though their key is busy."""
        stage = Stage(1)
        ids = await enqueue_keyed(connected, 1, 2, 3, 4)
        if by == "another":
            await held_by_hand(place.connect(), ids[0])
        async with Worker(keyed_app(stage), connected, grace=0, poll=HOUR):
            if by == "this worker":
                await stage.started(1)
            await done(connected, *await enqueue_keyed(connected, 10, user="bob"))
            assert await connected.cancel_tasks_by_ids(ids[1:3]) == 2
            tasks = await done(connected, *ids[1:3])
            assert (await connected.get_task(ids[0])).status is TaskStatus.LEASED
        assert [task.outcome for task in tasks] == ["cancelled"] * 2
        assert set(stage.numbers) - {1} == {10}


class TestLongHandlers:
    """A key is held for as long as its task runs."""

    async def test_lock_and_lease_are_renewed_together(
        self, connected: Client, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At every moment the lock of a running task lasts at least as long as its lease, through many renewals."""
        watcher = place.connect()
        commits = Commits(monkeypatch, connected.store)
        stage = Stage(1)
        ids = await enqueue_keyed(connected, 1, 2)
        ends = set()
        async with Worker(keyed_app(stage), connected, lease=0.6):
            await stage.started(1)  # by this worker, whose commits are noted
            async with Worker(keyed_app(stage), watcher, lease=0.6):
                async with asyncio.timeout(LIMIT):
                    async for task in watcher.watch(ids[0]):
                        lock = not_none(await lock_of(watcher))
                        assert not_none(task.leased_until) <= lock.leased_until
                        ends.add(task.leased_until)
                        if len(ends) == 6:
                            break
                stage.let_go(1)
                await done(connected, *ids)
        assert (stage.numbers, stage.overlaps) == ([1, 2], [])
        held = not_none(commits.sent[0][1][0].after).leased_until
        for steps, locks in commits.sent:  # as they went out: no lease, not for a moment, outlasts the lock
            held = max([held, *(change.after.leased_until for change in locks if change.after is not None)])
            assert all(step.after.leased_until is None or step.after.leased_until <= held for step in steps)

    @pytest.mark.usefixtures("_looks_again_soon")
    async def test_fencing_tokens_rise_from_task_to_task(self, connected: Client, place: Place) -> None:
        """Each task of a key has a greater token than the one before, whoever runs it; so has a cleanup."""
        stage, watcher = Stage(1), place.connect()
        app = keyed_app(stage)
        app.cancellation_handler(Keyed)(stage)
        async with Worker(app, connected, lease=0.6):
            ids = await enqueue_keyed(connected, 1, 2, 3)
            await stage.started(1)
            token, ends = stage.contexts[0].fencing_token, set()
            async with asyncio.timeout(LIMIT):
                async for task in watcher.watch(ids[0]):
                    ends.add(task.leased_until)
                    if len(ends) == 3:
                        assert task.version > token
                        break
            assert stage.contexts[0].fencing_token == token
            await connected.cancel_task(ids[0])
            await done(connected, *ids)
        async with Worker(app, watcher):
            await done(connected, *await enqueue_keyed(connected, 4, 5))
        tokens = [ctx.fencing_token for ctx in stage.contexts]
        assert stage.numbers == [1, 1, 2, 3, 4, 5]
        assert sorted(set(tokens)) == tokens


class TestSharing:
    """Workers beside each other that want the same key."""

    @pytest.mark.usefixtures("_looks_again_soon")
    async def test_services_wait_for_each_other(self, connected: Client, place: Place) -> None:
        """Two workers with different kinds each run their own tasks of a shared key in the order of the line."""
        stage = Stage()
        line = [Keyed(n=1), Keyed(n=2), Also(n=3), Also(n=4), Keyed(n=5)]
        receipts = await connected.enqueue_many(line)
        async with (
            Worker(keyed_app(stage, Keyed), connected, poll=HOUR),
            Worker(keyed_app(stage, Also), place.connect(), poll=HOUR),
        ):
            await done(connected, *(receipt.task_id for receipt in receipts))
        assert stage.starts == [("keyed", 1), ("keyed", 2), ("also", 3), ("also", 4), ("keyed", 5)]
        assert stage.overlaps == []

    @pytest.mark.usefixtures("_looks_again_soon")
    async def test_a_kind_that_nobody_handles_holds_up_its_own_key(self, connected: Client) -> None:
        """Those behind it wait, those of other keys do not; once it is cancelled they run, and it stays."""
        stage = Stage()
        unknown = await connected.enqueue(Also(n=2))
        (before,) = await enqueue_keyed(connected, 1, wait_until=(await connected.store.now()).earliest - timedelta(1))
        behind = await enqueue_keyed(connected, 3, 4)
        async with Worker(keyed_app(stage, Keyed), connected, poll=HOUR):
            await done(connected, before)
            await done(connected, *await enqueue_keyed(connected, 10, user="bob"))
            await done(connected, *await enqueue_keyed(connected, 11, user=None))
            assert stage.numbers == [1, 10, 11]
            assert await lock_of(connected) is None
            await connected.cancel_task(unknown.task_id)
            await done(connected, *behind)
        assert stage.numbers == [1, 10, 11, 3, 4]
        assert (await connected.get_task(unknown.task_id)).status is TaskStatus.CANCELLATION_PENDING

    async def test_a_worker_that_stops_hands_the_key_on(self, connected: Client, place: Place) -> None:
        """The task that it runs goes back to its place and the key is free; another worker goes on with that task."""
        stage = Stage(3)
        ids = await enqueue_keyed(connected, *range(1, 7))
        before = await connected.get_task(ids[2])
        async with Worker(keyed_app(stage, retry=NoRetry()), connected, grace=0.05):
            await stage.started(3)
        after = await connected.get_task(ids[2])
        assert (after.status, after.attempts, after.wait_until) == (TaskStatus.PENDING, 0, before.wait_until)
        assert await lock_of(connected) is None
        stage.let_go(3)
        async with Worker(keyed_app(stage, retry=NoRetry()), place.connect()):
            tasks = await done(connected, *ids)
        assert (stage.numbers, stage.overlaps) == ([1, 2, 3, 3, 4, 5, 6], [])
        assert {(task.outcome, task.attempts) for task in tasks} == {("completed", 1)}

    async def test_a_worker_told_to_stop_while_an_end_is_recorded_begins_nothing_more(self, connected: Client) -> None:
        """A task has ended, and its error handler takes its time: the next one of the key waits for another worker."""
        failing, may_end, begun = asyncio.Event(), asyncio.Event(), list[int]()

        async def handler(_: Context, payload: Keyed) -> None:
            begun.append(payload.n)
            raise ValueError

        app = keyed_app(handler, retry=NoRetry())

        @app.error_handler
        async def report(_: Context, __: Exception) -> None:
            failing.set()
            await may_end.wait()

        first, second = await enqueue_keyed(connected, 1, 2)
        worker = Worker(app, connected, poll=HOUR)
        async with worker:
            await asyncio.wait_for(failing.wait(), LIMIT)
            await stop_while(worker, may_end)
        assert (await connected.get_task(first)).outcome == "failed"
        untouched = await connected.get_task(second)
        assert (untouched.status, untouched.started_at, begun) == (TaskStatus.PENDING, None, [1])
        assert await lock_of(connected) is None

    async def test_a_worker_that_waits_goes_on_where_another_stops(self, connected: Client, place: Place) -> None:
        """One that has found the key busy goes on as soon as the other has stopped, no lease having run out."""
        stage = Stage(1)
        ids = await enqueue_keyed(connected, 1, 2, 3)
        first = Worker(keyed_app(stage), connected, grace=0.05)
        async with first:
            await stage.started(1)
            other = place.connect()
            async with Worker(keyed_app(stage), other, poll=HOUR):
                await first.stop()
                stage.let_go(1)
                await done(other, *ids)
        assert (stage.numbers, stage.overlaps) == ([1, 1, 2, 3], [])

    async def test_many_workers_race_for_many_keys(self, connected: Client, place: Place) -> None:
        """Three workers on 20 keys of 20 tasks each run every task once, in the order of its key, none together."""
        stage = Stage()
        receipts = await connected.enqueue_many([Keyed(n=n, user=f"user {n % 20}") for n in range(400)])
        app = keyed_app(stage)
        async with Worker(app, connected), Worker(app, place.connect()), Worker(app, place.connect()):
            tasks = await done(connected, *(receipt.task_id for receipt in receipts))
        assert stage.by_user() == {f"user {user}": list(range(user, 400, 20)) for user in range(20)}
        assert stage.overlaps == []
        assert {(task.outcome, task.attempts) for task in tasks} == {("completed", 1)}


class TestNames:
    """What may be a key."""

    KEYS = (
        "a/b/c",
        "/",
        "..",
        ".",
        "a.b.c",
        "__reserved__",
        "\N{SNOWMAN}\N{PILE OF POO}",
        "\x00\x01\n\t\x7f",
        " ",
        "x" * 1_000,
        "\N{PILE OF POO}" * 250,
        "\u00e9",
        "e\u0301",
    )

    async def test_any_short_text_is_a_key(self, connected: Client) -> None:
        """Slashes, dots, emoji, control characters and a thousand bytes make keys that are told apart, and locked."""
        stage = Stage(*range(0, 1_000, 10))
        ids = []
        for place, key in enumerate(self.KEYS):
            ids += await enqueue_keyed(connected, 10 * place, 10 * place + 1, user=key)
        async with Worker(keyed_app(stage), connected):
            for place in range(len(self.KEYS)):
                await stage.started(10 * place)
            locks = await connected.store.locks(self.KEYS)
            assert [not_none(lock).resource_key for lock in locks] == list(self.KEYS)
            stage.let_go(*range(0, 1_000, 10))
            await done(connected, *ids)
        assert stage.by_user() == {key: [10 * place, 10 * place + 1] for place, key in enumerate(self.KEYS)}
        assert await connected.store.locks(self.KEYS) == [None] * len(self.KEYS)

    @pytest.mark.parametrize(
        "key", ["", "x" * 2_048, "\N{PILE OF POO}" * 251, "\ud800"], ids=["empty", "2K", "4-byte", "half"]
    )
    async def test_other_texts_are_refused(self, connected: Client, key: str) -> None:
        """An empty key, one over a thousand bytes and half a character are refused with what would be right."""
        with pytest.raises(ValueError, match="resource_key must be None or a text of 1 to 1000 bytes in UTF-8, not "):
            await connected.enqueue(Keyed(n=1, user=None), resource_key=key)
        if key != "\ud800":
            with pytest.raises(ValueError, match="resource_key must be None or a text of 1 to 1000 bytes"):
                await connected.enqueue_many([Keyed(n=1), Keyed(n=2, user=key)])
        assert await connected.pending_count() == 0


class TestGenerators:
    """A generator has its occurrences' key, and does not need it."""

    @pytest.mark.usefixtures("_looks_again_soon")
    async def test_a_generator_neither_takes_its_key_nor_waits_for_it(self, connected: Client) -> None:
        """It spawns while its key is busy, and leaves the lock alone; its occurrences wait for the key, in order."""
        shift, stage = Shift(), Stage()
        shift.of(connected.store)
        start = (await connected.store.now()).latest.replace(microsecond=0) + timedelta(minutes=1)
        (held,) = await enqueue_keyed(connected, 1)
        busy, lock = await held_by_hand(connected, held, seconds=9 * HOUR)
        rule = Recurrence("FREQ=MINUTELY;COUNT=3", start, catch_up="all")
        await connected.enqueue(Keyed(n=2), task_id="g", recurrence=rule)
        async with Worker(keyed_app(stage), connected, poll=0.1):
            shift.advance(5 * 60)
            await connected.wait("g", LIMIT)
            await done(connected, *await enqueue_keyed(connected, 10, user="bob"))
            assert await lock_of(connected) == lock
            occurrences = [task async for task in connected.iter_tasks(parent="g")]
            assert {(task.resource_key, task.started_at) for task in occurrences} == {(KEY, None)}
            now = await connected.store.now()
            end = lifecycle.complete(busy, result=None, now=now)
            written = await connected.store.commit([end], (), None, [lifecycle.unlock(lock)])
            assert all(one.applied for one in written)
            tasks = await done(connected, *(task.id for task in occurrences))
        assert (stage.numbers, stage.overlaps) == ([10, 2, 2, 2], [])
        by_instant = sorted(tasks, key=lambda task: not_none(task.occurrence_timestamp))
        assert len(by_instant) == 3
        assert by_instant == sorted(tasks, key=lambda task: not_none(task.started_at))

    async def test_a_generator_in_front_holds_up_nobody(self, connected: Client) -> None:
        """A generator of a key, due or waiting, is no part of the key's line."""
        stage = Stage()
        for task_id, ahead in (("soon", 0), ("late", 60)):
            start = (await connected.store.now()).latest.replace(microsecond=0) + timedelta(minutes=ahead)
            rule = Recurrence("FREQ=HOURLY", start)
            await connected.enqueue(Also(n=2), task_id=task_id, recurrence=rule)
        ids = await enqueue_keyed(connected, 1, 3)
        async with Worker(keyed_app(stage), connected):
            await done(connected, *ids)
        assert stage.numbers == [1, 3]


class TestStaging:
    """What a handler stages of its own key."""

    async def test_staged_tasks_may_be_of_the_same_key(self, connected: Client) -> None:
        """They are stored with the completion, stand behind what waited already, and run in their order."""
        order: list[int] = []

        async def handler(ctx: Context, payload: Keyed) -> None:
            order.append(payload.n)
            if payload.n == 1:
                for n in (5, 4, 6):
                    ctx.enqueue(Keyed(n=n), task_id=f"staged-{n}")
                assert await connected.get_tasks_by_ids(["staged-5"]) == []

        ids = await enqueue_keyed(connected, 1, 2)
        async with Worker(keyed_app(handler), connected):
            await done(connected, *ids)
            await done(connected, "staged-5", "staged-4", "staged-6")
        assert order == [1, 2, 5, 4, 6]
        assert await lock_of(connected) is None

    async def test_a_task_may_stage_its_own_successor(self, connected: Client) -> None:
        """A chain in which each task stages the next one of its key runs on, with nothing else in the line."""
        order: list[int] = []
        last = asyncio.Event()

        async def handler(ctx: Context, payload: Keyed) -> None:
            order.append(payload.n)
            if payload.n == 5:
                last.set()
            else:
                ctx.enqueue(Keyed(n=payload.n + 1), task_id=f"link-{payload.n + 1}")

        await connected.enqueue(Keyed(n=1))
        async with Worker(keyed_app(handler), connected, poll=HOUR):
            await soon(last)
            await done(connected, "link-5")
        assert order == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("attempts", [1, 2])
    async def test_a_failed_attempt_stages_nothing(self, connected: Client, attempts: int) -> None:
        """What a failed attempt staged of its own key is dropped, though the key goes on with the next task."""

        async def handler(ctx: Context, payload: Keyed) -> None:
            if payload.n == 1:
                ctx.enqueue(Keyed(n=9), task_id="staged")
                raise ValueError("no")

        ids = await enqueue_keyed(connected, 1, 2)
        async with Worker(keyed_app(handler, retry=FixedDelay(attempts, 0)), connected):
            tasks = await done(connected, *ids)
        assert [task.outcome for task in tasks] == ["failed", "completed"]
        assert await connected.get_tasks_by_ids(["staged"]) == []
