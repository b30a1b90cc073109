"""Which state follows which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncetask import lifecycle
from oncetask.clock import EPOCH, Now
from oncetask.errors import LeaseLost, TaskExpired
from oncetask.lifecycle import Step, Transition, triage
from oncetask.lock import Lock, LockChange
from oncetask.task import NO_WAIT, SCHEMA, Outcome, Progress, Task, TaskError, TaskStatus
from tests.support import MICROSECOND, T0, a_task, at, between, exactly, not_none

NOW = exactly(T0)


def leased(**fields: Any) -> Task:
    """Give a task that a worker holds until T0 + 60 for its first attempt."""
    return a_task(
        **{"lease_owner": "l1", "leased_until": at(60), "attempts": 1, "started_at": T0, "wait_until": at(-5), **fields}
    )


def overtaken(**fields: Any) -> Task:
    """Give a task that was cancelled while a worker's handler ran, until T0 + 60."""
    return leased(**{"is_cancelled": True, "cancelled_at": at(-1), "wait_until": NO_WAIT, **fields})


def cleanup(**fields: Any) -> Task:
    """Give a cancelled task whose first cleanup a worker runs until T0 + 60."""
    return overtaken(**{"cancel_attempts": 1, "attempts": 2, **fields})


def done(outcome: Outcome = Outcome.FAILED, **fields: Any) -> Task:
    """Give a task that has ended."""
    return a_task(**{"outcome": outcome, "done_at": at(-1), "attempts": 3, **fields})


def sound(transition: Transition) -> Task:
    """Check that a transition says what it changes, and give the record that it makes."""
    assert transition.after == replace(transition.before, **transition.changes)
    assert transition.after.due_at == lifecycle.due_at(transition.after)
    return transition.after


BOTH = pytest.mark.parametrize(
    ("has_cleanup", "next_step"),
    [pytest.param(True, Step.CLAIM, id="cleanup"), pytest.param(False, Step.END_CANCELLED, id="no cleanup")],
)
"""Kinds with a cancellation handler, and without; and what a cancelled task that is free needs there."""


class TestTriage:
    """What a task that the due query found needs next."""

    def test_a_free_task_is_claimed_from_its_instant_on(self) -> None:
        """A free task is left until the microsecond before it is due, and claimed from then on."""
        assert triage(a_task(wait_until=T0), exactly(T0 - MICROSECOND)) is Step.LEAVE
        assert triage(a_task(wait_until=T0), exactly(T0)) is Step.CLAIM

    def test_the_hour_of_a_free_task_is_read_leniently(self) -> None:
        """Where it may be time already, a free task is claimed: the later bound decides."""
        assert triage(a_task(wait_until=T0), between(at(-2), T0)) is Step.CLAIM

    def test_a_lease_of_another_is_read_strictly(self) -> None:
        """A lease is taken for ended only where it has certainly ended: the earlier bound decides."""
        assert triage(leased(), between(at(60) - MICROSECOND, at(90))) is Step.LEAVE
        assert triage(leased(), between(at(60), at(90))) is Step.RESCUE

    def test_a_rescued_task_is_claimed_after_its_spread(self) -> None:
        """A rescued task is nobody's until its spread is over."""
        task = a_task(wait_until=at(-100), leased_until=at(9))

        assert triage(task, exactly(at(9) - MICROSECOND)) is Step.LEAVE
        assert triage(task, exactly(at(9))) is Step.CLAIM

    def test_a_rescued_task_is_claimed_at_its_deadline(self) -> None:
        """A deadline before the end of the spread is not waited out: the later bound decides, as for any free task."""
        task = a_task(wait_until=at(-100), leased_until=at(9), deadline=at(4))

        assert triage(task, between(at(-9), at(4) - MICROSECOND)) is Step.LEAVE
        assert triage(task, between(at(-9), at(4))) is Step.CLAIM

    def test_a_waiting_task_is_claimed_at_its_deadline(self) -> None:
        """A task whose deadline comes before its time is claimed then, to be ended."""
        task = a_task(wait_until=at(100), deadline=at(4))

        assert triage(task, exactly(at(4) - MICROSECOND)) is Step.LEAVE
        assert triage(task, exactly(at(4))) is Step.CLAIM

    @BOTH
    def test_a_cancelled_task_that_is_free_goes_at_once(self, has_cleanup: bool, next_step: Step) -> None:
        """A cancelled task that nobody holds is claimed for its cleanup, or ended where its kind has none."""
        task = a_task(is_cancelled=True, wait_until=NO_WAIT)

        assert triage(task, NOW, has_cleanup=has_cleanup) is next_step

    @BOTH
    def test_a_cancelled_task_that_is_held_is_left(self, has_cleanup: bool, next_step: Step) -> None:
        """No cleanup runs beside the live handler; from the certain end of its lease on nothing is waited for."""
        task = overtaken()

        assert triage(task, between(at(60) - MICROSECOND, at(90)), has_cleanup=has_cleanup) is Step.LEAVE
        assert triage(task, between(at(60), at(90)), has_cleanup=has_cleanup) is next_step

    def test_the_lease_of_an_abandoned_handler_has_to_have_ended_for_certain(self) -> None:
        """As with any lease, the earlier bound of the present decides, for the cleanup as for a deletion."""
        task = sound(lifecycle.abandon(overtaken()))
        end = task.leased_until
        assert end is not None
        unsure, sure = between(end - MICROSECOND, end + MICROSECOND), between(end, end + MICROSECOND)

        assert lifecycle.triage(task, unsure, has_cleanup=True) is Step.LEAVE
        assert lifecycle.triage(task, sure, has_cleanup=True) is Step.CLAIM
        assert not lifecycle.may_delete(task, unsure)
        assert lifecycle.may_delete(task, sure)

    @BOTH
    def test_an_abandoned_handler_is_waited_for(self, has_cleanup: bool, next_step: Step) -> None:
        """An abandoned task is left until the lease that its handler ran under has ended."""
        task = sound(lifecycle.abandon(overtaken()))

        assert triage(task, exactly(at(60) - MICROSECOND), has_cleanup=has_cleanup) is Step.LEAVE
        assert triage(task, exactly(at(60)), has_cleanup=has_cleanup) is next_step

    def test_a_cleanup_whose_worker_died_is_rescued(self) -> None:
        """The lease on a cleanup is left while it holds, and rescued once it has certainly ended."""
        assert triage(cleanup(), between(at(60) - MICROSECOND, at(90)), has_cleanup=True) is Step.LEAVE
        assert triage(cleanup(), between(at(60), at(90)), has_cleanup=True) is Step.RESCUE

    def test_a_cleanup_that_waits_is_left(self) -> None:
        """Between two attempts at the cleanup a cancelled task waits like any other."""
        task = a_task(is_cancelled=True, wait_until=at(5), cancel_attempts=1)

        assert triage(task, exactly(at(5) - MICROSECOND), has_cleanup=True) is Step.LEAVE
        assert triage(task, exactly(at(5)), has_cleanup=True) is Step.CLAIM

    @BOTH
    def test_a_done_task_is_left(self, has_cleanup: bool, next_step: Step) -> None:
        """A task that ended is left, cancelled or not."""
        for task in (done(), done(Outcome.CANCELLED, is_cancelled=True, cancel_attempts=1)):
            assert triage(task, NOW, has_cleanup=has_cleanup) is Step.LEAVE

    def test_a_lease_without_an_end_is_over(self) -> None:
        """An owner without an end of the lease, written by somebody else, is rescued."""
        assert triage(leased(leased_until=None), NOW) is Step.RESCUE

    def test_an_unreadable_record_is_rejected(self) -> None:
        """A record with problems is rejected while it is open, and left once it is done."""
        assert triage(a_task(problems=("kind: is missing",)), NOW) is Step.REJECT
        assert triage(done(problems=("kind: is missing",)), NOW) is Step.LEAVE

    def test_a_due_time_that_contradicts_is_realigned(self) -> None:
        """A `dueAt` that does not follow from the other fields is mended, of an open task or a done one."""
        assert triage(a_task(wait_until=at(100), due_at=T0), NOW) is Step.REALIGN
        assert triage(a_task(due_at=None), NOW) is Step.REALIGN
        assert triage(done(due_at=T0), NOW) is Step.REALIGN

    def test_a_realigned_task_is_not_realigned_again(self) -> None:
        """Mending once is enough."""
        for task in (a_task(wait_until=at(100), due_at=T0), a_task(due_at=None), done(due_at=T0), leased(due_at=T0)):
            assert triage(sound(lifecycle.realign(task)), NOW) is not Step.REALIGN

    @pytest.mark.parametrize("problem", [(), ("errors: must be a list",)])
    def test_a_newer_schema_is_left(self, problem: tuple[str, ...]) -> None:
        """A record of a newer version is for newer workers, however strange it looks here."""
        assert triage(a_task(schema=SCHEMA + 1, due_at=None, problems=problem), NOW) is Step.LEAVE

    @BOTH
    def test_a_generator_spawns(self, has_cleanup: bool, next_step: Step) -> None:
        """A recurrence runs no handler."""
        assert triage(a_task(recurrence={"cron": "* * * * *"}), NOW, has_cleanup=has_cleanup) is Step.SPAWN

    @BOTH
    def test_a_cancelled_generator_is_ended(self, has_cleanup: bool, next_step: Step) -> None:
        """A recurrence never ran anything, so there is nothing to clean up after it, whatever its kind has."""
        task = a_task(recurrence={"cron": "* * * * *"}, is_cancelled=True, wait_until=NO_WAIT)

        assert triage(task, NOW, has_cleanup=has_cleanup) is Step.END_CANCELLED


