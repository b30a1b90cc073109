"""When what is waiting to be sent leaves: with everything that the event loop is just about to add to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Departure"]

_MOST_ROUNDS = 5


class Departure:
    """Calls `leave` in a turn of the event loop soon after `join`: once a whole turn has added nothing.

    Of what many asyncio tasks are about to send, much follows from the same event: handlers end, which makes room for
    others, which are claimed. To wait for that takes microseconds, and saves a flush of the disk.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        """`leave` sends what is waiting; on the running loop."""
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._joined = 0
        self._is_near = False

    def join(self) -> None:
        """Say that there is something more to send."""
        self._joined += 1
        if not self._is_near:
            self._is_near = True
            self._loop.call_soon(self._look, self._joined, _MOST_ROUNDS)

    def _look(self, joined: int, rounds: int) -> None:
        if rounds and self._joined > joined:
            self._loop.call_soon(self._look, self._joined, rounds - 1)
            return
        self._is_near = False
        self._leave()
