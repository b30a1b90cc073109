"""Resource keys under fire: real workers in a simulated world, and what has to hold whatever happens to them.

The world is `tests.key_model`. What is checked here after every step shares nothing with the engine: it knows records
and locks as they are stored, and which handlers run. A seed that fails names itself; `python -m
tests.unit.test_key_protocol frozen 17` replays it, `... frozen 0 10000` tries ten thousand.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import pytest

from oncetask.lock import LockChange
from oncetask.task import Task
from tests.key_model import Change, Machine, Profile, Run, World
from tests.simulation.timeline import SECOND
from tests.support import T0

FENCED = "taken-over"
"""The owner of the lease on a task whose holder was shut out."""

SLACK = timedelta(seconds=8)
"""More than any clock is wrong by: nearer to its deadline it is not known who thinks a task expired."""

SEEDS = 20
"""Of each profile, in the suite."""

HAPPENS = {
    "frozen": {"overlap", "take-over"},
    "crashing": {"take-over"},
    "unanswered": {"take-over"},
}
"""What has to be seen at least once, so that a profile tests what it is there for."""

PROFILES = {
    "mixed": Profile(),
    "quiet": Profile(faults=("client",), trouble=0.0, unfit=0.0, stubborn=0.0),
    "frozen": Profile(keys=1, every=60, faults=("freeze", "freeze", "client"), unsure=1.0, trouble=0.0),
    "crashing": Profile(keys=1, every=70, faults=("crash", "crash", "stop", "client"), trouble=0.0),
    "unanswered": Profile(keys=1, faults=("client", "freeze"), trouble=0.12, unfit=0.15),
    "strangers": Profile(knows=(("plain", "strict"), ("plain", "undone"), ("batch", "undone")), tasks=8),
    "batches": Profile(kinds=("batch", "batch", "plain"), keys=1, tasks=9, knows=(("batch", "plain"),) * 3),
    "cancelled": Profile(
        keys=1,
        tasks=10,
        kinds=("plain", "batch", "undone"),
        every=40,
        faults=("freeze", "client", "client"),
        clients=("cancel", "cancel", "early"),
        unsure=0.5,
        trouble=0.0,
    ),
    "fenced": Profile(
        keys=1,
        tasks=9,
        knows=(("plain", "undone"), ("short", "batch"), ("short", "batch")),
        kinds=("plain", "undone", "batch"),
        every=40,
        faults=("freeze", "client", "client"),
        clients=("cancel", "cancel", "early", "now"),
        unsure=0.2,
        trouble=0.01,
    ),
    "strict": Profile(kinds=("strict", "strict", "undone"), keys=1),
}


class Witness:
    """Sees what is stored and what runs, and says what may not be."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: Counter[str] = Counter()
        self._running: defaultdict[str, list[Run]] = defaultdict(list)
        self._tenures: defaultdict[str, list[str]] = defaultdict(list)
        self._holders: dict[str, str] = {}
        self._granted: dict[str, tuple[datetime, int]] = {}
        """Of each lease: its end, and when that was granted."""
        self._placed: dict[str, int] = {}
        self._read: dict[tuple[str, str], int] = {}

    # -- what is stored

    def wrote(self, writer: str, tasks: Sequence[Change], locks: Sequence[LockChange]) -> None:
        """See what one accepted write changed."""
        for change in tasks:
            self._look_at_tenure(writer, change)
        for lock in locks:
            self._lock_changed(writer, lock)
        for change in tasks:
            self._task_changed(writer, change)
        claimed = [change.after for change in tasks if change.after is not None and _claims(change)]
        for task in claimed:
            self._look_at_claim(writer, task, claimed)
        for key in {task.resource_key or "" for task in claimed}:
            self._look_at_runs(key)

    def read_line(self, reader: str, resource_key: str, at: int) -> None:
        """See a worker get to know a line from its beginning, as it was `at` these microseconds."""
        self._read[reader, resource_key] = at

    def _lock_changed(self, writer: str, change: LockChange) -> None:
        key, before, after = change.resource_key, change.before, change.after
        if before is not None and (after is None or after.owner != before.owner):
            own = self._holders[before.owner] == writer
            over = before.leased_until <= self._world.now
            self._deny(not own and (after is None or not over), f"{writer} ends the lock of somebody else on {key}")
        if after is not None and after.owner not in self._tenures[key][-1:]:
            self._deny(after.owner in self._tenures[key], f"{key} is back with a former holder")
            self.seen["take-over" if before is not None else "take"] += 1
            self._tenures[key].append(after.owner)
            self._holders[after.owner] = writer

    def _look_at_tenure(self, writer: str, change: Change) -> None:
        task = change.before
        if task is not None and task.lease_owner and self._holders.get(task.lease_owner) == writer:
            former = task.lease_owner in self._tenures[task.resource_key or ""][:-1]
            self._deny(former, f"{writer} writes {task.id} under a tenure that somebody has taken over")

    def _task_changed(self, writer: str, change: Change) -> None:
        before, after = change.before, change.after
        task = after or before
        assert task is not None
        if after is None or before is None or before.wait_until != after.wait_until:
            self._placed[task.id] = self._world.micros
        if before is not None and after is not None:
            done = before.outcome is not None and after.outcome is not None
            self._deny(done, f"{task.id} ends twice")
            rescued = before.lease_owner is not None and self._holders.get(before.lease_owner) != writer
            stays = (rescued or before.kind == "strict") and writer != "client" and not after.is_cancelled
            self._deny(stays and after.wait_until != before.wait_until, f"{writer} takes its place from {task.id}")
            self.seen["fence"] += after.lease_owner == FENCED != before.lease_owner
        if after is not None and after.lease_owner not in {None, FENCED} and after.leased_until is not None:
            self._grant(writer, after, after.lease_owner or "", after.leased_until)

    def _grant(self, writer: str, task: Task, lease: str, until: datetime) -> None:
        lock = self._world.records.locks.get(task.resource_key or "")
        if lock is not None and lock.owner == lease:
            self._deny(lock.leased_until < until, f"the lease of {task.id} outlasts its lock")
        if writer == self._holders.setdefault(lease, writer) and until > self._granted.get(lease, (T0, 0))[0]:
            self._granted[lease] = until, self._world.micros

    def _look_at_claim(self, writer: str, task: Task, together: Sequence[Task]) -> None:
        """A task is claimed with its key, and in its turn; but not what is too late to be started."""
        key = task.resource_key or ""
        lock = self._world.records.locks.get(key)
        if lock is None or lock.owner != task.lease_owner:
            self._deny(self._is_in_time(task), f"{writer} claims {task.id} without its key")
            return
        known = self._read.get((writer, key), -1)
        ids = {one.id for one in together}
        for other in self._world.records.tasks.values():
            if other.resource_key == key and other.id not in ids and _place(other) < _place(task):
                passed = self._is_waiting(other) and self._placed[other.id] < known
                self._deny(passed, f"{writer} claims {task.id} before {other.id}, whose turn it is")

    def _is_waiting(self, task: Task) -> bool:
        return task.outcome is None and not task.is_cancelled and self._is_in_time(task)

    def _is_in_time(self, task: Task) -> bool:
        """Tell whether nobody can think that a task has expired."""
        return task.is_cancelled or task.deadline is None or task.deadline > self._world.now + SLACK

    # -- what runs

    def started(self, run: Run) -> None:
        """See a handler begin."""
        key = run.tasks[0].resource_key or ""
        self._running[key].append(run)
        self.seen["run"] += 1
        self._deny(run.lease not in self._tenures[key], f"{run.machine.name} runs {_ids(run)} without its key")
        if not self._is_legitimate(run):
            self.seen["late start"] += 1
            woke = self._world.micros - run.machine.frozen_until < SECOND
            self._deny(not woke, f"{run.machine.name} starts {_ids(run)} after its lease has ended")
            return
        for task in run.tasks:
            stored = self._world.records.tasks.get(task.id)
            held = stored is not None and stored.lease_owner == run.lease and stored.outcome is None
            self._deny(not held, f"{run.machine.name} starts {task.id}, which is not its own: {stored}")
        self._look_at_runs(key)

    def ended(self, run: Run) -> None:
        """See a handler end."""
        self._running[run.tasks[0].resource_key or ""].remove(run)

    def lost(self, machine: Machine) -> None:
        """See a machine go, and with it all that ran on it."""
        for key, runs in self._running.items():
            self._running[key] = [run for run in runs if run.machine is not machine]

    def _look_at_runs(self, key: str) -> None:
        """Of the runs of a key one is legitimate, and the others are of workers that stood still."""
        runs = self._running[key]
        legitimate = [run for run in runs if self._is_legitimate(run)]
        if len(runs) > 1:
            self.seen["overlap"] += 1
            self._deny(len(legitimate) > 1, f"{' and '.join(map(_ids, legitimate))} run at the same time")
        if legitimate:
            for run in runs:
                self._deny(
                    run not in legitimate and not self._is_excused(run),
                    f"{_ids(run)} still runs, whose lease has ended, although nothing stopped {run.machine.name}",
                )

    def _is_legitimate(self, run: Run) -> bool:
        return self._granted[run.lease][0] > self._world.now

    def _is_excused(self, run: Run) -> bool:
        """Tell whether a run that goes on too long could not know."""
        return not run.obeys or run.machine.disturbed_at >= self._granted[run.lease][1]

    def _deny(self, wrong: object, what: str) -> None:
        if wrong:
            self._world.fail(what)


