"""The simulation of everything together: some seeds of each profile, and what its oracle has to notice.

`make simulate` tries many more. A seed that fails prints how to see it again.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from oncetask import Receipt, TickReport
from oncetask.clock import EPOCH
from tests.simulation.apps import RULES
from tests.simulation.book import SLACK, Law
from tests.simulation.explore import live_through
from tests.simulation.instants import first_after, is_instant
from tests.simulation.known import NOT_MENDED
from tests.simulation.oracle import LAWS, Oracle
from tests.simulation.profiles import PROFILES
from tests.simulation.sight import Change, Fields, Part, Run, Write
from tests.simulation.timeline import SECOND
from tests.simulation.world import World
from tests.support import T0, at

SEEDS = 5
MOST_SEEDS = 120

L1, L2 = "1" * 32, "2" * 32
ALL_LAWS = {law.__name__: law for law in LAWS}


@pytest.mark.parametrize("name", PROFILES)
def test_what_is_promised_holds_whatever_goes_wrong(name: str) -> None:
    """Every law holds in every world of a profile, and its worlds are as bad as they should be."""
    seen = Counter[str]()
    for seed in itertools.count():
        lived = live_through(name, seed)
        assert not lived.wrong, lived.wrong
        seen += lived.seen
        missing = PROFILES[name].sees - seen.keys()
        if seed + 1 >= SEEDS and not missing:
            break
        assert seed < MOST_SEEDS, f"never seen in {MOST_SEEDS} worlds: {missing}"


def test_a_seed_gives_the_same_history_in_every_process() -> None:
    """What one seed tells, it tells again word for word, however strings are hashed."""
    told = {_history_elsewhere(hash_seed) for hash_seed in ("1", "2")}
    assert told == {_history_here()}


def _history_here() -> str:
    world = World("mixed", 3)
    world.run()
    return hashlib.sha256(world.history(None).encode()).hexdigest()


def _history_elsewhere(hash_seed: str) -> str:
    program = f"from {__name__} import _history_here\nprint(_history_here())"
    around = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", program], env=around, check=True, capture_output=True, text=True, timeout=50
    ).stdout.strip()


def test_no_fault_is_looked_past() -> None:
    """What the simulation has found is mended."""
    assert not NOT_MENDED


# -- the oracle -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Machine:
    name: str
    role: str = "worker"
    is_gone: bool = False
    disturbed_at: int = -1
    frozen_until: int = -10 * SECOND


class _Stage:
    """Where a history is made up, write by write."""

    def __init__(self, prompt: tuple[str, ...] = ()) -> None:
        self.micros = 0
        self.complaints: list[str] = []
        self._later: list[tuple[int, Callable[[], object]]] = []
        self.oracle = Oracle(self, RULES, prompt=prompt)
        self.a, self.b = _Machine("a"), _Machine("b")
        self.client = _Machine("c", role="client")
        self.tick = _Machine("t", role="tick")

    @property
    def now(self) -> datetime:
        """The true time."""
        return T0 + timedelta(microseconds=self.micros)

    def fail(self, why: str) -> None:
        """Keep a complaint."""
        self.complaints.append(why)

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something when the time has come."""
        self._later.append((self.micros + int(seconds * SECOND), what))

    def pass_on(self, seconds: float) -> None:
        """Let time pass."""
        self.micros += int(seconds * SECOND)
        due, self._later = (
            [w for t, w in self._later if t <= self.micros],
            [x for x in self._later if x[0] > self.micros],
        )
        for what in due:
            what()

    def write(self, who: _Machine, *changes: tuple[str, dict[str, Any]], verb: str = "apply", **also: Any) -> None:
        """Write tasks: their ids, and the fields that change."""
        tasks = []
        for task_id, fields in changes:
            before = self.oracle.book.tasks.get(task_id)
            tasks.append(Change(task_id, before, {**(before or {}), **fields}))
        locks = [Change(key, self.oracle.book.locks.get(key), lock) for key, lock in also.get("locks", {}).items()]
        self.oracle.wrote(Write(who, verb, tasks, locks, also.get("settings"), self.now, self.micros, SLACK, SLACK))

    def create(self, task_id: str = "x", **fields: Any) -> None:
        """Let a client create a task that is due."""
        self.write(self.client, (task_id, {**_new(self.now), **fields}), verb="create")

    def claim(self, who: _Machine, task_id: str = "x", lease: str = L1, seconds: float = 10, **fields: Any) -> None:
        """Let a worker claim a task."""
        task, until = self.oracle.book.tasks[task_id], self.now + timedelta(seconds=seconds)
        counts = "cancelAttempts" if task.get("isCancelled") else "attempts"
        held = {"leaseOwner": lease, "leasedUntil": until, "dueAt": until, counts: task.get(counts, 0) + 1}
        self.write(who, (task_id, {"startedAt": self.now, **held, **fields}))

    def end(self, who: _Machine, task_id: str = "x", outcome: str = "completed", **fields: Any) -> None:
        """Let a worker end a task."""
        over = {"outcome": outcome, "doneAt": self.now, "leaseOwner": None, "leasedUntil": None, "dueAt": None}
        self.write(who, (task_id, {**over, **fields}))

    def cancel(self, task_id: str = "x", who: _Machine | None = None) -> None:
        """Let a client cancel a task."""
        held = self.oracle.book.tasks[task_id].get("leaseOwner") is not None
        cancelled = {"isCancelled": True, "cancelledAt": self.now, "waitUntil": EPOCH}
        self.write(who or self.client, (task_id, {**cancelled, **({} if held else {"dueAt": EPOCH})}))

    def run(self, who: _Machine, task_id: str = "x", **fields: Any) -> Run:
        """Let a handler begin with what a worker has claimed."""
        task = self.oracle.book.tasks[task_id]
        part = Part(task_id, task.get("leaseOwner") or "", task.get("attempts", 0), task.get("cancelAttempts", 0))
        cleans = bool(task.get("isCancelled"))
        given: dict[str, Any] = {
            "kind": task["kind"],
            "key": task.get("resourceKey"),
            "parts": (part,),
            "is_cleanup": cleans,
            "attempt": part.cleanups if cleans else part.attempts,
            "token": 1_000 + self.oracle.book.claims.get((task_id, part.lease, cleans), 0),
            "told": lambda: None,
        }
        run = Run(who, **{**given, **fields})
        self.oracle.started(run)
        return run


