"""Resource keys and what goes wrong: dead holders, races, locks that vanish, a store that does not answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from oncetask import App, Client, Context, NoRetry, Worker, lifecycle
from oncetask.errors import StoreUnavailable
from oncetask.lifecycle import Transition
from oncetask.lock import LockChange
from tests.integration.places import Place
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
)
from tests.integration.worker.support import LIMIT, done
from tests.support import Shift, not_none

MINUTE = 60.0
HOUR = 3_600.0


@pytest.fixture(autouse=True)
def _looks_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a worker look at a busy key again after a moment, and draws the shortest wait after a crash."""
    monkeypatch.setattr("oncetask.keyrun._LOOK_PAST_SECONDS", 0.2)
    monkeypatch.setattr("oncetask.line._BEFORE_SECONDS", 0.2)
    monkeypatch.setattr("oncetask.retry.random.uniform", lambda low, _: low)


def numbers_of(stage: Stage) -> list[int]:
    """Give what was started, but for the tasks of other keys, which have numbers below zero."""
    return [number for number in stage.numbers if number >= 0]


class TestDeadHolders:
    """A worker that dies is succeeded when its lease ends."""

    async def test_a_dead_holder_is_succeeded_after_its_lease(self, connected: Client, place: Place) -> None:
        """Before that nobody runs a task of the key; then the one that it held is rescued, and runs first."""
        shift, stage = Shift(), Stage()
        ids = await enqueue_keyed(connected, 1, 2, 3)
        dead, lock = await held_by_hand(place.connect(), ids[0], seconds=MINUTE)
        shift.of(connected.store)
        async with Worker(keyed_app(stage), connected, poll=0.1):
            await done(connected, *await enqueue_keyed(connected, -1, user="bob"))
            shift.advance(MINUTE - 10)
            await done(connected, *await enqueue_keyed(connected, -2, user="bob"))
            assert (numbers_of(stage), await lock_of(connected)) == ([], lock)
            shift.advance(11)
            tasks = await done(connected, *ids)
        assert (numbers_of(stage), stage.overlaps) == ([1, 2, 3], [])
        assert [task.attempts for task in tasks] == [2, 1, 1]
        assert [(error.type, error.attempt) for error in tasks[0].errors] == [("LeaseLost", 1)]
        assert tasks[0].wait_until == dead.wait_until

    async def test_a_crash_in_the_middle_of_a_line_keeps_the_order(self, connected: Client, place: Place) -> None:
        """Those that were enqueued while the dead one still had the key come after its task, too."""
        shift, stage = Shift(), Stage()
        ids = await enqueue_keyed(connected, 1, 2)
        await held_by_hand(place.connect(), ids[0], seconds=MINUTE)
        ids += await enqueue_keyed(connected, 3, 4)
        clients = [await shifted(place, shift), await shifted(place, shift)]
        shift.advance(MINUTE + 1)
        app = keyed_app(stage)
        async with Worker(app, clients[0], poll=0.1), Worker(app, clients[1], poll=0.1):
            await done(connected, *ids)
        assert (stage.numbers, stage.overlaps) == ([1, 2, 3, 4], [])

    @pytest.mark.parametrize("late", ["completes", "hands over", "renews", "lets go"])
    async def test_a_late_former_holder_is_refused(self, connected: Client, place: Place, late: str) -> None:
        """Whatever a holder that was thought dead writes after it was succeeded is refused, and changes nothing."""
        shift, stage = Shift(), Stage(1)
        ids = await enqueue_keyed(connected, 1, 2, 3)
        former = place.connect()
        held, lock = await held_by_hand(former, ids[0], seconds=MINUTE)
        successor = await former.get_task(ids[1])
        shift.of(connected.store)
        shift.advance(MINUTE + 1)
        now = await former.store.now()
        until = now.latest + timedelta(seconds=MINUTE)
        claim = lifecycle.claim(successor, lease_id=lock.owner, until=until, now=now)
        complete = lifecycle.complete(held, result="late", now=now)
        longer = lifecycle.lock(KEY, lock, owner=lock.owner, until=until)
        steps, locks = {
            "completes": ([complete], []),
            "hands over": ([complete, claim], []),
            "renews": ([lifecycle.renew(held, until=until)], [longer]),
            "lets go": (list[Transition](), [lifecycle.unlock(lock)]),
        }[late]
        async with Worker(keyed_app(stage), connected, poll=0.1):
            await stage.started(1)
            before = (await former.get_tasks_by_ids(ids), await lock_of(former))
            written = await former.store.commit(steps, (), None, locks)
            assert not any(one.applied for one in written)
            after = (await former.get_tasks_by_ids(ids), await lock_of(former))
            assert [task.version for task in after[0]] == [task.version for task in before[0]]
            assert after[1] == before[1]
            stage.let_go(1)
            tasks = await done(connected, *ids)
        assert [task.result for task in tasks] == [1, 2, 3]
        assert (stage.numbers, stage.overlaps) == ([1, 2, 3], [])

    async def test_a_former_holder_of_an_unknown_kind_is_shut_out(self, connected: Client, place: Place) -> None:
        """A worker that does not know the kind of a dead one's task waits for it, or for its end, all the same.

        The dead one's task is neither rescued nor passed by. Cancelled, it lets the others go, and a late hand-over
        of the dead one is refused.
        """
        shift, stage, former = Shift(), Stage(), place.connect()
        first = (await connected.enqueue(Also(n=1))).task_id
        ids = await enqueue_keyed(connected, 2, 3)
        held, lock = await held_by_hand(former, first, seconds=MINUTE)
        successor = await former.get_task(ids[0])
        shift.of(connected.store)
        shift.advance(MINUTE + 1)
        now = await former.store.now()
        until = now.latest + timedelta(seconds=MINUTE)
        async with Worker(keyed_app(stage), connected, poll=0.1):
            await done(connected, *await enqueue_keyed(connected, -1, user="bob"))
            assert numbers_of(stage) == []
            await connected.cancel_task(first)
            await done(connected, *ids)
        claim = lifecycle.claim(successor, lease_id=lock.owner, until=until, now=now)
        complete = lifecycle.complete(held, result="late", now=now)
        assert not any(one.applied for one in await former.store.commit([complete, claim], (), None))
        assert (numbers_of(stage), stage.overlaps) == ([2, 3], [])

    async def test_two_services_succeed_a_dead_one(self, connected: Client, place: Place) -> None:
        """A worker of the other kind waits for the dead one's task until a worker that knows it has run it."""
        shift, stage = Shift(), Stage()
        first = (await connected.enqueue(Also(n=1))).task_id
        ids = await enqueue_keyed(connected, 2, 3)
        await held_by_hand(place.connect(), first, seconds=MINUTE)
        keyed, also = await shifted(place, shift), await shifted(place, shift)
        shift.advance(MINUTE + 1)
        async with Worker(keyed_app(stage), keyed, poll=0.1):
            await done(keyed, *await enqueue_keyed(keyed, -1, user="bob"))
            assert numbers_of(stage) == []
            async with Worker(keyed_app(stage, Also), also, poll=0.1):
                await done(keyed, first, *ids)
        assert [start for start in stage.starts if start[1] >= 0] == [("also", 1), ("keyed", 2), ("keyed", 3)]

    async def test_a_lock_that_nobody_uses_is_taken_over(self, connected: Client, place: Place) -> None:
        """A lock without a task, left by somebody who died in between, closes the key until it has ended."""
        shift, stage = Shift(), Stage()
        now = await connected.store.now()
        change = lifecycle.lock(KEY, None, owner="of-another", until=now.latest + timedelta(seconds=MINUTE))
        assert (await connected.store.commit([], (), None, [change]))[0].applied
        ids = await enqueue_keyed(connected, 1, 2)
        shift.of(connected.store)
        async with Worker(keyed_app(stage), connected, poll=0.1):
            await done(connected, *await enqueue_keyed(connected, -1, user="bob"))
            assert numbers_of(stage) == []
            shift.advance(MINUTE + 1)
            await done(connected, *ids)
        assert numbers_of(stage) == [1, 2]
        assert await lock_of(connected) is None

    async def test_a_task_that_crashes_its_workers_ends(self, connected: Client, place: Place) -> None:
        """When a crash was the last attempt the task is done-failed without being run, and the others run."""
        shift, stage = Shift(), Stage()
        ids = await enqueue_keyed(connected, 1, 2)
        await held_by_hand(place.connect(), ids[0], seconds=MINUTE)
        shift.of(connected.store)
        shift.advance(MINUTE + 1)
        async with Worker(keyed_app(stage, retry=NoRetry()), connected, poll=0.1):
            tasks = await done(connected, *ids)
        assert stage.numbers == [2]
        assert [task.outcome for task in tasks] == ["failed", "completed"]