class TestDueAt:
    """`dueAt` is the next moment at which somebody has to look."""

    @pytest.mark.parametrize(
        ("fields", "due"),
        [
            pytest.param({"wait_until": at(5)}, at(5), id="waiting"),
            pytest.param({"wait_until": at(5), "deadline": at(3)}, at(3), id="deadline before its instant"),
            pytest.param({"wait_until": at(5), "deadline": at(9)}, at(5), id="deadline after its instant"),
            pytest.param({"lease_owner": "l", "leased_until": at(60), "wait_until": at(500)}, at(60), id="leased"),
            pytest.param({"lease_owner": "l", "leased_until": at(60), "deadline": at(3)}, at(60), id="leased and late"),
            pytest.param({"lease_owner": "l", "wait_until": at(5)}, at(5), id="leased without an end"),
            pytest.param({"leased_until": at(60), "wait_until": at(5)}, at(60), id="rescued"),
            pytest.param({"leased_until": at(60), "wait_until": at(500)}, at(500), id="rescued, waits longer"),
            pytest.param(
                {"leased_until": at(60), "wait_until": at(5), "deadline": at(30)},
                at(30),
                id="rescued, deadline before the end of its spread",
            ),
            pytest.param(
                {"leased_until": at(60), "wait_until": at(5), "deadline": at(90)}, at(60), id="rescued, deadline later"
            ),
            pytest.param({"is_cancelled": True, "wait_until": NO_WAIT}, NO_WAIT, id="cancelled"),
            pytest.param(
                {"is_cancelled": True, "wait_until": at(5), "deadline": at(3)}, at(5), id="cancelled, deadline before"
            ),
            pytest.param(
                {"is_cancelled": True, "wait_until": NO_WAIT, "lease_owner": "l", "leased_until": at(60)},
                at(60),
                id="cancelled and leased",
            ),
            pytest.param(
                {"is_cancelled": True, "wait_until": NO_WAIT, "leased_until": at(60)}, at(60), id="cancelled, abandoned"
            ),
            pytest.param({"outcome": Outcome.COMPLETED, "wait_until": at(5)}, None, id="done"),
            pytest.param(
                {"outcome": Outcome.FAILED, "lease_owner": "l", "leased_until": at(6)}, None, id="done and held"
            ),
        ],
    )
    def test_it_follows_from_the_other_fields(self, fields: dict[str, Any], due: datetime | None) -> None:
        """The instant, or the deadline if earlier, while waiting; the lease's end while leased; none once done."""
        assert lifecycle.due_at(a_task(**fields)) == due


class TestClaimAndRenew:
    """Taking a task, and holding it."""

    def test_a_claim_spends_an_attempt(self) -> None:
        """From the claim on an attempt is spent, and the task is its worker's until the lease ends."""
        after = sound(lifecycle.claim(a_task(attempts=1), lease_id="l2", until=at(60), now=NOW))

        assert (after.lease_owner, after.leased_until, after.due_at, after.attempts) == ("l2", at(60), at(60), 2)
        assert after.status_at(T0) == TaskStatus.LEASED

    def test_the_first_start_is_kept(self) -> None:
        """`started_at` tells of the first start, as of the earlier bound, and no later claim moves it."""
        first = sound(lifecycle.claim(a_task(), lease_id="l1", until=at(60), now=between(at(1), at(2))))
        again = sound(lifecycle.claim(first, lease_id="l2", until=at(90), now=exactly(at(61))))

        assert first.started_at == again.started_at == at(1)

    def test_a_claim_ends_the_spread_of_a_rescue(self) -> None:
        """After the claim `leased_until` is the lease's, and the place in the line is still the old one."""
        rescued = a_task(wait_until=at(-100), leased_until=at(-1))

        after = sound(lifecycle.claim(rescued, lease_id="l2", until=at(60), now=NOW))

        assert (after.leased_until, after.wait_until) == (at(60), at(-100))

    def test_a_renewal_moves_the_end_only(self) -> None:
        """Renewing changes the lease's end and `dueAt`, nothing else."""
        transition = lifecycle.renew(leased(), until=at(99))

        sound(transition)
        assert transition.changes == {"leased_until": at(99), "due_at": at(99)}

    def test_who_holds_a_task(self) -> None:
        """The lease of an id holds until another id, or an outcome, stands in the record."""
        assert lifecycle.holds(leased(), "l1")
        assert not lifecycle.holds(leased(), "l2")
        assert not lifecycle.holds(a_task(), "l1")
        assert not lifecycle.holds(done(lease_owner="l1"), "l1")
        assert not lifecycle.holds(None, "l1")


class TestComplete:
    """The handler succeeded."""

    def test_a_success_ends_the_task(self) -> None:
        """A completed task has its result and its end, and neither lease nor `dueAt`; its last progress stays."""
        task = leased(progress=Progress(0.5))

        after = sound(lifecycle.complete(task, result={"n": 1}, now=between(at(3), at(4))))

        assert (after.outcome, after.result, after.done_at) == (Outcome.COMPLETED, {"n": 1}, at(3))
        assert (after.lease_owner, after.leased_until, after.due_at) == (None, None, None)
        assert after.progress == Progress(0.5)
        assert after.attempts == 1


class TestFail:
    """The handler failed."""

    def test_a_failure_goes_back_to_the_line(self) -> None:
        """With attempts left the task waits for `delay` seconds, in a new place of the line."""
        after = sound(lifecycle.fail(leased(), ValueError("boom"), delay=2.5, now=between(at(1), at(2))))

        assert (after.wait_until, after.due_at) == (at(3.5), at(3.5))
        assert (after.lease_owner, after.leased_until, after.outcome) == (None, None, None)
        assert after.errors == (TaskError(at(1), 1, "ValueError", "boom"),)

    def test_the_last_failure_ends_the_task(self) -> None:
        """Without attempts left the task is done-failed, and its last error is kept too."""
        after = sound(lifecycle.fail(leased(attempts=3), ValueError("boom"), delay=None, now=NOW))

        assert (after.outcome, after.done_at, after.due_at) == (Outcome.FAILED, T0, None)
        assert after.errors[-1].attempt == 3

    def test_no_delay_is_not_the_end(self) -> None:
        """A delay of zero seconds means again at once."""
        after = sound(lifecycle.fail(leased(), ValueError(), delay=0, now=NOW))

        assert (after.outcome, after.due_at) == (None, T0)

    def test_a_deadline_before_the_next_attempt_comes_first(self) -> None:
        """A task that waits beyond its deadline is looked at when that passes."""
        after = sound(lifecycle.fail(leased(deadline=at(3)), ValueError(), delay=60, now=NOW))

        assert (after.wait_until, after.due_at) == (at(60), at(3))

    @pytest.mark.parametrize("task", [leased(), cleanup()], ids=["task", "cleanup"])
    def test_one_that_keeps_its_place(self, task: Task) -> None:
        """Nobody looks at it before its delay is over, but in the line of its key it stands where it stood."""
        after = sound(lifecycle.fail(task, ValueError("boom"), delay=2.5, now=exactly(at(1)), keeps_place=True))

        assert (after.wait_until, after.leased_until, after.due_at) == (task.wait_until, at(3.5), at(3.5))
        assert (after.lease_owner, after.outcome) == (None, None)
        assert lifecycle.may_delete(after, NOW)

    def test_a_cancel_does_not_wait_for_its_turn(self) -> None:
        """A task that keeps its place while it waits is cancelled at once."""
        waiting = lifecycle.fail(leased(), ValueError("boom"), delay=60, now=NOW, keeps_place=True).after
        after = sound(not_none(lifecycle.cancel(waiting, now=NOW)))

        assert (after.leased_until, after.due_at) == (None, NO_WAIT)


