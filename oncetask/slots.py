"""How many tasks a worker runs at a time: of each kind, and of all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from oncetask.handlers import Handler

__all__ = ["Room", "Slot", "Slots"]


class Room:
    """What may start now: so many in all, of each kind, and in processes of their own."""

    def __init__(
        self,
        total: int,
        kinds: Mapping[str, int],
        processes: int,
        in_process: Collection[str],
        paused: frozenset[str] = frozenset(),
    ) -> None:
        """`kinds`: all kinds, with what is left of their own limit. `in_process`: those that need a process."""
        self._total, self._kinds, self._processes, self._in_process = total, dict(kinds), processes, in_process
        self.paused = paused
        """Kinds of which none may start, whatever there is room for."""

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of which one may start."""
        return frozenset(filter(self.has, self._kinds))

    @property
    def unpaused(self) -> frozenset[str]:
        """The kinds that are not paused, whether there is room for them or not."""
        return frozenset(self._kinds) - self.paused

    def __bool__(self) -> bool:
        return any(map(self.has, self._kinds))

    def has(self, kind: str) -> bool:
        """Tell whether one of this kind may start."""
        left = min(self._total, self._kinds.get(kind, 0))
        return left > 0 and kind not in self.paused and (kind not in self._in_process or self._processes > 0)

    def take(self, kind: str, number: int = 1) -> None:
        """Count a start; a negative number counts its end."""
        self._total -= number
        self._kinds[kind] -= number
        if kind in self._in_process:
            self._processes -= number

    def copy(self) -> Room:
        """Give another one to plan with."""
        return Room(self._total, self._kinds, self._processes, self._in_process, self.paused)


class Slots:
    """Counts what runs, and tells when something ended."""

    def __init__(self, total: int, handlers: Mapping[str, Handler], *, processes: int) -> None:
        """`total`: at most so many at a time; a handler's own `concurrency` limits its kind.

        `processes`: at most so many in processes of their own, of all kinds together.
        """
        kinds = {kind: total if h.concurrency is None else min(total, h.concurrency) for kind, h in handlers.items()}
        in_process = frozenset(kind for kind, handler in handlers.items() if handler.runs_in == "process")
        self.room = Room(total, kinds, processes, in_process)
        """What may start now."""
        self.changed = asyncio.Event()

    def take(self, kind: str) -> Slot:
        """Count a start."""
        self.room.take(kind)
        return Slot(self, kind)

    @property
    def is_held_up(self) -> bool:
        """True where nothing may start, though it is not for a pause: threads that were given up hold the slots."""
        return not self.room and bool(self.room.unpaused)

    def pause(self, kinds: frozenset[str]) -> bool:
        """Let none of these kinds start, and of others again; tells whether that is a change."""
        if kinds == self.room.paused:
            return False
        self.room.paused = kinds
        self.changed.set()
        return True

    def _give(self, kind: str) -> None:
        self.room.take(kind, -1)
        self.changed.set()


class Slot:
    """One of them, taken."""

    def __init__(self, slots: Slots, kind: str) -> None:
        """Made by `Slots.take`."""
        self._slots: Slots | None = slots
        self._kind = kind

    def pass_on(self, kind: str) -> bool:
        """Use it for a task of this kind from now on; False: there is no room for one."""
        if self._slots is None:
            return False
        self._slots.room.take(self._kind, -1)
        fits = self._slots.room.has(kind)
        self._kind = kind if fits else self._kind
        self._slots.room.take(self._kind)
        return fits

    def give(self) -> None:
        """Count the end, once, and wake who waits for one."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots._give(self._kind)  # noqa: SLF001  # the two are one thing
