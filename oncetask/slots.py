"""How many tasks a worker runs at a time: of each kind, and of all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncetask.handlers import Handler

__all__ = ["Slot", "Slots"]


class Slots:
    """Counts what runs, and tells when something ended."""

    def __init__(self, total: int, handlers: Mapping[str, Handler]) -> None:
        """`total`: at most so many at a time; a handler's own `concurrency` limits its kind."""
        self._free = total
        self._room = {
            kind: total if h.concurrency is None else min(total, h.concurrency) for kind, h in handlers.items()
        }
        self.changed = asyncio.Event()

    @property
    def free(self) -> int:
        """How many more tasks may start."""
        return self._free

    def room(self) -> dict[str, int]:
        """Give the kinds that may start a task, and how many of each."""
        return {kind: n for kind, n in self._room.items() if n > 0} if self._free > 0 else {}

    def take(self, kind: str) -> Slot:
        """Count a start."""
        self._free -= 1
        self._room[kind] -= 1
        return Slot(self, kind)

    def _give(self, kind: str) -> None:
        self._free += 1
        self._room[kind] += 1
        self.changed.set()


class Slot:
    """One of them, taken."""

    def __init__(self, slots: Slots, kind: str) -> None:
        """Made by `Slots.take`."""
        self._slots: Slots | None = slots
        self._kind = kind

    def give(self) -> None:
        """Count the end, once, and wake who waits for one."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots._give(self._kind)  # noqa: SLF001  # the two are one thing