class TestIsExpired:
    """Whether a claimed task is too late to be started."""

    def test_it_is_from_the_deadline_on(self) -> None:
        """A task is not too late a microsecond before its deadline, and too late at it and after."""
        assert not lifecycle.is_expired(leased(), T0, exactly(T0 - MICROSECOND))
        assert lifecycle.is_expired(leased(), T0, exactly(T0))
        assert lifecycle.is_expired(leased(), T0, exactly(T0 + MICROSECOND))

    def test_the_later_bound_of_the_present_decides(self) -> None:
        """Where the deadline may have passed already, the task is too late."""
        assert lifecycle.is_expired(leased(), T0, between(at(-90), T0))
        assert lifecycle.is_expired(leased(), T0, between(at(-90), at(90)))
        assert not lifecycle.is_expired(leased(), T0, between(at(-90), T0 - MICROSECOND))

    def test_one_that_may_start_only_then_is_too_late(self) -> None:
        """A task that waits until its deadline or longer was found because of that, whatever the clock says."""
        long_ago = exactly(at(-1_000))

        assert lifecycle.is_expired(leased(wait_until=at(5)), at(5) - MICROSECOND, long_ago)
        assert lifecycle.is_expired(leased(wait_until=at(5)), at(5), long_ago)
        assert not lifecycle.is_expired(leased(wait_until=at(5)), at(5) + MICROSECOND, long_ago)

    @pytest.mark.parametrize("task", [a_task(is_cancelled=True, wait_until=NO_WAIT), overtaken(), cleanup()])
    def test_a_cancelled_task_never_is(self, task: Task) -> None:
        """A cleanup happens also after the deadline."""
        assert not lifecycle.is_expired(task, at(-100), NOW)

    def test_one_without_a_deadline_never_is(self) -> None:
        """None means that there is none."""
        assert not lifecycle.is_expired(leased(), None, exactly(at(10**9)))

    def test_one_that_was_claimed_as_too_late_stays_that(self) -> None:
        """A present that turns out to be earlier than was thought does not start a handler after all."""
        late = lifecycle.claim(a_task(), lease_id="l1", until=at(60), now=exactly(at(5)), begins=False)

        assert lifecycle.is_expired(late.after, at(5), exactly(at(1)))
        assert not lifecycle.is_expired(late.after.evolve(started_at=T0), at(5), exactly(at(1)))

    def test_the_deadline_that_is_given_decides(self) -> None:
        """Which one holds is the handler's to say: the task's own field is not read."""
        assert not lifecycle.is_expired(leased(deadline=at(-9)), at(9), NOW)
        assert lifecycle.is_expired(leased(deadline=at(9)), at(-9), NOW)


def expire(task: Task, *, began: bool = True, has_cleanup: bool = False, is_alive: bool = False) -> Transition:
    """Let a deadline pass, at a present of which only the bounds are known."""
    now = between(at(3), at(4))
    return lifecycle.expire(task, TaskExpired("late"), began=began, now=now, has_cleanup=has_cleanup, is_alive=is_alive)


class TestExpire:
    """The deadline passed."""

    @pytest.mark.parametrize("is_alive", [True, False])
    @pytest.mark.parametrize("has_cleanup", [True, False])
    def test_it_ends_a_task_that_ran(self, has_cleanup: bool, is_alive: bool) -> None:
        """A task whose handler was started is done-expired, its attempt spent; there is nothing to clean up."""
        before = TaskError(T0, 1, "E", "m")
        task = leased(attempts=2, started_at=at(-9), progress=Progress(0.5), errors=(before,), deadline=at(2))

        transition = expire(task, has_cleanup=has_cleanup, is_alive=is_alive)

        after = sound(transition)
        assert transition.event == "expired"
        assert (after.outcome, after.done_at, after.due_at) == (Outcome.EXPIRED, at(3), None)
        assert (after.lease_owner, after.leased_until) == (None, None)
        assert (after.attempts, after.started_at) == (2, at(-9))
        assert after.errors == (before, TaskError(at(3), 2, "TaskExpired", "late"))
        assert (after.result, after.progress, after.deadline) == (None, Progress(0.5), at(2))
        assert after.status_at(at(3)) is TaskStatus.DONE_EXPIRED
        assert "attempts" not in transition.changes

    def test_a_first_attempt_that_was_not_begun_leaves_nothing(self) -> None:
        """A task that was claimed only to be ended has spent no attempt, and has not started."""
        late = lifecycle.claim(a_task(deadline=at(-1)), lease_id="l1", until=at(60), now=NOW, begins=False)

        after = sound(expire(sound(late), began=False))

        assert (after.outcome, after.attempts, after.started_at) == (Outcome.EXPIRED, 0, None)
        assert after.errors == (TaskError(at(3), 0, "TaskExpired", "late"),)

    def test_a_later_attempt_that_was_not_begun_leaves_the_earlier_ones(self) -> None:
        """A task that ran once before keeps that attempt and its start; the error bears it."""
        task = leased(attempts=2, started_at=at(-9), progress=Progress(0.5))

        after = sound(expire(task, began=False))

        assert (after.outcome, after.attempts, after.started_at) == (Outcome.EXPIRED, 1, at(-9))
        assert after.errors == (TaskError(at(3), 1, "TaskExpired", "late"),)
        assert after.progress == Progress(0.5)

    def test_attempts_never_become_negative(self) -> None:
        """A record that has lost its count does not get a debt."""
        assert sound(expire(leased(attempts=0), began=False)).attempts == 0

    def test_the_newest_ten_errors_are_kept(self) -> None:
        """The expiry is an error like any other: of many the newest ten stay."""
        before = tuple(TaskError(at(n), n, "E", str(n)) for n in range(10))

        assert sound(expire(leased(errors=before))).errors == (
            *before[1:],
            TaskError(at(3), 1, "TaskExpired", "late"),
        )

    @pytest.mark.parametrize("began", [True, False])
    def test_a_cancel_that_was_stored_before_wins(self, began: bool) -> None:
        """Without a cleanup the cancelled task ends done-cancelled; no error is kept."""
        after = sound(expire(overtaken(progress=Progress(0.5)), began=began))

        assert (after.outcome, after.done_at, after.errors) == (Outcome.CANCELLED, at(3), ())
        assert after.progress == Progress(0.5)

    @pytest.mark.parametrize("began", [True, False])
    def test_with_a_cleanup_it_is_free_for_that(self, began: bool) -> None:
        """A cancelled task whose kind has a cleanup stands first in the line, its deadline notwithstanding."""
        after = sound(expire(overtaken(deadline=at(2)), began=began, has_cleanup=True))

        assert (after.outcome, after.due_at, after.lease_owner, after.errors) == (None, NO_WAIT, None, ())
        assert triage(after, exactly(at(3)), has_cleanup=True) is Step.CLAIM

    @pytest.mark.parametrize("began", [True, False])
    @pytest.mark.parametrize("has_cleanup", [True, False])
    def test_no_cleanup_beside_a_live_handler(self, began: bool, has_cleanup: bool) -> None:
        """A cancelled task whose handler does not stop is nobody's until the lease ends, cleanup or not."""
        transition = expire(overtaken(deadline=at(2)), began=began, has_cleanup=has_cleanup, is_alive=True)

        assert sound(transition).due_at == at(60)
        assert (transition.event, transition.changes) == ("abandoned", {"lease_owner": None})


