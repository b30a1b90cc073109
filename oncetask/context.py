"""What a handler is given: its task, the signal to stop, and what it stages for the moment it completes."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, Unpack

from oncetask.client import Client
from oncetask.clock import Duration, seconds
from oncetask.enqueueing import EnqueueOptions, new_task
from oncetask.errors import LeaseLost, OncetaskError, TaskAborted, TaskExpired, TaskTimeout, Unsupported
from oncetask.lifecycle import attempt_of, is_cleanup
from oncetask.store.fitting import new_progress
from oncetask.threads import this_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping, Sequence
    from datetime import datetime

    from oncetask.clock import StoreClock
    from oncetask.payload import Payload
    from oncetask.task import Progress, Task
    from oncetask.threads import Work

__all__ = ["AbortReason", "AbortSignal", "Budget", "Context", "TimeLimit", "current_context", "running_context"]

AbortReason = Literal["timeout", "deadline", "cancelled", "shutdown", "budget", "lease-lost"]

running_context: ContextVar[Context] = ContextVar("oncetask_context")


def current_context() -> Context:
    """Give the context of the handler that this code runs below. Raises OncetaskError outside of any."""
    try:
        return running_context.get()
    except LookupError:
        msg = "current_context() works only below a running handler"
        raise OncetaskError(msg) from None


_WHOLE = 0.9
_ERRORS: dict[AbortReason, type[OncetaskError]] = {
    "timeout": TaskTimeout,
    "deadline": TaskExpired,
    "lease-lost": LeaseLost,
}


@dataclass(slots=True)
class Budget:
    """The time that a tick has: nothing runs beyond its end."""

    total: float
    """Seconds."""
    ends: float
    """A reading of this machine's monotonic clock."""
    lost: float = 0.0
    """Seconds that passed before anything could be run: the store and the App's lifespan had to be opened."""

    def is_whole(self, reading: float) -> bool:
        """Tell whether what starts now has the budget to itself, but for what it takes to find and claim it."""
        return self.ends - reading >= _WHOLE * self.total - self.lost


class TimeLimit(NamedTuple):
    """When a run is told to stop, and what for."""

    reason: Literal["timeout", "deadline", "budget"]
    ends: float
    """The reading of this machine's monotonic clock."""
    at: datetime

    @classmethod
    def from_now(
        cls, timeout: float, deadline: datetime | None, clock: StoreClock, budget: Budget | None = None
    ) -> Self:
        """Say when a run that starts now has to stop: after `timeout` seconds, at its deadline or that of the budget.

        Whichever is first; should they fall together, it is the deadline, after which there is no other attempt.
        """
        now, reading = clock.now(), clock.monotonic()
        reason: Literal["timeout", "budget"] = "timeout"
        if budget is not None and budget.ends - reading < timeout:
            reason, timeout = "budget", budget.ends - reading
        if deadline is not None and (left := (deadline - now.latest).total_seconds()) <= timeout:
            return cls("deadline", reading + left, deadline)
        return cls(reason, reading + timeout, now.earliest + timedelta(seconds=timeout))


_making = threading.Lock()


class AbortSignal:
    """Tells a handler to stop, once and for one reason; set on the event loop, seen from anywhere."""

    def __init__(self) -> None:
        """Start unset."""
        self.reason: AbortReason | None = None
        self._on_loop = asyncio.Event()
        self._in_threads: threading.Event | None = None  # made for the first who waits: few do, and it takes two locks
        self._at_rest: list[Work] = []

    def set(self, reason: AbortReason) -> None:
        """Give the signal."""
        self._on_loop.set()
        with _making:
            self.reason = reason
            in_threads = self._in_threads
            at_rest, self._at_rest = self._at_rest, []
        for work in at_rest:
            work.add(1)
        if in_threads is not None:
            in_threads.set()

    async def wait(self) -> None:
        """Wait for it on the loop."""
        await self._on_loop.wait()

    def wait_sync(self, timeout: float | None) -> bool:
        """Wait for it in a thread."""
        with _making:
            if self.reason is not None:
                return True
            if self._in_threads is None:
                self._in_threads = threading.Event()
            if timeout is None and (work := this_work()) is not None:
                work.add(-1)  # it does nothing until the loop gives the signal
                self._at_rest.append(work)
        return self._in_threads.wait(timeout)