def _claims(change: Change) -> bool:
    """Tell whether a change is a claim: another lease, and one attempt more."""
    before, after = change.before, change.after
    if before is None or after is None or after.lease_owner in {None, before.lease_owner}:
        return False
    return after.attempts > before.attempts or after.cancel_attempts > before.cancel_attempts


def _place(task: Task) -> tuple[datetime, datetime, str]:
    return task.wait_until, task.created_at, task.id


def _ids(run: Run) -> str:
    return "+".join(task.id for task in run.tasks)


def live_through(name: str, seed: int) -> Counter[str]:
    """Run a world; what is wrong in it is raised with what is needed to see it again."""
    world = World(PROFILES[name], seed, Witness)
    try:
        world.run()
    except Exception as wrong:
        again = f"python -m {__name__} {name} {seed}"
        raise AssertionError(f"{wrong}\n{world.history()}\nreplay: {again}") from wrong
    assert name != "quiet" or not world.records.locks, f"a lock was left behind: python -m {__name__} {name} {seed}"
    assert isinstance(world.watcher, Witness)
    return world.watcher.seen


@pytest.mark.parametrize("name", PROFILES)
def test_keys_are_kept_whatever_happens_to_their_workers(name: str) -> None:
    """Tasks of a key run one at a time and in order, and all of them end, whatever goes wrong meanwhile."""
    seen = sum((live_through(name, seed) for seed in range(SEEDS)), Counter[str]())
    assert seen["run"] > SEEDS
    assert seen.keys() >= HAPPENS.get(name, set()), "the world is not as bad as it should be"


def test_a_take_over_fences_what_the_former_holder_left() -> None:
    """Sooner or later somebody takes a key over under which a task is still leased, and nothing goes wrong then."""
    assert any(live_through("fenced", seed)["fence"] for seed in range(1_000))


def test_a_seed_gives_the_same_world_again() -> None:
    """What one seed tells, it tells again word for word, so that a failure can be looked at."""
    first, second = (World(PROFILES["mixed"], 1, Witness) for _ in range(2))
    first.run()
    second.run()
    assert first.trace == second.trace


def explore(name: str, seeds: Iterable[int]) -> int:
    """Try seeds, and print those that fail."""
    failed, seen = 0, Counter[str]()
    for seed in seeds:
        try:
            seen += live_through(name, seed)
        except AssertionError as wrong:
            failed += 1
            sys.stdout.write(f"{name} {seed}: {wrong}\n\n")
    sys.stdout.write(f"{name}: {failed} failed; {dict(seen)}\n")
    return failed


if __name__ == "__main__":
    profile, first, *count = sys.argv[1:]
    names = PROFILES if profile == "all" else [profile]
    sys.exit(min(1, sum(explore(one, range(int(first), int(first) + int(*count or ["1"]))) for one in names)))
