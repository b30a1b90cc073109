"""Cancels among claims, crashes and cleanups, in any order and from records of any age.

Triggers of the database keep a journal of what was committed. `LAWS` hold each of its entries to what section 4 of the
design says of a task's life, in the stored fields' own words and without a line of `oncetask.lifecycle`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from oncetask import Client, TaskNotFound, lifecycle
from oncetask.clock import from_micros, to_micros
from oncetask.errors import LeaseLost, TaskExpired
from oncetask.lifecycle import Step, Transition
from oncetask.recurrence import Plan
from oncetask.store.sqlite import SqliteStore
from oncetask.task import Task
from tests.support import FakeClock, a_task, at

T = TypeVar("T")

TASKS: dict[str, dict[str, Any]] = {
    "plain": {"kind": "plain", "resource_key": "r"},
    "tidy": {"kind": "tidy", "resource_key": "r", "wait_until": at(20), "deadline": at(10)},
    "generator": {"kind": "tidy", "resource_key": "r", "recurrence": {"cron": "* * * * *"}},
}
TIDY = {"tidy"}
"""What has a cleanup; a generator has none, whatever its kind has."""
LEASE = timedelta(seconds=60)


# --- the oracle ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A task as it is stored; instants are microseconds."""

    id: str
    version: int
    outcome: str | None
    leaseOwner: str | None  # noqa: N815  # these are the columns' names
    leasedUntil: int | None  # noqa: N815
    waitUntil: int  # noqa: N815
    dueAt: int | None  # noqa: N815
    deadline: int | None
    isCancelled: int  # noqa: N815
    cancelledAt: int | None  # noqa: N815
    attempts: int
    cancelAttempts: int  # noqa: N815
    errors: str
    result: str | None
    doneAt: int | None  # noqa: N815

    def is_held(self, now: int) -> bool:
        """Tell whether somebody's lease holds."""
        return self.leaseOwner is not None and (self.leasedUntil or 0) > now

    def was_given_up(self, now: int) -> bool:
        """Tell whether a handler may still run that did not stop when its task was cancelled."""
        return bool(self.isCancelled) and self.cancelAttempts == 0 and (self.leasedUntil or 0) > now

    @property
    def is_tidied(self) -> bool:
        """Tell whether somebody was given the task, or went on with it, to clean up."""
        return bool(self.isCancelled) and self.cancelAttempts > 0


@dataclass(frozen=True)
class Change:
    """One entry of the journal: `before` is None for a new task, `after` for a deleted one."""

    before: Row | None
    after: Row | None
    now: int
    writers: frozenset[str]
    """The leases of those who wrote in this step; a caller from outside has none."""
    succeeded: frozenset[str]
    """The leases whose handler, or cleanup, has just succeeded."""
    abandons: bool
    """Whether somebody gave up a handler that does not stop, in this step."""
    running: tuple[str, int] | None
    """The lease under which the last handler of this task may still run, and its end."""


def status(row: Row | None, now: int) -> str:
    """Give the status by the design's words; `crashed`: waiting or pending, but its last lease was never given back."""
    if row is None:
        return "nothing"
    if row.outcome is not None:
        return f"done-{row.outcome}"
    if row.is_held(now):
        return "leased"
    if row.isCancelled:
        return "cancellation-pending"
    if row.leaseOwner is not None:
        return "crashed"
    return "waiting" if row.dueAt is not None and row.dueAt > now else "pending"


DONE = {"done-completed", "done-failed", "done-cancelled", "done-expired"}
MOVES = {
    "nothing": {"waiting", "pending"},
    "waiting": {"cancellation-pending", "nothing"},
    "pending": {"leased", "cancellation-pending", "nothing"},
    "crashed": {"crashed", "leased", "waiting", "pending", "done-completed", "done-failed", "done-expired"}
    | {"cancellation-pending", "nothing"},
    "leased": {"leased", "waiting", "pending", "cancellation-pending"} | DONE,
    "cancellation-pending": {"leased", "cancellation-pending", "done-cancelled", "done-failed", "nothing"},
    **{status: {"pending", "nothing"} for status in DONE},
}
OF_A_GENERATOR = {"pending": {"waiting", "pending"}, **{status: {"waiting"} for status in DONE}}
"""It moves on instead of being leased, and goes on at its next instant after a reset."""
MINUTE = 60_000_000