class TestProgress:
    """What the handler says of how far it is."""

    def test_it_changes_nothing_else(self) -> None:
        """Told by itself it is the one change: lease and due time stay."""
        told = Progress(0.5, "half", {"n": 1}, at(9))

        transition = lifecycle.with_progress(lifecycle.progressed(leased(progress=Progress(0.1))), told)

        sound(transition)
        assert (transition.event, transition.changes) == ("progressed", {"progress": told})

    def test_it_goes_along_with_any_write(self) -> None:
        """Taken along by another write it is added to what that one changes, and nothing else becomes of it."""
        told = Progress(0.5, at=at(9))
        renewal = lifecycle.renew(leased(progress=Progress(0.1)), until=at(99))

        both = lifecycle.with_progress(renewal, told)

        assert sound(both) == sound(renewal).evolve(progress=told)
        assert both.changes == {**renewal.changes, "progress": told}
        assert (both.event, both.before) == (renewal.event, renewal.before)
        assert "progress" not in renewal.changes

    def test_it_stays_with_the_task(self) -> None:
        """Whatever becomes of the attempt, the last progress is kept, until a reset."""
        told = Progress(0.5, at=at(9))
        task = sound(lifecycle.with_progress(lifecycle.progressed(leased()), told))

        for transition in (
            lifecycle.complete(task, result=1, now=NOW),
            lifecycle.fail(task, ValueError(), delay=5, now=NOW),
            lifecycle.fail(task, ValueError(), delay=None, now=NOW),
            expire(task),
            lifecycle.snooze(task, delay=5, now=NOW),
            lifecycle.give_back(task, now=NOW),
            lifecycle.rescue(task, LeaseLost(), delay=5, now=NOW),
        ):
            assert sound(transition).progress == told


class TestErrors:
    """What is kept of failures."""

    @staticmethod
    def _recorded(error: BaseException, before: tuple[TaskError, ...] = ()) -> tuple[TaskError, ...]:
        return sound(lifecycle.fail(leased(errors=before), error, delay=1, now=NOW)).errors

    def test_the_newest_ten_are_kept(self) -> None:
        """Of many errors the newest ten stay, oldest first."""
        before = tuple(TaskError(at(n), n, "E", str(n)) for n in range(10))

        errors = self._recorded(ValueError("new"), before)

        assert [error.message for error in errors] == [*map(str, range(1, 10)), "new"]

    def test_ten_fit(self) -> None:
        """The tenth error pushes none out."""
        before = tuple(TaskError(at(n), n, "E", str(n)) for n in range(9))

        assert len(self._recorded(ValueError(), before)) == 10

    def test_more_than_ten_of_another_writer_are_cut(self) -> None:
        """A record with a hundred errors has ten after the next one."""
        before = tuple(TaskError(at(n), n, "E", str(n)) for n in range(100))

        assert [error.message for error in self._recorded(ValueError("new"), before)][:2] == ["91", "92"]

    def test_a_message_of_2_kib_is_kept(self) -> None:
        """A message of exactly 2,048 bytes stays as it is, one more byte cuts it."""
        (whole,) = self._recorded(ValueError("x" * 2_048))
        (cut,) = self._recorded(ValueError("x" * 2_049))

        assert whole.message == "x" * 2_048
        assert cut.message == "x" * 2_045 + "…"

    def test_a_groups_members_are_kept(self) -> None:
        """Of an ExceptionGroup the texts of its members are kept, since they say what was wrong."""
        inner = ExceptionGroup("files", [OSError("a"), OSError("b")])
        error = ExceptionGroup("not complete", [inner, ValueError("c")])
        (entry,) = sound(lifecycle.fail(leased(), error, delay=0, now=NOW)).errors

        assert entry.type == "ExceptionGroup"
        files = "ExceptionGroup: files (2 sub-exceptions): OSError: a; OSError: b"
        assert entry.message == f"not complete (2 sub-exceptions): {files}; ValueError: c"

    @pytest.mark.parametrize("shift", range(4))
    @pytest.mark.parametrize("character", ["é", "€", "😀"])
    def test_no_character_is_cut_in_half(self, character: str, shift: int) -> None:
        """Wherever the limit falls, the message ends with a whole character and the mark of the cut."""
        (error,) = self._recorded(ValueError("x" * shift + character * 2_048))

        assert len(error.message.encode()) <= 2_048
        assert len(error.message.encode()) > 2_048 - 4
        assert error.message == "x" * shift + character * (len(error.message) - shift - 1) + "…"

    def test_half_a_surrogate_pair_is_replaced(self) -> None:
        """Broken text, which no store takes, becomes question marks."""
        (error,) = self._recorded(ValueError("a\ud800b"))

        assert error.message == "a?b"

    def test_an_error_that_cannot_tell_its_message_is_recorded(self) -> None:
        """An exception whose own `__str__` fails is a failure like any other."""

        class SilentError(Exception):
            def __str__(self) -> str:
                raise LookupError("no message")

        (error,) = self._recorded(SilentError())

        assert (error.type, error.message) == ("SilentError", "(no message: its __str__ raised LookupError)")


class TestSnoozeAndGiveBack:
    """Back to the line without an attempt spent."""

    def test_a_snooze_spends_no_attempt(self) -> None:
        """A snoozed task comes back after its delay, in a new place, its attempt given back and no error kept."""
        after = sound(lifecycle.snooze(leased(attempts=2), delay=30, now=NOW))

        assert (after.attempts, after.wait_until, after.due_at) == (1, at(30), at(30))
        assert (after.lease_owner, after.leased_until, after.errors, after.outcome) == (None, None, (), None)

    def test_a_snooze_in_its_place(self) -> None:
        """Where the order is strict a snoozed task keeps its place, too."""
        after = sound(lifecycle.snooze(leased(), delay=30, now=NOW, keeps_place=True))

        assert (after.attempts, after.wait_until, after.leased_until, after.due_at) == (0, at(-5), at(30), at(30))

    def test_a_give_back_restores_the_place(self) -> None:
        """An interrupted task stands where it stood, its attempt unspent."""
        before = a_task(wait_until=at(-50))
        claimed = sound(lifecycle.claim(before, lease_id="l1", until=at(60), now=NOW))

        after = sound(lifecycle.give_back(claimed, now=NOW))

        assert (after.wait_until, after.due_at, after.attempts) == (before.wait_until, before.due_at, before.attempts)
        assert (after.lease_owner, after.leased_until) == (None, None)

    def test_giving_back_the_attempt_keeps_the_lease(self) -> None:
        """Of a handler that has not ended only the attempt is given back: nobody may start beside it."""
        transition = lifecycle.give_back_attempt(leased(attempts=2))

        sound(transition)
        assert transition.changes == {"attempts": 1}

    def test_attempts_never_become_negative(self) -> None:
        """A record that has lost its count does not get a debt."""
        task = leased(attempts=0)

        for transition in (
            lifecycle.give_back(task, now=NOW),
            lifecycle.give_back_attempt(task),
            lifecycle.snooze(task, delay=1, now=NOW),
        ):
            assert sound(transition).attempts == 0


class TestRescue:
    """The worker died."""

    def test_a_rescue_keeps_the_place(self) -> None:
        """A rescued task keeps `wait_until`, and nobody looks at it for the delay; the crash is an attempt."""
        after = sound(lifecycle.rescue(leased(wait_until=at(-50)), LeaseLost("died"), delay=7, now=exactly(at(60))))

        assert (after.wait_until, after.leased_until, after.due_at) == (at(-50), at(67), at(67))
        assert (after.lease_owner, after.attempts) == (None, 1)
        assert after.errors == (TaskError(at(60), 1, "LeaseLost", "died"),)

    def test_no_attempts_left_ends_the_task(self) -> None:
        """A task that crashes its worker each time ends done-failed."""
        after = sound(lifecycle.rescue(leased(attempts=3), LeaseLost("died"), delay=None, now=exactly(at(60))))

        assert (after.outcome, after.leased_until, after.due_at) == (Outcome.FAILED, None, None)

    def test_a_place_in_the_future_is_kept_too(self) -> None:
        """A rescue does not bring forward what was to wait longer."""
        after = sound(lifecycle.rescue(leased(wait_until=at(500)), LeaseLost(), delay=7, now=exactly(at(60))))

        assert after.due_at == at(500)


