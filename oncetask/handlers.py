"""What is called for a task, and under which limits: a kind's handler, and its cancellation handler."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from oncetask.context import Context
from oncetask.threads import in_thread

if TYPE_CHECKING:
    from datetime import datetime

    from oncetask.payload import Payload
    from oncetask.retry import Retry
    from oncetask.task import Task

__all__ = [
    "MOST_IN_BATCH",
    "Call",
    "CallNext",
    "Cleanup",
    "ErrorHandler",
    "Handler",
    "Middleware",
    "Place",
    "call_function",
    "check_count",
    "check_function",
    "check_importable",
    "is_async",
]

MOST_IN_BATCH = 400
"""The members of a batch are claimed, and completed, by one commit, which Firestore bounds."""

CallNext = Callable[[], Awaitable[object]]
"""What a middleware calls to go on: the next middleware, or the handler; gives what the handler returns."""

Middleware = Callable[[Context, CallNext], Awaitable[object]]
ErrorHandler = Callable[[Context, Exception], Awaitable[None] | None]
Place = Literal["loop", "thread", "process"]
"""Where a function runs: `async def` on the worker's event loop, `def` in a thread or in a process of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """A kind's cancellation handler."""

    function: Callable[[Context, Any], object]
    runs_in: Place
    timeout: float | None
    """Seconds that one attempt may take; None: as long as one at the task."""
    retry: Retry | None
    """None: the task's policy, with a count of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One kind's function, with everything that applies to it settled."""

    payload_type: type[Payload]
    function: Callable[[Context, Any], object]
    runs_in: Place
    timeout: float
    """Seconds that one attempt may take, where the task itself says nothing."""
    deadline: datetime | None = None
    """The moment after which no task of this kind runs any more, where the task itself says nothing."""
    retry: Retry
    concurrency: int | None
    """How many calls for this kind one worker runs at a time; None: as many as it has slots."""
    max_batch: int | None = None
    """How many tasks of one resource key a call takes, as a list; None: one, by itself."""
    priority: int = 1
    """The share of this kind where slots are scarce, relative to those of other kinds."""
    strict_order: bool = False
    """A task that failed or snoozed keeps its place, so that the others of its resource key wait for it."""
    cleanup: Cleanup | None = None
    """What to call for cancelled tasks; None: nothing."""
    middlewares: tuple[Middleware, ...] = ()
    error_handlers: tuple[ErrorHandler, ...] = ()

    @property
    def has_cleanup(self) -> bool:
        """True where there is something to call for a cancelled task."""
        return self.cleanup is not None

    def deadline_of(self, task: Task) -> datetime | None:
        """Give the moment at which a task of this kind ends, done or not; None: never. A cleanup knows none."""
        return None if task.is_cancelled else task.deadline or self.deadline

    def is_over(self, task: Task, instant: datetime) -> bool:
        """Tell whether a task's deadline is not after this instant."""
        deadline = self.deadline_of(task)
        return deadline is not None and deadline <= instant

    def keeps_place(self, task: Task) -> bool:
        """Tell whether a task that is put back keeps its place in the line of its resource key."""
        return self.strict_order and task.resource_key is not None

    def called_for(self, task: Task) -> Call:
        """Say what is called for a task as it stands, its handler or its cleanup, and under which limits."""
        if self.cleanup is not None and task.is_cancelled:
            cleanup = self.cleanup
            limit = cleanup.timeout or task.timeout or self.timeout
            return Call(cleanup.function, cleanup.runs_in, limit, cleanup.retry or self.retry)
        if self.max_batch is not None:
            return Call(self.function, self.runs_in, self.timeout, self.retry, takes_list=True)
        return Call(self.function, self.runs_in, task.timeout or self.timeout, self.retry)


class Call(NamedTuple):
    """One call of user code for a task."""

    function: Callable[[Context, Any], object]
    runs_in: Place
    limit: float
    """Seconds that it may take."""
    retry: Retry
    takes_list: bool = False


def check_count(name: str, value: int, *, most: int | None = None) -> None:
    """Check a number of something; ValueError names it."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        msg = f"{name} must be a whole number, 1 or more, not {value!r}"
        raise ValueError(msg)
    if most is not None and value > most:
        msg = f"{name} must be at most {most}, not {value!r}"
        raise ValueError(msg)


def check_function(function: object, kind: str) -> Place:
    """Check that something can be called as a handler, and tell where it runs: on the loop, or in a thread."""
    if not callable(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"the handler of kind {kind!r} must be a function (ctx, payload), `async def` or `def`, not {function!r}"
        raise TypeError(msg)
    return "loop" if is_async(function) else "thread"


def check_importable(function: object, kind: str) -> Place:
    """Check that another process can find a handler by its name."""
    name = getattr(function, "__qualname__", "<")
    if check_function(function, kind) == "loop" or not inspect.isfunction(function) or "<" in name:
        msg = (
            f"the handler of kind {kind!r} with run_in='process' must be a `def` function of a module, which another "
            f"process can import by its name, not {function!r}"
        )
        raise TypeError(msg)
    return "process"


def is_async(function: Callable[..., object]) -> bool:
    """Tell whether calling it gives a coroutine, through partials and objects with an async `__call__` too."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # an object whose __call__ is async
    )


async def call_function(function: Callable[..., object], *arguments: object) -> object:
    """Call what may be `async def`, or `def`, which runs in a thread; whatever can be awaited of it is."""
    answer = function(*arguments) if is_async(function) else await in_thread(function, *arguments)
    return await answer if inspect.isawaitable(answer) else answer
