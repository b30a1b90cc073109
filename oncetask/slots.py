"""How many tasks a worker runs at a time: of each kind, and of all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncetask.app import Handler

__all__ = ["Slots"]


class Slots:
    """Counts what runs, and tells when something ended."""

    def __init__(self, total: int, handlers: Mapping[str, Handler]) -> None:
        """`total`: at most so many at a time; a handler's own `concurrency` limits its kind."""
        self._free = total
        self._total = total
        self._room = {
            kind: total if h.concurrency is None else min(total, h.concurrency) for kind, h in handlers.items()
        }
        self.changed = asyncio.Event()

    @property
    def free(self) -> int:
        """How many more tasks may start."""
        return self._free

    @property
    def taken(self) -> int:
        """How many tasks run."""
        return self._total - self._free

    def room(self) -> dict[str, int]:
        """Give the kinds that may start a task, and how many of each."""
        return {kind: n for kind, n in self._room.items() if n > 0} if self._free > 0 else {}

    def take(self, kind: str) -> None:
        """Count a start."""
        self._free -= 1
        self._room[kind] -= 1

    def give(self, kind: str) -> None:
        """Count an end, and wake who waits for one."""
        self._free += 1
        self._room[kind] += 1
        self.changed.set()
