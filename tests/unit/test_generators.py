"""The transitions of generators: what a recurrence's task goes through, which never runs a handler."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from oncetask import Recurrence, TaskStatus, lifecycle
from oncetask.lifecycle import Step, triage
from oncetask.recurrence import Plan
from oncetask.task import NO_WAIT, Outcome, Task, TaskError, occurrence_id
from tests.support import MICROSECOND, T0, a_task, at, between, exactly

NOW = exactly(T0)
HOURLY = Recurrence("FREQ=HOURLY", at(-36_000))
THREE = Recurrence("FREQ=HOURLY;COUNT=3", at(-3_600))
OVER = Recurrence("FREQ=HOURLY;COUNT=3", at(-36_000))


def a_generator(recurrence: Recurrence = HOURLY, **fields: Any) -> Task:
    """Give a generator that is due since T0; `fields` say what is different about it."""
    extra = fields.pop("extra", {})
    return a_task("every-hour", recurrence={**recurrence.to_fields(), **extra}, **fields)


class TestTriage:
    """What a found generator needs."""

    def test_a_due_one_spawns(self) -> None:
        """At its instant, and where the store's time is known only between bounds already at the later one."""
        assert triage(a_generator(), NOW) is Step.SPAWN
        assert triage(a_generator(wait_until=at(1)), between(T0, at(1))) is Step.SPAWN
        assert triage(a_generator(wait_until=at(1) + MICROSECOND), between(T0, at(1))) is Step.LEAVE

    @pytest.mark.parametrize(
        ("fields", "step"),
        [
            ({"is_cancelled": True, "wait_until": NO_WAIT}, Step.END_CANCELLED),
            ({"extra": {"pausedAt": T0}}, Step.LEAVE),
            ({"outcome": Outcome.COMPLETED}, Step.LEAVE),
            ({"problems": ("data: must be a map",)}, Step.REJECT),
            ({"schema": 2}, Step.LEAVE),
            ({"due_at": at(-1)}, Step.REALIGN),
            ({"deadline": at(-1)}, Step.SPAWN),
        ],
    )
    def test_others_do_not(self, fields: dict[str, Any], step: Step) -> None:
        """Cancelled, paused, done, unreadable and newer ones spawn nothing; a deadline is for the plan to know."""
        assert triage(a_generator(**fields), NOW, has_cleanup=True) is step

    def test_a_paused_one_is_due_never(self) -> None:
        """Nobody has to look at it, so it has no `dueAt`; it counts as waiting."""
        paused = a_generator(extra={"pausedAt": T0})
        assert lifecycle.due_at(paused) is None
        assert paused.status_at(at(1_000_000)) is TaskStatus.WAITING

    def test_a_cancelled_one_that_was_paused_is_looked_at(self) -> None:
        """A cancel reaches it as it reaches any task."""
        paused = a_generator(extra={"pausedAt": T0})
        cancel = lifecycle.cancel(paused, now=NOW)
        assert cancel is not None
        assert (cancel.after.due_at, triage(cancel.after, NOW)) == (NO_WAIT, Step.END_CANCELLED)


