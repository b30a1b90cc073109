"""What a record says about where its task stands."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from oncetask.errors import InvalidPayload
from oncetask.payload import Payload
from oncetask.task import NO_WAIT, Outcome, Stats, Task, TaskStatus
from tests.support import MICROSECOND, T0, a_task, at


class Greet(Payload):
    """A payload."""

    name: str


class TestStatus:
    """Where a task stands, at the instant and a microsecond before."""

    def test_a_task_is_due_at_its_instant(self) -> None:
        """A task waits until the microsecond before its instant and is pending from the instant on."""
        task = a_task(wait_until=T0)

        assert task.status_at(T0 - MICROSECOND) == TaskStatus.WAITING
        assert task.status_at(T0) == TaskStatus.PENDING

    def test_a_lease_holds_until_its_end(self) -> None:
        """A leased task is leased until the microsecond before the lease's end, then pending again."""
        task = a_task(lease_owner="l1", leased_until=at(60))

        assert task.status_at(at(60) - MICROSECOND) == TaskStatus.LEASED
        assert task.status_at(at(60)) == TaskStatus.PENDING

    def test_a_rescued_task_waits_for_its_spread(self) -> None:
        """A `leased_until` without an owner is no lease: the task waits until then."""
        task = a_task(leased_until=at(60))

        assert task.status_at(at(60) - MICROSECOND) == TaskStatus.WAITING
        assert task.status_at(at(60)) == TaskStatus.PENDING

    def test_a_passed_deadline_makes_a_waiting_task_due(self) -> None:
        """Somebody has to look at a task when its deadline passes, though it was to wait longer."""
        task = a_task(wait_until=at(100), deadline=at(50))

        assert task.status_at(at(50) - MICROSECOND) == TaskStatus.WAITING
        assert task.status_at(at(50)) == TaskStatus.PENDING

    def test_a_cancelled_task_awaits_its_cleanup(self) -> None:
        """A cancelled task that nobody holds is cancellation-pending, whatever it waited for."""
        assert a_task(is_cancelled=True, wait_until=NO_WAIT).status_at(T0) == TaskStatus.CANCELLATION_PENDING
        assert a_task(is_cancelled=True, wait_until=at(9)).status_at(T0) == TaskStatus.CANCELLATION_PENDING

    def test_a_cancelled_task_is_leased_while_its_lease_holds(self) -> None:
        """The status of a cancelled task is leased while somebody holds it."""
        task = a_task(is_cancelled=True, wait_until=NO_WAIT, lease_owner="l1", leased_until=at(60))

        assert task.status_at(at(60) - MICROSECOND) == TaskStatus.LEASED
        assert task.status_at(at(60)) == TaskStatus.CANCELLATION_PENDING

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_an_outcome_is_final(self, outcome: Outcome) -> None:
        """A task with an outcome is done with it, whatever its other fields say."""
        task = a_task(outcome=outcome, is_cancelled=True, lease_owner="l1", leased_until=at(60))

        assert task.status_at(T0) == f"done-{outcome}"
        assert task.status_at(T0).is_done

    def test_only_done_states_are_done(self) -> None:
        """Four of the eight states are final."""
        assert {status for status in TaskStatus if status.is_done} == {f"done-{outcome}" for outcome in Outcome}

    def test_the_status_is_as_of_the_reading(self) -> None:
        """`status` tells what held when the record was read."""
        assert a_task(wait_until=at(5), read_at=at(4)).status == TaskStatus.WAITING
        assert a_task(wait_until=at(5), read_at=at(5)).status == TaskStatus.PENDING


class TestRecord:
    """A record is frozen, and its data are a payload."""

    def test_a_new_task_has_done_nothing(self) -> None:
        """What is not said about a task is that nothing has happened to it yet; its shape is the first one."""
        task = Task(id="t", kind="greet", data={}, wait_until=T0, created_at=T0)

        assert (task.attempts, task.cancel_attempts, task.version, task.errors) == (0, 0, 0, ())
        assert (task.schema, task.is_cancelled, task.outcome, task.lease_owner) == (1, False, None, None)

    def test_a_task_is_frozen(self) -> None:
        """A record cannot be changed; a change makes a new one."""
        with pytest.raises(FrozenInstanceError):
            a_task().attempts = 3  # type: ignore[misc]

    def test_the_payload_is_read_as_the_model(self) -> None:
        """The data become the payload that was enqueued."""
        assert a_task(data={"name": "Bob"}).payload(Greet) == Greet(name="Bob")

    def test_data_that_do_not_fit_are_refused(self) -> None:
        """Data of another shape raise InvalidPayload."""
        with pytest.raises(InvalidPayload, match="name"):
            a_task(data={"name": 5}).payload(Greet)


class TestStats:
    """Counts by kind and status."""

    def test_totals(self) -> None:
        """Counts add up over the kinds, of one status or of all."""
        stats = Stats(
            {
                "greet": {TaskStatus.PENDING: 2, TaskStatus.DONE_FAILED: 1},
                "sync": {TaskStatus.PENDING: 5},
            }
        )

        assert stats.total() == 8
        assert stats.total(TaskStatus.PENDING) == 7
        assert stats.total(TaskStatus.LEASED) == 0
        assert Stats({}).total() == 0
