"""What is told of tasks: logs, spans and metrics are made from events here, and nowhere else.

Metrics and spans go to OpenTelemetry's providers; a program that configures none pays next to nothing.

Metrics, all with `oncetask.kind`:

- `oncetask.attempts`: attempts that ended, by `oncetask.phase` (`run`, `cleanup`), `oncetask.result` (`succeeded`,
  `retried`, `failed`, `expired`, `snoozed`, `interrupted`, `crashed`) and, where they failed, `error.type`.
- `oncetask.tasks.cancelled`: tasks that this process cancelled.
- `oncetask.tasks.done`: tasks that ended here, by `oncetask.outcome`.
- `oncetask.occurrences`: occurrences that generators spawned here.
- `oncetask.cancel.duration`: seconds from a cancel to the end of its task, by `oncetask.outcome`.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Protocol

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode, use_span

from oncetask.errors import Snooze
from oncetask.lifecycle import attempt_of, is_cleanup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from oncetask.lifecycle import Transition
    from oncetask.task import Task

__all__ = ["Listener", "Telemetry"]

_LEVELS = {
    "failed": logging.ERROR,
    "rejected": logging.ERROR,
    "cleanup-failed": logging.ERROR,
    "expired": logging.WARNING,
    "rescued": logging.WARNING,
    "retried": logging.WARNING,
    "cleanup-retried": logging.WARNING,
    "abandoned": logging.WARNING,
}
_RESULTS = {
    "completed": "succeeded",
    "cleaned-up": "succeeded",
    "failed": "failed",
    "cleanup-failed": "failed",
    "retried": "retried",
    "cleanup-retried": "retried",
    "expired": "expired",
    "snoozed": "snoozed",
    "given-back": "interrupted",
    "attempt-given-back": "interrupted",
    "released": "interrupted",
    "cleanup-started": "interrupted",
    "abandoned": "interrupted",
    "rescued": "crashed",
}
"""What each event says about the attempt that it ends; the others end none."""
_LIMITS = {"timeout": "TaskTimeout", "deadline": "TaskExpired"}
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0)
"""Bounds of the histogram; the SDK's own are meant for milliseconds."""
_NO_SPAN = nullcontext()
_log = logging.getLogger("oncetask")


class Listener(Protocol):
    """Who is told of what is stored."""

    def changed(self, transition: Transition) -> None:
        """Take note of a change. Does not raise."""

    def spawned(self, generator: Task, number: int) -> None:
        """Take note of the occurrences of a generator. Does not raise."""