class TestSpawn:
    """One commit moves the generator on and writes its occurrences."""

    def test_an_occurrence_is_a_task_of_its_own(self) -> None:
        """It has payload, key, limits and owner of its generator, whose id and instant it bears, and no recurrence."""
        generator = a_generator(resource_key="ada", timeout=7, deadline=at(99_999), owner="ada", attempts=0)
        (_,), (made,) = lifecycle.spawn(generator, Plan((T0,), at(3_600)), now=exactly(at(5)))

        assert made == Task(
            id=f"every-hour:{T0:%Y-%m-%dT%H:%M:%S}Z",
            kind="greet",
            data={"name": "Ada"},
            resource_key="ada",
            wait_until=T0,
            created_at=at(5),
            parent_recurrence_id="every-hour",
            occurrence_timestamp=T0,
            timeout=7,
            deadline=at(99_999),
            owner="ada",
            due_at=T0,
        )
        assert triage(made, exactly(at(5))) is Step.CLAIM

    def test_the_generator_moves_on(self) -> None:
        """It waits for its next instant and remembers the last one."""
        (step,), made = lifecycle.spawn(a_generator(), Plan((T0, at(60)), at(120)), now=NOW)
        after = step.after
        assert (step.event, after.wait_until, after.due_at) == ("spawned", at(120), at(120))
        assert (after.occurrence_timestamp, after.attempts, after.outcome) == (at(60), 0, None)
        assert [task.wait_until for task in made] == [T0, at(60)]
        assert made[0].created_at < made[1].created_at

    def test_the_last_one_completes_it(self) -> None:
        """A rule that has no instant any more makes its generator done."""
        (step,), made = lifecycle.spawn(a_generator(), Plan((T0,), None), now=NOW)
        assert (step.after.outcome, step.after.done_at, step.after.due_at) == (Outcome.COMPLETED, T0, None)
        assert len(made) == 1

    def test_nothing_to_spawn(self) -> None:
        """It moves on alone, and the last occurrence stays the last one."""
        generator = a_generator(occurrence_timestamp=at(-60))
        (step,), made = lifecycle.spawn(generator, Plan((), at(60)), now=NOW, previous=a_task("last"))
        assert (step.event, step.after.wait_until, step.after.occurrence_timestamp) == ("passed-over", at(60), at(-60))
        assert made == []

    def test_the_previous_one_is_cancelled_with_it(self) -> None:
        """Both are one commit; one that is done is left as it is."""
        steps, _ = lifecycle.spawn(a_generator(), Plan((T0,), at(60)), now=NOW, previous=a_task("last"))
        assert [step.event for step in steps] == ["spawned", "cancel-requested"]
        assert steps[1].after.is_cancelled

        done = a_task("last", outcome=Outcome.COMPLETED)
        steps, _ = lifecycle.spawn(a_generator(), Plan((T0,), at(60)), now=NOW, previous=done)
        assert [step.event for step in steps] == ["spawned"]

    def test_an_occurrence_replaces_not_itself(self) -> None:
        """Where the instant was spawned before, under another rule, nothing new comes, so nothing is cancelled."""
        steps, made = lifecycle.spawn(
            a_generator(occurrence_timestamp=T0),
            Plan((T0,), at(60)),
            now=NOW,
            previous=a_task(occurrence_id("every-hour", T0)),
        )
        assert [step.event for step in steps] == ["spawned"]
        assert [task.id for task in made] == [occurrence_id("every-hour", T0)]

    def test_a_strange_lease_goes(self) -> None:
        """A generator is held by nobody; whoever wrote a lease into it does not stop it for ever."""
        generator = a_generator(lease_owner="someone", leased_until=at(-1))
        assert triage(generator, NOW) is Step.SPAWN
        (step,), _ = lifecycle.spawn(generator, Plan((T0,), at(60)), now=NOW)
        assert (step.after.lease_owner, step.after.leased_until, step.after.due_at) == (None, None, at(60))


class TestOccurrenceId:
    """The same generator and instant always give the same id."""

    def test_it_can_be_read(self) -> None:
        """Whole seconds in UTC, behind the generator's id."""
        assert occurrence_id("a:b", T0) == "a:b:2030-01-01T00:00:00Z"
        assert occurrence_id("a:b", T0 + MICROSECOND) == "a:b:2030-01-01T00:00:00.000001Z"

    def test_it_fits(self) -> None:
        """A long id is hashed, since Firestore takes 1,500 bytes."""
        longest, other = "é" * 700, "é" * 701
        assert occurrence_id(longest, T0).startswith(longest)
        assert len(occurrence_id(other, T0).encode()) < 100
        assert occurrence_id(other, T0) != occurrence_id(other + "x", T0)


