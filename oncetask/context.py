"""What a handler is given: its task, the signal to stop, and what it stages for the moment it completes."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Unpack

from oncetask.client import Client
from oncetask.clock import Duration, seconds
from oncetask.enqueueing import EnqueueOptions, new_task
from oncetask.errors import LeaseLost, OncetaskError, TaskAborted, TaskTimeout
from oncetask.lifecycle import attempt_of, is_cleanup

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from datetime import datetime

    from oncetask.payload import Payload
    from oncetask.task import Task

__all__ = ["AbortReason", "AbortSignal", "Context", "current_context", "running_context"]

AbortReason = Literal["timeout", "deadline", "cancelled", "shutdown", "budget", "lease-lost"]

running_context: ContextVar[Context] = ContextVar("oncetask_context")


def current_context() -> Context:
    """Give the context of the handler that this code runs below. Raises OncetaskError outside of any."""
    try:
        return running_context.get()
    except LookupError:
        msg = "current_context() works only below a running handler"
        raise OncetaskError(msg) from None


class AbortSignal:
    """Tells a handler to stop, once and for one reason; set on the event loop, seen from anywhere."""

    def __init__(self) -> None:
        """Start unset."""
        self.reason: AbortReason | None = None
        self._on_loop = asyncio.Event()
        self._in_threads = threading.Event()

    def set(self, reason: AbortReason) -> None:
        """Give the signal."""
        self.reason = reason
        self._on_loop.set()
        self._in_threads.set()

    async def wait(self) -> None:
        """Wait for it on the loop."""
        await self._on_loop.wait()

    def wait_sync(self, timeout: float | None) -> bool:
        """Wait for it in a thread."""
        return self._in_threads.wait(timeout)


class Context:
    """One run of one handler."""

    def __init__(  # the engine's side of it; handlers never call this
        self,
        *,
        tasks: Sequence[Task],
        payload: Payload | None,
        client: Client,
        state: Any,  # whatever the app's lifespan yields
        fencing_token: int,
        limit: float,
        signal: AbortSignal,
    ) -> None:
        """`limit`: the seconds that this run may take, from now. `tasks`: several for a batch handler, in order."""
        self.task = tasks[0]
        """The task as it was claimed; of a batch, the first."""
        self.tasks = tuple(tasks)
        """The tasks of this run: those of a batch, else just the one."""
        self.client = client
        self.state = state
        self.fencing_token = fencing_token
        """The version time of the claim in µs: constant for the lease, rising per task. Hand it to systems that can
        refuse a writer who comes too late. A cleanup has one of its own, which is greater than its handler's."""
        self._payload = payload
        self._signal = signal
        self._clock = client.store.clock
        self._ends = self._clock.monotonic() + limit
        self.deadline: datetime = self._clock.now().earliest + timedelta(seconds=limit)
        """When this run is told to stop (aware)."""
        self._staged: dict[str, Task] = {}
        self._batch: Any = None

    @property
    def payload(self) -> Payload:
        """The typed data of the task; of a batch, the first's.

        Raises OncetaskError in an error handler whose payload did not validate.
        """
        if self._payload is None:
            msg = f"the payload of task {self.task_id!r} does not validate; its raw form is ctx.task.data"
            raise OncetaskError(msg)
        return self._payload

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.task.id

    @property
    def kind(self) -> str:
        """The task's kind."""
        return self.task.kind

    @property
    def attempt(self) -> int:
        """1 for the first attempt; in a cancellation handler, of the cleanup; in a batch, of the task tried most."""
        return max(map(attempt_of, self.tasks))

    @property
    def remaining(self) -> float:
        """Seconds until this run is told to stop; never negative."""
        return max(0.0, self._ends - self._clock.monotonic())

    @property
    def aborted(self) -> bool:
        """True once this run has been told to stop."""
        return self._signal.reason is not None

    @property
    def abort_reason(self) -> AbortReason | None:
        """Why this run was told to stop; None while it was not."""
        return self._signal.reason

    async def wait_aborted(self) -> None:
        """Wait until this run is told to stop."""
        await self._signal.wait()

    def wait_aborted_sync(self, timeout: Duration | None = None) -> bool:
        """Wait in a thread, at most `timeout` seconds, until this run is told to stop; tells whether it was."""
        return self._signal.wait_sync(None if timeout is None else seconds("timeout", timeout, zero=True))

    def raise_if_aborted(self) -> None:
        """Raise TaskTimeout, LeaseLost or TaskAborted once this run has been told to stop."""
        reason = self._signal.reason
        if reason is None:
            return
        error = {"timeout": TaskTimeout, "lease-lost": LeaseLost}.get(reason, TaskAborted)
        msg = f"task {self.task_id!r} was told to stop: {reason}"
        raise error(msg)

    def enqueue(self, payload: Payload, **options: Unpack[EnqueueOptions]) -> str:
        """Stage a new task and give its id: it is stored together with this task's completion, or not at all.

        Not awaited. One whose id exists or is staged already is left out. Options and errors: `Client.enqueue`'s.
        """
        task = new_task(payload, options, self._clock.now(), place=len(self._staged))
        if task.id not in {own.id for own in self.tasks}:
            self._staged.setdefault(task.id, task)
        return task.id

    @property
    def batch(self) -> Any:  # google.cloud.firestore.AsyncWriteBatch, whose import takes a second
        """A Firestore write batch of your own writes, committed with this task's completion or not at all.

        Raises Unsupported on SQLite.
        """
        if self._batch is None:
            self._batch = self.client.store.new_batch()
        return self._batch

    @property
    def staged(self) -> tuple[tuple[Task, ...], Any]:
        """What the completion takes along: the new tasks, and the user's batch or None."""
        return tuple(self._staged.values()), self._batch

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names the task in every line, and in `extra` for structured logs."""
        cleanup = is_cleanup(self.task)
        extra = {"task_id": self.task_id, "kind": self.kind, "attempt": self.attempt, "cleanup": cleanup}
        return _TaskLogger(logging.getLogger(f"oncetask.task.{self.kind}"), extra)


class _TaskLogger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        extra = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        phase = "cleanup " if extra["cleanup"] else ""
        return f"[{extra['kind']} {extra['task_id']} {phase}#{extra['attempt']}] {msg}", {**kwargs, "extra": extra}
