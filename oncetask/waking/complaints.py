"""What went wrong, said once in a while: ten thousand enqueues without a network are not ten thousand log lines."""

from __future__ import annotations

import logging

from oncetask.clock import Clock, SystemClock

__all__ = ["Complaints"]

_EVERY = 60.0
"""Seconds for which a complaint keeps the following ones quiet."""

_log = logging.getLogger("oncetask")


class Complaints:
    """The warnings of one waker."""

    def __init__(self, clock: Clock | None = None) -> None:
        """`clock`: tells how long ago the last one was; left out: this machine's."""
        self._clock = clock or SystemClock()
        self._said: float | None = None
        self._unsaid = 0

    def say(self, what: str) -> None:
        """Log a warning, unless there was one within the last minute; then it is counted for the next one."""
        now = self._clock.monotonic()
        if self._said is not None and now - self._said < _EVERY:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more failures since the last warning)" if self._unsaid else ""
        self._said, self._unsaid = now, 0
        _log.warning("a task is stored, but no tick was woken for it, so it waits for the next one: %s%s", what, more)
