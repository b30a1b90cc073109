"""How a command that runs tasks ends: at a signal in good order, and whatever a user's handlers are still doing."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from oncetask.cli.exits import DONE, FAILED, INTERRUPTED, code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

__all__ = ["leave_soon", "run_to_the_end", "stopped_by_signals"]

_LAST_SECONDS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("oncetask")


@contextmanager
def stopped_by_signals() -> Iterator[asyncio.Event]:
    """Give an event that SIGTERM or Ctrl-C sets while the block runs; a second signal ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        _log.info("asked to stop")
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_to_the_end(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run `work`, then go on, whatever of the user's handlers is still running: their leases say so.

    `asyncio.run` would wait for coroutines that ignore their cancellation, and for threads; but what was to end in
    order has ended when `work` has.
    """
    runner, code = asyncio.Runner(), FAILED
    try:
        runner.run(work())
        code = DONE
    except KeyboardInterrupt:  # where `work` does not listen to signals itself, or before and after it does
        _leave(INTERRUPTED)
    except Exception as error:
        code = code_of(error) or FAILED
        raise
    finally:
        limit = leave_soon(code)
        runner.close()
        limit.cancel()


def leave_soon(code: int) -> threading.Timer:
    """End this process in a second, unless it has ended by itself or the timer is cancelled by then."""
    limit = threading.Timer(_LAST_SECONDS, _leave, (code, "handlers are still running; not waiting for them"))
    limit.daemon = True
    limit.start()
    atexit.register(limit.cancel)  # all threads have ended by then
    return limit


def _leave(code: int, why: str = "") -> NoReturn:
    if why:
        _log.warning("%s", why)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
