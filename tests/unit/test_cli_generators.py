"""What is told of a generator: how it stands, and its next runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from oncetask import Recurrence
from oncetask.cli.generators import next_runs, runs_from, standing, there
from oncetask.cli.records import standing as standing_of_task
from oncetask.schedules import Found
from oncetask.task import Outcome, Task
from tests.support import MICROSECOND, T0, a_task, at


def a_generator(**fields: Any) -> Task:
    """Give a generator of a run a minute, which waits since T0."""
    recurrence = {**Recurrence.every(60).to_fields(), **fields.pop("more", {})}
    return a_task("g", **{"recurrence": recurrence, "read_at": at(-30), **fields})


def found(task: Task, problem: str = "", *, is_vanished: bool = False) -> Found:
    """Give a generator as a survey finds it."""
    return Found(task, None if problem else Recurrence.every(60), problem, None, is_vanished)


def test_the_next_runs_begin_with_the_one_it_waits_for() -> None:
    """What a generator waits for is its first run, and what comes after the fifth is not told."""
    assert next_runs(a_generator(), Recurrence.every(60)) == [at(60 * n) for n in range(5)]
    assert next_runs(a_generator(read_at=T0), Recurrence.every(60))[0] == T0


def test_what_has_passed_is_no_next_run() -> None:
    """A generator that is overdue has the runs after the moment at which it was read."""
    late = a_generator(read_at=at(60))
    assert next_runs(late, Recurrence.every(60))[0] == at(120)
    assert next_runs(a_generator(read_at=T0 + MICROSECOND), Recurrence.every(60))[0] == at(60)


@pytest.mark.parametrize(("deadline", "number"), [(at(0), 0), (at(60), 1), (at(60) + MICROSECOND, 2)])
def test_nothing_runs_from_the_deadline_on(deadline: datetime, number: int) -> None:
    """The deadline bounds the runs, itself excluded."""
    assert len(next_runs(a_generator(deadline=deadline), Recurrence.every(60))) == number


def test_runs_end_with_the_rule() -> None:
    """A rule that has three runs left gives three."""
    rule = Recurrence("FREQ=MINUTELY;COUNT=3", T0)
    assert runs_from(rule, T0, 5) == [at(0), at(60), at(120)]
    assert runs_from(rule, None, 5) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "active"),
        ({"more": {"pausedAt": T0}}, "paused"),
        ({"is_cancelled": True, "cancelled_at": T0}, "cancelled"),
        ({"is_cancelled": True, "more": {"pausedAt": T0}}, "cancelled"),
        ({"outcome": Outcome.COMPLETED}, "done-completed"),
        ({"outcome": Outcome.CANCELLED, "is_cancelled": True}, "done-cancelled"),
    ],
)
def test_how_a_schedule_stands(fields: dict[str, Any], expected: str) -> None:
    """Only an active schedule has next runs; one that vanished from the code says so as well."""
    task = a_generator(**fields)
    assert standing(found(task)) == expected
    assert standing(found(task, is_vanished=True)) == f"{expected}, not declared any more"
    assert bool(next_runs(task, Recurrence.every(60))) is (expected == "active")


def test_an_unreadable_schedule_says_why() -> None:
    """What cannot be read is not called active; done and vanished it may be."""
    assert standing(found(a_generator(), "no rule")) == "unreadable: no rule"
    done = a_generator(outcome=Outcome.FAILED)
    assert (
        standing(found(done, "no rule", is_vanished=True)) == "done-failed, not declared any more, unreadable: no rule"
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "waiting"),
        ({"more": {"pausedAt": T0}}, "waiting, paused"),
        ({"more": {"pausedAt": T0}, "outcome": Outcome.COMPLETED}, "done-completed"),
    ],
)
def test_a_paused_task_is_told(fields: dict[str, Any], expected: str) -> None:
    """People read that a waiting generator is paused; a done one is done."""
    assert standing_of_task(a_generator(**fields)) == expected


def test_times_are_those_of_the_zone() -> None:
    """An instant is told on the clocks of its zone; where the year 10000 has begun there, in UTC."""
    zone = ZoneInfo("Europe/Berlin")
    assert there(datetime(2026, 3, 15, 8, 0, 0, 1, tzinfo=UTC), zone) == "2026-03-15 09:00:00+01:00"
    assert there(datetime(2026, 5, 14, 8, tzinfo=UTC), zone) == "2026-05-14 10:00:00+02:00"
    assert there(datetime.max.replace(tzinfo=UTC), zone) == "9999-12-31 23:59:59+00:00"
