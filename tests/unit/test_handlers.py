"""What is called for a task as it stands, and which deadline it has."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from oncetask import Context, FixedDelay, NoRetry, Payload
from oncetask.handlers import Cleanup, Handler, Place
from oncetask.task import NO_WAIT, Task
from tests.support import a_task, at


class Mail(Payload, kind="mail"):
    """What is handled."""


async def send(_: Context, __: Any) -> None:
    """A handler."""


def undo(_: Context, __: Any) -> None:
    """A cancellation handler."""


OWN, UNDO = FixedDelay(3, 1), NoRetry()


def handler(**fields: Any) -> Handler:
    """Give a handler with nothing special about it; `fields` say what is different."""
    given: dict[str, Any] = {"payload_type": Mail, "function": send, "runs_in": "loop", "timeout": 30.0}
    return Handler(**{**given, "retry": OWN, "concurrency": None, **fields})


def cleanup(**fields: Any) -> Cleanup:
    """Give a cancellation handler that leaves its limits to the task."""
    return Cleanup(**{"function": undo, "runs_in": "thread", "timeout": None, "retry": None, **fields})


def cancelled(**fields: Any) -> Task:
    """Give a task that was cancelled before it ran."""
    return a_task(**{"is_cancelled": True, "cancelled_at": at(0), "wait_until": NO_WAIT, **fields})


class TestCalledFor:
    """The function, where it runs, and its limits."""

    def test_a_task(self) -> None:
        """A task is run by its kind's handler, under the handler's limits."""
        assert handler().called_for(a_task()) == (send, "loop", 30.0, OWN, False)

    @pytest.mark.parametrize("timeout", [0.5, 900.0])
    def test_a_task_with_its_own_timeout(self, timeout: float) -> None:
        """Shorter or longer, a task's own timeout comes before its handler's."""
        assert handler().called_for(a_task(timeout=timeout)) == (send, "loop", timeout, OWN, False)

    @pytest.mark.parametrize("place", ["loop", "thread", "process"])
    def test_where_it_runs(self, place: Place) -> None:
        """A handler runs where it was registered to, its cleanup where that runs."""
        one = handler(runs_in=place, cleanup=cleanup())
        assert one.called_for(a_task()).runs_in == place
        assert one.called_for(cancelled()).runs_in == "thread"

    def test_a_batch(self) -> None:
        """A batch is a call with a list, under the handler's own timeout, whatever its tasks say."""
        assert handler(max_batch=1).called_for(a_task(timeout=7.0)) == (send, "loop", 30.0, OWN, True)

    @pytest.mark.parametrize("max_batch", [None, 100])
    def test_a_cancelled_task(self, max_batch: int | None) -> None:
        """The cleanup is called for it, with one payload, under its own limits."""
        one = handler(max_batch=max_batch, cleanup=cleanup(timeout=5.0, retry=UNDO))
        assert one.called_for(cancelled(timeout=7.0)) == (undo, "thread", 5.0, UNDO, False)

    @pytest.mark.parametrize("max_batch", [None, 100])
    def test_a_cleanup_without_limits(self, max_batch: int | None) -> None:
        """Its timeout is the task's, else the handler's; its policy is the handler's."""
        one = handler(max_batch=max_batch, cleanup=cleanup())
        assert one.called_for(cancelled(timeout=7.0)) == (undo, "thread", 7.0, OWN, False)
        assert one.called_for(cancelled()) == (undo, "thread", 30.0, OWN, False)

    @pytest.mark.parametrize(("max_batch", "takes_list"), [(None, False), (100, True)])
    def test_a_cancelled_task_without_a_cleanup(self, max_batch: int | None, takes_list: bool) -> None:
        """Where nothing is to be cleaned up the limits are the handler's still, for the lease that is held."""
        assert handler(max_batch=max_batch).called_for(cancelled()) == (send, "loop", 30.0, OWN, takes_list)

    def test_whether_there_is_a_cleanup(self) -> None:
        """`has_cleanup` tells."""
        assert [handler().has_cleanup, handler(cleanup=cleanup()).has_cleanup] == [False, True]


class TestDeadlineOf:
    """The moment at which a task ends."""

    @pytest.mark.parametrize("max_batch", [None, 100], ids=["task", "batch"])
    @pytest.mark.parametrize(
        ("own", "its_handlers", "deadline"),
        [
            pytest.param(None, None, None, id="none"),
            pytest.param(None, at(60), at(60), id="the handler's"),
            pytest.param(at(30), None, at(30), id="the task's"),
            pytest.param(at(30), at(60), at(30), id="the task's, which is earlier"),
            pytest.param(at(90), at(60), at(90), id="the task's, which is later"),
        ],
    )
    def test_the_tasks_own_comes_first(
        self, max_batch: int | None, own: datetime | None, its_handlers: datetime | None, deadline: datetime | None
    ) -> None:
        """A task's own deadline counts, also as a member of a batch; without it its handler's does."""
        assert handler(max_batch=max_batch, deadline=its_handlers).deadline_of(a_task(deadline=own)) == deadline

    @pytest.mark.parametrize("one", [handler(deadline=at(60)), handler(deadline=at(60), cleanup=cleanup())])
    @pytest.mark.parametrize("task", [cancelled(), cancelled(deadline=at(30)), cancelled(cancel_attempts=1)])
    def test_a_cancelled_task_has_none(self, one: Handler, task: Task) -> None:
        """A cleanup is not stopped by a deadline, be it the task's or the handler's."""
        assert one.deadline_of(task) is None