class TestPause:
    """A paused generator spawns nothing, and goes on from the moment at which it is resumed."""

    def test_pause_and_resume(self) -> None:
        """What it missed meanwhile is left out; the rule is what it was."""
        generator = a_generator()
        paused = lifecycle.pause(generator, now=NOW)
        assert paused is not None
        assert (paused.event, paused.after.due_at, paused.after.wait_until) == ("paused", None, T0)
        assert lifecycle.is_paused(paused.after)

        resumed = lifecycle.resume(paused.after, now=exactly(at(9_000)))
        assert resumed is not None
        assert (resumed.event, resumed.after.wait_until, resumed.after.due_at) == ("resumed", at(10_800), at(10_800))
        assert resumed.after.recurrence == generator.recurrence

    def test_where_it_does_not_apply(self) -> None:
        """Other tasks, done, cancelled and paused ones are not paused; what is not paused is not resumed."""
        paused = a_generator(extra={"pausedAt": T0})
        for task in (a_task(), a_generator(outcome=Outcome.COMPLETED), a_generator(is_cancelled=True), paused):
            assert lifecycle.pause(task, now=NOW) is None
        for task in (a_task(), a_generator(), a_generator(outcome=Outcome.FAILED, extra={"pausedAt": T0})):
            assert lifecycle.resume(task, now=NOW) is None

    def test_one_that_ran_out_meanwhile(self) -> None:
        """It is completed when it is resumed."""
        resumed = lifecycle.resume(a_generator(OVER, extra={"pausedAt": T0}), now=NOW)
        assert resumed is not None
        assert (resumed.after.outcome, resumed.after.due_at) == (Outcome.COMPLETED, None)

    def test_one_that_cannot_be_read(self) -> None:
        """It is due at once, so that it is rejected with the reason."""
        resumed = lifecycle.resume(a_task(recurrence={"rrule": "FREQ=NEVER", "pausedAt": T0}), now=exactly(at(9)))
        assert resumed is not None
        assert (resumed.after.outcome, resumed.after.due_at) == (None, at(9))

    def test_until_its_deadline(self) -> None:
        """From its deadline on there are no instants: an instant at the deadline is too late."""
        for deadline, outcome in ((at(3_600), Outcome.COMPLETED), (at(3_600) + MICROSECOND, None)):
            resumed = lifecycle.resume(a_generator(extra={"pausedAt": T0}, deadline=deadline), now=NOW)
            assert resumed is not None
            assert resumed.after.outcome is outcome


class TestReset:
    """A done generator goes on from now."""

    @pytest.mark.parametrize(
        "ended",
        [
            {"outcome": Outcome.CANCELLED, "is_cancelled": True, "cancelled_at": T0, "wait_until": NO_WAIT},
            {"outcome": Outcome.COMPLETED, "done_at": T0},
            {"outcome": Outcome.FAILED, "errors": (TaskError(T0, 0, "UnreadableTask", "?"),)},
            {"outcome": Outcome.CANCELLED, "is_cancelled": True, "extra": {"pausedAt": T0}},
        ],
    )
    def test_a_new_life(self, ended: dict[str, Any]) -> None:
        """It waits for the first instant behind now; neither the cancel nor a pause is left."""
        reset = lifecycle.reset(a_generator(**ended), now=exactly(at(5_400)))
        assert reset is not None
        after = reset.after
        assert (after.wait_until, after.due_at, after.outcome) == (at(7_200), at(7_200), None)
        assert (after.is_cancelled, after.cancelled_at, after.errors, after.done_at) == (False, None, (), None)
        assert after.recurrence == HOURLY.to_fields()

    def test_where_nothing_is_left(self) -> None:
        """A rule without a further instant, or one that cannot be read, gives no new life."""
        assert lifecycle.reset(a_generator(OVER, outcome=Outcome.COMPLETED), now=NOW) is None
        unreadable = a_task(recurrence={"rrule": "FREQ=NEVER"}, outcome=Outcome.FAILED)
        assert lifecycle.reset(unreadable, now=NOW) is None
        assert lifecycle.reset(a_generator(), now=NOW) is None

    def test_a_deadline_that_passed_goes(self) -> None:
        """What ended at its deadline goes on without one; a later one stays."""
        for deadline, left in ((T0, None), (at(9_000), at(9_000))):
            reset = lifecycle.reset(a_generator(outcome=Outcome.COMPLETED, deadline=deadline), now=NOW)
            assert reset is not None
            assert reset.after.deadline == left