def _new(now: datetime, **fields: Any) -> dict[str, Any]:
    made = {"kind": "plain", "data": {}, "createdAt": now, "waitUntil": now, "dueAt": now, "createId": "c", "schema": 1}
    return {**made, "outcome": None, "leaseOwner": None, "attempts": 0, "cancelAttempts": 0, **fields}


def _error(number: int = 0) -> dict[str, Any]:
    return {"at": T0, "attempt": number, "type": "ValueError", "message": ""}


def _generator(now: datetime, **fields: Any) -> dict[str, Any]:
    rule = {"rrule": "FREQ=SECONDLY;INTERVAL=5", "dtstart": T0, "timezone": "UTC", "catchUp": "all", "overlap": "allow"}
    return _new(now, **{"recurrence": {**rule, **fields.pop("rule", {})}, "waitUntil": at(5), "dueAt": at(5), **fields})


def _occurrence(seconds: float, **fields: Any) -> tuple[str, dict[str, Any]]:
    instant = at(seconds)
    name = f"g:{instant.isoformat().removesuffix('+00:00')}Z"
    times = {"waitUntil": instant, "dueAt": instant, "occurrenceTimestamp": instant, "parentRecurrenceId": "g"}
    return name, _new(instant, **{**times, **fields})


def _goes_on(last: float, following: float) -> tuple[str, dict[str, Any]]:
    return "g", {"waitUntil": at(following), "dueAt": at(following), "occurrenceTimestamp": at(last)}


History = Callable[[_Stage], None]
FORBIDDEN: list[tuple[type[Law], str, History]] = []


def forbidden(name: str) -> Callable[[History], History]:
    """Keep a history that a law has to complain of."""

    def keep(history: History) -> History:
        FORBIDDEN.append((ALL_LAWS[name], (history.__doc__ or "").strip(), history))
        return history

    return keep


@forbidden("Consistency")
def _due_at_the_wrong_time(stage: _Stage) -> None:
    """A task that waits is due at another time than it waits for."""
    stage.create(dueAt=at(7))


@forbidden("Consistency")
def _held_though_done(stage: _Stage) -> None:
    """A task that is done is held."""
    stage.create()
    stage.claim(stage.a)
    stage.end(stage.a, leaseOwner=L1)


@forbidden("Finality")
def _completes_twice(stage: _Stage) -> None:
    """A task that is done is completed again."""
    stage.create()
    stage.claim(stage.a)
    stage.end(stage.a)
    stage.end(stage.a, result=2)