def it_moves_as_drawn(c: Change) -> None:
    """Every change is an arrow of the diagram, and has a version above the last one."""
    before, after = status(c.before, c.now), status(c.after, c.now)
    of_a_generator = OF_A_GENERATOR.get(before, set()) if c.before and c.before.id == "generator" else set()
    assert after in MOVES[before] | of_a_generator
    if c.before is not None and c.after is not None:
        assert c.after.version > c.before.version


def only_the_holder_writes(c: Change) -> None:
    """While a lease holds its holder writes, and others may cancel; nobody deletes the task."""
    if c.before is None or not c.before.is_held(c.now) or _is_cancel(c):
        return
    assert c.after is not None
    assert c.before.leaseOwner in c.writers


def a_cancel_is_a_mark(c: Change) -> None:
    """A cancel marks a task that is not done and puts it first; a lease and its `dueAt` stay."""
    if not _is_cancel(c):
        return
    before, after = _both(c)
    assert before.outcome is None
    assert (after.cancelledAt, after.waitUntil) == (c.now, 0)
    assert (after.leaseOwner, after.attempts, after.cancelAttempts) == (before.leaseOwner, before.attempts, 0)
    assert (after.outcome, after.errors, after.result) == (None, before.errors, before.result)
    if before.leaseOwner is None:
        assert (after.leasedUntil, after.dueAt) == (None, 0)
    else:
        assert (after.leasedUntil, after.dueAt) == (before.leasedUntil, before.dueAt)


def a_cancel_stays(c: Change) -> None:
    """What is cancelled stays so, since the same time, until it is done and reset."""
    if c.before is not None and c.after is not None and c.before.isCancelled and c.before.outcome is None:
        assert c.after.isCancelled
        assert c.after.cancelledAt == c.before.cancelledAt


