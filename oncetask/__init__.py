"""oncetask: background tasks on Firestore, without a broker and without servers that idle.

Everything that a program needs is here: payloads, the App and its handlers, clients, the worker, the tick. What runs
tasks is imported when it is first asked for: a Cloud Function that only enqueues starts without it.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from oncetask.app import App
from oncetask.client import Client, connect
from oncetask.clock import Duration
from oncetask.codec import Codec
from oncetask.context import Context, current_context
from oncetask.enqueueing import EnqueueOptions
from oncetask.errors import (
    Discard,
    HandlerAlreadyRegistered,
    InvalidPayload,
    InvalidRecurrence,
    LeaseLost,
    OncetaskError,
    PayloadTooLarge,
    ProcessDied,
    RetryAfter,
    Snooze,
    StoreUnavailable,
    TaskAborted,
    TaskExpired,
    TaskNotFound,
    TaskTimeout,
    UnknownKind,
    Unsupported,
)
from oncetask.handlers import CallNext
from oncetask.payload import Payload
from oncetask.recurrence import Recurrence
from oncetask.retry import ExponentialBackoff, FixedDelay, NoRetry, Retry
from oncetask.task import NO_WAIT, Outcome, Progress, Receipt, Stats, Task, TaskError, TaskPage, TaskStatus
from oncetask.waking import CloudTasksAlarm, HttpKick, NoWaker, Waker

if TYPE_CHECKING:
    from oncetask.drain import TickReport, tick
    from oncetask.sync import SyncClient, connect_sync
    from oncetask.worker import Worker

__all__ = [
    "NO_WAIT",
    "App",
    "CallNext",
    "Client",
    "CloudTasksAlarm",
    "Codec",
    "Context",
    "Discard",
    "Duration",
    "EnqueueOptions",
    "ExponentialBackoff",
    "FixedDelay",
    "HandlerAlreadyRegistered",
    "HttpKick",
    "InvalidPayload",
    "InvalidRecurrence",
    "LeaseLost",
    "NoRetry",
    "NoWaker",
    "OncetaskError",
    "Outcome",
    "Payload",
    "PayloadTooLarge",
    "ProcessDied",
    "Progress",
    "Receipt",
    "Recurrence",
    "Retry",
    "RetryAfter",
    "Snooze",
    "Stats",
    "StoreUnavailable",
    "SyncClient",
    "Task",
    "TaskAborted",
    "TaskError",
    "TaskExpired",
    "TaskNotFound",
    "TaskPage",
    "TaskStatus",
    "TaskTimeout",
    "TickReport",
    "UnknownKind",
    "Unsupported",
    "Waker",
    "Worker",
    "connect",
    "connect_sync",
    "current_context",
    "tick",
]

_LATER = {
    "SyncClient": "oncetask.sync",
    "TickReport": "oncetask.drain",
    "Worker": "oncetask.worker",
    "connect_sync": "oncetask.sync",
    "tick": "oncetask.drain",
}

if not TYPE_CHECKING:  # a checker would take every name for one of these

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(_import_module(_LATER[name]), name)
        return found