@forbidden("Finality")
def _revived_by_a_worker(stage: _Stage) -> None:
    """A worker lets a task run again that is done."""
    stage.create()
    stage.claim(stage.a)
    stage.end(stage.a)
    stage.write(stage.a, ("x", {"outcome": None, "attempts": 0, "doneAt": None, "dueAt": T0}))


@forbidden("Untouched")
def _other_data(stage: _Stage) -> None:
    """A claim writes what the task is about."""
    stage.create()
    stage.claim(stage.a, data={"other": 1})


@forbidden("Untouched")
def _result_of_the_last_life(stage: _Stage) -> None:
    """A reset leaves a result."""
    stage.create()
    stage.claim(stage.a)
    stage.end(stage.a, result=1)
    stage.write(stage.client, ("x", {"outcome": None, "attempts": 0, "doneAt": None, "startedAt": None, "dueAt": T0}))


@forbidden("Errors")
def _eleven_errors(stage: _Stage) -> None:
    """A task keeps eleven errors."""
    stage.create(kind="flaky", errors=[_error(number) for number in range(10)])
    stage.claim(stage.a)
    errors = [_error(number) for number in range(11)]
    stage.write(stage.a, ("x", {"errors": errors, "leaseOwner": None, "leasedUntil": None, "dueAt": T0}))


@forbidden("Attempts")
def _free_attempt(stage: _Stage) -> None:
    """A claim spends no attempt."""
    stage.create()
    stage.claim(stage.a, attempts=0)


@forbidden("Attempts")
def _fourth_of_three(stage: _Stage) -> None:
    """A kind that has three attempts is tried a fourth time."""
    stage.create()
    for number in range(4):
        stage.claim(stage.a, lease=str(number) * 32)
        stage.write(stage.a, ("x", {"leaseOwner": None, "leasedUntil": None, "dueAt": T0, "errors": [_error()]}))


@forbidden("Attempts")
def _gives_back_a_crash(stage: _Stage) -> None:
    """Whoever rescues a task gives back the attempt that the dead one spent."""
    stage.create()
    stage.claim(stage.a, seconds=1)
    stage.pass_on(2)
    freed = {"leaseOwner": None, "leasedUntil": None, "dueAt": T0, "attempts": 0, "errors": [_error()]}
    stage.write(stage.b, ("x", freed))


@forbidden("TrueTimes")
def _from_the_future(stage: _Stage) -> None:
    """A task is done minutes before its time comes."""
    stage.create()
    stage.claim(stage.a)
    stage.end(stage.a, doneAt=at(120))


@forbidden("TrueTimes")
def _held_for_hours(stage: _Stage) -> None:
    """A lease ends far later than any may."""
    stage.create()
    stage.claim(stage.a, seconds=3_600)


@forbidden("StateMachine")
def _claimed_early(stage: _Stage) -> None:
    """A task is claimed before it is due."""
    stage.create(waitUntil=at(9), dueAt=at(9))
    stage.claim(stage.a)


@forbidden("StateMachine")
def _completed_though_cancelled(stage: _Stage) -> None:
    """A task is completed after its cancel was stored."""
    stage.create()
    stage.claim(stage.a)
    stage.cancel()
    stage.end(stage.a)


@forbidden("StateMachine")
def _not_cleaned_up(stage: _Stage) -> None:
    """A cancelled task of a kind with a cleanup ends without it."""
    stage.create(kind="undone")
    stage.cancel()
    stage.end(stage.a, outcome="cancelled")


@forbidden("StateMachine")
def _rescued_early(stage: _Stage) -> None:
    """A task is rescued while its lease lasts."""
    stage.create()
    stage.claim(stage.a)
    stage.pass_on(5)
    stage.write(stage.b, ("x", {"leaseOwner": None, "leasedUntil": None, "dueAt": T0, "errors": [_error()]}))


@forbidden("StateMachine")
def _expires_in_time(stage: _Stage) -> None:
    """A task expires before its deadline."""
    stage.create(deadline=at(60))
    stage.claim(stage.a)
    stage.end(stage.a, outcome="expired", errors=[_error()])


@forbidden("StateMachine")
def _given_back_though_it_runs(stage: _Stage) -> None:
    """A task is given back while its handler, which does not obey, runs on."""
    stage.create()
    stage.claim(stage.a)
    stage.run(stage.a)
    stage.write(stage.a, ("x", {"leaseOwner": None, "leasedUntil": None, "dueAt": T0, "attempts": 0}))