class TestRedeclare:
    """What the code declares by now is what the generator becomes."""

    def test_the_same(self) -> None:
        """Nothing changes, also where it is paused, cancelled or done."""
        for fields in ({}, {"extra": {"pausedAt": T0}}, {"outcome": Outcome.CANCELLED, "is_cancelled": True}):
            assert lifecycle.redeclare(a_generator(**fields), a_generator(wait_until=at(500))) is None

    def test_another_payload(self) -> None:
        """The instant for which it waits stays, due or not: a deploy skips no run."""
        step = lifecycle.redeclare(a_generator(wait_until=at(-5)), a_generator(data={"name": "Bob"}, wait_until=at(99)))
        assert step is not None
        assert (step.event, step.after.data, step.after.wait_until) == ("redeclared", {"name": "Bob"}, at(-5))

    @pytest.mark.parametrize("policy", [{"catch_up": "all"}, {"overlap": "skip"}])
    def test_another_policy(self, policy: dict[str, Any]) -> None:
        """The same holds where the rule itself is the same."""
        new = Recurrence("FREQ=HOURLY", at(-36_000), **policy)
        step = lifecycle.redeclare(a_generator(wait_until=at(-5)), a_generator(new, wait_until=at(99)))
        assert step is not None
        assert (step.after.recurrence, step.after.wait_until) == (new.to_fields(), at(-5))

    def test_another_rule(self) -> None:
        """It waits for the first instant of the new rule."""
        step = lifecycle.redeclare(a_generator(wait_until=at(-5)), a_generator(THREE, wait_until=at(99)))
        assert step is not None
        assert (step.after.recurrence, step.after.due_at) == (THREE.to_fields(), at(99))

    def test_a_pause_stays(self) -> None:
        """Whoever paused it meant the schedule and not its rule."""
        step = lifecycle.redeclare(a_generator(extra={"pausedAt": at(-9)}), a_generator(THREE))
        assert step is not None
        assert step.after.recurrence == {**THREE.to_fields(), "pausedAt": at(-9)}
        assert step.after.due_at is None

    @pytest.mark.parametrize(
        "ended",
        [
            {"outcome": Outcome.CANCELLED, "is_cancelled": True, "cancelled_at": T0},
            {"is_cancelled": True, "cancelled_at": T0, "wait_until": NO_WAIT},
            {"outcome": Outcome.COMPLETED, "done_at": T0},
        ],
    )
    def test_one_that_ended_comes_back(self, ended: dict[str, Any]) -> None:
        """What somebody cancelled was another schedule, whatever of it is declared differently."""
        step = lifecycle.redeclare(a_generator(**ended), a_generator(data={"name": "Bob"}, wait_until=at(99)))
        assert step is not None
        after = step.after
        assert (after.outcome, after.is_cancelled, after.cancelled_at, after.done_at) == (None, False, None, None)
        assert (after.wait_until, after.due_at) == (at(99), at(99))


class TestPrune:
    """A generator that no code declares any more."""

    def test_it_is_cancelled_and_disowned(self) -> None:
        """Declared again as it was, it differs from what is stored, and so comes back."""
        marks = {"app": "shop", "name": "hourly"}
        step = lifecycle.prune(a_generator(extra=marks), now=NOW)
        assert step is not None
        assert (step.event, step.after.is_cancelled, step.after.due_at) == ("cancel-requested", True, NO_WAIT)
        assert step.after.recurrence == HOURLY.to_fields()
        again = lifecycle.redeclare(step.after, a_generator(extra=marks, wait_until=at(99)))
        assert again is not None
        assert (again.after.is_cancelled, again.after.wait_until) == (False, at(99))

    def test_what_somebody_ended_stays_as_it_is(self) -> None:
        """Neither a done nor a cancelled one is touched."""
        assert lifecycle.prune(a_generator(outcome=Outcome.COMPLETED), now=NOW) is None
        assert lifecycle.prune(a_generator(is_cancelled=True), now=NOW) is None


def test_a_reason_for_rejecting() -> None:
    """A generator whose rule cannot be read ends with what is wrong with it."""
    step = lifecycle.reject(a_generator(), now=NOW, why="rrule 'FREQ=NEVER': FREQ must be …")
    assert step.after.outcome is Outcome.FAILED
    assert step.after.errors[-1].message == "rrule 'FREQ=NEVER': FREQ must be …"


def test_a_generator_may_be_deleted() -> None:
    """Nobody ever holds one."""
    assert lifecycle.may_delete(a_generator(), NOW)
    assert lifecycle.may_delete(a_generator(extra={"pausedAt": T0 - timedelta(days=9)}), NOW)