class TestResourceKeys:
    """Who holds a key, and who does not any more."""

    def test_a_key_is_taken_and_let_go(self) -> None:
        """A lock is made where there was none, replaced where there was one, and removed in the end."""
        first = lifecycle.lock("ada", None, owner="l1", until=at(60))
        assert (first.resource_key, first.before) == ("ada", None)
        assert first.after == Lock(resource_key="ada", owner="l1", leased_until=at(60))

        second = lifecycle.lock("ada", first.after, owner="l2", until=at(90))
        assert (second.before, not_none(second.after).owner) == (first.after, "l2")

        assert lifecycle.unlock(not_none(second.after)) == LockChange("ada", second.after, None)

    @pytest.mark.parametrize(("now", "busy"), [(at(60) - MICROSECOND, True), (at(60), False)])
    def test_a_lock_ends_with_its_lease(self, now: datetime, busy: bool) -> None:
        """To the microsecond, by the earlier bound of the present; without a lock nobody holds the key."""
        held = Lock(resource_key="ada", owner="l1", leased_until=at(60))

        assert lifecycle.is_busy(held, between(now, at(900))) is busy
        assert not lifecycle.is_busy(None, NOW)

    def test_a_fence_only_shuts_out(self) -> None:
        """The task of a former holder stays where it is, and is to be rescued; nobody holds it by his lease id."""
        task = leased(leased_until=at(-1), attempts=2)
        after = sound(lifecycle.fence(task))

        assert (after.wait_until, after.leased_until, after.due_at) == (task.wait_until, at(-1), at(-1))
        assert (after.attempts, after.errors, after.outcome) == (2, (), None)
        assert not lifecycle.holds(after, "l1")
        assert triage(after, NOW) is Step.RESCUE

    @pytest.mark.parametrize(
        ("task", "held"),
        [
            (leased(), True),
            (leased(leased_until=T0), False),
            (overtaken(), True),
            (a_task(), False),
            (a_task(leased_until=at(60), attempts=1), False),
            (a_task(is_cancelled=True, leased_until=at(60), wait_until=NO_WAIT), True),
            (done(lease_owner="l1", leased_until=at(60)), False),
        ],
        ids=["leased", "lapsed", "overtaken", "free", "rescued", "abandoned", "done"],
    )
    def test_who_may_be_at_it(self, task: Task, held: bool) -> None:
        """Somebody may be running what is leased, or was abandoned, up to the end of the lease; nothing else."""
        assert lifecycle.is_held(task, NOW) is held


class TestCancel:
    """Somebody does not want the task any more."""

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            pytest.param({"wait_until": at(500)}, TaskStatus.WAITING, id="waiting"),
            pytest.param({"wait_until": at(-5)}, TaskStatus.PENDING, id="pending"),
            pytest.param({"wait_until": at(500), "deadline": at(3)}, TaskStatus.WAITING, id="waiting for its deadline"),
            pytest.param({"wait_until": at(30), "attempts": 2}, TaskStatus.WAITING, id="waiting after a failure"),
            pytest.param(
                {"wait_until": at(-5), "leased_until": at(9), "attempts": 1}, TaskStatus.WAITING, id="rescued"
            ),
        ],
    )
    def test_a_free_task_goes_first(self, fields: dict[str, Any], status: TaskStatus) -> None:
        """A free task is cancelled as of the earlier bound, and due at once, whatever it waited for."""
        task = a_task(**fields)
        assert task.status_at(T0) is status

        after = sound(not_none(lifecycle.cancel(task, now=between(T0, at(2)))))

        assert (after.is_cancelled, after.cancelled_at) == (True, T0)
        assert (after.wait_until, after.due_at, after.leased_until) == (NO_WAIT, NO_WAIT, None)
        assert after.status_at(T0) is TaskStatus.CANCELLATION_PENDING
        assert (after.outcome, after.attempts, after.cancel_attempts) == (None, task.attempts, 0)

    def test_a_free_task_loses_nothing_else(self) -> None:
        """Cancelling names the cancel and the place in the line, and no other field."""
        waiting = not_none(lifecycle.cancel(a_task(wait_until=at(9)), now=NOW))
        rescued = not_none(lifecycle.cancel(a_task(leased_until=at(9)), now=NOW))
        cancelled = {"is_cancelled": True, "cancelled_at": T0, "wait_until": NO_WAIT}

        assert waiting.changes == {**cancelled, "due_at": NO_WAIT}
        assert rescued.changes == {**cancelled, "leased_until": None, "due_at": NO_WAIT}
        assert waiting.event == rescued.event == "cancel-requested"

    def test_a_lease_stays_as_it_is(self) -> None:
        """Of a leased task neither lease nor `dueAt` is written: nobody cleans up beside the live handler."""
        transition = not_none(lifecycle.cancel(leased(), now=NOW))

        after = sound(transition)
        assert transition.changes == {"is_cancelled": True, "cancelled_at": T0, "wait_until": NO_WAIT}
        assert (after.lease_owner, after.leased_until, after.due_at) == ("l1", at(60), at(60))

    def test_a_leased_task_is_leased_while_its_lease_holds(self) -> None:
        """The status of a cancelled task is `leased` up to the end of the lease, then `cancellation-pending`."""
        after = sound(not_none(lifecycle.cancel(leased(), now=NOW)))

        assert after.status_at(at(60) - MICROSECOND) is TaskStatus.LEASED
        assert after.status_at(at(60)) is TaskStatus.CANCELLATION_PENDING

    @pytest.mark.parametrize("outcome", Outcome)
    def test_a_done_task_stays_done(self, outcome: Outcome) -> None:
        """There is nothing to cancel of a task that has ended, however it ended."""
        assert lifecycle.cancel(done(outcome), now=NOW) is None
        assert lifecycle.cancel(done(outcome, is_cancelled=True), now=NOW) is None

    def test_a_second_cancel_changes_nothing(self) -> None:
        """A task is cancelled once, wherever its cancellation stands."""
        for task in (
            a_task(is_cancelled=True, wait_until=NO_WAIT),
            overtaken(),
            cleanup(),
            sound(lifecycle.abandon(overtaken())),
            a_task(is_cancelled=True, wait_until=at(30), cancel_attempts=1),
        ):
            assert lifecycle.cancel(task, now=NOW) is None

    def test_a_generator_is_cancelled(self) -> None:
        """A recurrence is cancelled like any task."""
        after = sound(not_none(lifecycle.cancel(a_task(recurrence={"cron": "* * * * *"}), now=NOW)))

        assert (after.is_cancelled, after.due_at) == (True, NO_WAIT)


class TestClaimOfACleanup:
    """A cancelled task is claimed for its cleanup."""

    def test_it_is_counted_by_itself(self) -> None:
        """The claim of a cancelled task spends an attempt at the cleanup, and none at the task."""
        task = a_task(is_cancelled=True, wait_until=NO_WAIT, attempts=2, cancel_attempts=1)

        after = sound(lifecycle.claim(task, lease_id="l2", until=at(60), now=NOW))

        assert (after.cancel_attempts, after.attempts) == (2, 2)
        assert (after.lease_owner, after.leased_until, after.due_at) == ("l2", at(60), at(60))
        assert after.status_at(T0) is TaskStatus.LEASED
        assert lifecycle.is_cleanup(after)

    def test_the_task_has_not_started_by_it(self) -> None:
        """A cleanup is no start of the task: `started_at` stays as it was."""
        free = a_task(is_cancelled=True, wait_until=NO_WAIT)

        for task in (free, replace(free, started_at=at(-9))):
            after = sound(lifecycle.claim(task, lease_id="l2", until=at(60), now=NOW))
            assert after.started_at == task.started_at

    def test_a_dead_workers_lease_is_replaced(self) -> None:
        """The task of a worker that died after the cancel is claimed as it stands, under the new lease."""
        after = sound(lifecycle.claim(overtaken(), lease_id="l2", until=at(160), now=exactly(at(60))))

        assert (after.lease_owner, after.leased_until, after.errors) == ("l2", at(160), ())
        assert (after.attempts, after.cancel_attempts) == (1, 1)

    def test_what_is_a_cleanup(self) -> None:
        """A lease is for cleaning up from the first claim after the cancel on; a handler's never is."""
        assert lifecycle.is_cleanup(cleanup())
        for task in (a_task(), leased(), overtaken(), a_task(is_cancelled=True), leased(cancel_attempts=1)):
            assert not lifecycle.is_cleanup(task)