@forbidden("StateMachine")
def _abandoned_to_a_cleanup(stage: _Stage) -> None:
    """A cancelled task is free for its cleanup while its handler, which does not obey, runs on."""
    stage.create(kind="undone")
    stage.claim(stage.a)
    stage.run(stage.a)
    stage.cancel()
    stage.write(stage.a, ("x", {"leaseOwner": None, "leasedUntil": None, "dueAt": EPOCH}))


@forbidden("OnlyTheHolder")
def _completes_for_another(stage: _Stage) -> None:
    """A worker completes a task that another holds."""
    stage.create()
    stage.claim(stage.a)
    stage.end(stage.b)


@forbidden("OnlyTheHolder")
def _writes_after_it_was_lost(stage: _Stage) -> None:
    """A worker renews a lease that was over, and the task another's since."""
    stage.create()
    stage.claim(stage.a, seconds=1)
    stage.pass_on(2)
    stage.write(stage.b, ("x", {"leaseOwner": None, "leasedUntil": None, "dueAt": T0, "errors": [_error()]}))
    stage.claim(stage.b, lease=L2)
    stage.write(stage.a, ("x", {"progress": {"fraction": 1}}))


@forbidden("Starts")
def _starts_after_its_lease(stage: _Stage) -> None:
    """A handler begins after its lease has ended, on a machine that never stood still."""
    stage.create()
    stage.claim(stage.a, seconds=1)
    stage.pass_on(3)
    stage.run(stage.a)


@forbidden("Starts")
def _starts_twice(stage: _Stage) -> None:
    """One claim begins two handlers."""
    stage.create()
    stage.claim(stage.a)
    stage.oracle.ended(stage.run(stage.a), "returns")
    stage.run(stage.a)


@forbidden("Starts")
def _starts_early(stage: _Stage) -> None:
    """A handler begins before its task's time: it was found for its deadline."""
    stage.create(waitUntil=at(30), deadline=T0, dueAt=T0)
    stage.claim(stage.a)
    stage.run(stage.a)


@forbidden("Tokens")
def _token_falls(stage: _Stage) -> None:
    """A later claim has a smaller token."""
    stage.create()
    stage.claim(stage.a)
    stage.oracle.ended(stage.run(stage.a, token=9_000), "snoozes")
    stage.write(stage.a, ("x", {"leaseOwner": None, "leasedUntil": None, "dueAt": T0, "attempts": 0}))
    stage.claim(stage.b, lease=L2)
    stage.run(stage.b, token=8_000)


@forbidden("OneAtATime")
def _two_at_a_time(stage: _Stage) -> None:
    """Two tasks of a key run at the same time."""
    for task_id, who, lease in (("x", stage.a, L1), ("y", stage.b, L2)):
        stage.create(task_id, resourceKey="k")
        stage.claim(who, task_id, lease)
        stage.run(who, task_id)


@forbidden("OneAtATime")
def _cleans_up_beside_the_handler(stage: _Stage) -> None:
    """A cleanup begins beside the handler, whose machine is well."""
    stage.create(kind="undone")
    stage.claim(stage.a)
    stage.run(stage.a)
    stage.cancel()
    stage.write(stage.a, ("x", {"cancelAttempts": 1}))
    stage.run(stage.a)


@forbidden("CancelArrives")
def _never_told(stage: _Stage) -> None:
    """A handler is not told that its task was cancelled."""
    stage.create()
    stage.claim(stage.a)
    stage.run(stage.a)
    stage.pass_on(3)
    stage.cancel()
    stage.pass_on(3)


@forbidden("Pauses")
def _claimed_though_paused(stage: _Stage) -> None:
    """A task of a kind is claimed that has been paused for long."""
    stage.create()
    stage.write(stage.client, settings=Change("settings", {}, {"pausedKinds": ["plain"]}))
    stage.pass_on(10)
    stage.claim(stage.a)


@forbidden("Locks")
def _takes_a_lock_that_lasts(stage: _Stage) -> None:
    """A lock passes to another while it lasts."""
    stage.write(stage.a, locks={"k": {"leaseOwner": L1, "leasedUntil": at(10)}})
    stage.write(stage.b, locks={"k": {"leaseOwner": L2, "leasedUntil": at(20)}})


@forbidden("Locks")
def _runs_without_a_lock(stage: _Stage) -> None:
    """A task runs without its key."""
    stage.create(resourceKey="k")
    stage.claim(stage.a)
    stage.run(stage.a)