class TestStubbornHandlers:
    """A handler that does not stop."""

    @pytest.mark.parametrize("why", ["timeout", "cancelled", "shutdown"])
    async def test_a_thread_that_ignores_its_abort_keeps_the_key(
        self, connected: Client, place: Place, why: str
    ) -> None:
        """Until its lease has ended no task of the key starts, in no worker; then others go on."""
        shift, release, started, others = Shift(), threading.Event(), asyncio.Event(), Stage()
        loop = asyncio.get_running_loop()
        app = App()

        @app.handler(Keyed, timeout=0.1 if why == "timeout" else 30, retry=NoRetry())
        def stubborn(_: Context, payload: Keyed) -> None:
            loop.call_soon_threadsafe(started.set)
            release.wait(LIMIT)

        ids = await enqueue_keyed(connected, 1, 2, 3)
        other, watcher = await shifted(place, shift), place.connect()
        worker = Worker(app, connected, concurrency=1, abort_grace=0.1, grace=0)
        async with worker:
            await asyncio.wait_for(started.wait(), LIMIT)
            lock = not_none(await lock_of(watcher))
            if why == "cancelled":
                await watcher.cancel_task(ids[0])
                await _let_go_of(watcher, ids[0])
            if why == "timeout":
                await done(watcher, ids[0])
            await worker.stop()
            assert await lock_of(watcher) == lock
            async with Worker(keyed_app(others), other, poll=0.1):
                await done(watcher, *await enqueue_keyed(watcher, -1, user="bob"))
                shift.advance(5)
                await done(watcher, *await enqueue_keyed(watcher, -2, user="bob"))
                assert others.numbers == [-1, -2]
                shift.advance(MINUTE)
                await done(watcher, *ids)
            release.set()
        assert numbers_of(others) == ([1, 2, 3] if why == "shutdown" else [2, 3])
        assert others.overlaps == []


