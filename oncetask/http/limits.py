"""A user's function under a time limit: from a call to how it ended.

Nothing here knows requests or sockets; what an outcome means to a client is decided by those who call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from oncetask.clock import Duration, seconds
from oncetask.errors import TaskTimeout
from oncetask.handlers import call_function, is_async

__all__ = ["DEFAULT_TIMEOUT", "Gone", "Limited", "OnError", "Outcome", "Raised", "Returned", "TimedOut"]

DEFAULT_TIMEOUT = 10.0
"""Seconds that a function behind HTTP or a WebSocket may take, unless it is said otherwise."""

GRACE = 1.0
"""Seconds that an answer waits for a function that was told to stop, and for `on_error`."""

REPORT_SECONDS = 10.0
"""Seconds after which an `on_error` that has not ended is cancelled."""

OnError = Callable[[Exception], object]
"""`def` or `async def`; what it returns is not looked at."""

_log = logging.getLogger("oncetask")


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned in time."""

    value: object


@dataclass(frozen=True, slots=True)
class Raised:
    """The function raised in time."""

    error: Exception


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The function reached its limit; `on_error` has been told."""

    error: TaskTimeout


@dataclass(frozen=True, slots=True)
class Gone:
    """Whoever asked has left: nobody wants the result."""


Outcome = Returned | Raised | TimedOut | Gone


class Limited:
    """A function that is called under a time limit, together with the `on_error` that is told of its failures.

    - A call ends within its limit and `GRACE`, whatever the function does. It runs in an asyncio task of its own,
      which is cancelled at the limit, when the caller leaves, and when the task around it is cancelled.
    - What does not stop then is abandoned: that is logged as an error, it is kept alive until it ends, a late result is
      dropped and a late error logged. A thread cannot be cancelled, so a `def` function is abandoned without the grace,
      and what it raises late is dropped too.
    - Only the limit makes a call `TimedOut`; a `TimeoutError` of the function's own is `Raised` like any other error.
    - `on_error` delays nobody by more than `GRACE`; it may go on beside the answer for `REPORT_SECONDS`. What it
      raises is logged.
    """

    def __init__(self, function: Callable[..., object], *, timeout: Duration, on_error: OnError | None) -> None:
        """`timeout`: seconds or timedelta. Raises TypeError or ValueError for what cannot be called or is no limit."""
        if not callable(function):
            msg = f"what is decorated must be a function (options are given by name), not {function!r}"
            raise TypeError(msg)
        if on_error is not None and not callable(on_error):
            msg = f"on_error must be a function of the error, or None, not {on_error!r}"
            raise TypeError(msg)
        self._function = function
        self._on_error = on_error
        self._limit = seconds("timeout", timeout)
        self._running: set[asyncio.Task[object]] = set()  # asyncio itself keeps only weak references
        self.name = getattr(function, "__qualname__", repr(function))

    async def run(self, *arguments: object, gone: asyncio.Future[Any]) -> Outcome:
        """Call the function, until it ends or its limit is reached or `gone` is done.

        Of what the function raises, `on_error` is told by the caller's `report`.
        """
        call = self._start(self._function, *arguments)
        try:
            await asyncio.wait({call, gone}, timeout=self._limit, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._stop(call)
            raise
        if gone.done():  # first, since a function that was reading when its client left has failed by that alone
            await self._stop(call)
            return Gone()
        if call.done():
            return _judge(call)
        _log.warning("%s reached its time limit of %g s", self.name, self._limit)
        error = TaskTimeout(f"the request reached its time limit of {self._limit:g} s")
        await self._stop(call, *self._tell(error))
        return TimedOut(error)

    async def report(self, error: Exception) -> None:
        """Tell `on_error`, and wait for it no longer than `GRACE`."""
        if told := self._tell(error):
            await asyncio.wait(told, timeout=GRACE)

    async def _stop(self, call: asyncio.Task[object], *others: asyncio.Task[object]) -> None:
        """Cancel a call, and wait no longer than `GRACE` for its end and that of the others."""
        call.add_done_callback(self._note_late_error)
        if not call.done():
            call.cancel()
            if not is_async(self._function):
                _log.error("%s is abandoned: its thread cannot be cancelled and runs on", self.name)
            # A timer, since a caller that is cancelled once more is not here any longer to tell.
            timer = asyncio.get_running_loop().call_later(GRACE, self._note_abandoned)
            call.add_done_callback(lambda _: timer.cancel())
        await asyncio.wait({call, *others}, timeout=GRACE)

    def _note_abandoned(self) -> None:
        _log.error("%s ignored its cancellation for %g s and is abandoned, still running", self.name, GRACE)

    def _note_late_error(self, call: asyncio.Task[object]) -> None:
        error = None if call.cancelled() else call.exception()
        if error is not None and not isinstance(error, ClientDisconnect | WebSocketDisconnect):
            _log.warning("%s raised when it was told to stop", self.name, exc_info=error)

    def _tell(self, error: Exception) -> set[asyncio.Task[object]]:
        """Start `on_error`, if there is one, and see to its end."""
        if self._on_error is None:
            return set()
        telling = self._start(self._on_error, error)
        timer = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._give_up, telling)

        def note_end(told: asyncio.Task[object]) -> None:
            timer.cancel()
            failure = None if told.cancelled() else told.exception()
            if failure is not None:
                _log.error("the on_error of %s failed", self.name, exc_info=failure)

        telling.add_done_callback(note_end)
        return {telling}

    def _give_up(self, telling: asyncio.Task[object]) -> None:
        _log.error("the on_error of %s did not end within %g s and is cancelled", self.name, REPORT_SECONDS)
        telling.cancel()

    def _start(self, function: Callable[..., object], *arguments: object) -> asyncio.Task[object]:
        task = asyncio.get_running_loop().create_task(_called(function, *arguments), name=f"oncetask {self.name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


async def _called(function: Callable[..., object], *arguments: object) -> object:
    """Call what may be `def` (in a thread) or `async def`."""
    try:
        return await call_function(function, *arguments)
    except (SystemExit, KeyboardInterrupt) as error:  # in a task these would end the loop, and everybody's requests
        msg = f"the function tried to end its process: {error!r}"
        raise RuntimeError(msg) from error


def _judge(call: asyncio.Task[object]) -> Outcome:
    """Say how a call ended that nobody told to stop."""
    if call.cancelled():
        return Raised(RuntimeError("the function was cancelled from within, not by oncetask"))
    try:
        return Returned(call.result())
    except Exception as error:  # noqa: BLE001  # whatever a function raises is how it ended
        return Raised(error)