OVERTAKEN: dict[str, Callable[[Task, bool], Transition]] = {
    "complete": lambda task, has: lifecycle.complete(task, result=1, now=NOW, has_cleanup=has),
    "fail": lambda task, has: lifecycle.fail(task, ValueError(), delay=5, now=NOW, has_cleanup=has),
    "fail for good": lambda task, has: lifecycle.fail(task, ValueError(), delay=None, now=NOW, has_cleanup=has),
    "expire": lambda task, has: lifecycle.expire(task, TaskExpired(), began=True, now=NOW, has_cleanup=has),
    "expire before the start": lambda task, has: lifecycle.expire(
        task, TaskExpired(), began=False, now=NOW, has_cleanup=has
    ),
    "snooze": lambda task, has: lifecycle.snooze(task, delay=30, now=NOW, has_cleanup=has),
    "give back": lambda task, has: lifecycle.give_back(task, now=NOW, has_cleanup=has),
    "release": lambda task, has: lifecycle.release(task, now=NOW, has_cleanup=has),
}
"""However the handler of a cancelled task ends."""


class TestOvertaken:
    """The handler ended after a cancel was stored."""

    @pytest.mark.parametrize("event", OVERTAKEN)
    def test_without_a_cleanup_the_task_ends(self, event: str) -> None:
        """However its handler ended, the task is done-cancelled; neither result nor error is kept."""
        after = sound(OVERTAKEN[event](overtaken(progress=Progress(0.5)), False))  # noqa: FBT003  # no cleanup

        assert (after.outcome, after.done_at, after.due_at) == (Outcome.CANCELLED, T0, None)
        assert (after.lease_owner, after.leased_until, after.progress) == (None, None, Progress(0.5))
        assert (after.result, after.errors, after.attempts, after.cancel_attempts) == (None, (), 1, 0)

    @pytest.mark.parametrize("event", OVERTAKEN)
    def test_with_a_cleanup_the_task_is_free_for_it(self, event: str) -> None:
        """However its handler ended, the task stands first in the line; neither result nor error is kept."""
        after = sound(OVERTAKEN[event](overtaken(wait_until=at(500)), True))  # noqa: FBT003  # a cleanup

        assert (after.outcome, after.wait_until, after.due_at) == (None, NO_WAIT, NO_WAIT)
        assert (after.lease_owner, after.leased_until) == (None, None)
        assert (after.result, after.errors, after.attempts, after.cancel_attempts) == (None, (), 1, 0)
        assert after.status_at(T0) is TaskStatus.CANCELLATION_PENDING
        assert triage(after, NOW, has_cleanup=True) is Step.CLAIM

    def test_the_holder_goes_on_to_the_cleanup(self) -> None:
        """Under the same lease the stopped handler is followed by the cleanup, with a new end and a count."""
        task = overtaken()

        transition = lifecycle.clean_up(task, until=at(90))

        after = sound(transition)
        assert transition.changes == {"leased_until": at(90), "cancel_attempts": 1, "due_at": at(90)}
        assert lifecycle.holds(after, "l1")
        assert lifecycle.is_cleanup(after)

    def test_an_abandoned_handler_has_nobodys_lease(self) -> None:
        """What a handler that does not stop leaves is a lease without an owner, which keeps others away."""
        transition = lifecycle.abandon(overtaken())

        after = sound(transition)
        assert transition.changes == {"lease_owner": None}
        assert (after.leased_until, after.due_at) == (at(60), at(60))
        assert after.status_at(T0) is TaskStatus.CANCELLATION_PENDING
        assert not lifecycle.holds(after, "l1")

    def test_nobodys_lease_ends_with_the_cleanups_claim(self) -> None:
        """The claim that follows an abandoned handler is the first attempt at the cleanup, under its own lease."""
        abandoned = sound(lifecycle.abandon(overtaken()))

        after = sound(lifecycle.claim(abandoned, lease_id="l2", until=at(160), now=exactly(at(60))))

        assert (after.lease_owner, after.leased_until, after.cancel_attempts) == ("l2", at(160), 1)

    def test_giving_back_the_attempt_keeps_the_lease(self) -> None:
        """Of a handler that was told to stop and has not, only the attempt is given back."""
        transition = lifecycle.give_back_attempt(overtaken())

        sound(transition)
        assert transition.changes == {"attempts": 0}


