"""Leases: what is written for a running task, and when; in virtual time, on a store that misbehaves on demand."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, cast

import pytest

from oncetask import lifecycle
from oncetask.clock import Now, StoreClock
from oncetask.context import AbortReason
from oncetask.errors import LeaseLost, PayloadTooLarge, StoreUnavailable
from oncetask.leases import Lease
from oncetask.lifecycle import Transition
from oncetask.lock import LockChange
from oncetask.store import Feed, TaskStore, Written
from oncetask.task import Outcome, Progress, Task, TaskStatus
from tests.support import MICROSECOND, T0, a_task, at
from tests.virtual_time import LoopClock, in_virtual_time

UNSURE = 2.0
"""Seconds by which the store's present is not known."""

LEASE = 30.0
"""Seconds that a lease lasts, unless a test says otherwise."""

HOUR = 3_600.0

DOWN = StoreUnavailable("down")
UNFORESEEN = RuntimeError("unforeseen")


@dataclass(frozen=True)
class Call:
    """One call to write: when it came (seconds), and what it wanted."""

    at: float
    transitions: tuple[Transition, ...]
    committed: bool = False

    @property
    def events(self) -> list[str]:
        """What its transitions are."""
        return [transition.event for transition in self.transitions]


class FakeStore:
    """The part of a `TaskStore` that a lease uses, in memory."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.clock = StoreClock(LoopClock())
        self.clock.observe(T0, asked=self.clock.monotonic() - UNSURE)
        self.records = {task.id: task for task in tasks}
        self.calls: list[Call] = []
        self.applied: list[tuple[str, int]] = []
        """Id and version of every write that was stored for the lease."""
        self.refused: list[str] = []
        self.faults: Iterator[Exception | None] = iter(())
        """What the next calls to write raise instead of writing; None, and after the last one: nothing."""
        self.read_faults: Iterator[Exception | None] = iter(())
        """The same for reading."""
        self.watch_faults: Iterator[Exception | None] = iter(())
        """The same for opening a watch."""
        self.is_impossible: Callable[[Transition], bool] = lambda _: False
        self.answers = asyncio.Event()
        """Cleared: what is written is stored, but the answers are on their way."""
        self.answers.set()
        self.tells = True
        """False: watches give what they find at the start, and nothing after that."""
        self.opened: list[float] = []
        """When a watch was opened, or would have been."""
        self._feeds: list[tuple[Sequence[str], Feed[list[Task | None]]]] = []
        self._versions = itertools.count(1_000)

    async def apply(self, transitions: Sequence[Transition]) -> list[Written]:
        """Write each by itself."""
        self._called(transitions, committed=False)
        written = [self._written(one) for one in transitions]
        self._ring()
        await self.answers.wait()
        return written

    async def commit(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task],
        batch: object | None,
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Write all, or nothing; of locks it knows nothing."""
        assert not locks
        self._called(transitions, committed=True)
        if any(map(self.is_impossible, transitions)):
            written = [Written(error=PayloadTooLarge("too large")) for _ in transitions]
        elif any(self.records.get(one.before.id, None) != one.before for one in transitions):
            written = [Written() for _ in transitions]
        else:
            written = [self._written(one) for one in transitions]
        self._ring()
        await self.answers.wait()
        return written

    async def get(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Read."""
        if fault := next(self.read_faults, None):
            raise fault
        return [self.records.get(task_id) for task_id in task_ids]

    def watch_tasks(self, task_ids: Sequence[str]) -> AbstractAsyncContextManager[Feed[list[Task | None]]]:
        """Watch."""
        return self._watch(task_ids)

    @property
    def watches(self) -> int:
        """How many are open."""
        return len(self._feeds)

    def change(self, task_id: str = "greet:1", **fields: Any) -> Task:
        """Write as somebody else."""
        self.records[task_id] = self.records[task_id].evolve(version=next(self._versions), **fields)
        self._ring()
        return self.records[task_id]

    def cancel(self, task_id: str = "greet:1") -> Task:
        """Cancel as a user would."""
        transition = lifecycle.cancel(self.records[task_id], now=self.clock.now())
        assert transition is not None
        return self.change(task_id, **transition.changes)

    def take_away(self, how: str, task_id: str = "greet:1") -> None:
        """End a lease as somebody else."""
        if how == "deleted":
            del self.records[task_id]
            self._ring()
        elif how == "done":
            self.change(task_id, outcome=Outcome.CANCELLED, lease_owner=None, leased_until=None)
        else:
            self.change(task_id, lease_owner="another")

    def show(self, *tasks: Task) -> None:
        """Let every watch give these records, whatever is stored."""
        for _, feed in self._feeds:
            feed.put(list(tasks))

    def break_watches(self) -> None:
        """End every watch that is open with an error."""
        for _, feed in self._feeds:
            feed.fail(DOWN)

    def _called(self, transitions: Sequence[Transition], *, committed: bool) -> None:
        self.calls.append(Call(_now(), tuple(transitions), committed))
        if fault := next(self.faults, None):
            raise fault

    def _written(self, transition: Transition) -> Written:
        task_id = transition.before.id
        if self.is_impossible(transition):
            return Written(error=PayloadTooLarge("too large"))
        found = self.records.get(task_id)
        if found is None or found.version != transition.before.version:
            self.refused.append(task_id)
            return Written()
        version = next(self._versions)
        self.records[task_id] = found.evolve(**transition.changes, version=version)
        self.applied.append((task_id, version))
        return Written(version)

    @asynccontextmanager
    async def _watch(self, ids: Sequence[str]) -> AsyncIterator[Feed[list[Task | None]]]:
        self.opened.append(_now())
        if fault := next(self.watch_faults, None):
            raise fault
        feed: Feed[list[Task | None]] = Feed()
        feed.put([self.records.get(task_id) for task_id in ids])
        entry = (ids, feed)
        self._feeds.append(entry)
        try:
            yield feed
        finally:
            self._feeds.remove(entry)

    def _ring(self) -> None:
        if self.tells:
            for ids, feed in self._feeds:
                feed.put([self.records.get(task_id) for task_id in ids])


class Running:
    """Tasks that were claimed just now, the lease on them, and what it said."""

    def __init__(self, *ids: str, duration: float = LEASE, **fields: Any) -> None:
        """`fields`: what is different about the tasks."""
        tasks = [claimed(task_id, duration=duration, **fields) for task_id in ids or ("greet:1",)]
        self.store = FakeStore(tasks)
        self.told: list[Transition] = []
        self.stops: list[tuple[float, AbortReason]] = []
        self.lease = Lease(cast("TaskStore", self.store), tasks, duration=duration, stored=self.told.append)

    def kept(self) -> AbstractAsyncContextManager[None]:
        """Keep the lease; notes when the handler is told to stop."""
        return self.lease.kept(lambda reason: self.stops.append((_now(), reason)))

    async def complete(self) -> list[Transition]:
        """Write the end of a handler that succeeded."""
        return await self.lease.write(completed)

    @property
    def record(self) -> Task:
        """The record of the first task, as the store has it."""
        return next(iter(self.store.records.values()))

    @property
    def times(self) -> list[float]:
        """When something was to be written."""
        return [call.at for call in self.store.calls]

    @property
    def progress_times(self) -> list[float]:
        """When something with a progress in it was to be written."""
        return [call.at for call in self.store.calls if any("progress" in one.changes for one in call.transitions)]


def claimed(task_id: str = "greet:1", *, duration: float = LEASE, **fields: Any) -> Task:
    """Give a task as its worker has claimed it at T0."""
    until = at(UNSURE + duration)
    given = {"lease_owner": "mine", "leased_until": until, "attempts": 1, "started_at": T0, "version": 7, **fields}
    return a_task(task_id, **given)


def completed(task: Task, now: Now) -> Transition:
    """Make the end of a task whose handler succeeded."""
    return lifecycle.complete(task, result="done", now=now)


def part(fraction: float) -> Progress:
    """Make a progress that is told now."""
    return Progress(fraction, at=at(_now()))


def _now() -> float:
    return asyncio.get_running_loop().time()


async def until(seconds: float) -> None:
    """Wait until it is so late."""
    await asyncio.sleep(seconds - _now())


class TestRenewals:
    """While a handler runs."""

    @in_virtual_time
    async def test_it_is_renewed_at_a_third_of_the_duration_for_hours(self) -> None:
        """A renewal goes out at each third of the duration, upon the last one, and lasts the whole duration."""
        run = Running()
        async with run.kept():
            await until(4 * HOUR + 1)
        assert run.times == pytest.approx([10.0 * n for n in range(1, 4 * 360 + 1)])
        renewals = [transition for call in run.store.calls for transition in call.transitions]
        assert {transition.event for transition in renewals} == {"renewed"}
        versions = [7, *(version for _, version in run.store.applied)]
        assert [transition.before.version for transition in renewals] == versions[:-1]
        assert (run.store.refused, run.stops, run.record.version) == ([], [], versions[-1])
        ends = [transition.after.leased_until for transition in renewals]
        assert ends == [at(call.at + UNSURE + LEASE) for call in run.store.calls]
        assert run.lease.tasks == (run.record,)

    @in_virtual_time
    async def test_a_very_short_lease_is_renewed_in_time(self) -> None:
        """A third of the duration is kept also where that is less than the moment after which the watch begins."""
        run = Running(duration=0.3)
        async with run.kept():
            await until(1.05)
        assert run.times == pytest.approx([n / 10 for n in range(1, 11)])
        assert run.store.opened == pytest.approx([0.1])

    @in_virtual_time
    async def test_a_short_handler_costs_no_watch_and_no_renewal(self) -> None:
        """What runs for a moment only is neither watched nor renewed."""
        run = Running()
        async with run.kept():
            await until(0.19)
        await run.complete()
        assert (run.store.opened, run.store.calls[0].events, len(run.store.calls)) == ([], ["completed"], 1)

    @in_virtual_time
    async def test_all_members_of_a_batch_are_renewed_together(self) -> None:
        """The renewals of a batch are one call, and end at the same time."""
        run = Running("a", "b", "c")
        async with run.kept():
            await until(25)
        assert run.times == [10.0, 20.0]
        assert [len(call.transitions) for call in run.store.calls] == [3, 3]
        assert {task.leased_until for task in run.lease.tasks} == {at(20 + UNSURE + LEASE)}

    @in_virtual_time
    async def test_a_late_answer_does_not_overwrite_what_the_watch_told(self) -> None:
        """When a renewal's answer comes after somebody else's newer record, the newer one stays, and is built upon."""
        run = Running()
        async with run.kept():
            await until(9)
            run.store.answers.clear()
            await until(11)
            newer = run.store.change(owner="somebody")
            await until(12)
            run.store.answers.set()
            await until(13)
            assert run.lease.tasks == (newer,)
        (done,) = await run.complete()
        assert run.store.refused == []
        assert (done.before, done.after.owner, run.record.owner) == (newer, "somebody", "somebody")

    @in_virtual_time
    async def test_what_the_watch_tells_late_does_not_overwrite_a_renewal(self) -> None:
        """A record that the watch delivers after a newer one was written is left aside."""
        run = Running()
        async with run.kept():
            older = run.record
            await until(11)
            run.store.show(older)
            await until(12)
            assert run.lease.tasks == (run.record,) != (older,)
            await until(25)
        assert (run.store.refused, run.stops) == ([], [])

    @in_virtual_time
    async def test_an_unforeseen_error_is_tried_again_after_a_breath(self) -> None:
        """A renewal that failed is repeated after half a second, and the next one is due a third later as ever."""
        run = Running()
        run.store.faults = iter([UNFORESEEN, UNFORESEEN])
        async with run.kept():
            await until(25)
        assert (run.times, run.stops) == ([10.0, 10.5, 11.0, 21.0], [])

    @pytest.mark.parametrize("error", [UNFORESEEN, DOWN], ids=["unforeseen", "unavailable"])
    @pytest.mark.parametrize(
        ("more", "end", "last"),
        [(timedelta(), 30.0, 30.0), (MICROSECOND, 30.000001, 30.5), (-MICROSECOND, 29.999999, 30.0)],
        ids=["=", "+", "-"],
    )
    @in_virtual_time
    async def test_the_handler_is_stopped_once_the_lease_has_ended_for_certain(
        self, error: Exception, more: timedelta, end: float, last: float
    ) -> None:
        """It is stopped when the latest bound of the present reaches the lease's end; then no renewal is tried."""
        run = Running(leased_until=at(UNSURE + LEASE) + more)
        run.store.faults = itertools.repeat(error)
        async with run.kept():
            await until(HOUR)
        assert run.stops == [(end, "lease-lost")]
        assert run.times == [10 + n / 2 for n in range(int(2 * (last - 10)) + 1)]

    @in_virtual_time
    async def test_a_store_that_does_not_answer_does_not_keep_the_handler_running(self) -> None:
        """While a renewal waits for its answer for ever, the handler is stopped at the end of the lease that it had."""
        run = Running()
        run.store.tells = False
        run.store.answers.clear()
        async with run.kept():
            await until(31)
            assert run.stops == [(30.0, "lease-lost")]
            run.store.answers.set()

    @in_virtual_time
    async def test_one_member_whose_lease_has_ended_is_enough(self) -> None:
        """A batch is stopped as soon as the first lease among its members has ended."""
        run = Running("a", "b")
        run.lease._held["b"] = run.store.records["b"] = claimed("b", leased_until=at(UNSURE + 15))
        run.store.faults = itertools.repeat(UNFORESEEN)
        async with run.kept():
            await until(HOUR)
        assert run.stops == [(15.0, "lease-lost")]


class TestWriting:
    """The only road for writes."""

    @in_virtual_time
    async def test_an_unavailable_store_is_asked_again(self) -> None:
        """A write is repeated every half second until it is stored."""
        run = Running()
        run.store.faults = iter([DOWN, DOWN, DOWN])
        (done,) = await run.complete()
        assert run.times == [0.0, 0.5, 1.0, 1.5]
        assert (done.after.done_at, run.record.outcome) == (at(1.5), Outcome.COMPLETED)

    @in_virtual_time
    async def test_an_unavailable_store_is_asked_as_long_as_the_lease_lasts(self) -> None:
        """A write gives up with `LeaseLost` when somebody else may hold the task, and not before."""
        run = Running()
        run.store.faults = itertools.repeat(DOWN)
        with pytest.raises(LeaseLost, match=r"greet:1 ended while the store was unavailable: down"):
            await run.complete()
        assert (len(run.times), run.times[-1]) == (61, 30.0)

    @in_virtual_time
    async def test_an_unavailable_store_is_read_again(self) -> None:
        """A store that cannot be read after a refusal is asked again like one that cannot be written."""
        run = Running()
        run.store.change(owner="somebody")
        run.store.read_faults = iter([DOWN, DOWN])
        (done,) = await run.complete()
        assert (done.after.owner, run.record.outcome) == ("somebody", Outcome.COMPLETED)

    @in_virtual_time
    async def test_a_renewal_survives_a_store_that_cannot_be_read(self) -> None:
        """A refused renewal after which the task cannot be read does not stop the handler while the lease lasts."""
        run = Running()
        async with run.kept():
            run.store.tells = False
            await until(5)
            run.store.change(owner="somebody")
            run.store.read_faults = iter([DOWN])
            await until(HOUR)
        assert run.stops == []
        assert len(run.store.applied) > 300

    @in_virtual_time
    async def test_a_refused_write_is_made_anew_from_the_newest_record(self) -> None:
        """Where somebody else wrote in between, the event is asked again with that record."""
        run = Running()
        run.store.cancel()
        (released,) = await run.complete()
        assert (run.store.refused, released.event) == (["greet:1"], "cancelled")
        assert run.record.outcome is Outcome.CANCELLED

    @pytest.mark.parametrize("how", ["stolen", "done", "deleted"])
    @in_virtual_time
    async def test_nothing_is_written_without_the_lease(self, how: str) -> None:
        """A write for a task that is somebody else's, done or gone raises `LeaseLost`, and leaves it as it is."""
        run = Running()
        run.store.take_away(how)
        left = dict(run.store.records)
        with pytest.raises(LeaseLost, match=r"'greet:1' is not held by this worker any more"):
            await run.complete()
        assert (run.store.records, run.told, run.lease.tasks) == (left, [], ())

    @in_virtual_time
    async def test_a_lost_member_of_a_batch_is_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        """The others are written, what was stored is given, and the lost one is logged."""
        run = Running("a", "b", "c")
        run.store.take_away("stolen", "b")
        run.store.change("c", owner="somebody")
        written = await run.complete()
        assert [one.after.id for one in written] == ["a", "c"]
        assert (run.store.records["b"].lease_owner, run.store.records["b"].outcome) == ("another", None)
        assert "task 'b' is not held by this worker any more" in caplog.text

    @in_virtual_time
    async def test_members_that_are_lost_after_others_were_written_raise_nothing(self) -> None:
        """Where some were stored and all others are lost, the write gives what was stored."""
        run = Running("a", "b")
        run.store.take_away("done", "b")
        assert [one.after.id for one in await run.complete()] == ["a"]
        assert run.lease.tasks == ()

    @in_virtual_time
    async def test_an_impossible_write_does_not_keep_the_others_from_being_stored(self) -> None:
        """One member's error is raised after all the others have been stored and told, a refused one among them."""
        run = Running("a", "b", "c")
        run.store.is_impossible = lambda one: one.before.id == "b"
        run.store.change("c", owner="somebody")
        with pytest.raises(PayloadTooLarge, match="too large"):
            await run.complete()
        assert [one.after.id for one in run.told] == ["a", "c"]
        assert [task.outcome for task in run.store.records.values()] == [Outcome.COMPLETED, None, Outcome.COMPLETED]
        assert [task.id for task in run.lease.tasks] == ["b"]

    @in_virtual_time
    async def test_what_was_impossible_can_be_written_otherwise(self) -> None:
        """After an impossible write the lease still holds, and another one is stored."""
        run = Running()
        run.store.is_impossible = lambda one: one.event == "completed"
        with pytest.raises(PayloadTooLarge):
            await run.complete()
        error = PayloadTooLarge("too large")
        await run.lease.write(lambda task, now: lifecycle.fail(task, error, delay=None, now=now))
        assert (run.record.outcome, len(run.store.calls)) == (Outcome.FAILED, 2)

    @in_virtual_time
    async def test_what_is_staged_goes_with_the_success_only(self) -> None:
        """Staged tasks make one commit of the success; where a cancel was stored, nothing of them is sent."""
        run = Running()
        await run.lease.write(completed, [a_task("staged")])
        overtaken = Running(is_cancelled=True)
        await overtaken.lease.write(completed, [a_task("staged")])
        assert [call.committed for call in (*run.store.calls, *overtaken.store.calls)] == [True, False]

    @in_virtual_time
    async def test_every_stored_write_is_told_once_with_its_version(self) -> None:
        """Whatever goes wrong in between: what is stored is told exactly once, in order, with the version it has."""
        run = Running("a", "b")
        run.store.faults = iter([None, None, DOWN, UNFORESEEN])
        async with run.kept():
            await until(5)
            run.lease.tell(part(0.1))
            await until(12)
            run.store.tells = False
            run.store.change("a", owner="somebody")
            run.lease.tell(part(0.25))
            await until(35)
            run.store.cancel("b")
            run.lease.tell(part(0.5))
        await run.complete()
        assert [(one.after.id, one.after.version) for one in run.told] == run.store.applied
        assert len(run.store.applied) == len(set(run.store.applied)) > 6
        assert run.store.refused == ["a", "b"]
        assert [task.outcome for task in run.store.records.values()] == [Outcome.COMPLETED, Outcome.CANCELLED]
        assert {one.event for one in run.told} == {"renewed", "progressed", "completed", "cancelled"}


class TestLost:
    """A lease that is gone stops the handler."""

    @pytest.mark.parametrize("how", ["stolen", "done", "deleted"])
    @pytest.mark.parametrize(("through", "when"), [("the watch", 1.0), ("renewal", 10.0)])
    @in_virtual_time
    async def test_the_handler_is_told_once(self, how: str, through: str, when: float) -> None:
        """Whoever notices it first, the watch or a renewal, says "lease-lost", once, and nothing is written after."""
        run = Running()
        async with run.kept():
            run.store.tells = through == "the watch"
            await until(1)
            run.store.take_away(how)
            left = dict(run.store.records)
            await until(HOUR)
        assert run.stops == [(when, "lease-lost")]
        assert (run.store.records, run.store.applied) == (left, [])
        assert len(run.times) == (through == "renewal")

    @pytest.mark.parametrize("tells", [True, False], ids=["the watch", "renewal"])
    @in_virtual_time
    async def test_a_batch_goes_on_until_the_last_member_is_lost(self, *, tells: bool) -> None:
        """The loss of one member stops nothing; that of the last one does, once."""
        run = Running("a", "b")
        async with run.kept():
            run.store.tells = tells
            await until(1)
            run.store.take_away("stolen", "a")
            await until(100)
            assert run.stops == []
            assert [task.id for task in run.lease.tasks] == ["b"]
            run.store.take_away("deleted", "b")
            await until(HOUR)
        assert [reason for _, reason in run.stops] == ["lease-lost"]

    @in_virtual_time
    async def test_both_notice_it_at_once(self) -> None:
        """The watch and a renewal that is on its way meanwhile say it once together."""
        run = Running()
        async with run.kept():
            await until(9)
            run.store.answers.clear()
            await until(11)
            run.store.take_away("stolen")
            await until(12)
            run.store.answers.set()
            await until(HOUR)
        assert run.stops == [(12.0, "lease-lost")]


class TestCancels:
    """A cancel of everything that is held stops the handler."""

    @pytest.mark.parametrize(("tells", "when"), [(True, 1.0), (False, 10.0)], ids=["the watch", "renewal"])
    @in_virtual_time
    async def test_the_handler_is_stopped(self, *, tells: bool, when: float) -> None:
        """The watch tells of a cancel at once, else a renewal does; the lease is renewed until the handler ends."""
        run = Running()
        async with run.kept():
            run.store.tells = tells
            await until(1)
            run.store.cancel()
            await until(25)
        assert run.stops[0] == (when, "cancelled")
        assert {reason for _, reason in run.stops} == {"cancelled"}
        assert len(run.store.applied) == 2

    @in_virtual_time
    async def test_a_batch_is_stopped_when_all_its_members_are_cancelled(self) -> None:
        """As long as one member is wanted the handler goes on."""
        run = Running("a", "b")
        async with run.kept():
            await until(1)
            run.store.cancel("a")
            await until(2)
            assert run.stops == []
            run.store.cancel("b")
            await until(3)
        assert run.stops[0] == (2.0, "cancelled")

    @in_virtual_time
    async def test_a_cleanup_is_renewed_but_not_watched(self) -> None:
        """The lease of a cleanup costs no watch, and is not stopped by its cancel."""
        run = Running(is_cancelled=True, cancel_attempts=1)
        async with run.kept():
            await until(25)
        assert (run.store.opened, run.times, run.stops) == ([], [10.0, 20.0], [])


class TestWatch:
    """The watch is opened again whenever it breaks."""

    @in_virtual_time
    async def test_the_pause_doubles_up_to_half_a_minute(self) -> None:
        """A watch that cannot be opened is tried again after 0.5, 1, 2, 4, 8, 16, 30, 30 … seconds."""
        run = Running()
        run.store.watch_faults = itertools.repeat(DOWN)
        async with run.kept():
            await until(200)
        pauses = [later - earlier for earlier, later in pairwise(run.store.opened)]
        assert run.store.opened[0] == pytest.approx(0.2)
        assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30])
        assert run.stops == []

    @in_virtual_time
    async def test_what_was_missed_is_seen_when_it_opens_again(self) -> None:
        """A cancel during a pause stops the handler at its end, long before the next renewal would."""
        run = Running(duration=HOUR)
        run.store.watch_faults = iter([DOWN, UNFORESEEN])
        async with run.kept():
            await until(1)
            run.store.cancel()
            await until(5)
        assert (run.stops, run.store.watches) == ([(1.7, "cancelled")], 0)

    @pytest.mark.parametrize(("well", "pause"), [(30.0, 30.0), (30.001, 0.5)])
    @in_virtual_time
    async def test_the_pause_shrinks_after_it_did_well(self, well: float, pause: float) -> None:
        """A watch that held for more than half a minute is opened again at once, and the pauses begin anew."""
        run = Running()
        run.store.watch_faults = iter([DOWN] * 7)
        await until(0.3)
        async with run.kept():
            await until(63)
            assert (run.store.opened[-1], run.store.watches) == (62.0, 1)
            await until(62 + well)
            run.store.break_watches()
            await until(200)
            assert run.store.opened[8:] == pytest.approx([62 + well + pause])
            run.store.watch_faults = iter([DOWN])
            run.store.break_watches()
            await until(300)
        assert run.store.opened[9:] == pytest.approx([200.5, 201.5])

    @in_virtual_time
    async def test_only_one_watch_is_open(self) -> None:
        """However often it breaks, one is open while the handler runs, and none after."""
        run = Running("a", "b")
        async with run.kept():
            for second in range(1, 200, 7):
                await until(second)
                assert run.store.watches <= 1
                run.store.break_watches()
            await until(300)
            assert run.store.watches == 1
        assert run.store.watches == 0


