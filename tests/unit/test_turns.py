"""Whose turn it is in the line of a resource key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from oncetask import NoRetry
from oncetask.handlers import Cleanup, Handler
from oncetask.task import NO_WAIT, SCHEMA, Outcome, Task
from oncetask.turns import needs_key, next_turn
from tests.support import MICROSECOND, T0, a_handler, a_task, at, between, exactly, greet

NOW = exactly(T0)


def undoing(**fields: Any) -> Handler:
    """Give a handler whose kind has a cancellation handler, too."""
    return a_handler(cleanup=Cleanup(function=greet, runs_in="loop", timeout=None, retry=None), **fields)


def waiting(task_id: str, seconds: float = -1, **fields: Any) -> Task:
    """Give a task of one key that has waited for so many seconds."""
    return a_task(task_id, **{"resource_key": "ada", "wait_until": at(seconds), **fields})


def held(task_id: str, until: float, **fields: Any) -> Task:
    """Give a task that somebody runs, or ran until he died."""
    return waiting(task_id, **{"lease_owner": "other", "leased_until": at(until), "attempts": 1, **fields})


def turn(line: Sequence[Task], handlers: Mapping[str, Handler] | None = None, now: Any = NOW) -> list[str]:
    """Give the ids of what starts."""
    return [task.id for task in next_turn(line, {"greet": a_handler()} if handlers is None else handlers, now).tasks]


class TestOrder:
    """Who is first."""

    def test_by_time_then_creation_then_id(self) -> None:
        """What waits longest is first; of the same time what was created first; of the same creation by id."""
        line = [
            waiting("c", -1, created_at=at(-2)),
            waiting("b", -1, created_at=at(-3)),
            waiting("d", -1, created_at=at(-3)),
            waiting("a", -0.5, created_at=at(-9)),
        ]
        assert turn(line) == ["b"]
        assert turn([line[0], line[2], line[3]]) == ["d"]
        assert turn([line[0], line[3]]) == ["c"]

    def test_an_empty_line(self) -> None:
        """There is nothing to start, and nobody to wait for."""
        found = next_turn([], {"greet": a_handler()}, NOW)
        assert (found.tasks, found.waits_for) == ((), None)

    def test_at_the_very_instant(self) -> None:
        """A task starts at its instant by the later bound of the present, and not a microsecond before."""
        line = [waiting("a", 5)]
        assert turn(line, now=between(at(0), at(5))) == ["a"]
        assert turn(line, now=between(at(0), at(5) - MICROSECOND)) == []


class TestStandingStill:
    """At whom the whole line waits."""

    def test_at_one_that_somebody_runs(self) -> None:
        """Nothing starts beside a task whose lease may still hold, wherever in line; strict to the microsecond."""
        running, behind = held("a", 10), waiting("b", 0)
        found = next_turn([running, behind], {"greet": a_handler()}, between(at(10) - MICROSECOND, at(20)))
        assert (found.tasks, found.waits_for) == ((), running)

    def test_at_one_whose_worker_died(self) -> None:
        """It has not been rescued yet: whether it ever started nobody knows, so nothing overtakes it."""
        dead = held("a", -10)
        assert next_turn([dead, waiting("b")], {"greet": a_handler()}, NOW).waits_for == dead

    def test_at_one_that_was_rescued_and_comes_back_soon(self) -> None:
        """It keeps its place while it waits for its next attempt."""
        rescued = waiting("a", -5, leased_until=at(3), attempts=1)
        assert next_turn([rescued, waiting("b")], {"greet": a_handler()}, NOW).waits_for == rescued
        assert turn([rescued, waiting("b")], now=exactly(at(3))) == ["a"]

    def test_at_an_abandoned_handler(self) -> None:
        """A cancelled task whose handler does not stop is waited for as long as its lease lasts."""
        stubborn = waiting("a", wait_until=NO_WAIT, is_cancelled=True, leased_until=at(9), attempts=1)
        for one in (a_handler(), undoing()):
            assert next_turn([stubborn, waiting("b")], {"greet": one}, NOW).waits_for == stubborn

    def test_at_a_kind_that_nobody_here_knows(self) -> None:
        """A due task of another service's kind has its turn; what is behind it waits for that service."""
        foreign = waiting("a", -5, kind="theirs")
        assert next_turn([foreign, waiting("b")], {"greet": a_handler()}, NOW).waits_for == foreign
        assert turn([waiting("b", -9), foreign]) == ["b"]

    def test_at_a_newer_versions_task(self) -> None:
        """What this version cannot read is left to one that can, and so is what comes after it."""
        newer = waiting("a", -5, schema=SCHEMA + 1)
        assert next_turn([newer, waiting("b")], {"greet": a_handler()}, NOW).waits_for == newer


