"""Who blocks the event loop: a thread beside it that notices, and says whose code it is.

A handler that does not come back from a call keeps every other one from running, and leases from being renewed. Asyncio
itself can only say so in debug mode, and only afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from oncetask import threads
from oncetask.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Watchdog"]

_MOMENT_SECONDS = 0.2
_WAIT = {threading.__file__, selectors.__file__}
_OURS = {threads.__file__, asyncio.base_events.__file__}
_log = logging.getLogger("oncetask")


class Watchdog:
    """Watches the running event loop, as long as there is something on it that may block."""

    def __init__(self, describe: Callable[[asyncio.Task[Any] | None], str], *, after: float) -> None:
        """`after`: seconds without a turn of the loop that are told.

        `describe`: says whose an asyncio task is; it is called in the watchdog's thread.
        """
        self._describe = describe
        self._after = after
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._awake, self._turned, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="oncetask-watchdog", daemon=True)

    def start(self) -> None:
        """Begin, asleep."""
        self._thread.start()

    def wake(self) -> None:
        """Watch from now on."""
        if not self._awake.is_set():  # setting it takes a lock, and this is called for every run
            self._awake.set()

    def sleep(self) -> None:
        """Leave the loop alone: nothing runs on it that could block."""
        self._awake.clear()

    async def aclose(self) -> None:
        """End, and wait for that, which takes no time."""
        self._closed.set()
        self._awake.set()
        self._turned.set()
        await in_thread(self._thread.join)

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._awake.wait()
            self._turned.clear()
            try:
                self._loop.call_soon_threadsafe(self._turned.set)
            except RuntimeError:  # the loop is closed
                return
            # The second wait is for a process that stood still as a whole, this thread too: its loop turns at once.
            if not self._turned.wait(self._after) and not self._turned.wait(_MOMENT_SECONDS):
                self._tell()
            self._closed.wait(self._after)  # not at every turn, since each look wakes the loop

    def _tell(self) -> None:
        began = time.monotonic() - self._after - _MOMENT_SECONDS
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  # as faulthandler and debuggers do
        if frame is not None and _only_waits(frame):
            whose = f"{threading.active_count()} threads that compete for the interpreter"
            advice = 'Work for the CPU belongs into a handler with run_in="process".'
        else:
            whose = self._describe(asyncio.current_task(self._loop))
            advice = "Blocking code belongs into a `def` handler, or into asyncio.to_thread."
        where = "".join(traceback.format_stack(frame)) if frame is not None else "(its stack cannot be read)\n"
        _log.error(
            "the event loop has been blocked for %.1f s by %s: no other handler runs, and no lease is renewed. "
            "%s It is here:\n%s",
            time.monotonic() - began,
            whose,
            advice,
            where,
        )
        self._turned.wait()
        if not self._closed.is_set():
            _log.warning("the event loop goes on after %.1f s; it was blocked by %s", time.monotonic() - began, whose)


def _only_waits(frame: FrameType) -> bool:
    """Tell whether the loop stands where it starts a thread, or looks for events: it would go on if it were let."""
    where: FrameType | None = frame
    while where is not None and where.f_code.co_filename in _WAIT:
        where = where.f_back
    return where is not None and where is not frame and where.f_code.co_filename in _OURS