@forbidden("Turns")
def _out_of_turn(stage: _Stage) -> None:
    """A task is claimed before one that stands before it."""
    for number in range(2):
        stage.create(f"x{number}", resourceKey="k", createdAt=at(number / 1_000))
    stage.micros += 10_000
    stage.oracle.read_line(stage.a, "k", 9_000)
    stage.write(stage.a, locks={"k": {"leaseOwner": L1, "leasedUntil": at(60)}})
    stage.claim(stage.a, "x1")


@forbidden("Turns")
def _loses_its_place(stage: _Stage) -> None:
    """A rescue takes a task's place away."""
    stage.create(resourceKey="k")
    stage.claim(stage.a, seconds=1)
    stage.pass_on(2)
    freed = {"leaseOwner": None, "leasedUntil": None, "dueAt": at(2), "waitUntil": at(2), "errors": [_error()]}
    stage.write(stage.b, ("x", freed))


@forbidden("Generators")
def _runs_a_generator(stage: _Stage) -> None:
    """A generator is run like any other task."""
    stage.create("g", **_generator(stage.now))
    stage.pass_on(6)
    stage.claim(stage.a, "g")


@forbidden("Generators")
def _nobody_looks(stage: _Stage) -> None:
    """A generator is due for long, and nobody looks at it."""
    stage.create("g", **_generator(stage.now))
    stage.pass_on(60)
    stage.oracle.has_calmed()


@forbidden("Occurrences")
def _forgets_an_instant(stage: _Stage) -> None:
    """An instant is left out that should be caught up with."""
    stage.create("g", **_generator(stage.now))
    stage.pass_on(11)
    stage.write(stage.a, _goes_on(10, 15), _occurrence(10))


@forbidden("Occurrences")
def _too_early(stage: _Stage) -> None:
    """An occurrence is there before its instant has come."""
    stage.create("g", **_generator(stage.now))
    stage.write(stage.a, _goes_on(5, 10), _occurrence(5))


@forbidden("Occurrences")
def _spawns_beside_the_last(stage: _Stage) -> None:
    """An occurrence begins beside the last one, which is not done."""
    stage.create("g", **_generator(stage.now, rule={"overlap": "skip"}))
    stage.pass_on(5.5)
    stage.write(stage.a, _goes_on(5, 10), _occurrence(5))
    stage.pass_on(5)
    stage.write(stage.a, _goes_on(10, 15), _occurrence(10))


@forbidden("Acknowledged")
def _never_stored(stage: _Stage) -> None:
    """A caller has a receipt for a task that never was."""
    stage.oracle.enqueued(stage.client, Receipt("x", created=True), 0)


@forbidden("Acknowledged")
def _created_twice(stage: _Stage) -> None:
    """Two callers are told that they created one task."""
    stage.create()
    stage.oracle.enqueued(stage.client, Receipt("x", created=True), 0)
    stage.oracle.enqueued(stage.a, Receipt("x", created=True), 0)


@forbidden("Changed")
def _cancelled_nothing(stage: _Stage) -> None:
    """A caller is told that it cancelled what it did not."""
    stage.create()
    stage.oracle.changed(stage.client, "cancel", "x", 0, done=True)


@forbidden("Staged")
def _staged_and_lost(stage: _Stage) -> None:
    """A task is completed without what its handler staged."""
    stage.create(kind="mother")
    stage.claim(stage.a)
    run = stage.run(stage.a)
    stage.oracle.staged(run, "y" * 32)
    stage.end(stage.a)


@forbidden("Staged")
def _staged_too_soon(stage: _Stage) -> None:
    """What a handler stages is stored though it fails."""
    stage.create(kind="mother")
    stage.claim(stage.a)
    stage.oracle.staged(stage.run(stage.a), "y" * 32)
    stage.write(stage.a, ("y" * 32, _new(stage.now)))


@forbidden("TimeLimits")
def _runs_for_ever(stage: _Stage) -> None:
    """A handler runs on after its time limit, and nobody tells it."""
    stage.create(kind="short")
    stage.claim(stage.a)
    stage.run(stage.a)
    stage.pass_on(3)


@forbidden("TimeLimits")
def _told_too_early(stage: _Stage) -> None:
    """A handler is told that its time is up when it is not."""
    stage.create()
    stage.claim(stage.a)
    stage.pass_on(2)
    stage.oracle.ended(stage.run(stage.a, told=lambda: "timeout"), "stopped")


