"""Blocking functions beside the event loop, each in a daemon thread of its own.

A pool would wait at the interpreter's exit for a handler that never returns, and an abandoned one would hold a place
in it; starting a thread costs some tens of microseconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Work", "in_thread", "this_work", "work_of"]


T = TypeVar("T")

_counting = threading.Lock()


class Work:
    """How many functions of one event loop are at work in threads: what a loop with a time of its own has to know."""

    def __init__(self) -> None:
        """Nothing is."""
        self.number = 0
        """Those that do something; one that waits for its loop does not."""

    def add(self, number: int) -> None:
        """Count one more, or one less (-1); on any thread."""
        with _counting:
            self.number += number


_works: WeakKeyDictionary[asyncio.AbstractEventLoop, Work] = WeakKeyDictionary()
_this: ContextVar[Work | None] = ContextVar("oncetask_thread_work", default=None)


def work_of(loop: asyncio.AbstractEventLoop) -> Work:
    """Give what is counted for a loop."""
    work = _works.get(loop)
    if work is None:
        work = _works[loop] = Work()
    return work


def this_work() -> Work | None:
    """Give the count that this thread's function is part of; None: it was not started here."""
    return _this.get()


def in_thread(function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:  # passed on
    """Start `function` in a thread, within the current context variables, and give the future of its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    within, counted = contextvars.copy_context(), work_of(loop)

    def settle(result: object, error: BaseException | None) -> None:
        counted.add(-1)
        if future.cancelled():
            return
        if error is None:
            future.set_result(cast("T", result))
        else:
            future.set_exception(error)

    def call() -> T:
        _this.set(counted)
        return function(*arguments)

    def work() -> None:
        result, error = None, None
        try:
            result = within.run(call)
        except Exception as raised:  # noqa: BLE001  # handed to whoever awaits the future
            error = (
                raised if not isinstance(raised, StopIteration) else RuntimeError(f"{function} raised StopIteration")
            )
        except BaseException as raised:  # noqa: BLE001  # SystemExit and the like end this thread only
            error = RuntimeError(f"{function} tried to end its process: {raised!r}")
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    counted.add(1)
    threading.Thread(target=work, name="oncetask-handler", daemon=True).start()
    return future