class Context:
    """One run of one handler."""

    def __init__(  # the engine's side of it; handlers never call this
        self,
        *,
        tasks: Sequence[Task],
        payload: Payload | None,
        client: Client | None,
        state: Any,  # whatever the app's lifespan yields
        clock: StoreClock,
        fencing_token: int,
        limit: TimeLimit,
        signal: AbortSignal,
        tell: Callable[[Progress], None],
    ) -> None:
        """`tasks`: several for a batch handler, in order. `tell`: takes what it says of its progress, on any thread.

        `client`: None in a process of its own, where `state` is None as well.
        """
        self.task = tasks[0]
        """The task as it was claimed; of a batch, the first."""
        self.tasks = tuple(tasks)
        """The tasks of this run: those of a batch, else just the one."""
        self.limit = limit
        self.fencing_token = fencing_token
        """The version time of the claim in µs: constant for the lease, rising per task. Hand it to systems that can
        refuse a writer who comes too late. A cleanup has one of its own, which is greater than its handler's."""
        self._payload = payload
        self._client = client
        self._state = state
        self._signal = signal
        self._clock = clock
        self._tell = tell
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
    def client(self) -> Client:
        """The worker's client. Raises Unsupported in a handler that runs in a process of its own."""
        if self._client is None:
            msg = "ctx.client and ctx.batch stay in the worker's process; in this one connect_sync() makes a client"
            raise Unsupported(msg)
        return self._client

    @property
    def state(self) -> Any:  # whatever the app's lifespan yields
        """What the App's lifespan yields. Raises Unsupported in a handler that runs in a process of its own."""
        if self._client is None:
            msg = "ctx.state stays in the worker's process: open here what the handler needs here"
            raise Unsupported(msg)
        return self._state

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
    def deadline(self) -> datetime:
        """When this run is told to stop (aware): at the end of its time limit, or at the task's deadline before."""
        return self.limit.at

    @property
    def remaining(self) -> float:
        """Seconds until this run is told to stop, to the microsecond; never negative. A limit to give to a library."""
        return max(0.0, round(self.limit.ends - self._clock.monotonic(), 6))

    @property
    def aborted(self) -> bool:
        """True once this run has been told to stop. A process of its own is killed instead, and never sees it."""
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
        """Raise TaskTimeout, TaskExpired, LeaseLost or TaskAborted once this run has been told to stop."""
        reason = self._signal.reason
        if reason is not None:
            msg = f"task {self.task_id!r} was told to stop: {reason}"
            raise _ERRORS.get(reason, TaskAborted)(msg)

    def progress(self, fraction: float | None, message: str | None = None, data: object = None) -> None:
        """Tell how far this run is: everybody who watches or shows the task sees it, and so does the next attempt.

        Not awaited: the engine writes it, at most once a second and the last one always, together with whatever else
        is written. That a write fails is logged, and harms nobody. `fraction`: 0 to 1, None where that is not known.
        `message`: cut to 2 KiB. `data`: anything that JSON can hold, up to 8 KiB.

        Raises TypeError and ValueError for values that cannot be kept, PayloadTooLarge.
        """
        self._tell(new_progress(fraction, message, data, at=self._clock.now().earliest))

    def enqueue(self, payload: Payload, **options: Unpack[EnqueueOptions]) -> str:
        """Stage a new task and give its id: it is stored together with this task's completion, or not at all.

        Not awaited. One whose id exists or is staged already is left out. Options and errors: `Client.enqueue`'s.
        """
        task = new_task(payload, options, self._clock.now(), place=len(self._staged))
        self.stage([task])
        return task.id

    @property
    def batch(self) -> Any:  # google.cloud.firestore.AsyncWriteBatch, whose import takes a second
        """A Firestore write batch of your own writes, committed with this task's completion or not at all.

        Raises Unsupported on SQLite.
        """
        if self._batch is None:
            self._batch = self.client.store.new_batch()
        return self._batch

    def stage(self, tasks: Iterable[Task]) -> None:
        """Add records that are made already."""
        own = {task.id for task in self.tasks}
        for task in tasks:
            if task.id not in own:
                self._staged.setdefault(task.id, task)

    def only(self, tasks: Sequence[Task], payload: Payload) -> Context:
        """Give the same context with some of its tasks, and the payload of the first."""
        other = copy(self)
        other.task, other.tasks = tasks[0], tuple(tasks)
        other._payload = payload  # noqa: SLF001  # its own class
        return other

    def let_go(self) -> None:
        """Take no more of what a handler says of its progress, since its run is over."""
        self._tell = _to_nobody

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


def _to_nobody(_: Progress) -> None:
    """Take what comes too late."""


class _TaskLogger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        extra = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        phase = "cleanup " if extra["cleanup"] else ""
        return f"[{extra['kind']} {extra['task_id']} {phase}#{extra['attempt']}] {msg}", {**kwargs, "extra": extra}