def done_is_done(c: Change) -> None:
    """A done task is deleted, or reset to a life in which nothing is left of the last one."""
    if c.before is None or c.after is None or c.before.outcome is None:
        return
    fresh = c.after
    start = c.now if fresh.id != "generator" else (c.now // MINUTE + 1) * MINUTE
    assert (fresh.waitUntil, fresh.dueAt) == (start, start)
    assert (fresh.isCancelled, fresh.cancelledAt, fresh.cancelAttempts, fresh.attempts) == (0, None, 0, 0)
    assert (fresh.leaseOwner, fresh.leasedUntil, fresh.doneAt) == (None, None, None)
    assert (json.loads(fresh.errors), fresh.result) == ([], None)


def an_end_has_its_reason(c: Change) -> None:
    """Completed is what was not cancelled, failed what has failed.

    Cancelled is what is cleaned up or needs no cleanup, expired what was too late and not cancelled.
    """
    if not _is_end(c):
        return
    before, after = _both(c)
    assert (after.leaseOwner, after.leasedUntil, after.dueAt, after.doneAt) == (None, None, None, c.now)
    assert (after.result is not None) == (after.outcome == "completed")
    match after.outcome:
        case "completed":
            assert not after.isCancelled
            assert before.leaseOwner in c.succeeded
        case "failed":
            assert after.errors != before.errors
            assert before.leaseOwner is not None
            assert not after.isCancelled or (before.is_tidied and before.id in TIDY)
        case "expired":
            assert not after.isCancelled
            assert before.leaseOwner in c.writers
            assert before.deadline is not None
            assert before.deadline <= c.now
            assert json.loads(after.errors)[-1]["type"] == "TaskExpired"
        case "cancelled":
            assert after.isCancelled
            assert before.is_tidied == (before.id in TIDY)
            assert not before.is_tidied or before.leaseOwner in c.succeeded
        case _:
            raise AssertionError(after.outcome)


def a_claim_takes_what_is_free_and_due(c: Change) -> None:
    """A new lease is on a due task that nobody holds and whose last handler is over; a crash is recorded first."""
    if not _is_claim(c):
        return
    before, after = _both(c)
    assert after.leaseOwner in c.writers
    assert before.dueAt is not None
    assert before.dueAt <= c.now
    assert not before.is_held(c.now)
    assert before.leaseOwner is None or (before.isCancelled and not before.is_tidied)
    assert c.running is None or c.running[1] <= c.now
    assert before.id != "generator"


def attempts_are_counted_apart(c: Change) -> None:
    """A claim is an attempt at the task or, once that is cancelled, at its cleanup, and each has a count of its own."""
    if c.after is None:
        return
    before, after = c.before, c.after
    assert after.cancelAttempts == 0 or (after.isCancelled and after.id in TIDY)
    if before is None or before.outcome is not None:
        return
    more, more_cleanup = after.attempts - before.attempts, after.cancelAttempts - before.cancelAttempts
    if _is_claim(c):
        assert (more, more_cleanup) == ((0, 1) if before.isCancelled else (1, 0))
    elif more_cleanup > 0:  # the holder goes on to the cleanup
        assert (more, more_cleanup, before.cancelAttempts) == (0, 1, 0)
        assert before.isCancelled
        assert before.leaseOwner == after.leaseOwner
        assert before.leaseOwner in c.writers
    else:
        assert (more, more_cleanup) in ({(0, 0), (0, -1)} if before.is_tidied else {(0, 0), (-1, 0)})
        assert (more, more_cleanup) == (0, 0) or before.leaseOwner in c.writers


def a_handler_that_was_overtaken_leaves_nothing(c: Change) -> None:
    """After the cancel neither result nor error of the handler is stored; its task is released or ended."""
    if c.before is None or c.after is None or c.before.outcome is not None:
        return
    before, after = _both(c)
    if not before.isCancelled or before.is_tidied:
        return
    assert (after.errors, after.result) == (before.errors, before.result)
    assert after.outcome in {None, "cancelled"}
    if before.leaseOwner is not None and after.leaseOwner is None and after.outcome is None:
        assert after.waitUntil == 0
        assert before.leaseOwner in c.writers
        assert _is_abandoned(c) if after.leasedUntil is not None else after.id in TIDY


def errors_bear_the_attempt(c: Change) -> None:
    """An error is one more, of the attempt that failed: at the cleanup, if there was one, else at the task."""
    if c.before is None or c.after is None or c.before.outcome is not None:
        return
    before, after = json.loads(c.before.errors), json.loads(c.after.errors)
    if after != before:
        assert after[:-1] == before[-9:]
        ran = c.after if c.after.outcome == "expired" else c.before  # one that never began is not counted
        assert after[-1]["attempt"] == (c.before.cancelAttempts if c.before.is_tidied else ran.attempts)


def due_at_follows(c: Change) -> None:
    """`dueAt` is the end of a lease, somebody's or nobody's, else the instant; a deadline counts until the cancel."""
    row = c.after
    if row is None or row.outcome is not None:
        return
    assert row.dueAt is not None
    if row.leaseOwner is not None:
        assert row.dueAt == row.leasedUntil
    else:
        instant = max(row.waitUntil, row.leasedUntil or 0)
        assert row.dueAt == (instant if row.deadline is None or row.isCancelled else min(instant, row.deadline))


LAWS = (
    it_moves_as_drawn,
    only_the_holder_writes,
    a_cancel_is_a_mark,
    a_cancel_stays,
    done_is_done,
    an_end_has_its_reason,
    a_claim_takes_what_is_free_and_due,
    attempts_are_counted_apart,
    a_handler_that_was_overtaken_leaves_nothing,
    errors_bear_the_attempt,
    due_at_follows,
)


def _both(c: Change) -> tuple[Row, Row]:
    assert c.before is not None
    assert c.after is not None
    return c.before, c.after


def _is_cancel(c: Change) -> bool:
    return c.before is not None and c.after is not None and not c.before.isCancelled and c.after.isCancelled == 1


def _is_open(row: Row) -> bool:
    return row.outcome is None and not row.isCancelled


def _is_open_and_leased(row: Row) -> bool:
    """Tell also a task that was rescued, which nobody's lease keeps back."""
    return _is_open(row) and row.leasedUntil is not None


def _is_end(c: Change) -> bool:
    return c.before is not None and c.after is not None and c.before.outcome is None and c.after.outcome is not None


def _is_claim(c: Change) -> bool:
    return (
        c.before is not None
        and c.after is not None
        and c.after.leaseOwner is not None
        and c.after.leaseOwner != c.before.leaseOwner
    )


def _is_reset(c: Change) -> bool:
    return c.before is not None and c.after is not None and c.before.outcome is not None


def _is_abandoned(c: Change) -> bool:
    before, after = _both(c)
    return c.abandons and after.outcome is None and after.leasedUntil == before.leasedUntil


# --- the machine --------------------------------------------------------------------------------------


@dataclass
class Told:
    """What actors did in one step, and what they were told of it."""

    writers: set[str] = field(default_factory=set)
    succeeded: set[str] = field(default_factory=set)
    abandons: bool = False
    races: bool = False
    stored: list[tuple[str, int, int]] = field(default_factory=list)
    """Id, version before and after (0: deleted) of each write of their own that was applied."""
    cancelled: int = 0
    reset: int = 0
    deleted: int = 0
    created: int = 0


ACTORS = st.sampled_from(["ann", "bob"])
ANY = st.integers(0, 14)
DELAYS = (5.0, None, 0.0, 90.0)
"""Seconds until the next try; None: there is none left."""
FRESH = st.sampled_from([True, True, False])
SELDOM = 7
"""The choice among `ANY` that stands for something rare."""
GOES_ON = {"renew", "clean up"}
WAYS = ("task", "task", "stale", "ids", "key", "kind")
LATE = (0, 0, 1, -1, 20_000_000)
"""Microseconds after the instant that something waits for."""
DEEDS = st.sampled_from(["work", "work", "work", "cancel", "begin anew", "wait"])
ACTS = st.tuples(DEEDS, ACTORS, ANY, ANY, FRESH)


class CancelRaces(RuleBasedStateMachine):
    """Two workers, who cancel, reset and delete as well, and a clock that both believe."""

    def __init__(self) -> None:
        super().__init__()
        self.runner, self.clock = asyncio.Runner(), FakeClock()
        self.store = SqliteStore(":memory:", clock=self.clock)
        self.client = Client(self.store)
        self.rows = dict[str, Row]()
        self.running = dict[str, tuple[str, int]]()
        self.known = dict[tuple[str, str], Task]()
        self.mine = dict[tuple[str, str], str]()
        self.told, self.entries, self.made = Told(), 0, 0

    def teardown(self) -> None:
        """Close the store, and the loop."""
        self._run(self.store.aclose())
        self.runner.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.get_loop().run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        """Start the journal, then create every task."""

        async def work() -> None:
            await self.store._write(lambda transaction: _keep_a_journal(transaction.sql))
            for name in TASKS:
                await self._create(name)

        self._run(work())

    @invariant()
    def what_was_written_is_lawful(self) -> None:
        """The journal holds what was told, no more and no less, all of it is lawful, and statuses follow from it."""
        told, self.told = self.told, Told()
        others = list[Change]()
        for change in self._run(self._journal(told)):
            for law in LAWS:
                law(change)
            versions = (
                _name(change.before, change.after),
                getattr(change.before, "version", 0),
                getattr(change.after, "version", 0),
            )
            if versions in told.stored:
                told.stored.remove(versions)
            else:
                others.append(change)
        assert not told.stored, "a write was told as applied that is not there, or told twice"
        assert sum(_is_cancel(c) for c in others) == told.cancelled
        assert sum(_is_reset(c) for c in others) == told.reset
        assert sum(c.after is None for c in others) == told.deleted
        assert sum(c.before is None for c in others) == told.created
        assert len(others) == told.cancelled + told.reset + told.deleted + told.created
        for task in self._run(self.client.get_tasks_by_ids(TASKS)):
            assert str(task.status) == status(self.rows[task.id], self.now).replace("crashed", "pending")

    @rule(acts=st.lists(ACTS, min_size=1, max_size=3))
    def act(self, acts: list[tuple[str, str, int, int, bool]]) -> None:
        """Somebody does something, by what there is or by what he knows; or several do at the same moment."""

        async def run() -> None:
            await asyncio.gather(*(self._act(*act) for act in acts))

        self.told.races = len(acts) > 1
        self._run(run())

    async def _act(self, what: str, actor: str, which: int, how: int, fresh: bool) -> None:
        match what:
            case "cancel":
                await self._cancel(actor, self._one(which, _is_open_and_leased, _is_open), WAYS[how % len(WAYS)])
            case "begin anew":
                await self._begin_anew(actor, which, how, fresh=fresh)
            case "wait" if not self.told.races:
                self._wait(which, LATE[how % len(LATE)])
            case _:
                await self._work(actor, which, how, fresh=fresh)

    def _names(self, wanted: Callable[[Row], bool]) -> list[str]:
        return sorted(row.id for row in self.rows.values() if wanted(row))

    def _one(self, which: int, *wanted: Callable[[Row], bool]) -> str:
        """Give one of the tasks that are wanted first, or else next; seldom, and where there is none, any one."""
        found = [] if which == SELDOM else [names for want in wanted if (names := self._names(want))]
        names = found[0] if found else sorted(TASKS)
        return names[which % len(names)]

    def _is_due(self, row: Row) -> bool:
        return row.dueAt is not None and row.dueAt <= self.now and (row.id != "generator" or row.isCancelled == 1)

    async def _work(self, actor: str, which: int, how: int, *, fresh: bool) -> None:
        """Go on with what somebody holds, or believes to hold, or let him die; else pick up what is due."""
        held, due = sorted(self.mine), self._names(self._is_due)
        if held and (which % 3 or not due):
            actor, name = held[which % len(held)]
            if how == SELDOM:
                self.mine = {key: lease for key, lease in self.mine.items() if key[0] != actor}
                self.known = {key: task for key, task in self.known.items() if key[0] != actor}
            else:
                await self._hold(actor, name, how, fresh=fresh)
        else:
            if not due and not self.told.races:
                self._wait(0, 0)
            await self._pick_up(actor, self._one(which, self._is_due), how, fresh=fresh)

    async def _begin_anew(self, actor: str, which: int, how: int, *, fresh: bool) -> None:
        """Give a task another life, or delete it; one that is gone is created again."""
        name = self._one(which, lambda row: row.outcome is not None)
        if name not in self.rows:
            await self._create(name)
        elif how == SELDOM:
            await self._delete(actor, name, fresh=fresh)
        else:
            await self._reset(actor, name, fresh=fresh)

    def _wait(self, which: int, micros: int) -> None:
        """Let time pass to about the instant that a task waits for."""
        instants = sorted({row.dueAt for row in self.rows.values() if row.dueAt is not None and row.dueAt > self.now})
        if instants:
            self.clock.wall_time = from_micros(instants[which % len(instants)] + micros)

    async def _look(self, actor: str, name: str) -> Task | None:
        (found,) = await self.store.get([name])
        if found is None:
            self.known.pop((actor, name), None)
        else:
            self.known[actor, name] = found
        return found

    async def _recall(self, actor: str, name: str, *, fresh: bool) -> Task | None:
        return await self._look(actor, name) if fresh else self.known.get((actor, name))

    async def _write(self, actor: str, transition: Transition) -> bool:
        """Write what was decided from a record, of whatever age: it counts if that is still the newest."""
        before = transition.before
        (written,) = await self.store.apply([transition])
        self._expect(written.applied, self._is_newest(before))
        if written.version is not None:
            self.told.stored.append((before.id, before.version, written.version))
            self.known[actor, before.id] = transition.after.evolve(version=written.version)
        return written.applied

    async def _pick_up(self, actor: str, name: str, how: int, *, fresh: bool) -> None:
        task = await self._recall(actor, name, fresh=fresh)
        if task is None or (actor, name) in self.mine:
            return
        now = self.store.clock.now()
        match lifecycle.triage(task, now, has_cleanup=task.kind == "tidy"):
            case Step.CLAIM:
                self.made += 1
                lease = f"{actor}'s {self.made}"
                self.told.writers.add(lease)
                claim = lifecycle.claim(task, lease_id=lease, until=now.latest + LEASE, now=now)
                if await self._write(actor, claim):
                    self.mine[actor, name] = lease
            case Step.RESCUE:
                delay = DELAYS[how % len(DELAYS)]
                await self._write(actor, lifecycle.rescue(task, LeaseLost("died"), delay=delay, now=now))
            case Step.END_CANCELLED:
                await self._write(actor, lifecycle.end_cancelled(task, now=now))
            case Step.SPAWN:
                following = now.latest + timedelta(seconds=DELAYS[how % len(DELAYS)] or 1)
                (moved,), (occurrence,) = lifecycle.spawn(task, Plan((task.wait_until,), following), now=now)
                assert occurrence.recurrence is None
                await self._write(actor, moved)
            case nothing:
                assert nothing is Step.LEAVE

    async def _hold(self, actor: str, name: str, how: int, *, fresh: bool) -> None:
        task, lease = await self._recall(actor, name, fresh=fresh), self.mine.get((actor, name))
        if lease is None:
            return
        if task is None or task.lease_owner != lease:  # lost: nothing is written any more
            del self.mine[actor, name]
            return
        deeds = self._deeds(task)
        which = sorted(deeds)[how % len(deeds)]
        self.told.writers.add(lease)
        self.told.succeeded.update({lease} if which == "complete" else ())
        self.told.abandons |= which == "abandon"
        if which in GOES_ON:
            await self._write(actor, deeds[which])
            return
        del self.mine[actor, name]  # before its last write, since a holder sends one after the other
        if not await self._write(actor, deeds[which]):
            self.mine[actor, name] = lease

    def _deeds(self, task: Task) -> dict[str, Transition]:
        """Give what the holder of a task may write, for all that he knows."""
        now, has, error = self.store.clock.now(), task.kind == "tidy", ValueError("no")
        until = now.latest + LEASE
        deeds = {
            "complete": lifecycle.complete(task, result="fine", now=now, has_cleanup=has),
            "fail": lifecycle.fail(task, error, delay=5, now=now, has_cleanup=has),
            "fail for good": lifecycle.fail(task, error, delay=None, now=now, has_cleanup=has),
            "snooze": lifecycle.snooze(task, delay=90, now=now, has_cleanup=has),
            "give back": lifecycle.give_back(task, now=now, has_cleanup=has),
            "give back the attempt": lifecycle.give_back_attempt(task),
            "renew": lifecycle.renew(task, until=until),
        }
        if task.deadline is not None and task.deadline <= now.latest and task.cancel_attempts == 0:
            late = TaskExpired("late")
            deeds["expire"] = lifecycle.expire(task, late, began=True, now=now, has_cleanup=has)
            deeds["expire unbegun"] = lifecycle.expire(task, late, began=False, now=now, has_cleanup=has)
        if task.is_cancelled and task.cancel_attempts == 0:
            deeds["abandon"] = lifecycle.abandon(task)
            if has:
                deeds["clean up"] = lifecycle.clean_up(task, until=until)
        return deeds

    async def _cancel(self, actor: str, name: str, way: str) -> None:
        if way == "stale":
            task = self.known.get((actor, name))
            transition = None if task is None else lifecycle.cancel(task, now=self.store.clock.now())
            if transition is not None:
                await self._write(actor, transition)
            return
        kind, key = TASKS[name]["kind"], "r"
        meant = {
            "key": [other for other, fields in TASKS.items() if fields.get("resource_key") == key],
            "kind": [other for other, fields in TASKS.items() if fields["kind"] == kind],
        }.get(way, [name])
        ways: dict[str, Callable[[], Awaitable[int]]] = {
            "task": lambda: self.client.cancel_task(name),
            "ids": lambda: self.client.cancel_tasks_by_ids([name, "nobody", name]),
            "key": lambda: self.client.cancel_tasks_by_resource_key(None, key),
            "kind": lambda: self.client.cancel_tasks_by_kind(kind),
        }
        cancelled = 0
        with suppress(TaskNotFound):
            cancelled = await ways[way]()
        self.told.cancelled += cancelled
        rows = [row for other in meant if (row := self.rows.get(other)) is not None]
        self._expect(cancelled, sum(map(_is_open, rows)))

    async def _reset(self, actor: str, name: str, *, fresh: bool) -> None:
        if not fresh:
            task = self.known.get((actor, name))
            transition = None if task is None else lifecycle.reset(task, now=self.store.clock.now())
            if transition is not None:
                await self._write(actor, transition)
            return
        reset, row = False, self.rows.get(name)
        with suppress(TaskNotFound):
            reset = await self.client.reset_task(name)
        self.told.reset += reset
        self._expect(reset, row is not None and row.outcome is not None)

    async def _delete(self, actor: str, name: str, *, fresh: bool) -> None:
        if not fresh:
            task = self.known.get((actor, name))
            if task is not None and lifecycle.may_delete(task, self.store.clock.now()):
                (written,) = await self.store.delete([task])
                self._expect(written.applied, self._is_newest(task))
                self.told.stored += [(name, task.version, 0)] if written.applied else []
            return
        deleted, row = False, self.rows.get(name)
        with suppress(TaskNotFound):
            deleted = await self.client.delete_task(name)
        self.told.deleted += deleted
        self._expect(deleted, row is not None and not row.is_held(self.now) and not row.was_given_up(self.now))

    async def _create(self, name: str) -> None:
        self.made += 1
        (written,) = await self.store.create([a_task(name, create_id=f"{self.made}", **TASKS[name])])
        self.told.created += written.applied
        self._expect(written.applied, name not in self.rows)

    def _expect(self, answer: object, expected: object) -> None:
        """Compare an answer with what was stored before this step, where nobody else wrote in it."""
        assert self.told.races or answer == expected

    def _is_newest(self, task: Task) -> bool:
        row = self.rows.get(task.id)
        return row is not None and row.version == task.version

    @property
    def now(self) -> int:
        """The store's time, as it is stored."""
        return to_micros(self.clock.wall_time)

    async def _journal(self, told: Told) -> list[Change]:
        """Give the changes of one step in the order of their commits, and follow them."""
        query = "SELECT number, old, new FROM journal WHERE number > ? ORDER BY number"
        entries = await self.store._read(lambda sql: sql.execute(query, (self.entries,)).fetchall())
        changes = list[Change]()
        for number, *texts in entries:
            before, after = (None if text is None else Row(**json.loads(text)) for text in texts)
            running = self.running.get(_name(before, after))
            who = (frozenset(told.writers), frozenset(told.succeeded))
            change = Change(before, after, self.now, *who, told.abandons, running)
            changes.append(change)
            self._follow(change)
            self.entries = number
        return changes

    def _follow(self, change: Change) -> None:
        """Keep what is stored now, and which handler may still run: all but one that its holder has seen end."""
        before, after, name = change.before, change.after, _name(change.before, change.after)
        if after is None:
            del self.rows[name]
            self.running.pop(name, None)
            return
        self.rows[name] = after
        if after.leaseOwner is not None:
            self.running[name] = (after.leaseOwner, after.leasedUntil or 0)
        elif before is not None and before.leaseOwner is not None and not _is_abandoned(change):
            del self.running[name]


_ENTRY = "INSERT INTO journal (old, new) VALUES ({}, {})"


def _keep_a_journal(sql: sqlite3.Connection) -> None:
    """Let the database itself write down every change of a task."""
    sql.execute("CREATE TABLE journal (number INTEGER PRIMARY KEY, old TEXT, new TEXT)")
    for event, old, new in (("INSERT", "", "new"), ("UPDATE", "old", "new"), ("DELETE", "old", "")):
        entry = _ENTRY.format(_as_json(old), _as_json(new))
        sql.execute(f"CREATE TRIGGER journal_{event} AFTER {event} ON tasks BEGIN {entry}; END")


def _as_json(row: str) -> str:
    pairs = ", ".join(f"'{column.name}', {row}.{column.name}" for column in fields(Row))
    return f"json_object({pairs})" if row else "NULL"


def _name(before: Row | None, after: Row | None) -> str:
    row = before or after
    assert row is not None
    return row.id


def test_whatever_happens_in_whatever_order() -> None:
    """Cancels, claims, crashes and cleanups, raced from stale records, leave only lives that the design allows."""
    phases = set(Phase) - {Phase.explain}  # which traces what runs, and blocks the loop by that
    limits = settings(max_examples=50, stateful_step_count=50, deadline=None, phases=phases)
    run_state_machine_as_test(CancelRaces, settings=limits)
