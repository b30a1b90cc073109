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
from oncetask.errors import LeaseLost
from oncetask.lifecycle import Step, Transition, triage
from oncetask.task import NO_WAIT, SCHEMA, Outcome, Progress, Task, TaskError, TaskStatus
from tests.support import MICROSECOND, T0, a_task, at, between, exactly

NOW = exactly(T0)


def leased(**fields: Any) -> Task:
    """Give a task that a worker holds until T0 + 60 for its first attempt."""
    return a_task(
        **{"lease_owner": "l1", "leased_until": at(60), "attempts": 1, "started_at": T0, "wait_until": at(-5), **fields}
    )


def done(outcome: Outcome = Outcome.FAILED, **fields: Any) -> Task:
    """Give a task that has ended."""
    return a_task(**{"outcome": outcome, "done_at": at(-1), "attempts": 3, **fields})


def sound(transition: Transition) -> Task:
    """Check that a transition says what it changes, and give the record that it makes."""
    assert transition.after == replace(transition.before, **transition.changes)
    assert transition.after.due_at == lifecycle.due_at(transition.after)
    return transition.after


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

    def test_a_cancelled_task_is_ended(self) -> None:
        """A cancelled task that nobody holds is ended, at once."""
        assert triage(a_task(is_cancelled=True, wait_until=NO_WAIT), NOW) is Step.END_CANCELLED

    def test_a_cancelled_task_that_is_held_is_left(self) -> None:
        """No cleanup runs beside the live handler; once its lease has ended the task is rescued."""
        task = leased(is_cancelled=True, wait_until=NO_WAIT)

        assert triage(task, NOW) is Step.LEAVE
        assert triage(task, exactly(at(60))) is Step.RESCUE

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

    def test_a_generator_is_left(self) -> None:
        """A recurrence runs no handler."""
        assert triage(a_task(recurrence={"cron": "* * * * *"}), NOW) is Step.LEAVE


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
        """A completed task has its result and its end, and neither lease nor `dueAt` nor progress."""
        task = leased(progress=Progress(0.5))

        after = sound(lifecycle.complete(task, result={"n": 1}, now=between(at(3), at(4))))

        assert (after.outcome, after.result, after.done_at) == (Outcome.COMPLETED, {"n": 1}, at(3))
        assert (after.lease_owner, after.leased_until, after.due_at, after.progress) == (None, None, None, None)
        assert after.attempts == 1

    def test_a_cancel_that_was_stored_first_wins(self) -> None:
        """A handler that finishes after a cancel was stored ends the task as cancelled, without a result."""
        after = sound(lifecycle.complete(leased(is_cancelled=True), result=1, now=NOW))

        assert (after.outcome, after.result) == (Outcome.CANCELLED, None)


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

    @pytest.mark.parametrize("delay", [None, 5])
    def test_a_cancel_that_was_stored_first_wins(self, delay: float | None) -> None:
        """A handler that fails after a cancel was stored ends the task as cancelled."""
        assert sound(lifecycle.fail(leased(is_cancelled=True), ValueError(), delay=delay, now=NOW)).outcome == (
            Outcome.CANCELLED
        )

    def test_a_deadline_before_the_next_attempt_comes_first(self) -> None:
        """A task that waits beyond its deadline is looked at when that passes."""
        after = sound(lifecycle.fail(leased(deadline=at(3)), ValueError(), delay=60, now=NOW))

        assert (after.wait_until, after.due_at) == (at(60), at(3))


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

    def test_a_snooze_after_a_cancel_ends_the_task(self) -> None:
        """A cancelled task is not put off."""
        assert sound(lifecycle.snooze(leased(is_cancelled=True), delay=30, now=NOW)).outcome is Outcome.CANCELLED

    def test_a_give_back_restores_the_place(self) -> None:
        """An interrupted task stands where it stood, its attempt unspent."""
        before = a_task(wait_until=at(-50))
        claimed = sound(lifecycle.claim(before, lease_id="l1", until=at(60), now=NOW))

        after = sound(lifecycle.give_back(claimed))

        assert (after.wait_until, after.due_at, after.attempts) == (before.wait_until, before.due_at, before.attempts)
        assert (after.lease_owner, after.leased_until) == (None, None)

    def test_a_cancelled_task_goes_first_when_given_back(self) -> None:
        """A cancelled task that is given back goes to the front of the line."""
        after = sound(lifecycle.give_back(leased(is_cancelled=True, wait_until=at(500))))

        assert (after.wait_until, after.due_at) == (NO_WAIT, NO_WAIT)

    def test_giving_back_the_attempt_keeps_the_lease(self) -> None:
        """Of a handler that has not ended only the attempt is given back: nobody may start beside it."""
        transition = lifecycle.give_back_attempt(leased(attempts=2))

        sound(transition)
        assert transition.changes == {"attempts": 1}

    @pytest.mark.parametrize("give", [lifecycle.give_back, lifecycle.give_back_attempt])
    def test_attempts_never_become_negative(self, give: Callable[[Task], Transition]) -> None:
        """A record that has lost its count does not get a debt."""
        assert sound(give(leased(attempts=0))).attempts == 0


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

    @pytest.mark.parametrize("delay", [None, 7])
    def test_a_cancelled_task_is_free_at_once(self, delay: float | None) -> None:
        """A cancelled task of a dead worker goes to the front of the line, without a wait and whatever its attempts."""
        after = sound(lifecycle.rescue(leased(is_cancelled=True), LeaseLost(), delay=delay, now=exactly(at(60))))

        assert (after.outcome, after.lease_owner, after.leased_until, after.due_at) == (None, None, None, NO_WAIT)

    def test_a_place_in_the_future_is_kept_too(self) -> None:
        """A rescue does not bring forward what was to wait longer."""
        after = sound(lifecycle.rescue(leased(wait_until=at(500)), LeaseLost(), delay=7, now=exactly(at(60))))

        assert after.due_at == at(500)


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

        transition = lifecycle.reset(task, now=between(at(10), at(12)))

        assert transition is not None
        assert sound(transition) == a_task(**options, wait_until=at(10), create_id=task.create_id)

    def test_only_a_done_task_is_reset(self) -> None:
        """There is nothing to reset of a task that waits, runs or is being cancelled."""
        for task in (a_task(), leased(), a_task(is_cancelled=True)):
            assert lifecycle.reset(task, now=NOW) is None

    def test_a_deadline_that_is_past_goes(self) -> None:
        """A deadline at this instant could only end the new life, one a microsecond later is kept."""
        past = lifecycle.reset(done(deadline=T0), now=NOW)
        ahead = lifecycle.reset(done(deadline=T0 + MICROSECOND), now=NOW)

        assert past is not None
        assert ahead is not None
        assert sound(past).deadline is None
        assert sound(ahead).deadline == T0 + MICROSECOND


