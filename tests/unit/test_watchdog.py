"""Whom the watchdog blames; what it notices is tested with a worker."""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from types import FrameType

from oncetask.watchdog import _only_waits

LIMIT = 20.0


def test_a_loop_that_waits_for_events_is_not_blocked_by_anybody() -> None:
    """Where it stands in its selector, and does not turn, its thread is not let run: nobody's code is to blame."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert _only_waits(_frame_in(thread, selectors.__file__))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LIMIT)
        loop.close()


def test_code_that_waits_for_a_lock_is_to_blame() -> None:
    """A thread that waits because its code said so is told by that code."""
    started, event = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        event.wait(LIMIT)

    thread = threading.Thread(target=wait)
    thread.start()
    assert started.wait(LIMIT)
    try:
        assert not _only_waits(_frame_in(thread, threading.__file__))
    finally:
        event.set()
        thread.join(LIMIT)


def test_code_that_computes_is_to_blame() -> None:
    """A frame of anybody's code is that."""
    assert not _only_waits(sys._getframe())


def _frame_in(thread: threading.Thread, file: str) -> FrameType:
    """Wait until a thread stands in a file, and give the innermost frame there."""
    ends = time.monotonic() + LIMIT
    while time.monotonic() < ends:
        frame = sys._current_frames().get(thread.ident or 0)
        while frame is not None and frame.f_code.co_filename != file:  # what watches the tests may stand before it
            frame = frame.f_back
        if frame is not None:
            return frame
    raise AssertionError(file)
