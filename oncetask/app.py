"""The registry: which handler runs which kind, and under what limits. No I/O, no globals."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, Unpack

from oncetask.clock import Duration, check_instant, seconds
from oncetask.context import Context
from oncetask.enqueueing import ScheduleOptions
from oncetask.errors import HandlerAlreadyRegistered, UnknownKind
from oncetask.handlers import (
    MOST_IN_BATCH,
    Cleanup,
    ErrorHandler,
    Handler,
    Middleware,
    check_count,
    check_function,
    check_importable,
    is_async,
)
from oncetask.payload import Payload, kind_of
from oncetask.recurrence import Recurrence
from oncetask.retry import ExponentialBackoff, Retry
from oncetask.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["App", "Lifespan"]

P = TypeVar("P", bound=Payload)
R = TypeVar("R")
F = TypeVar("F", bound=Callable[[Context, Any], object])
E = TypeVar("E", bound="ErrorHandler")
M = TypeVar("M", bound="Middleware")

Lifespan = Callable[[], AbstractAsyncContextManager[object]]

DEFAULT_TIMEOUT = 300.0
_DEFAULT_NAME = "default"
_HIGHEST_PRIORITY = 100


class Registers(Protocol[P]):
    """A decorator that registers a function for a payload type and gives it back unchanged."""

    def __call__(self, function: Callable[[Context, P], R], /) -> Callable[[Context, P], R]:
        """Register `function`."""


class RegistersBatch(Protocol[P]):
    """As `Registers`, for functions that take a list of payloads."""

    def __call__(self, function: Callable[[Context, list[P]], R], /) -> Callable[[Context, list[P]], R]:
        """Register `function`."""


class App:
    """A registry of handlers. Several may live in one process; `include` puts one into another."""

    def __init__(
        self,
        name: str = _DEFAULT_NAME,
        *,
        timeout: Duration = DEFAULT_TIMEOUT,
        deadline: datetime | None = None,
        retry: Retry | None = None,
        lifespan: Lifespan | None = None,
    ) -> None:
        """`timeout` (seconds or timedelta), `deadline` (aware) and `retry` are the defaults of its handlers.

        `lifespan`: makes an async context manager; what it yields is `ctx.state`. A worker opens it on its loop, and
        only that of the App that it was given, not of included ones.
        """
        if not isinstance(name, str) or not name:
            msg = f"name must be a text with at least one character, not {name!r}"
            raise ValueError(msg)
        self.name = name
        self._timeout = seconds("timeout", timeout)
        self._deadline = _check_deadline(deadline)
        self._retry = _check_retry(retry) or ExponentialBackoff()
        self._lifespan = lifespan
        self._handlers: dict[str, Handler] = {}
        self._cleanups: dict[str, Cleanup] = {}
        self._middlewares: list[Middleware] = []
        self._error_handlers: list[ErrorHandler] = []
        self._schedules: list[Schedule] = []
        self._included: list[App] = []

    def handler(
        self,
        payload_type: type[P],
        *,
        timeout: Duration | None = None,
        deadline: datetime | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        priority: int = 1,
        strict_order: bool = False,
        run_in: Literal["process"] | None = None,
    ) -> Registers[P]:
        """Register the function that runs this kind; `async def`, or `def`, which runs in a thread.

        `timeout`: of one attempt, in seconds or as a timedelta. `deadline`: the instant (aware) after which no task
        of this kind runs any more. Both hold where the task itself says nothing; what is left out is the App's.
        `concurrency`: per worker. `priority`, 1 to 100: where slots are scarce, a kind with 3 gets three times as
        many as one with 1, and none gets nothing. `strict_order`: while a task waits for its next attempt, or snoozes,
        no other of its resource key runs; without it they may. `run_in="process"`: a `def` function runs in another
        process, which is killed when it has to stop; for work that keeps a CPU busy. Raises HandlerAlreadyRegistered
        where the kind has a handler.
        """
        return self._registers(
            payload_type,
            timeout=timeout,
            deadline=deadline,
            retry=retry,
            concurrency=concurrency,
            priority=priority,
            strict_order=strict_order,
            run_in=run_in,
        )

    def batch_handler(
        self,
        payload_type: type[P],
        *,
        max_batch: int = 100,
        timeout: Duration | None = None,
        deadline: datetime | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        priority: int = 1,
        strict_order: bool = False,
        run_in: Literal["process"] | None = None,
    ) -> RegistersBatch[P]:
        """Register the function that runs due tasks of one resource key in one call, as a list of their payloads.

        They are the beginning of the key's line, in order. `max_batch`: at most so many at a time, 1 to 400. Tasks
        without a key come alone, and so does, where a failed attempt came before it, the last attempt of each: one bad
        task does not fail the others. `timeout`: of the call, whatever the tasks say. What it returns is the result
        of every task; each keeps its own attempts. Otherwise as `handler`.
        """
        check_count("max_batch", max_batch, most=MOST_IN_BATCH)
        return self._registers(
            payload_type,
            timeout=timeout,
            deadline=deadline,
            retry=retry,
            concurrency=concurrency,
            priority=priority,
            strict_order=strict_order,
            run_in=run_in,
            max_batch=max_batch,
        )

    def cancellation_handler(
        self, payload_type: type[P], *, timeout: Duration | None = None, retry: Retry | None = None
    ) -> Registers[P]:
        """Register the function that cleans up after cancelled tasks of this kind, `async def` or `def`.

        It is called for each cancelled task, also for those that never started, and again by its policy until it
        succeeds: so make it idempotent. `timeout`: of one attempt; left out, the task's. `retry`: its own policy,
        with its own count of attempts; left out, the handler's policy. The kind's handler has to be in the same App,
        registered before or after. Raises HandlerAlreadyRegistered where the kind has a cancellation handler.
        """
        kind = _check_payload_type(payload_type)
        limit = None if timeout is None else seconds("timeout", timeout)
        policy = _check_retry(retry)

        def register(function: Callable[[Context, P], R], /) -> Callable[[Context, P], R]:
            if kind in self._cleanups:
                msg = f"kind {kind!r} has a cancellation handler already in app {self.name!r}"
                raise HandlerAlreadyRegistered(msg)
            place = check_function(function, kind)
            self._cleanups[kind] = Cleanup(function=function, runs_in=place, timeout=limit, retry=policy)
            return function

        return register

    def error_handler(self, function: E) -> E:
        """Call this after every failed attempt, with the context and the error; `async def`, or `def` (in a thread)."""
        if not callable(function):
            msg = f"error_handler takes a function (ctx, error), not {function!r}"
            raise TypeError(msg)
        self._error_handlers.append(function)
        return function

    def middleware(self, function: M) -> M:
        """Wrap every handler call; the first one registered is the outermost."""
        if not callable(function) or not is_async(function):
            msg = f"middleware takes an `async def` function (ctx, call_next), not {function!r}"
            raise TypeError(msg)
        self._middlewares.append(function)
        return function

    def schedule(self, name: str, payload: Payload, recurrence: Recurrence, **options: Unpack[ScheduleOptions]) -> None:
        """Declare that a payload is enqueued again and again: a generator, `{name of the App}:{name}`.

        Workers and ticks of this App create it, change it where the declaration has changed, and leave it alone
        otherwise: one that somebody cancelled stays cancelled. Apps that share an environment need names of their
        own. `options`: as `Client.enqueue` takes them, but for the id and the time. Raises ValueError for a name that
        is declared already, and what `enqueue` would raise.
        """
        if not isinstance(name, str) or not name:
            msg = f"name must be a text with at least one character, not {name!r}"
            raise ValueError(msg)
        if unfit := {"task_id", "wait_until", "delay"} & options.keys():
            msg = f"a schedule takes no {min(unfit)!r}: its id comes from its name, its times from its recurrence"
            raise TypeError(msg)
        if not isinstance(recurrence, Recurrence):
            msg = f"recurrence must be a Recurrence such as Recurrence.cron('0 9 * * MON'), not {recurrence!r}"
            raise TypeError(msg)
        schedule = Schedule(self.name, name, payload, recurrence, options)
        schedule.check()
        self._refuse_second_schedule([schedule])
        self._schedules.append(schedule)

    def names(self) -> set[str]:
        """Give the names under which this App may have declared schedules, now or in an earlier version of the code.

        An App that declares none and has no name of its own is left out: some other service's has that name too.
        """
        return {app.name for app in self.apps() if app._schedules or app.name != _DEFAULT_NAME}  # noqa: SLF001  # as below

    def schedules(self) -> list[Schedule]:
        """Give the declared schedules, included ones too."""
        return [schedule for app in self.apps() for schedule in app._schedules]  # noqa: SLF001  # an App's own

    def include(self, other: App) -> None:
        """Take in another App's handlers and schedules.

        The handlers keep its defaults, and its middleware and error handlers inside of ours; the schedules its name.
        """
        if not isinstance(other, App) or self in other.apps():
            msg = f"include takes another App that does not include this one, not {other!r}"
            raise TypeError(msg)
        for kind in other.kinds():
            self._refuse_second(kind)
        self._refuse_second_schedule(other.schedules())
        self._included.append(other)

    def kinds(self) -> list[str]:
        """Give the kinds that have a handler, included ones too."""
        return [kind for app in self.apps() for kind in app._handlers]  # noqa: SLF001  # an App's own

    def handlers(self) -> Mapping[str, Handler]:
        """Give the handler of each kind, included ones too, with everything that applies to it.

        Raises UnknownKind for a cancellation handler whose kind has no handler in the same App.
        """
        for kind in self._cleanups.keys() - self._handlers.keys():
            raise UnknownKind(kind, list(self._handlers))
        outer, outer_errors = tuple(self._middlewares), tuple(self._error_handlers)
        found = {
            kind: replace(handler, cleanup=self._cleanups.get(kind), middlewares=outer, error_handlers=outer_errors)
            for kind, handler in self._handlers.items()
        }
        for app in self._included:
            for kind, handler in app.handlers().items():
                if kind in found:
                    msg = f"kind {kind!r} has a handler in {self.name!r} and another in {app.name!r}"
                    raise HandlerAlreadyRegistered(msg)
                found[kind] = replace(
                    handler,
                    middlewares=(*outer, *handler.middlewares),
                    error_handlers=(*outer_errors, *handler.error_handlers),
                )
        return found

    def payload_type(self, kind: str) -> type[Payload]:
        """Give the payload class of a kind. Raises UnknownKind."""
        handlers = self.handlers()
        if kind not in handlers:
            raise UnknownKind(kind, list(handlers))
        return handlers[kind].payload_type

    def open_lifespan(self) -> AbstractAsyncContextManager[object]:
        """Give the context manager around a worker's life."""
        return nullcontext() if self._lifespan is None else self._lifespan()

    def apps(self) -> list[App]:
        """Give this App and all that it includes."""
        return [self, *(deep for app in self._included for deep in app.apps())]

    def _registers(
        self,
        payload_type: type[Payload],
        *,
        timeout: Duration | None,
        deadline: datetime | None,
        retry: Retry | None,
        concurrency: int | None,
        priority: int,
        strict_order: bool,
        run_in: Literal["process"] | None,
        max_batch: int | None = None,
    ) -> Callable[[F], F]:
        kind = _check_payload_type(payload_type)
        if run_in is not None and run_in != "process":
            msg = f"run_in must be 'process', or left out, not {run_in!r}"
            raise ValueError(msg)
        if concurrency is not None:
            check_count("concurrency", concurrency)
        check_count("priority", priority, most=_HIGHEST_PRIORITY)
        if not isinstance(strict_order, bool):
            msg = f"strict_order must be True or False, not {strict_order!r}"
            raise TypeError(msg)
        limit = self._timeout if timeout is None else seconds("timeout", timeout)
        end = _check_deadline(deadline) or self._deadline
        policy = _check_retry(retry) or self._retry

        def register(function: F, /) -> F:
            self._refuse_second(kind)
            check = check_function if run_in is None else check_importable
            self._handlers[kind] = Handler(
                payload_type=payload_type,
                function=function,
                runs_in=check(function, kind),
                timeout=limit,
                deadline=end,
                retry=policy,
                concurrency=concurrency,
                max_batch=max_batch,
                priority=priority,
                strict_order=strict_order,
            )
            return function

        return register

    def _refuse_second_schedule(self, new: Sequence[Schedule]) -> None:
        known = {schedule.task_id for schedule in self.schedules()}
        for schedule in new:
            if schedule.task_id in known:
                msg = f"schedule {schedule.name!r} is declared already by an app named {schedule.app!r}"
                raise ValueError(msg)

    def _refuse_second(self, kind: str) -> None:
        if kind in self.kinds():
            msg = f"kind {kind!r} has a handler already in app {self.name!r}: one kind, one handler"
            raise HandlerAlreadyRegistered(msg)


def _check_payload_type(payload_type: type[Payload]) -> str:
    """Check that something is a Payload class with a kind, and give that."""
    if not isinstance(payload_type, type):
        msg = f"a handler is registered for a Payload class, not for {payload_type!r}"
        raise TypeError(msg)
    return kind_of(payload_type)


def _check_deadline(deadline: datetime | None) -> datetime | None:
    return None if deadline is None else check_instant("deadline", deadline)


def _check_retry(retry: Retry | None) -> Retry | None:
    if retry is not None and not isinstance(retry, Retry):
        msg = f"retry must be a Retry, such as ExponentialBackoff(), FixedDelay(5, 10) or NoRetry(), not {retry!r}"
        raise TypeError(msg)
    return retry
