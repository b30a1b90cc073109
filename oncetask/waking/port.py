"""What a waker has to do, and the one that does nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from oncetask.clock import Now

__all__ = ["NoWaker", "Waker"]


class Waker(ABC):
    """Sees to it that a tick runs when something is due.

    Bound to the event loop that uses it; once that one is over, or after `aclose`, another may.
    """

    @abstractmethod
    async def wake(self, at: datetime, *, env: str, now: Now) -> None:
        """Let a tick run at `at`, or soon after; at once where that has passed.

        `at`: aware, by the store's clock. `env`: the environment whose tasks are due. `now`: the store's present,
        asked for after the write that made them due was stored.

        - What woke a tick before this call counts for nothing: that tick may have looked before the write.
        - Never raises, since the write is stored already: what goes wrong is logged, and is left to the next tick.
        - Takes some seconds at most. It is awaited all the same: on Cloud Run nothing runs after the response, so what
          has not left by then stays where it is.
        - What is too far ahead is left to the ticks.
        """

    async def aclose(self) -> None:  # noqa: B027  # not every waker holds something
        """End what is under way and close connections; the next use opens them again."""


class NoWaker(Waker):
    """Leaves everything to the ticks, or to a worker."""

    async def wake(self, at: datetime, *, env: str, now: Now) -> None:
        """Do nothing."""