class TestProgress:
    """What a handler says of how far it is."""

    @in_virtual_time
    async def test_it_is_written_soon(self) -> None:
        """The first one is stored a tenth of a second after it was told, and stays in the lease's record."""
        run = Running()
        async with run.kept():
            await until(3)
            run.lease.tell(said := part(0.5))
            await until(4)
            assert run.record.progress == said
            assert run.lease.tasks == (run.record,)
        assert run.times == pytest.approx([3.1])
        assert run.store.calls[0].events == ["progressed"]

    @in_virtual_time
    async def test_there_is_one_write_a_second(self) -> None:
        """Of a quick sequence the newest one is written each second, and the last one at the end."""
        run = Running()
        async with run.kept():
            for n in range(1, 501):
                run.lease.tell(part(n / 500))
                await until(n / 100)
            assert run.times == pytest.approx([0.1, 1.1, 2.1, 3.1, 4.1])
            newest = [one.changes["progress"].at for call in run.store.calls for one in call.transitions]
            assert all(
                timedelta() <= at(when) - told <= timedelta(seconds=0.02)
                for when, told in zip(run.times, newest, strict=True)
            )
            await until(9)
        assert run.times == pytest.approx([0.1, 1.1, 2.1, 3.1, 4.1, 5.1])
        assert run.record.progress is not None
        assert run.record.progress.fraction == 1

    @in_virtual_time
    async def test_after_a_pause_it_is_written_soon_again(self) -> None:
        """One that is told more than a second after the last write waits a tenth of a second only."""
        run = Running()
        async with run.kept():
            run.lease.tell(part(0.1))
            await until(5)
            run.lease.tell(part(0.2))
            await until(6)
        assert run.times == pytest.approx([0.1, 5.1])

    @in_virtual_time
    async def test_the_last_one_goes_with_the_final_write(self) -> None:
        """What was told at the end is stored by the ending itself, which is the only write."""
        run = Running()
        async with run.kept():
            run.lease.tell(part(0.1))
            run.lease.tell(said := part(1))
        assert run.times == []
        (done,) = await run.complete()
        assert (done.event, done.after.progress, run.record.progress) == ("completed", said, said)
        assert (len(run.times), run.record.status) == (1, TaskStatus.DONE_COMPLETED)

    @in_virtual_time
    async def test_one_that_is_told_while_another_is_on_its_way_goes_with_the_final_write(self) -> None:
        """The answer to a write for the last one but one does not make the last one forgotten."""
        run = Running()
        async with run.kept():
            run.store.answers.clear()
            run.lease.tell(part(0.5))
            await until(0.15)
            run.lease.tell(last := part(1))
            asyncio.get_running_loop().call_later(0.01, run.store.answers.set)
        await run.complete()
        assert (run.record.outcome, run.record.progress, len(run.times)) == (Outcome.COMPLETED, last, 2)

    @in_virtual_time
    async def test_the_last_one_goes_with_a_commit(self) -> None:
        """It is stored also where the ending takes staged tasks along."""
        run = Running()
        async with run.kept():
            run.lease.tell(said := part(1))
        await run.lease.write(completed, [a_task("staged")])
        assert (run.store.calls[0].committed, run.record.progress) == (True, said)

    @in_virtual_time
    async def test_a_renewal_takes_it_along(self) -> None:
        """What waits for its turn when a renewal goes out is stored with that; the next second counts from there."""
        run = Running()
        async with run.kept():
            await until(9)
            run.lease.tell(part(0.1))
            await until(9.5)
            run.lease.tell(second := part(0.2))
            await until(10.05)
            assert run.record.progress == second
            await until(10.2)
            run.lease.tell(part(0.3))
            await until(15)
        assert run.times == pytest.approx([9.1, 10.0, 11.0])
        assert [call.events for call in run.store.calls] == [["progressed"], ["renewed"], ["progressed"]]

    @in_virtual_time
    async def test_nothing_is_written_for_it_after_the_handler_ended(self) -> None:
        """Neither what waits when the block ends nor what is told after it is written, except by the ending."""
        run = Running()
        async with run.kept():
            run.lease.tell(part(0.1))
        await until(20)
        run.lease.tell(last := part(0.2))
        await until(40)
        assert run.times == []
        await run.complete()
        assert (run.times, run.record.progress) == ([40.0], last)
        await until(60)
        assert run.times == [40.0]

    @in_virtual_time
    async def test_what_is_told_after_the_end_only_is_not_written(self) -> None:
        """One that is the first to be told, and comes after the block, sets nothing going either."""
        run = Running()
        async with run.kept():
            await until(1)
        run.lease.tell(part(0.2))
        await until(20)
        assert run.times == []

    @in_virtual_time
    async def test_a_refused_write_does_not_lose_it(self) -> None:
        """Where somebody else wrote meanwhile, it is written upon that record."""
        run = Running()
        async with run.kept():
            run.lease.tell(said := part(0.5))
            run.store.change(owner="somebody")
            await until(0.15)
            assert (run.record.owner, run.record.progress) == ("somebody", said)
        assert (run.store.refused, len(run.store.applied)) == (["greet:1"], 1)

    @in_virtual_time
    async def test_a_refused_ending_does_not_lose_it(self) -> None:
        """An ending that was overtaken by a cancel takes it along the second time too."""
        run = Running()
        async with run.kept():
            run.lease.tell(said := part(0.5))
            run.store.cancel()
        await run.complete()
        assert (run.record.outcome, run.record.progress) == (Outcome.CANCELLED, said)

    @in_virtual_time
    async def test_an_unavailable_store_does_not_lose_it(self) -> None:
        """An ending that is tried again takes it along each time."""
        run = Running()
        async with run.kept():
            run.lease.tell(said := part(0.5))
        run.store.faults = iter([DOWN, DOWN])
        await run.complete()
        assert (run.record.outcome, run.record.progress, len(run.times)) == (Outcome.COMPLETED, said, 3)

    @in_virtual_time
    async def test_an_ending_that_it_makes_impossible_is_written_without_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The task ends as it would have, nothing is raised, and the log says what was left out."""
        run = Running("a", "b")
        run.store.is_impossible = lambda one: one.before.id == "b" and "progress" in one.changes
        async with run.kept():
            run.lease.tell(said := part(0.5))
        written = await run.complete()
        assert [one.after.id for one in written] == ["a", "b"]
        assert [task.outcome for task in run.store.records.values()] == [Outcome.COMPLETED] * 2
        assert [task.progress for task in run.store.records.values()] == [said, None]
        assert "the progress of task b is dropped" in caplog.text

    @in_virtual_time
    async def test_a_commit_that_it_makes_impossible_is_written_without_it(self) -> None:
        """What was staged is stored all the same."""
        run = Running()
        run.store.is_impossible = lambda one: "progress" in one.changes
        async with run.kept():
            run.lease.tell(part(0.5))
        await run.lease.write(completed, [a_task("staged")])
        assert run.record.outcome is Outcome.COMPLETED
        assert [call.committed for call in run.store.calls] == [True, True]

    @in_virtual_time
    async def test_an_ending_that_is_impossible_by_itself_does_not_lose_it(self) -> None:
        """Where the ending was impossible for another reason, the failure that is written instead takes it along."""
        run = Running()
        run.store.is_impossible = lambda one: one.event == "completed"
        async with run.kept():
            run.lease.tell(said := part(0.5))
        with pytest.raises(PayloadTooLarge):
            await run.complete()
        await run.lease.write(lambda task, now: lifecycle.fail(task, UNFORESEEN, delay=None, now=now))
        assert (run.record.outcome, run.record.progress) == (Outcome.FAILED, said)

    @in_virtual_time
    async def test_one_that_can_never_be_stored_harms_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        """A progress that the store cannot take is logged; the handler runs on, is renewed, and ends."""
        run = Running()
        run.store.is_impossible = lambda one: "progress" in one.changes
        async with run.kept():
            run.lease.tell(part(0.5))
            await until(25)
        await run.complete()
        assert (run.stops, run.record.outcome, run.record.progress) == ([], Outcome.COMPLETED, None)
        assert [one.event for one in run.told] == ["renewed", "renewed", "completed"]
        assert "the progress of task greet:1 is dropped" in caplog.text

    @in_virtual_time
    async def test_an_unforeseen_error_does_not_stop_the_handler(self, caplog: pytest.LogCaptureFixture) -> None:
        """A write for progress that fails is logged; it is stored by the next renewal at the latest."""
        run = Running()
        run.store.faults = iter([UNFORESEEN])
        async with run.kept():
            run.lease.tell(said := part(0.5))
            await until(11)
            assert run.record.progress == said
        assert (run.stops, run.record.lease_owner) == ([], "mine")
        assert "the progress of task greet:1 could not be stored" in caplog.text

    @in_virtual_time
    async def test_an_unavailable_store_does_not_stop_the_handler(self) -> None:
        """While the lease lasts the handler runs on; the block waits for what is on its way, and loses nothing."""
        run = Running()
        run.store.faults = iter([DOWN] * 20)
        async with run.kept():
            run.lease.tell(part(0.5))
            await until(5)
            run.lease.tell(last := part(1))
        assert _now() == pytest.approx(10.1)
        assert (run.stops, run.record.progress) == ([], last)
        await run.complete()
        assert (run.record.outcome, run.record.progress) == (Outcome.COMPLETED, last)

    @in_virtual_time
    async def test_an_unavailable_store_stops_the_handler_when_the_lease_has_ended(self) -> None:
        """While a write for progress goes on failing, the end of the lease is noticed when it comes."""
        run = Running()
        run.store.faults = itertools.repeat(DOWN)
        async with run.kept():
            await until(9.5)
            run.lease.tell(part(0.5))
            await until(HOUR)
        assert run.stops == [(30.0, "lease-lost")]

    @pytest.mark.parametrize("how", ["stolen", "done", "deleted"])
    @in_virtual_time
    async def test_a_lost_lease_stops_the_handler(self, how: str) -> None:
        """A write for progress notices that the task is lost, and says so once."""
        run = Running()
        async with run.kept():
            run.store.tells = False
            await until(1)
            run.store.take_away(how)
            run.lease.tell(part(0.5))
            await until(HOUR)
        ((when, reason),) = run.stops
        assert (round(when, 6), reason) == (1.1, "lease-lost")

    @in_virtual_time
    async def test_each_member_of_a_batch_has_it(self) -> None:
        """What a batch handler tells is stored with each member, in one call."""
        run = Running("a", "b", "c")
        async with run.kept():
            run.lease.tell(said := part(0.5))
            await until(1)
        assert [task.progress for task in run.store.records.values()] == [said] * 3
        assert len(run.times) == 1

    @in_virtual_time
    async def test_one_that_is_told_while_a_member_is_read_again_reaches_all(self) -> None:
        """The last one is stored with every member, also where one member's write was refused when it was told."""
        run = Running("a", "b")
        async with run.kept():
            run.lease.tell(part(0.5))
            run.store.change("b", owner="somebody")
            run.store.answers.clear()
            await until(0.15)
            run.lease.tell(last := part(1))
            run.store.answers.set()
            await until(5)
        await run.complete()
        assert [task.progress for task in run.store.records.values()] == [last, last]

    @in_virtual_time
    async def test_an_older_one_never_overwrites_a_newer_one(self) -> None:
        """However slow the store is, each write stores the newest of all that was told, and the last one stays."""
        run = Running()
        async with run.kept():
            await until(9.9)
            run.store.answers.clear()
            await until(10.5)
            for n in range(1, 8):
                run.lease.tell(last := part(n / 10))
                await asyncio.sleep(0.15)
            run.lease.tell(last := part(1))
            run.store.answers.set()
            await until(15)
            assert run.record.progress == last
        stored = [one.changes["progress"].fraction for one in run.told if "progress" in one.changes]
        assert stored == sorted(stored)

    @in_virtual_time
    async def test_a_slow_store_is_not_written_to_more_often(self) -> None:
        """Also where answers take long, no two writes for progress go out within a second."""
        run = Running()
        async with run.kept():
            run.store.answers.clear()
            for n in range(1, 8):
                run.lease.tell(part(n / 10))
                await asyncio.sleep(0.1)
            run.store.answers.set()
            await until(5)
        assert all(later - earlier > 0.999 for earlier, later in pairwise(run.progress_times))
        assert run.record.progress is not None
        assert run.record.progress.fraction == 0.7

    @in_virtual_time
    async def test_what_a_renewal_took_along_is_not_written_again(self) -> None:
        """A write for progress that waits for its turn behind a renewal with the same progress has nothing to do."""
        run = Running()
        async with run.kept():
            await until(9)
            run.lease.tell(part(0.1))
            await until(9.05)
            run.store.answers.clear()
            await until(10.05)
            run.lease.tell(last := part(0.2))
            await until(12)
            run.store.answers.set()
            await until(13.5)
            assert run.record.progress == last
        assert len(run.progress_times) == 2