async def _let_go_of(client: Client, task_id: str) -> None:
    """Wait until nobody holds a task any more."""
    async with asyncio.timeout(LIMIT):
        async for task in client.watch(task_id):
            if task.lease_owner is None:
                return


class Meddling(Commits):
    """Does something once, before the first commit that hands a key over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: Client, meddle: Callable[[str], Any]) -> None:
        """`meddle`: is given the id of the task that comes next."""
        super().__init__(monkeypatch, client.store)
        self._meddle: Callable[[str], Any] | None = meddle
        self.met: list[str] = []

    async def before(self, transitions: Sequence[Transition], locks: Sequence[LockChange]) -> None:
        """Meddle."""
        if [step.event for step in transitions] == ["completed", "claimed"] and self._meddle is not None:
            meddle, self._meddle = self._meddle, None
            self.met.append(transitions[1].before.id)
            await meddle(transitions[1].before.id)


class TestRaces:
    """Somebody else changes something at the wrong moment."""

    @pytest.mark.parametrize("how", ["cancelled", "deleted", "claimed by another"])
    async def test_a_successor_that_changed_does_not_cost_the_completion(
        self, connected: Client, place: Place, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """One that is gone when it should be claimed is left out; the one before it completes, the key goes on."""
        other, stage = place.connect(), Stage()

        async def claim(task_id: str) -> None:
            task, now = await other.get_task(task_id), await other.store.now()
            until = now.latest + timedelta(seconds=1)
            (written,) = await other.store.apply([lifecycle.claim(task, lease_id="rude", until=until, now=now)])
            assert written.applied

        meddle = {"cancelled": other.cancel_task, "deleted": other.delete_task, "claimed by another": claim}[how]
        meddling = Meddling(monkeypatch, connected, meddle)
        ids = await enqueue_keyed(connected, 1, 2, 3, 4)
        async with Worker(keyed_app(stage), connected, poll=0.2):
            tasks = await done(connected, ids[0], *ids[2:])
        assert meddling.met == [ids[1]]
        assert [(task.outcome, task.attempts, task.result) for task in tasks] == [
            ("completed", 1, number) for number in (1, 3, 4)
        ]
        assert (stage.numbers, stage.overlaps) == ([1, 2, 3, 4] if how == "claimed by another" else [1, 3, 4], [])

    async def test_a_lock_that_is_removed_by_hand_lets_nobody_in(self, connected: Client, place: Place) -> None:
        """While the task runs nobody starts another one of its key; it ends normally, and the others follow."""
        stage, other = Stage(1), place.connect()
        ids = await enqueue_keyed(connected, 1, 2, 3)
        app = keyed_app(stage)
        async with Worker(app, connected), Worker(app, other, poll=0.1):
            await stage.started(1)
            lock = not_none(await lock_of(other))
            assert (await other.store.commit([], (), None, [lifecycle.unlock(lock)]))[0].applied
            for number in (-1, -2):
                await done(other, *await enqueue_keyed(other, number, user="bob"))
            assert numbers_of(stage) == [1]
            stage.let_go(1)
            tasks = await done(connected, *ids)
        assert (numbers_of(stage), stage.overlaps) == ([1, 2, 3], [])
        assert [(task.outcome, task.attempts) for task in tasks] == [("completed", 1)] * 3
        assert await lock_of(connected) is None

    async def test_a_lease_outlasts_a_removed_lock(self, connected: Client, place: Place) -> None:
        """A task whose lock is gone keeps its lease by renewing it, and nobody of its key starts meanwhile."""
        stage, other = Stage(1), place.connect()
        ids = await enqueue_keyed(connected, 1, 2)
        app = keyed_app(stage)
        async with Worker(app, connected, lease=0.6), Worker(app, other, lease=0.6, poll=0.1):
            await stage.started(1)
            lock = not_none(await lock_of(other))
            while not (await other.store.commit([], (), None, [lifecycle.unlock(lock)]))[0].applied:
                lock = not_none(await lock_of(other))  # a renewal was quicker
            ends: set[object] = set()
            async with asyncio.timeout(LIMIT):
                async for task in other.watch(ids[0]):
                    ends.add(task.leased_until)
                    if len(ends) == 5:
                        break
            assert stage.numbers == [1]
            stage.let_go(1)
            tasks = await done(connected, *ids)
        assert (stage.numbers, stage.overlaps) == ([1, 2], [])
        assert [task.attempts for task in tasks] == [1, 1]


class TestUnavailableStores:
    """The store does not answer for a while."""

    @pytest.mark.parametrize("verb", ["locks", "line", "commit"])
    async def test_a_key_is_taken_when_the_store_answers_again(
        self, connected: Client, place: Place, monkeypatch: pytest.MonkeyPatch, verb: str
    ) -> None:
        """Failures of whatever is needed for a key cost time, and neither a task nor the order."""
        stage, fails = Stage(), {"locks": [3], "line": [2, 1], "commit": [2, 0, 1]}[verb]
        asked = getattr(connected.store, verb)

        async def failing(*arguments: Any, **options: Any) -> Any:
            if fails:
                fails[0] -= 1
                if fails[0] >= 0:
                    msg = "not now"
                    raise StoreUnavailable(msg)
                del fails[0]
            return await asked(*arguments, **options)

        ids = await enqueue_keyed(connected, *range(1, 31))
        monkeypatch.setattr(connected.store, verb, failing)
        async with Worker(keyed_app(stage), connected):
            await stage.started(1)
            async with Worker(keyed_app(stage), place.connect()):
                tasks = await done(connected, *ids)
        assert (stage.numbers, stage.overlaps) == (list(range(1, 31)), [])
        assert not any(fails)  # a 0 is left where the other worker has taken the key after the last failure
        assert {(task.outcome, task.attempts) for task in tasks} == {("completed", 1)}

    @pytest.mark.parametrize("place_in_line", [1, 3, 5], ids=["taken", "handed over", "let go"])
    async def test_an_answer_that_is_lost_costs_a_lease_at_most(
        self, connected: Client, place: Place, monkeypatch: pytest.MonkeyPatch, place_in_line: int
    ) -> None:
        """A commit that was stored though the store seemed unavailable is found out; nobody runs beside anybody."""
        stage = Stage()

        class Losing(Commits):
            async def after(self, transitions: Sequence[Transition], locks: Sequence[LockChange]) -> None:
                if len(self.sent) == place_in_line:
                    raise StoreUnavailable("the answer is lost")

        losing = Losing(monkeypatch, connected.store)
        ids = await enqueue_keyed(connected, *range(1, 5))
        async with (
            Worker(keyed_app(stage), connected, lease=1, poll=0.2),
            asyncio.timeout(LIMIT),
        ):
            await done(connected, ids[0])
            async with Worker(keyed_app(stage), place.connect(), lease=1, poll=0.2):
                tasks = await done(connected, *ids)
        assert len(losing.sent) >= place_in_line
        assert (stage.firsts, stage.overlaps) == ([1, 2, 3, 4], [])
        assert {task.outcome for task in tasks} == {"completed"}
