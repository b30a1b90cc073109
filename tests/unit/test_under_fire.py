"""What the witness of shared resource keys sees, and what it does not hold against anybody."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.under_fire import LEASE_SECONDS, Verdict, Witness

ME, OTHER = os.getpid(), -1


class Rows:
    """A witness's table, with rows as a test wants them."""

    def __init__(self, path: Path) -> None:
        self.witness = Witness(path)
        self._sql = sqlite3.connect(path, isolation_level=None)

    def run(self, number: int, since: float, until: float | None, *, key: str = "a", pid: int = ME) -> None:
        """Note a run."""
        self._sql.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", (key, number, pid, since, until))

    def fault(self, what: str, since: float, until: float, *, pid: int = ME) -> None:
        """Note what was done to a process."""
        self._sql.execute("INSERT INTO faults VALUES (?, ?, ?, ?)", (pid, what, since, until))

    def verdict(self, tasks: int) -> Verdict:
        """Give what was seen."""
        return self.witness.judge(range(tasks))

    def close(self) -> None:
        """Let go of the file."""
        self._sql.close()
        self.witness.close()


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    """No rows yet."""
    made = Rows(tmp_path / "witness.db")
    yield made
    made.close()


def test_one_after_the_other(rows: Rows) -> None:
    """Runs that touch do not overlap, other keys do not matter, and a repetition is no start out of order."""
    rows.run(0, 1, 2)
    rows.run(2, 2, 3)
    rows.run(0, 3, 4)
    rows.run(1, 1, 4, key="b", pid=OTHER)
    verdict = rows.verdict(3)
    assert (verdict.runs, verdict.overlaps, verdict.out_of_order, verdict.never) == (4, [], [], set())


def test_two_at_once(rows: Rows) -> None:
    """Two runs of one key at a moment are seen, also where a third lies between their starts."""
    rows.run(0, 1, 9)
    rows.run(1, 2, 3, pid=OTHER)
    rows.run(2, 5, 6, pid=OTHER)
    assert [(one.number, other.number) for one, other in rows.verdict(3).overlaps] == [(0, 1), (0, 2)]


def test_out_of_order_and_never(rows: Rows) -> None:
    """A later task that starts first is seen, and so is one that never starts."""
    rows.run(2, 1, 2)
    rows.run(0, 3, 4)
    verdict = rows.verdict(3)
    assert [(one.number, other.number) for one, other in verdict.out_of_order] == [(2, 0)]
    assert verdict.never == {1}


def test_a_killed_process_ends_its_runs(rows: Rows) -> None:
    """What has no end ended with its process; what starts before that overlaps."""
    rows.run(0, 1, None)
    rows.fault("killed", 2, 5)
    rows.run(1, 6, 7, pid=OTHER)
    assert rows.verdict(2).overlaps == []
    rows.run(2, 4, 4.5, pid=OTHER)
    assert [(one.number, other.number) for one, other in rows.verdict(3).overlaps] == [(0, 2)]


@pytest.mark.parametrize(("seconds", "excused"), [(LEASE_SECONDS + 0.1, 1), (LEASE_SECONDS - 0.1, 0)])
def test_a_process_that_stood_still(rows: Rows, seconds: float, excused: int) -> None:
    """The rest of a run whose process stood still for longer than its lease is excused, and no other."""
    rows.run(0, 1, 20)
    rows.fault("stopped", 2, 2 + seconds)
    rows.run(1, 10, 11, pid=OTHER)
    verdict = rows.verdict(2)
    assert (verdict.excused, len(verdict.overlaps)) == (excused, 1 - excused)
