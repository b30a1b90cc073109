"""What is counted and logged of each change, told from the change alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

from oncetask import lifecycle
from oncetask.errors import LeaseLost, TaskExpired
from oncetask.lifecycle import Transition
from oncetask.task import NO_WAIT, Task
from oncetask.telemetry import Telemetry
from tests.support import T0, a_task, at, exactly

NOW = exactly(T0)
ERROR = OSError("still locked")
LATE = TaskExpired("the deadline passed")
FREE = a_task()
RUNNING = a_task(lease_owner="l1", leased_until=at(60), attempts=2, started_at=T0)
CANCELLED = a_task(is_cancelled=True, cancelled_at=at(-4), wait_until=NO_WAIT)
OVERTAKEN = a_task(
    is_cancelled=True, cancelled_at=at(-4), wait_until=NO_WAIT, lease_owner="l1", leased_until=at(60), attempts=2
)
CLEANUP = OVERTAKEN.evolve(cancel_attempts=1)
DONE = lifecycle.complete(RUNNING, result=None, now=NOW).after
UNREADABLE = a_task(problems=("waitUntil is missing",))


def there(transition: Transition | None) -> Transition:
    """Give a transition that has to be there."""
    assert transition is not None
    return transition


class Metrics:
    """What an SDK without an exporter has been told."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def all(self) -> dict[str, Any]:
        """Give the metrics that have points, by name."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        assert {scope.scope.name for scope in scopes} <= {"oncetask"}
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, object], float]]:
        """Give the points of a metric: attributes, and the number; of a histogram its sum, and count 1 each."""
        found = self.all()
        if name not in found:
            return []
        told: list[tuple[dict[str, object], float]] = []
        for point in found[name].data.data_points:
            assert isinstance(point, NumberDataPoint | HistogramDataPoint)
            if isinstance(point, HistogramDataPoint):
                assert point.count == 1
                told.append((dict(point.attributes or {}), point.sum))
            else:
                told.append((dict(point.attributes or {}), point.value))
        return told


@pytest.fixture
def measured() -> Iterator[Metrics]:
    """The metrics of this test."""
    metrics = Metrics()
    yield metrics
    metrics.provider.shutdown()


@pytest.fixture
def telemetry(measured: Metrics) -> Telemetry:
    """What is tested."""
    return Telemetry(meter_provider=measured.provider)


ATTEMPTS: dict[str, tuple[Transition, str, str, str | None]] = {
    "completed": (lifecycle.complete(RUNNING, result=1, now=NOW), "run", "succeeded", None),
    "retried": (lifecycle.fail(RUNNING, ERROR, delay=5, now=NOW), "run", "retried", "OSError"),
    "failed": (lifecycle.fail(RUNNING, ERROR, delay=None, now=NOW), "run", "failed", "OSError"),
    "expired": (lifecycle.expire(RUNNING, LATE, began=True, now=NOW), "run", "expired", "TaskExpired"),
    "snoozed": (lifecycle.snooze(RUNNING, delay=5, now=NOW), "run", "snoozed", None),
    "given back": (lifecycle.give_back(RUNNING, now=NOW), "run", "interrupted", None),
    "left running": (lifecycle.give_back_attempt(RUNNING), "run", "interrupted", None),
    "crashed": (lifecycle.rescue(RUNNING, LeaseLost("died"), delay=5, now=NOW), "run", "crashed", "LeaseLost"),
    "crashed for good": (
        lifecycle.rescue(RUNNING, LeaseLost("died"), delay=None, now=NOW),
        "run",
        "failed",
        "LeaseLost",
    ),
    "stopped for its cleanup": (lifecycle.clean_up(OVERTAKEN, until=at(60)), "run", "interrupted", None),
    "let go to be cleaned up": (
        lifecycle.complete(OVERTAKEN, result=1, now=NOW, has_cleanup=True),
        "run",
        "interrupted",
        None,
    ),
    "abandoned": (lifecycle.abandon(OVERTAKEN), "run", "interrupted", None),
    "cleaned up": (lifecycle.complete(CLEANUP, result=1, now=NOW, has_cleanup=True), "cleanup", "succeeded", None),
    "cleanup retried": (
        lifecycle.fail(CLEANUP, ERROR, delay=5, now=NOW, has_cleanup=True),
        "cleanup",
        "retried",
        "OSError",
    ),
    "cleanup failed": (
        lifecycle.fail(CLEANUP, ERROR, delay=None, now=NOW, has_cleanup=True),
        "cleanup",
        "failed",
        "OSError",
    ),
    "cleanup snoozed": (lifecycle.snooze(CLEANUP, delay=5, now=NOW, has_cleanup=True), "cleanup", "snoozed", None),
    "cleanup given back": (lifecycle.give_back(CLEANUP, now=NOW, has_cleanup=True), "cleanup", "interrupted", None),
    "cleanup crashed": (
        lifecycle.rescue(CLEANUP, LeaseLost("died"), delay=5, now=NOW),
        "cleanup",
        "crashed",
        "LeaseLost",
    ),
    "cleanup crashed for good": (
        lifecycle.rescue(CLEANUP, LeaseLost("died"), delay=None, now=NOW),
        "cleanup",
        "failed",
        "LeaseLost",
    ),
}

NO_ATTEMPTS: dict[str, Transition] = {
    "claimed": lifecycle.claim(FREE, lease_id="l1", until=at(60), now=NOW),
    "claimed for its cleanup": lifecycle.claim(CANCELLED, lease_id="l1", until=at(60), now=NOW),
    "renewed": lifecycle.renew(RUNNING, until=at(60)),
    "cancelled": there(lifecycle.cancel(RUNNING, now=NOW)),
    "ended, never started": lifecycle.end_cancelled(CANCELLED, now=NOW),
    "expired, never started": lifecycle.expire(RUNNING, LATE, began=False, now=NOW),
    "progressed": lifecycle.progressed(RUNNING),
    "rejected": lifecycle.reject(UNREADABLE, now=NOW),
    "realigned": lifecycle.realign(FREE.evolve(due_at=None)),
    "reset": there(lifecycle.reset(DONE, now=NOW)),
}

ENDS: dict[str, tuple[Transition, str]] = {
    "completed": (lifecycle.complete(RUNNING, result=1, now=NOW), "completed"),
    "failed": (lifecycle.fail(RUNNING, ERROR, delay=None, now=NOW), "failed"),
    "crashed for good": (lifecycle.rescue(RUNNING, LeaseLost("died"), delay=None, now=NOW), "failed"),
    "expired": (lifecycle.expire(RUNNING, LATE, began=True, now=NOW), "expired"),
    "expired, never started": (lifecycle.expire(RUNNING, LATE, began=False, now=NOW), "expired"),
    "rejected": (lifecycle.reject(UNREADABLE, now=NOW), "failed"),
    "cancelled": (lifecycle.end_cancelled(CANCELLED, now=NOW), "cancelled"),
    "cancelled while it ran": (lifecycle.complete(OVERTAKEN, result=1, now=NOW), "cancelled"),
    "cleaned up": (lifecycle.complete(CLEANUP, result=1, now=NOW, has_cleanup=True), "cancelled"),
    "cleanup failed": (lifecycle.fail(CLEANUP, ERROR, delay=None, now=NOW, has_cleanup=True), "failed"),
}


class TestMetrics:
    """Names, units and attributes, which dashboards depend on."""

    def test_names_and_units(self, telemetry: Telemetry, measured: Metrics) -> None:
        """These four metrics are the documented ones."""
        telemetry.changed(there(lifecycle.cancel(RUNNING, now=NOW)))
        telemetry.changed(lifecycle.complete(CLEANUP, result=None, now=NOW))
        assert {name: metric.unit for name, metric in measured.all().items()} == {
            "oncetask.attempts": "{attempt}",
            "oncetask.tasks.cancelled": "{task}",
            "oncetask.tasks.done": "{task}",
            "oncetask.cancel.duration": "s",
        }

    @pytest.mark.parametrize("name", ATTEMPTS)
    def test_an_attempt_that_ends_is_counted_once(self, telemetry: Telemetry, measured: Metrics, name: str) -> None:
        """Its phase, its result and, where it failed, the type of the error are the attributes."""
        transition, phase, result, error = ATTEMPTS[name]
        telemetry.changed(transition)
        wanted = {"oncetask.kind": "greet", "oncetask.phase": phase, "oncetask.result": result}
        assert measured.points("oncetask.attempts") == [({**wanted, **({"error.type": error} if error else {})}, 1)]

    @pytest.mark.parametrize("name", NO_ATTEMPTS)
    def test_what_ends_no_attempt_counts_none(self, telemetry: Telemetry, measured: Metrics, name: str) -> None:
        """Claims, renewals and changes of tasks that nobody runs are no attempts."""
        telemetry.changed(NO_ATTEMPTS[name])
        assert measured.points("oncetask.attempts") == []

    def test_only_a_cancel_counts_as_one(self, telemetry: Telemetry, measured: Metrics) -> None:
        """`oncetask.tasks.cancelled` counts requests that were stored, whatever becomes of them."""
        for transition in [there(lifecycle.cancel(FREE, now=NOW)), there(lifecycle.cancel(RUNNING, now=NOW))]:
            telemetry.changed(transition)
        for transition in (*(one for one, *_ in ATTEMPTS.values()), *(one for one, _ in ENDS.values())):
            telemetry.changed(transition)
        assert measured.points("oncetask.tasks.cancelled") == [({"oncetask.kind": "greet"}, 2)]

    @pytest.mark.parametrize("name", ENDS)
    def test_a_task_that_ends_is_counted_once(self, telemetry: Telemetry, measured: Metrics, name: str) -> None:
        """`oncetask.tasks.done` says how it ended; one that was cancelled has a duration too, the others have none."""
        transition, outcome = ENDS[name]
        telemetry.changed(transition)
        wanted = {"oncetask.kind": "greet", "oncetask.outcome": outcome}
        assert measured.points("oncetask.tasks.done") == [(wanted, 1)]
        durations = measured.points("oncetask.cancel.duration")
        assert durations == ([(wanted, 4.0)] if transition.before.is_cancelled else [])

    def test_what_does_not_end_a_task_is_not_counted_as_done(self, telemetry: Telemetry, measured: Metrics) -> None:
        """Neither an attempt that goes on later, nor a reset of a done task, ends one."""
        going_on = [transition for transition, *_ in ATTEMPTS.values() if transition.after.outcome is None]
        for transition in (*going_on, there(lifecycle.reset(DONE, now=NOW)), lifecycle.renew(RUNNING, until=at(60))):
            telemetry.changed(transition)
        assert measured.points("oncetask.tasks.done") == []
        assert measured.points("oncetask.cancel.duration") == []

    def test_a_cancel_that_takes_long_is_measured_in_seconds(self, telemetry: Telemetry, measured: Metrics) -> None:
        """The duration runs from the stored cancel to the stored end, in fractions of a second."""
        telemetry.changed(
            lifecycle.complete(CLEANUP, result=None, now=exactly(T0 + timedelta(minutes=2, milliseconds=250)))
        )
        ((_, duration),) = measured.points("oncetask.cancel.duration")
        assert duration == 124.25


class TestLogs:
    """One line for each change, with what a log search needs in `extra`."""

    @pytest.mark.parametrize(
        ("transition", "event", "level"),
        [
            (lifecycle.fail(RUNNING, ERROR, delay=5, now=NOW), "retried", logging.WARNING),
            (lifecycle.fail(RUNNING, ERROR, delay=None, now=NOW), "failed", logging.ERROR),
            (lifecycle.rescue(RUNNING, ERROR, delay=5, now=NOW), "rescued", logging.WARNING),
        ],
        ids=["retried", "failed", "rescued"],
    )
    def test_a_failure_is_logged_with_its_reason(
        self, telemetry: Telemetry, caplog: pytest.LogCaptureFixture, transition: Transition, event: str, level: int
    ) -> None:
        """Task, kind, attempt and the error stand in the line; what can be searched for is in `extra`."""
        with caplog.at_level(logging.WARNING, "oncetask"):
            telemetry.changed(transition)
        (record,) = caplog.records
        assert record.levelno == level
        assert fields_of(record) == {"task_id": "greet:1", "kind": "greet", "event": event, "attempt": 2}
        assert record.getMessage() == f"task greet:1 (greet) {event}, attempt 2: OSError: still locked"

    @pytest.mark.parametrize(
        ("delay", "event", "level"),
        [(5.0, "cleanup-retried", logging.WARNING), (None, "cleanup-failed", logging.ERROR)],
    )
    def test_a_failed_cleanup_is_logged_with_its_own_attempt(
        self, telemetry: Telemetry, caplog: pytest.LogCaptureFixture, delay: float | None, event: str, level: int
    ) -> None:
        """The attempt is the cleanup's, not the task's."""
        with caplog.at_level(logging.WARNING, "oncetask"):
            telemetry.changed(lifecycle.fail(CLEANUP, ERROR, delay=delay, now=NOW, has_cleanup=True))
        (record,) = caplog.records
        assert record.levelno == level
        assert fields_of(record) == {"task_id": "greet:1", "kind": "greet", "event": event, "attempt": 1}
        assert "still locked" in record.getMessage()

    def test_an_unreadable_record_is_logged(self, telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
        """What was wrong with it stands in the line."""
        with caplog.at_level(logging.WARNING, "oncetask"):
            telemetry.changed(lifecycle.reject(UNREADABLE, now=NOW))
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "waitUntil is missing" in record.getMessage()

    def test_what_goes_well_is_for_debugging(self, telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
        """A completion is a line on DEBUG, without the errors of attempts before, and else none."""
        transition = lifecycle.complete(a_failed_once(RUNNING), result=1, now=NOW)
        with caplog.at_level(logging.INFO, "oncetask"):
            telemetry.changed(transition)
        assert caplog.records == []
        with caplog.at_level(logging.DEBUG, "oncetask"):
            telemetry.changed(transition)
        (record,) = caplog.records
        assert record.getMessage() == "task greet:1 (greet) completed, attempt 2"
        assert fields_of(record) == {"task_id": "greet:1", "kind": "greet", "event": "completed", "attempt": 2}


def a_failed_once(task: Task) -> Task:
    """Give a task with the error of an attempt before."""
    failed = lifecycle.fail(task, ERROR, delay=0, now=NOW).after
    return task.evolve(errors=failed.errors)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Give what a structured log would have of a record."""
    return {name: getattr(record, name) for name in ("task_id", "kind", "event", "attempt")}


def test_without_an_sdk_nothing_happens() -> None:
    """Where no program has set up OpenTelemetry, counting and spans do nothing, and do not fail."""
    telemetry = Telemetry()
    for transition, *_ in ATTEMPTS.values():
        telemetry.changed(transition)
    with telemetry.attempt([RUNNING], lambda: "shutdown"):
        assert not trace.get_current_span().is_recording()
    with pytest.raises(OSError, match="still locked"), telemetry.attempt([RUNNING], lambda: None):
        raise ERROR


def test_telling_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    """A log filter that raises is told on stderr, and what was stored goes its way."""

    def broken(_: logging.LogRecord) -> bool:
        msg = "a filter of the user's"
        raise RuntimeError(msg)

    log = logging.getLogger("oncetask")
    log.addFilter(broken)
    try:
        for transition, *_ in ATTEMPTS.values():
            Telemetry().changed(transition)
    finally:
        log.removeFilter(broken)
    assert "a filter of the user's" in capsys.readouterr().err