class TestCleanup:
    """How a cleanup ends."""

    @pytest.mark.parametrize("has_cleanup", [True, False])
    def test_a_success_ends_the_task_as_cancelled(self, has_cleanup: bool) -> None:
        """A cleanup that succeeded ends the task done-cancelled; what it returned is dropped."""
        task = cleanup(progress=Progress(0.5), errors=(TaskError(T0, 2, "E", "m"),))

        after = sound(lifecycle.complete(task, result={"n": 1}, now=between(at(3), at(4)), has_cleanup=has_cleanup))

        assert (after.outcome, after.done_at, after.due_at) == (Outcome.CANCELLED, at(3), None)
        assert (after.result, after.progress, after.errors) == (None, Progress(0.5), task.errors)
        assert (after.lease_owner, after.leased_until) == (None, None)
        assert (after.attempts, after.cancel_attempts) == (2, 1)

    @pytest.mark.parametrize("has_cleanup", [True, False])
    def test_a_failure_with_tries_left_goes_back_to_the_line(self, has_cleanup: bool) -> None:
        """A failed cleanup waits for `delay` seconds, still cancelled; its error bears the attempt of the cleanup."""
        task = cleanup(cancel_attempts=3)

        after = sound(lifecycle.fail(task, ValueError("no"), delay=2.5, now=exactly(at(1)), has_cleanup=has_cleanup))

        assert (after.outcome, after.is_cancelled, after.wait_until, after.due_at) == (None, True, at(3.5), at(3.5))
        assert (after.lease_owner, after.leased_until, after.cancel_attempts, after.attempts) == (None, None, 3, 2)
        assert after.errors == (TaskError(at(1), 3, "ValueError", "no"),)
        assert after.status_at(at(1)) is TaskStatus.CANCELLATION_PENDING

    @pytest.mark.parametrize("has_cleanup", [True, False])
    def test_the_last_failure_ends_the_task_as_failed(self, has_cleanup: bool) -> None:
        """A cleanup without tries left ends the task done-failed, still cancelled, with its last error."""
        task = cleanup(cancel_attempts=3)

        after = sound(lifecycle.fail(task, ValueError("no"), delay=None, now=exactly(at(1)), has_cleanup=has_cleanup))

        assert (after.outcome, after.is_cancelled, after.done_at, after.due_at) == (Outcome.FAILED, True, at(1), None)
        assert after.errors == (TaskError(at(1), 3, "ValueError", "no"),)

    def test_a_snooze_spends_no_attempt(self) -> None:
        """A cleanup that is put off comes back after its delay, its own attempt given back and not the task's."""
        after = sound(lifecycle.snooze(cleanup(), delay=30, now=NOW, has_cleanup=True))

        assert (after.cancel_attempts, after.attempts, after.wait_until, after.due_at) == (0, 2, at(30), at(30))
        assert (after.lease_owner, after.outcome, after.is_cancelled) == (None, None, True)
        assert triage(after, NOW, has_cleanup=True) is Step.LEAVE

    def test_a_give_back_restores_its_place(self) -> None:
        """An interrupted cleanup stands where it stood before its claim, all counts and fields."""
        free = a_task(is_cancelled=True, wait_until=at(-3), attempts=2, cancel_attempts=1)
        claimed = sound(lifecycle.claim(free, lease_id="l1", until=at(60), now=NOW))

        assert sound(lifecycle.give_back(claimed, now=exactly(at(1)), has_cleanup=True)) == free

    def test_giving_back_the_attempt_keeps_the_lease(self) -> None:
        """Of a cleanup that has not ended only its own attempt is given back, and nobody starts another beside it."""
        transition = lifecycle.give_back_attempt(cleanup(cancel_attempts=2))

        after = sound(transition)
        assert transition.changes == {"cancel_attempts": 1}
        assert triage(after, exactly(at(60) - MICROSECOND), has_cleanup=True) is Step.LEAVE

    def test_a_first_cleanup_that_was_given_back_is_claimed_again(self) -> None:
        """A first cleanup whose attempt was given back is no crash when its lease ends: it is claimed at once."""
        after = sound(lifecycle.give_back_attempt(cleanup()))

        assert triage(after, exactly(at(60) - MICROSECOND), has_cleanup=True) is Step.LEAVE
        assert triage(after, exactly(at(60)), has_cleanup=True) is Step.CLAIM

    def test_a_crash_comes_back_after_a_spread(self) -> None:
        """A cleanup whose worker died keeps its place, is nobody's for the delay, and was an attempt of its own."""
        after = sound(lifecycle.rescue(cleanup(cancel_attempts=2), LeaseLost("died"), delay=7, now=exactly(at(60))))

        assert (after.wait_until, after.leased_until, after.due_at) == (NO_WAIT, at(67), at(67))
        assert (after.lease_owner, after.cancel_attempts, after.attempts) == (None, 2, 2)
        assert after.errors == (TaskError(at(60), 2, "LeaseLost", "died"),)
        assert triage(after, exactly(at(67) - MICROSECOND), has_cleanup=True) is Step.LEAVE
        assert triage(after, exactly(at(67)), has_cleanup=True) is Step.CLAIM

    def test_a_cleanup_that_crashes_each_time_ends_as_failed(self) -> None:
        """A crash without tries left ends the task done-failed, still cancelled."""
        task = cleanup(cancel_attempts=3)

        after = sound(lifecycle.rescue(task, LeaseLost("died"), delay=None, now=exactly(at(60))))

        assert (after.outcome, after.is_cancelled, after.due_at) == (Outcome.FAILED, True, None)
        assert after.errors == (TaskError(at(60), 3, "LeaseLost", "died"),)

    @pytest.mark.parametrize("deadline", [at(-50), T0, at(30)])
    def test_the_deadline_neither_stops_nor_hastens_it(self, deadline: datetime) -> None:
        """With a deadline before, at or after any of its steps a cancelled task goes the same way as without."""

        def way(**fields: Any) -> list[tuple[datetime | None, Step]]:
            task = a_task(wait_until=at(100), **fields)
            steps = [sound(not_none(lifecycle.cancel(task, now=NOW)))]
            steps.append(sound(lifecycle.claim(steps[-1], lease_id="l1", until=at(60), now=NOW)))
            steps.append(sound(lifecycle.fail(steps[-1], ValueError(), delay=40, now=NOW, has_cleanup=True)))
            steps.append(sound(lifecycle.claim(steps[-1], lease_id="l2", until=at(99), now=exactly(at(40)))))
            return [(step.due_at, triage(step, exactly(at(39)), has_cleanup=True)) for step in steps]

        assert way(deadline=deadline) == way()

    def test_the_events_tell_a_cleanup_from_its_task(self) -> None:
        """Logs and metrics name the ends of a cleanup otherwise than those of a handler."""
        error = ValueError()
        assert lifecycle.complete(cleanup(), result=None, now=NOW).event == "cleaned-up"
        assert lifecycle.fail(cleanup(), error, delay=1, now=NOW).event == "cleanup-retried"
        assert lifecycle.fail(cleanup(), error, delay=None, now=NOW).event == "cleanup-failed"
        assert lifecycle.rescue(cleanup(), error, delay=None, now=NOW).event == "cleanup-failed"
        assert lifecycle.release(overtaken(), now=NOW, has_cleanup=False).event == "cancelled"


class TestTakesStaged:
    """What the handler staged is written with its success only."""

    def test_a_success_takes_it(self) -> None:
        """The completion of a task, and of a cleanup, takes along what was staged."""
        assert lifecycle.takes_staged(lifecycle.complete(leased(), result=1, now=NOW))
        assert lifecycle.takes_staged(lifecycle.complete(cleanup(), result=1, now=NOW, has_cleanup=True))

    @pytest.mark.parametrize("event", OVERTAKEN)
    @pytest.mark.parametrize("has_cleanup", [True, False])
    def test_a_handler_that_was_overtaken_does_not(self, event: str, has_cleanup: bool) -> None:
        """Nothing that was staged before a cancel won is written, however the handler ended."""
        assert not lifecycle.takes_staged(OVERTAKEN[event](overtaken(), has_cleanup))

    @pytest.mark.parametrize("began", [True, False])
    def test_an_expiry_does_not(self, began: bool) -> None:
        """What was staged before the deadline passed is dropped."""
        assert not lifecycle.takes_staged(expire(leased(), began=began))

    @pytest.mark.parametrize("task", [leased(), cleanup()], ids=["task", "cleanup"])
    def test_any_other_end_does_not(self, task: Task) -> None:
        """A failure, a snooze, a give-back or a crash of a task or of a cleanup leaves nothing."""
        for transition in (
            lifecycle.fail(task, ValueError(), delay=5, now=NOW, has_cleanup=True),
            lifecycle.fail(task, ValueError(), delay=None, now=NOW, has_cleanup=True),
            lifecycle.snooze(task, delay=5, now=NOW, has_cleanup=True),
            lifecycle.give_back(task, now=NOW, has_cleanup=True),
            lifecycle.rescue(task, LeaseLost(), delay=5, now=NOW),
            lifecycle.end_cancelled(task, now=NOW),
        ):
            assert not lifecycle.takes_staged(transition)


class TestReject:
    """The record cannot be read."""

    def test_a_rejected_record_tells_why(self) -> None:
        """An unreadable record ends done-failed with its problems as the last error."""
        task = a_task(problems=("kind: is missing", "data: must be a map, not 5"), attempts=2)

        after = sound(lifecycle.reject(task, now=NOW))

        assert (after.outcome, after.due_at) == (Outcome.FAILED, None)
        assert after.errors == (TaskError(T0, 2, "UnreadableTask", "kind: is missing; data: must be a map, not 5"),)

    def test_it_keeps_to_the_limits_of_errors(self) -> None:
        """Ten errors are the most, and the reason is cut to 2 KiB."""
        old = tuple(TaskError(at(n), n, "E", str(n)) for n in range(10))

        after = sound(lifecycle.reject(a_task(problems=("é" * 5_000,), errors=old), now=NOW))

        assert len(after.errors) == 10
        assert len(after.errors[-1].message.encode()) <= 2_048

    def test_whatever_stands_in_due_at_is_removed(self) -> None:
        """A `dueAt` that could not be read is removed as well: done tasks have none."""
        transition = lifecycle.reject(a_task(problems=("dueAt: must be a timestamp, not 'x'",), due_at=None), now=NOW)

        assert "due_at" in transition.changes
        assert transition.changes["due_at"] is None