class TestEnd:
    """When the block ends nothing of it is left."""

    @pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
    @pytest.mark.parametrize("seconds", [0.0, 0.15, 0.2, 0.5, 10.0, 10.2, 95.0])
    @in_virtual_time
    async def test_nothing_is_left_running(self, seconds: float, *, raises: bool) -> None:
        """Whenever and however the block ends, no asyncio task and no watch is left, and nothing happens any more."""
        run, before = Running(), asyncio.all_tasks()
        run.store.faults = iter([UNFORESEEN] * 3)
        with suppress(ValueError):
            async with run.kept():
                run.lease.tell(part(0.5))
                await until(seconds)
                run.lease.tell(part(0.6))
                if raises:
                    raise ValueError("boom")
        calls = len(run.times)
        assert (asyncio.all_tasks(), run.store.watches) == (before, 0)
        await asyncio.sleep(HOUR)
        assert (len(run.times), run.stops, asyncio.all_tasks()) == (calls, [], before)

    @pytest.mark.parametrize("how", ["renewal", "progress"])
    @in_virtual_time
    async def test_it_waits_for_a_write_that_is_on_its_way(self, how: str) -> None:
        """The block ends only once a running write is answered, so that the ending builds on it."""
        run, before = Running(), asyncio.all_tasks()
        loop = asyncio.get_running_loop()
        async with run.kept():
            await until(9)
            run.store.answers.clear()
            if how == "progress":
                run.lease.tell(part(0.5))
            await until(10.5)
            loop.call_later(4.5, run.store.answers.set)
        assert (_now(), asyncio.all_tasks()) == (15.0, before)
        await run.complete()
        assert (run.store.refused, run.record.outcome) == ([], Outcome.COMPLETED)
        assert [(one.after.id, one.after.version) for one in run.told] == run.store.applied

    @in_virtual_time
    async def test_a_block_that_raises_waits_for_nothing(self) -> None:
        """A run that is torn down does not wait for an answer that may never come."""
        run, before = Running(), asyncio.all_tasks()
        with suppress(ValueError):
            async with run.kept():
                run.store.answers.clear()
                await until(10.5)
                raise ValueError("boom")
        assert (_now(), asyncio.all_tasks(), run.store.watches) == (10.5, before, 0)

    @in_virtual_time
    async def test_nobody_is_stopped_after_the_end(self, caplog: pytest.LogCaptureFixture) -> None:
        """What the ending finds out about a lost lease is raised, and tells no handler to stop."""
        caplog.set_level(logging.ERROR)
        run = Running()
        async with run.kept():
            await until(1)
        run.store.take_away("stolen")
        with pytest.raises(LeaseLost):
            await run.complete()
        assert (run.stops, caplog.records) == ([], [])

    @in_virtual_time
    async def test_a_cancel_that_the_ending_finds_stops_nobody(self) -> None:
        """An ending that was overtaken by a cancel tells no handler to stop, since none runs."""
        run = Running()
        async with run.kept():
            await until(1)
        run.store.cancel()
        await run.complete()
        assert (run.stops, run.record.outcome) == ([], Outcome.CANCELLED)
