"""Blocking functions beside the event loop, each in a daemon thread of its own.

A pool would wait at the interpreter's exit for a handler that never returns, and an abandoned one would hold a place
in it; starting a thread costs some tens of microseconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_thread"]


T = TypeVar("T")


def in_thread(function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:  # passed on
    """Start `function` in a thread, within the current context variables, and give the future of its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    within = contextvars.copy_context()

    def settle(result: object, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(cast("T", result))
        else:
            future.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = within.run(function, *arguments)
        except Exception as raised:  # noqa: BLE001  # handed to whoever awaits the future
            error = (
                raised if not isinstance(raised, StopIteration) else RuntimeError(f"{function} raised StopIteration")
            )
        except BaseException as raised:  # noqa: BLE001  # SystemExit and the like end this thread only
            error = RuntimeError(f"{function} tried to end its process: {raised!r}")
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="oncetask-handler", daemon=True).start()
    return future