class TestMayDelete:
    """What may be deleted."""

    def test_a_task_that_is_held_may_not(self) -> None:
        """A held task is deleted from the instant on at which its lease has certainly ended."""
        assert not lifecycle.may_delete(leased(), between(at(60) - MICROSECOND, at(90)))
        assert lifecycle.may_delete(leased(), exactly(at(60)))

    def test_any_other_may(self) -> None:
        """A done task, a waiting one and one with half a lease are deleted."""
        for task in (done(), a_task(), leased(leased_until=None), done(lease_owner="l1", leased_until=at(60))):
            assert lifecycle.may_delete(task, NOW)


EVENTS: dict[str, Callable[[Task, Now, float], Transition | None]] = {
    "claim": lambda task, now, s: lifecycle.claim(task, lease_id=f"l{s}", until=_after(now, s), now=now),
    "renew": lambda task, now, s: lifecycle.renew(task, until=_after(now, s)),
    "complete": lambda task, now, s: lifecycle.complete(task, result=s, now=now),
    "fail": lambda task, now, s: lifecycle.fail(task, ValueError(s), delay=s, now=now),
    "fail for good": lambda task, now, s: lifecycle.fail(task, ValueError(s), delay=None, now=now),
    "snooze": lambda task, now, s: lifecycle.snooze(task, delay=s, now=now),
    "give back": lambda task, _now, _s: lifecycle.give_back(task),
    "give back the attempt": lambda task, _now, _s: lifecycle.give_back_attempt(task),
    "rescue": lambda task, now, s: lifecycle.rescue(task, LeaseLost(), delay=s, now=now),
    "rescue for good": lambda task, now, _s: lifecycle.rescue(task, LeaseLost(), delay=None, now=now),
    "end cancelled": lambda task, now, _s: lifecycle.end_cancelled(task, now=now),
    "reject": lambda task, now, _s: lifecycle.reject(task, now=now),
    "realign": lambda task, _now, _s: lifecycle.realign(task),
    "reset": lambda task, now, _s: lifecycle.reset(task, now=now),
}
FREE, HELD, ENDED = (
    {"claim", "end cancelled", "reject", "realign"},
    set(EVENTS) - {"claim", "reset"},
    {"reset", "realign"},
)


def _after(now: Now, seconds: float) -> datetime:
    return now.earliest + timedelta(seconds=seconds)


def _possible(task: Task) -> set[str]:
    """Which events the engine sends to a task in this state."""
    if task.outcome is not None:
        return ENDED
    return HELD if task.lease_owner is not None else FREE


instants = st.integers(0, 10**9).map(lambda micros: T0 + timedelta(microseconds=micros))


@given(
    first=st.builds(
        a_task,
        wait_until=st.one_of(st.just(EPOCH), instants),
        deadline=st.none() | instants,
        is_cancelled=st.booleans(),
        attempts=st.integers(0, 3),
    ),
    events=st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.floats(0.001, 1e6), st.booleans()), max_size=30),
)
def test_invariants_hold_whatever_happens(first: Task, events: list[tuple[str, float, bool]]) -> None:
    """After any events `dueAt` is consistent, done tasks hold nothing, counts are whole, and errors are few."""
    task, now = first, NOW
    for event, seconds, cancel in events:
        now = exactly(now.earliest + timedelta(seconds=seconds))
        if cancel and task.outcome is None:
            task = replace(task, is_cancelled=True)
        if event not in _possible(task):
            continue
        transition = EVENTS[event](task, now, seconds)
        if transition is None:
            continue
        assert transition.before is task
        task = sound(transition)
        assert task.attempts >= 0
        assert task.cancel_attempts >= 0
        assert len(task.errors) <= 10
        assert (task.outcome is None) == (task.due_at is not None)
        assert (task.outcome is None) == (task.done_at is None)
        if task.outcome is not None:
            assert task.lease_owner is None
            assert task.leased_until is None
        assert triage(task, now) is not Step.REALIGN
