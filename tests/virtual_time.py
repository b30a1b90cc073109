"""An event loop whose time is made up: hours pass in a moment, and every run is the same.

Whenever nothing is ready, the loop's time jumps to its next timer. So code that knows no time but the loop's (sleeps,
timeouts, `call_later`) runs as it would, only that nobody waits. Threads and sockets are not for such a loop: it does
not wait for them.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from tests.support import T0

__all__ = ["LoopClock", "VirtualTimeLoop", "in_virtual_time", "run_virtual"]

P = ParamSpec("P")
T = TypeVar("T")

_LIMIT_SECONDS = 7 * 86_400.0


class LoopClock:
    """Clocks of a machine that agree with the running loop: it is T0 when its time is zero."""

    def wall(self) -> datetime:
        """Give the time of day."""
        return T0 + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Give the loop's time."""
        return asyncio.get_running_loop().time()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that begins at zero and jumps to its next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.passed = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Give the seconds that have passed."""
        return self.passed


class _Jumping(selectors.DefaultSelector):
    """What the loop would sleep in."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass at once."""
        if timeout is None:
            raise AssertionError("everything waits for something that never comes: there is no timer")
        if timeout > 0:
            self._loop.passed = round(self._loop.passed + timeout, 9)  # so that 0.1 + 0.2 is 0.3
        return super().select(0)


def run_virtual(work: Coroutine[Any, Any, T], *, limit: float = _LIMIT_SECONDS) -> T:
    """Run a coroutine on a virtual loop of its own; fail loudly if that takes more than `limit` virtual seconds."""

    async def limited() -> T:
        async with asyncio.timeout(limit):
            return await work

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(limited())


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make an ordinary test out of one that is a coroutine: it runs in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtual(test(*args, **kwargs))

    return run
