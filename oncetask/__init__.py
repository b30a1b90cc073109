"""oncetask: background tasks on Firestore, without a broker and without servers that idle.

Everything that a program needs is here: payloads, the App and its handlers, clients, the worker, the tick.
"""

from oncetask.app import App
from oncetask.client import Client, connect
from oncetask.clock import Duration
from oncetask.context import Context, current_context
from oncetask.drain import TickReport, tick
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
from oncetask.sync import SyncClient, connect_sync
from oncetask.task import NO_WAIT, Outcome, Progress, Receipt, Stats, Task, TaskError, TaskPage, TaskStatus
from oncetask.waking import CloudTasksAlarm, HttpKick, NoWaker, Waker
from oncetask.worker import Worker

__all__ = [
    "NO_WAIT",
    "App",
    "CallNext",
    "Client",
    "CloudTasksAlarm",
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
