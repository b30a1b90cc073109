"""What the processes said, held against what the store accepted."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.ledger import Ledger, Record, Violations
from tests.chaos.tasks import CLEANED_UP, Staging
from tests.chaos.witness import Pair, Run, Testimony, micros

__all__ = ["Judge", "Processes"]

_MINUTE = 60_000_000
_STOP_SECONDS = 12.0
"""Nine and a half are promised; the rest is for a machine that is busy."""


@dataclass(frozen=True)
class Processes:
    """What was done to processes, by pid; instants in microseconds since 1970."""

    ends: Mapping[int, int]
    terminated: Mapping[int, int]
    """Who was told to stop, and when."""
    stops: Sequence[tuple[int, int, int]]
    """Who stood still for longer than its lease, from when until when."""


class Judge:
    """Looks at one thing after the other."""

    def __init__(self, ledger: Ledger, testimony: Testimony, processes: Processes, bad: Violations) -> None:
        """`bad`: where to take down what should not have happened."""
        self._ledger, self._said, self._bad = ledger, testimony, bad
        self._ends, self._terminated = processes.ends, processes.terminated
        self.longest_stop = 0.0
        """Seconds that a worker took to stop, at most."""
        self._stops: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for pid, since, until in processes.stops:
            self._stops[pid].append((since, until))
        self._now = micros()
        self.excused = 0
        """Pairs of runs at one moment of which one was that of a process that had stood still."""

    def judge(self, expected_occurrences: Iterable[tuple[str, int]]) -> None:
        """Look at everything."""
        overlaps = [f"two runs of one {what} at one moment" for what in ("task", "resource key")]
        for what in ("lost", "not done", "completed twice", "a write with an older fencing token", *overlaps):
            self._bad.counts[what] += 0  # named in any case
        self._acknowledged()
        self._all_done()
        self._runs_and_claims()
        self._one_at_a_time()
        self._first_starts()
        self._follow_ups()
        self._occurrences(expected_occurrences)
        self._stopped_in_time()

    def _acknowledged(self) -> None:
        """What was answered has happened."""
        tasks = self._ledger.tasks
        for task_id in set(self._said.acknowledged) - tasks.keys():
            self._bad.add("lost", f"{task_id} was acknowledged, and is not there")
        for name, noted in (
            ("creates", self._said.created),
            ("cancels", self._said.cancelled),
            ("resets", self._said.reset),
            ("deletes", self._said.deleted),
        ):
            for task_id, number in noted.items():
                if task_id in tasks and getattr(tasks[task_id], name) < number:
                    happened = getattr(tasks[task_id], name)
                    self._bad.add("answered, but not so", f"{task_id}: {number} {name}, {happened} happened")

    def _all_done(self) -> None:
        for task_id, record in self._ledger.tasks.items():
            if not record.gone and record.now.get("outcome") is None:
                self._bad.add("not done", f"{task_id}: {record.now}")
            if record.version > self._now + _MINUTE:
                self._bad.add("written by a transaction that was rolled back", task_id)

    def _runs_and_claims(self) -> None:
        """Every run has a claim of its own, every completion and every cleanup a run."""
        under: Counter[tuple[str, int]] = Counter()
        cleanups: Counter[str] = Counter()
        for run in self._said.runs:
            record = self._ledger.tasks.get(run.task_id)
            claim = None if record is None else record.claim_of(run.token)
            if claim is None:
                self._bad.add("a handler without a claim", f"{run}")
            else:
                under[run.task_id, claim] += 1
            cleanups[run.task_id] += run.is_cleanup
        for (task_id, claim), number in under.items():
            if number > 1:
                self._bad.add("handlers started twice under one claim", f"{task_id}, claim {claim}")
        for task_id, record in self._ledger.tasks.items():
            for at, token in record.completions:
                claim = record.claim_of(token)
                if claim is None or not under[task_id, claim]:
                    self._bad.add("completed without a run", f"{task_id} at {at}")
            if record.kind in CLEANED_UP and cleanups[task_id] < record.cancelled_lives:
                self._bad.add("cancelled, not cleaned up", f"{task_id}")

    def _one_at_a_time(self) -> None:
        """No two runs of a task, or of a resource key, at one moment; and their tokens rise."""
        for name, runs in self._grouped().items():
            steady = [run for run in runs if not self._stood_still(run)]
            for one, other in _overlapping(runs, self._until):
                if self._stood_still(one) or self._stood_still(other):
                    self.excused += 1
                else:
                    self._bad.add(f"two runs of one {name[0]} at one moment", _told(one, other))
            for one, other in itertools.pairwise(steady):
                if other.token <= one.token:
                    self._bad.add(f"a fencing token of a {name[0]} that did not rise", _told(one, other))

    def _grouped(self) -> dict[tuple[str, str], list[Run]]:
        groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in self._said.runs:  # by the time of their starts
            groups["task", run.task_id].append(run)
            if run.key is not None:
                groups["resource key", run.key].append(run)
        return groups

    def _first_starts(self) -> None:
        """The tasks of a key begin for the first time in the order of its line."""
        firsts: dict[str, Run] = {}
        for run in self._said.runs:
            if run.key is not None and not run.is_cleanup:
                firsts.setdefault(run.task_id, run)
        lines: dict[str, list[tuple[Record, Run]]] = defaultdict(list)
        for task_id, run in firsts.items():
            record = self._ledger.tasks.get(task_id)
            if record is not None and run.token < (record.first_life_until or self._now):
                lines[run.key or ""].append((record, run))
        for line in lines.values():
            line.sort(key=lambda pair: pair[0].place)
            latest: tuple[Record, Run] | None = None
            for record, run in line:
                if self._stood_still(run):
                    continue
                if latest is not None and run.since < latest[1].since and latest[0].created_at < run.token:
                    self._bad.add("first starts out of order", _told(latest[1], run))
                if latest is None or run.since > latest[1].since:
                    latest = record, run

    def _follow_ups(self) -> None:
        """What a run staged is there once, if and only if that run completed its task."""
        wanted = {
            (task_id, token)
            for task_id, record in self._ledger.tasks.items()
            if record.kind == Staging.kind
            for _, token in record.completions
        }
        found = self._ledger.follow_ups
        for missing in wanted - found.keys():
            self._bad.add("completed without what it staged", f"{missing}")
        for orphan in found.keys() - wanted:
            self._bad.add("staged, and not completed", f"{orphan}")
        for twice in (pair for pair, number in found.items() if number > 1):
            self._bad.add("staged twice", f"{twice}")

    def _occurrences(self, expected: Iterable[tuple[str, int]]) -> None:
        wanted, found = set(expected), self._ledger.occurrences
        for missing in wanted - found.keys():
            self._bad.add("an instant without its occurrence", f"{missing}")
        for extra in (pair for pair, number in found.items() if number > 1 or pair not in wanted):
            self._bad.add("an occurrence too many", f"{extra}")

    def _stopped_in_time(self) -> None:
        """Stopping is over when it was promised, whatever the store does; closing the client is not part of it."""
        for pid, told in self._terminated.items():
            took = (self._said.stopped.get(pid, self._now) - told) / 1_000_000
            self.longest_stop = max(self.longest_stop, took)
            if took > _STOP_SECONDS:
                self._bad.add("not stopped in time", f"pid {pid}: {took:.1f} s")

    def _until(self, run: Run) -> int:
        return self._ends.get(run.pid, self._now) if run.until is None else run.until

    def _stood_still(self, run: Run) -> bool:
        """Tell whether a run's process stood still for longer than its lease between its claim and its end."""
        stops = self._stops.get(run.pid)
        return stops is not None and any(since < self._until(run) and until > run.token for since, until in stops)


def _overlapping(runs: Sequence[Run], until: Callable[[Run], int]) -> Iterable[Pair]:
    """Give the pairs that ran at one moment; the runs are in the order of their starts."""
    for place, one in enumerate(runs):
        end = until(one)
        for other in runs[place + 1 :]:
            if other.since >= end:
                break
            yield one, other


def _told(one: Run, other: Run) -> str:
    return f"{one} / {other}"