class Telemetry:
    """Turns what happens to tasks into logs, metrics and spans."""

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        """Use these providers; left out: the ones that the program has set, now or later."""
        meter = metrics.get_meter("oncetask", meter_provider=meter_provider)
        self._tracer = trace.get_tracer("oncetask", tracer_provider=tracer_provider)
        self._attempts = meter.create_counter("oncetask.attempts", "{attempt}", "Attempts that ended")
        self._cancelled = meter.create_counter("oncetask.tasks.cancelled", "{task}", "Tasks that were cancelled")
        self._done = meter.create_counter("oncetask.tasks.done", "{task}", "Tasks that ended")
        self._occurrences = meter.create_counter("oncetask.occurrences", "{task}", "Occurrences that were spawned")
        self._cancel_duration = meter.create_histogram(
            "oncetask.cancel.duration",
            "s",
            "Time from a cancel to the end of its task",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )

    def changed(self, transition: Transition) -> None:
        """Tell of a change that was stored. Never raises, since a log filter or an exporter is user code."""
        try:
            self._count(transition)
            self._log(transition)
        except Exception:  # noqa: BLE001  # said where logging says of itself that it failed
            traceback.print_exc()

    def spawned(self, generator: Task, number: int) -> None:
        """Tell of occurrences that were stored. Never raises, as `changed`."""
        try:
            if number:
                self._occurrences.add(number, {"oncetask.kind": generator.kind})
        except Exception:  # noqa: BLE001  # as above
            traceback.print_exc()

    def _log(self, transition: Transition) -> None:
        task, level = transition.after, _LEVELS.get(transition.event, logging.DEBUG)
        if not _log.isEnabledFor(level):
            return
        attempt = attempt_of(task)
        failed = "errors" in transition.changes and level > logging.DEBUG
        reason = f": {task.errors[-1].type}: {task.errors[-1].message}" if failed else ""
        extra = {"task_id": task.id, "kind": task.kind, "event": transition.event, "attempt": attempt}
        message = "task %s (%s) %s, attempt %d%s"
        _log.log(level, message, task.id, task.kind, transition.event, attempt, reason, extra=extra)

    def attempt(self, tasks: Sequence[Task], abort_reason: Callable[[], str | None]) -> AbstractContextManager[None]:
        """Open the span of one call of user code. What it raises makes the span an error, and so does its time limit.

        `abort_reason`: says in the end why it was told to stop, if it was.
        """
        task = tasks[0]
        attributes: dict[str, str | int] = {
            "oncetask.kind": task.kind,
            "oncetask.task_id": task.id,
            "oncetask.attempt": attempt_of(task),
        }
        if len(tasks) > 1:
            attributes["oncetask.batch_size"] = len(tasks)
        name = f"{'clean up' if is_cleanup(task) else 'run'} {task.kind}"
        span = self._tracer.start_span(name, kind=SpanKind.CONSUMER, attributes=attributes)
        if not span.is_recording() and not span.get_span_context().is_valid:
            return _NO_SPAN  # no provider is set: entering it would cost as much as all the rest
        return _inside(span, abort_reason)

    def _count(self, transition: Transition) -> None:
        event, before, after = transition.event, transition.before, transition.after
        if event == "cancel-requested":
            self._cancelled.add(1, {"oncetask.kind": after.kind})
        if (result := _result(transition)) is not None:
            attributes = {
                "oncetask.kind": after.kind,
                "oncetask.phase": "cleanup" if is_cleanup(before) else "run",
                "oncetask.result": result,
            }
            if "errors" in transition.changes:
                attributes["error.type"] = after.errors[-1].type
            self._attempts.add(1, attributes)
        if after.outcome is not None and before.outcome is None:
            ended = {"oncetask.kind": after.kind, "oncetask.outcome": after.outcome.value}
            self._done.add(1, ended)
            if after.cancelled_at is not None and after.done_at is not None:
                self._cancel_duration.record((after.done_at - after.cancelled_at).total_seconds(), ended)


@contextmanager
def _inside(span: Span, abort_reason: Callable[[], str | None]) -> Iterator[None]:
    """Make a span the current one, and end it with what becomes of the attempt."""
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except Exception as error:
            if not isinstance(error, Snooze):
                span.set_status(StatusCode.ERROR, type(error).__name__)
                with suppress(Exception):  # it asks for the error's text, which is user code
                    span.record_exception(error)
            raise
        finally:
            if (reason := abort_reason()) is not None:
                span.set_attribute("oncetask.abort_reason", reason)
                if reason in _LIMITS:
                    span.set_status(StatusCode.ERROR, _LIMITS[reason])


def _result(transition: Transition) -> str | None:
    """Say how the attempt ended that a change ends; None: it ends none."""
    before, after = transition.before, transition.after
    if transition.event in {"cancelled", "claimed"} and before.lease_owner is not None:
        # The cancel stopped its handler, which has nothing to clean up; or its worker had died before.
        ends = after.done_at
        alive = ends is not None and before.leased_until is not None and ends < before.leased_until
        return "interrupted" if alive else "crashed"
    if transition.event == "expired" and "attempts" in transition.changes:
        return None  # it was never started, and its attempt was given back
    return _RESULTS.get(transition.event)
