"""What is told of tasks: logs, spans and metrics are made from events here, and nowhere else.

Metrics and spans go to OpenTelemetry's providers; a program that configures none pays next to nothing.

Metrics, all with `oncetask.kind`:

- `oncetask.attempts`: attempts that ended, by `oncetask.phase` (`run`, `cleanup`), `oncetask.result` (`succeeded`,
  `retried`, `failed`, `snoozed`, `interrupted`, `crashed`) and, where they failed, `error.type`.
- `oncetask.tasks.cancelled`: tasks that this process cancelled.
- `oncetask.tasks.done`: tasks that ended here, by `oncetask.outcome`.
- `oncetask.cancel.duration`: seconds from a cancel to the end of its task, by `oncetask.outcome`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind

from oncetask.lifecycle import attempt_of, is_cleanup

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from oncetask.lifecycle import Transition
    from oncetask.task import Task

__all__ = ["Telemetry"]

_LEVELS = {
    "failed": logging.ERROR,
    "rejected": logging.ERROR,
    "cleanup-failed": logging.ERROR,
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
    "snoozed": "snoozed",
    "given-back": "interrupted",
    "attempt-given-back": "interrupted",
    "released": "interrupted",
    "cleanup-started": "interrupted",
    "abandoned": "interrupted",
    "rescued": "crashed",
}
"""What each event says about the attempt that it ends; the others end none."""
_WITH_ERROR = frozenset({"failed", "retried", "crashed"})
_log = logging.getLogger("oncetask")


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
        self._cancel_duration = meter.create_histogram(
            "oncetask.cancel.duration", "s", "Time from a cancel to the end of its task"
        )

    def changed(self, transition: Transition) -> None:
        """Tell of a change that was stored."""
        self._count(transition)
        task, level = transition.after, _LEVELS.get(transition.event, logging.DEBUG)
        if not _log.isEnabledFor(level):
            return
        attempt = attempt_of(task)
        reason = f": {task.errors[-1].type}: {task.errors[-1].message}" if level > logging.DEBUG and task.errors else ""
        extra = {"task_id": task.id, "kind": task.kind, "event": transition.event, "attempt": attempt}
        message = "task %s (%s) %s, attempt %d%s"
        _log.log(level, message, task.id, task.kind, transition.event, attempt, reason, extra=extra)

    def attempt(self, task: Task) -> AbstractContextManager[Span]:
        """Open the span of one call of user code; what it raises is recorded and goes on."""
        return self._tracer.start_as_current_span(
            f"{'clean up' if is_cleanup(task) else 'run'} {task.kind}",
            kind=SpanKind.CONSUMER,
            attributes={"oncetask.kind": task.kind, "oncetask.task_id": task.id, "oncetask.attempt": attempt_of(task)},
        )

    def _count(self, transition: Transition) -> None:
        event, before, after = transition.event, transition.before, transition.after
        if event == "cancel-requested":
            self._cancelled.add(1, {"oncetask.kind": after.kind})
        if (result := _RESULTS.get(event)) is not None:
            attributes = {
                "oncetask.kind": after.kind,
                "oncetask.phase": "cleanup" if is_cleanup(before) else "run",
                "oncetask.result": result,
            }
            if result in _WITH_ERROR and after.errors:
                attributes["error.type"] = after.errors[-1].type
            self._attempts.add(1, attributes)
        if after.outcome is not None and before.outcome is None:
            ended = {"oncetask.kind": after.kind, "oncetask.outcome": after.outcome.value}
            self._done.add(1, ended)
            if after.cancelled_at is not None and after.done_at is not None:
                self._cancel_duration.record((after.done_at - after.cancelled_at).total_seconds(), ended)
