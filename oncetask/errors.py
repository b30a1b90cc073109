"""Every error that oncetask raises on purpose, one tree.

OncetaskError
├── TaskNotFound
├── UnknownKind
├── InvalidPayload (ValueError)
├── InvalidRecurrence (ValueError)
├── PayloadTooLarge (ValueError)
├── HandlerAlreadyRegistered
├── TaskAborted
│   └── LeaseLost
├── TaskTimeout (TimeoutError)
│   └── TaskExpired
├── ProcessDied
├── StoreUnavailable
└── Unsupported

What a handler raises to say what it wants (`Discard`, `Snooze`, `RetryAfter`) stands at the end: these are
instructions to the engine, not errors of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

__all__ = [
    "Discard",
    "HandlerAlreadyRegistered",
    "InvalidPayload",
    "InvalidRecurrence",
    "LeaseLost",
    "OncetaskError",
    "PayloadTooLarge",
    "ProcessDied",
    "RetryAfter",
    "Snooze",
    "StoreUnavailable",
    "TaskAborted",
    "TaskExpired",
    "TaskNotFound",
    "TaskTimeout",
    "UnknownKind",
    "Unsupported",
]


class OncetaskError(Exception):
    """The root of everything that oncetask raises on purpose. All of them can be pickled."""


class TaskNotFound(OncetaskError):
    """No task has this id in this environment."""

    def __init__(self, task_id: str) -> None:
        """Keep the id, so that callers need not parse the message."""
        super().__init__(f"no task has the id {task_id!r} in this environment")
        self.task_id = task_id

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.task_id,), vars(self)


class UnknownKind(OncetaskError):
    """No handler of the App at hand is registered for this kind."""

    def __init__(self, kind: str, known: Sequence[str]) -> None:
        """Name the kind and those that would have been right."""
        names = ", ".join(sorted(known)) or "none"
        super().__init__(f"kind {kind!r} has no handler in this app; it has handlers for: {names}")
        self.kind = kind
        self.known = tuple(known)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.kind, self.known), vars(self)


class InvalidPayload(OncetaskError, ValueError):
    """A payload does not validate, or would come back different from the store."""


class InvalidRecurrence(OncetaskError, ValueError):
    """A recurrence rule is malformed, or has no instant at all."""


class PayloadTooLarge(OncetaskError, ValueError):
    """A document would outgrow what the store can hold (Firestore: 1 MiB)."""


class HandlerAlreadyRegistered(OncetaskError):
    """A second handler was registered for a kind that has one."""


class TaskAborted(OncetaskError):
    """Raised by `Context.raise_if_aborted` once the run has been told to stop."""


class LeaseLost(TaskAborted):
    """The lease of a running task ended, or went to another worker: nothing more can be written for it."""


class TaskTimeout(OncetaskError, TimeoutError):
    """An attempt reached its time limit."""


class TaskExpired(TaskTimeout):
    """A task's deadline passed."""


class ProcessDied(OncetaskError):
    """The process in which a handler ran (`run_in="process"`) ended before the handler did."""


class StoreUnavailable(OncetaskError):
    """The store did not answer, or refused to, and trying again did not help."""

    def __init__(self, message: str, *, receipts: Sequence[object] = ()) -> None:
        """`receipts`: what `enqueue_many` had stored before the failure; repeating the whole call is safe."""
        super().__init__(message)
        self.receipts = tuple(receipts)


class Unsupported(OncetaskError):
    """This store cannot do that."""


class Discard(Exception):  # an instruction, named as handlers say it
    """Raised by a handler: fail this task now, do not retry it."""


class Snooze(Exception):  # an instruction, named as handlers say it
    """Raised by a handler: run this task again after `delay` (seconds or timedelta); no attempt is spent."""

    def __init__(self, delay: float | timedelta) -> None:
        """Keep the delay; it is checked when the engine reads it."""
        super().__init__(f"snoozed for {delay}")
        self.delay = delay

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.delay,), vars(self)


class RetryAfter(Exception):  # an instruction, named as handlers say it
    """Raised by a handler: this attempt failed; if the policy grants another one, it starts after `delay`."""

    def __init__(self, delay: float | timedelta, message: str = "") -> None:
        """`delay`: seconds or timedelta. `message`: what is kept as the reason of the failure."""
        super().__init__(message or f"to be tried again after {delay}")
        self.delay = delay

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.delay, *self.args), vars(self)