class TestReset:
    """Another life for a done task."""

    def test_nothing_of_the_last_life_stays(self) -> None:
        """A reset task is like a new one at the end of the line, of the same kind, data and options."""
        options: dict[str, Any] = {"resource_key": "r", "timeout": 5.0, "owner": "ada", "created_at": at(-100)}
        task = done(
            Outcome.CANCELLED,
            **options,
            wait_until=NO_WAIT,
            cancel_attempts=2,
            errors=(TaskError(T0, 1, "E", "m"),),
            result=1,
            progress=Progress(1.0),
            is_cancelled=True,
            cancelled_at=at(-3),
            started_at=at(-9),
            expire_at=at(999),
        )

        transition = not_none(lifecycle.reset(task, now=between(at(10), at(12))))

        assert sound(transition) == a_task(**options, wait_until=at(10), create_id=task.create_id)

    def test_a_cancel_of_the_last_life_is_over(self) -> None:
        """A task that was cancelled, cleaned up and reset runs its handler again, and can be cancelled again."""
        for task in (sound(lifecycle.complete(cleanup(), result=None, now=NOW)), done(is_cancelled=True)):
            fresh = sound(not_none(lifecycle.reset(task, now=NOW)))
            claimed = sound(lifecycle.claim(fresh, lease_id="l9", until=at(60), now=NOW))

            assert (fresh.is_cancelled, fresh.cancelled_at, fresh.cancel_attempts) == (False, None, 0)
            assert fresh.status_at(T0) is TaskStatus.PENDING
            assert (claimed.attempts, claimed.cancel_attempts) == (1, 0)
            assert lifecycle.cancel(fresh, now=NOW) is not None

    def test_only_a_done_task_is_reset(self) -> None:
        """There is nothing to reset of a task that waits, runs, is being cancelled or cleaned up."""
        for task in (a_task(), leased(), a_task(is_cancelled=True), overtaken(), cleanup()):
            assert lifecycle.reset(task, now=NOW) is None

    def test_a_deadline_that_is_past_goes(self) -> None:
        """A deadline at this instant could only end the new life, one a microsecond later is kept."""
        past = not_none(lifecycle.reset(done(deadline=T0), now=NOW))
        ahead = not_none(lifecycle.reset(done(deadline=T0 + MICROSECOND), now=NOW))

        assert sound(past).deadline is None
        assert sound(ahead).deadline == T0 + MICROSECOND


class TestMayDelete:
    """What may be deleted."""

    def test_a_task_that_is_held_may_not(self) -> None:
        """A held task is deleted from the instant on at which its lease has certainly ended."""
        for task in (leased(), overtaken(), cleanup()):
            assert not lifecycle.may_delete(task, between(at(60) - MICROSECOND, at(90)))
            assert lifecycle.may_delete(task, exactly(at(60)))

    def test_any_other_may(self) -> None:
        """A done task, a waiting one, a cancelled one that is free and one with half a lease are deleted."""
        halves = (leased(leased_until=None), done(lease_owner="l1", leased_until=at(60)))
        for task in (done(), a_task(), a_task(is_cancelled=True), *halves):
            assert lifecycle.may_delete(task, NOW)


EVENTS: dict[str, Callable[[Task, Now, float, bool], Transition | None]] = {
    "claim": lambda task, now, s, _: lifecycle.claim(task, lease_id=f"l{s}", until=_after(now, s), now=now),
    "renew": lambda task, now, s, _: lifecycle.renew(task, until=_after(now, s)),
    "cancel": lambda task, now, _s, _: lifecycle.cancel(task, now=now),
    "complete": lambda task, now, s, has: lifecycle.complete(task, result=s, now=now, has_cleanup=has),
    "fail": lambda task, now, s, has: lifecycle.fail(task, ValueError(s), delay=s, now=now, has_cleanup=has),
    "fail for good": lambda task, now, s, has: lifecycle.fail(
        task, ValueError(s), delay=None, now=now, has_cleanup=has
    ),
    "expire": lambda task, now, s, has: lifecycle.expire(task, TaskExpired(s), began=True, now=now, has_cleanup=has),
    "expire before the start": lambda task, now, s, has: lifecycle.expire(
        task, TaskExpired(s), began=False, now=now, has_cleanup=has
    ),
    "expire while it runs on": lambda task, now, s, has: lifecycle.expire(
        task, TaskExpired(s), began=True, now=now, has_cleanup=has, is_alive=True
    ),
    "progress": lambda task, now, s, _: lifecycle.with_progress(
        lifecycle.progressed(task), Progress(None, str(s), at=now.earliest)
    ),
    "fail with progress": lambda task, now, s, has: lifecycle.with_progress(
        lifecycle.fail(task, ValueError(s), delay=s, now=now, has_cleanup=has), Progress(0.5, str(s), at=now.earliest)
    ),
    "snooze": lambda task, now, s, has: lifecycle.snooze(task, delay=s, now=now, has_cleanup=has),
    "give back": lambda task, now, _s, has: lifecycle.give_back(task, now=now, has_cleanup=has),
    "give back the attempt": lambda task, _now, _s, _: lifecycle.give_back_attempt(task),
    "clean up": lambda task, now, s, _: lifecycle.clean_up(task, until=_after(now, s)),
    "abandon": lambda task, _now, _s, _: lifecycle.abandon(task),
    "rescue": lambda task, now, s, _: lifecycle.rescue(task, LeaseLost(), delay=s, now=now),
    "rescue for good": lambda task, now, _s, _: lifecycle.rescue(task, LeaseLost(), delay=None, now=now),
    "end cancelled": lambda task, now, _s, _: lifecycle.end_cancelled(task, now=now),
    "reject": lambda task, now, _s, _: lifecycle.reject(task, now=now),
    "realign": lambda task, _now, _s, _: lifecycle.realign(task),
    "reset": lambda task, now, _s, _: lifecycle.reset(task, now=now),
}
EXPIRIES = {"expire", "expire before the start", "expire while it runs on"}
TELLING = {"progress", "fail with progress"}
FREE, HELD, ENDED = (
    {"claim", "cancel", "end cancelled", "reject", "realign"},
    set(EVENTS) - {"claim", "reset"},
    {"reset", "realign", "cancel"},
)


def _after(now: Now, seconds: float) -> datetime:
    return now.earliest + timedelta(seconds=seconds)


def _possible(task: Task) -> set[str]:
    """Which events the engine sends to a task in this state."""
    if task.outcome is not None:
        return ENDED
    possible = HELD if task.lease_owner is not None else FREE
    if lifecycle.is_cleanup(task):  # it knows no deadline
        possible = possible - EXPIRIES
    overtaken = task.is_cancelled and task.cancel_attempts == 0
    return possible - ({"rescue", "rescue for good"} if overtaken else {"clean up", "abandon", "end cancelled"})


instants = st.integers(0, 10**9).map(lambda micros: T0 + timedelta(microseconds=micros))


@given(
    first=st.builds(
        a_task,
        wait_until=st.one_of(st.just(EPOCH), instants),
        deadline=st.none() | instants,
        attempts=st.integers(0, 3),
    ),
    has_cleanup=st.booleans(),
    events=st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.floats(0.001, 1e6)), max_size=30),
)
def test_invariants_hold_whatever_happens(first: Task, has_cleanup: bool, events: list[tuple[str, float]]) -> None:
    """After any events `dueAt` is consistent, done tasks hold nothing, counts are whole, and errors are few."""
    task, now = first, NOW
    for event, seconds in events:
        now = exactly(now.earliest + timedelta(seconds=seconds))
        if event not in _possible(task):
            continue
        transition = EVENTS[event](task, now, seconds, has_cleanup)
        if transition is None:
            continue
        assert transition.before is task
        assert task.is_cancelled <= transition.after.is_cancelled or event == "reset"
        assert transition.after.progress == task.progress or event in TELLING | {"reset"}
        task = sound(transition)
        assert task.attempts >= 0
        assert task.cancel_attempts >= 0
        assert task.is_cancelled or task.cancel_attempts == 0
        assert task.is_cancelled == (task.cancelled_at is not None)
        assert not (task.is_cancelled and task.outcome in {Outcome.COMPLETED, Outcome.EXPIRED})
        assert task.outcome is not Outcome.EXPIRED or task.errors[-1].type == "TaskExpired"
        assert len(task.errors) <= 10
        assert (task.outcome is None) == (task.due_at is not None)
        assert (task.outcome is None) == (task.done_at is None)
        if task.outcome is not None:
            assert task.lease_owner is None
            assert task.leased_until is None
        assert triage(task, now, has_cleanup=has_cleanup) is not Step.REALIGN