@forbidden("Backoff")
def _at_once_again(stage: _Stage) -> None:
    """A failed attempt is tried again at once."""
    stage.create()
    stage.claim(stage.a)
    stage.oracle.ended(stage.run(stage.a), "raises")
    stage.write(stage.a, ("x", {"leaseOwner": None, "leasedUntil": None, "dueAt": T0, "errors": [_error()]}))


@forbidden("Stopping")
def _claims_on(stage: _Stage) -> None:
    """A worker claims a task long after it was told to stop."""
    stage.create()
    stage.oracle.stopping(stage.a)
    stage.pass_on(5)
    stage.claim(stage.a)


@forbidden("Budgets")
def _reports_too_much(stage: _Stage) -> None:
    """A tick reports an end that there was not."""
    stage.oracle.ticked(stage.tick, TickReport(claimed=1, completed=1), began=0, budget=5)


@forbidden("Budgets")
def _outlasts_its_budget(stage: _Stage) -> None:
    """A tick takes far longer than its budget."""
    stage.pass_on(30)
    stage.oracle.ticked(stage.tick, TickReport(), began=0, budget=5)


@forbidden("Promptness")
def _held_up(stage: _Stage) -> None:
    """A task waits though there is room for it."""
    stage.oracle.book.prompt = ("plain",)
    stage.create()
    stage.oracle.enqueued(stage.client, Receipt("x", created=True), 0)
    stage.pass_on(6)


@forbidden("NothingLeft")
def _left_behind(stage: _Stage) -> None:
    """A lock is left in the end."""
    stage.write(stage.a, locks={"k": {"leaseOwner": L1, "leasedUntil": at(10)}})
    stage.oracle.is_at_peace()


@pytest.mark.parametrize(
    ("law", "history"), [(law, history) for law, _, history in FORBIDDEN], ids=lambda one: one.__name__
)
def test_the_oracle_complains_of_what_may_not_be(law: type[Law], history: History) -> None:
    """A history that breaks a law is noticed, by that law."""
    stage = _Stage()
    history(stage)
    assert any(complaint.startswith(f"{law.__name__}: ") for complaint in stage.complaints), stage.complaints


def test_every_law_can_be_broken() -> None:
    """There is a forbidden history for each law."""
    assert {law for law, _, _ in FORBIDDEN} == set(LAWS)


def test_the_oracle_is_content_with_an_ordinary_life() -> None:
    """A task that is claimed, run, retried, run again and completed breaks no law, nor does a schedule."""
    stage = _Stage()
    stage.create()
    stage.oracle.enqueued(stage.client, Receipt("x", created=True), 0)
    stage.claim(stage.a)
    stage.oracle.ended(stage.run(stage.a), "raises")
    again = {"leaseOwner": None, "leasedUntil": None, "waitUntil": at(1), "dueAt": at(1), "errors": [_error(1)]}
    stage.write(stage.a, ("x", again))
    stage.pass_on(2)
    stage.claim(stage.b, lease=L2, startedAt=T0)
    stage.oracle.ended(stage.run(stage.b), "returns")
    stage.end(stage.b, result=1)
    stage.create("g", **_generator(stage.now))
    stage.pass_on(9)
    stage.write(stage.a, _goes_on(10, 15), _occurrence(5), _occurrence(10))
    assert not stage.complaints


@pytest.mark.parametrize(
    ("rule", "instants"),
    [
        ({"rrule": "FREQ=SECONDLY;INTERVAL=7", "dtstart": T0}, [0, 7, 14, 21]),
        ({"rrule": "FREQ=SECONDLY;INTERVAL=2;COUNT=3", "dtstart": at(4)}, [4, 6, 8, None]),
        ({"cron": "*/25 * * * * *"}, [0, 25, 50, 60, 85]),
        ({"cron": "* * * * *"}, [0, 60, 120]),
    ],
)
def test_the_oracle_knows_the_instants_of_a_rule(rule: Fields, instants: list[float | None]) -> None:
    """Its own arithmetic gives one instant after the other, and none when there is none left."""
    found: list[datetime | None] = []
    instant: datetime | None = at(-1)
    while len(found) < len(instants) and instant is not None:
        instant = first_after(rule, instant)
        found.append(instant)
    assert found == [None if one is None else at(one) for one in instants]
    assert all(is_instant(rule, one) for one in found if one is not None)
