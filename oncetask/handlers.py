"""What is called for a task, and under which limits: a kind's handler, and its cancellation handler."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from oncetask.context import Context

if TYPE_CHECKING:
    from oncetask.payload import Payload
    from oncetask.retry import Retry
    from oncetask.task import Task

__all__ = ["Call", "CallNext", "Cleanup", "ErrorHandler", "Handler", "Middleware", "check_function", "is_async"]

CallNext = Callable[[], Awaitable[object]]
"""What a middleware calls to go on: the next middleware, or the handler; gives what the handler returns."""

Middleware = Callable[[Context, CallNext], Awaitable[object]]
ErrorHandler = Callable[[Context, Exception], Awaitable[None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """A kind's cancellation handler."""

    function: Callable[[Context, Any], object]
    is_async: bool
    timeout: float | None
    """Seconds that one attempt may take; None: as long as one at the task."""
    retry: Retry | None
    """None: the task's policy, with a count of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One kind's function, with everything that applies to it settled."""

    payload_type: type[Payload]
    function: Callable[[Context, Any], object]
    is_async: bool
    timeout: float
    """Seconds that one attempt may take, where the task itself says nothing."""
    retry: Retry
    concurrency: int | None
    """How many calls for this kind one worker runs at a time; None: as many as it has slots."""
    max_batch: int | None = None
    """How many tasks of one resource key a call takes, as a list; None: one, by itself."""
    cleanup: Cleanup | None = None
    """What to call for cancelled tasks; None: nothing."""
    middlewares: tuple[Middleware, ...] = ()
    error_handlers: tuple[ErrorHandler, ...] = ()

    @property
    def has_cleanup(self) -> bool:
        """True where there is something to call for a cancelled task."""
        return self.cleanup is not None

    def called_for(self, task: Task) -> Call:
        """Say what is called for a task as it stands, its handler or its cleanup, and under which limits."""
        if self.cleanup is not None and task.is_cancelled:
            cleanup = self.cleanup
            limit = cleanup.timeout or task.timeout or self.timeout
            return Call(cleanup.function, cleanup.is_async, limit, cleanup.retry or self.retry)
        if self.max_batch is not None:
            return Call(self.function, self.is_async, self.timeout, self.retry, takes_list=True)
        return Call(self.function, self.is_async, task.timeout or self.timeout, self.retry)


class Call(NamedTuple):
    """One call of user code for a task."""

    function: Callable[[Context, Any], object]
    is_async: bool
    limit: float
    """Seconds that it may take."""
    retry: Retry
    takes_list: bool = False


def check_function(function: object, kind: str) -> bool:
    """Check that something can be called as a handler, and tell whether it is `async def`."""
    if not callable(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"the handler of kind {kind!r} must be a function (ctx, payload), `async def` or `def`, not {function!r}"
        raise TypeError(msg)
    return is_async(function)


def is_async(function: Callable[..., object]) -> bool:
    """Tell whether calling it gives a coroutine, through partials and objects with an async `__call__` too."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # an object whose __call__ is async
    )