class TestPassing:
    """Who is overtaken: what will not run."""

    @pytest.mark.parametrize("kind", ["greet", "theirs"])
    @pytest.mark.parametrize(
        "fields",
        [
            {"is_cancelled": True, "wait_until": NO_WAIT},
            {"deadline": at(0), "wait_until": at(-5)},
            {"problems": ("attempts: must be a whole number",)},
            {"recurrence": {"rrule": "FREQ=DAILY"}},
        ],
        ids=["cancelled", "expired", "unreadable", "generator"],
    )
    def test_what_will_not_run(self, fields: dict[str, Any], kind: str) -> None:
        """A cancelled task without a cleanup, an expired, an unreadable one or a generator lets the others pass."""
        passing = (
            waiting("a", **{"kind": kind, "seconds": -5, **fields})
            if "wait_until" not in fields
            else a_task("a", kind=kind, resource_key="ada", **fields)
        )
        assert turn([passing, waiting("b")]) == ["b"]

    def test_the_deadline_of_the_handler_counts(self) -> None:
        """A task that its kind's own deadline ends lets the others of another kind pass."""
        handlers = {"greet": a_handler(deadline=at(-1)), "other": a_handler()}
        assert turn([waiting("a", -5), waiting("b", kind="other")], handlers) == ["b"]

    def test_a_cleanup_has_its_turn(self) -> None:
        """A cancelled task of a kind with a cancellation handler goes first, and does not join a batch."""
        line = [waiting("b", -9), waiting("a", wait_until=NO_WAIT, is_cancelled=True), waiting("c")]
        assert turn(line, {"greet": undoing(max_batch=10)}) == ["a"]

    def test_a_dead_workers_cancelled_task(self) -> None:
        """Where its lease has ended there is nothing to rescue: its cleanup has its turn, or the others pass."""
        lapsed = held("a", -1, wait_until=NO_WAIT, is_cancelled=True)
        assert turn([lapsed, waiting("b")], {"greet": undoing()}) == ["a"]
        assert turn([lapsed, waiting("b")]) == ["b"]


class TestBatches:
    """What comes in one call."""

    def test_the_beginning_of_the_line(self) -> None:
        """At most `max_batch` tasks, in order."""
        line = [waiting(str(n), n - 10) for n in range(5)]
        assert turn(line, {"greet": a_handler(max_batch=3)}) == ["0", "1", "2"]
        assert turn(line, {"greet": a_handler(max_batch=10)}) == ["0", "1", "2", "3", "4"]
        assert turn(line, {"greet": a_handler(max_batch=1)}) == ["0"]

    def test_of_one_kind(self) -> None:
        """Another kind ends the batch, also where it is a batch handler's itself, and where nobody knows it."""
        handlers = {"greet": a_handler(max_batch=10), "other": a_handler(max_batch=10)}
        for kind in ("other", "theirs"):
            line = [waiting("0", -5), waiting("1", -4), waiting("2", -3, kind=kind), waiting("3", -2)]
            assert turn(line, handlers) == ["0", "1"]

    def test_not_one_whose_last_attempt_comes_next(self) -> None:
        """It runs alone, so that it takes nobody along; those behind it are a batch of their own."""
        line = [waiting("0", -5), waiting("1", -4, attempts=2), waiting("2", -3)]
        handlers = {"greet": a_handler(max_batch=10)}
        assert turn(line, handlers) == ["0"]
        assert turn(line[1:], handlers) == ["1"]
        assert turn(line[2:], handlers) == ["2"]

    def test_a_last_attempt_that_is_the_first(self) -> None:
        """Where a policy has one attempt only, there is a batch all the same."""
        assert turn([waiting("0"), waiting("1")], {"greet": a_handler(max_batch=10, retry=NoRetry())}) == ["0", "1"]

    def test_not_one_that_does_not_validate(self) -> None:
        """A payload that does not fit fails by itself."""
        line = [waiting("0", -5), waiting("1", -4, data={"name": 1}), waiting("2", -3)]
        handlers = {"greet": a_handler(max_batch=10)}
        assert turn(line, handlers) == ["0"]
        assert turn(line[1:], handlers) == ["1"]

    def test_what_stands_still_ends_it(self) -> None:
        """A member that waits for its next attempt in its place ends the batch before it."""
        line = [waiting("0", -5), waiting("1", -4, leased_until=at(5), attempts=1), waiting("2", -3)]
        found = next_turn(line, {"greet": a_handler(max_batch=10)}, NOW)
        assert ([task.id for task in found.tasks], found.waits_for) == (["0"], None)

    def test_what_passes_does_not(self) -> None:
        """An expired task between others does not part them."""
        line = [waiting("0", -5), waiting("1", -4, deadline=at(-1)), waiting("2", -3)]
        assert turn(line, {"greet": a_handler(max_batch=10)}) == ["0", "2"]


class TestNeedsKey:
    """Which found tasks wait for their key."""

    @pytest.mark.parametrize(
        ("task", "needs"),
        [
            (waiting("due"), True),
            (a_task("no key"), False),
            (waiting("not due", 5), False),
            (waiting("expired", deadline=at(-1)), False),
            (waiting("done", outcome=Outcome.COMPLETED), False),
            (held("dead worker's", -1), False),
            (held("running", 5), False),
            (waiting("cancelled", is_cancelled=True), False),
            (waiting("unreadable", problems=("attempts",)), False),
            (waiting("misplaced", due_at=at(-9)), False),
            (waiting("generator", recurrence={"rrule": "FREQ=DAILY"}), False),
        ],
        ids=lambda value: value.id if isinstance(value, Task) else "",
    )
    def test_what_would_run(self, task: Task, needs: bool) -> None:
        """Only what would be run has to have its key; whatever else it needs is written without."""
        assert needs_key(task, a_handler(), NOW) is needs

    def test_a_cleanup(self) -> None:
        """A cleanup holds the key too, late or not."""
        assert needs_key(waiting("a", is_cancelled=True, deadline=at(-1)), undoing(), NOW)
