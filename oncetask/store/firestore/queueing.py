"""What waits to be sent: as much of it leaves together as fits, a document at most once at a time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Iterable

__all__ = ["Queue", "Unit"]


class Unit(Protocol):
    """What is sent as a whole: one write, or several that belong together."""

    @property
    def names(self) -> Collection[str]:
        """The documents that it writes."""

    @property
    def size(self) -> int:
        """Its bytes."""

    @property
    def done(self) -> asyncio.Future[Any]:
        """What came of it; done before it was taken: nobody waits for it any more."""


U = TypeVar("U", bound=Unit)


class Queue(Generic[U]):
    """Units in the order of their submission, and the documents that are busy with those that were taken.

    Units that share a document are taken in their order, each after the one before was freed; others overtake them.
    """

    def __init__(self, *, most_writes: int, most_bytes: int) -> None:
        """At most so much is taken at once, or a single unit that is larger."""
        self._most_writes = most_writes
        self._most_bytes = most_bytes
        self._waiting: deque[U] = deque()
        self._writes = 0
        self._bytes = 0
        self._busy: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """True where as much waits as can be taken at once."""
        return self._writes >= self._most_writes or self._bytes >= self._most_bytes

    def put(self, unit: U) -> None:
        """Let a unit wait."""
        self._waiting.append(unit)
        self._count(unit, 1)

    def take(self) -> list[U]:
        """Take as much as fits from the head of the queue, leaving busy documents there in their order."""
        taken: list[U] = []
        left: list[U] = []
        held: set[str] = set()
        writes = size = 0
        while self._waiting and (not taken or self._fits(self._waiting[0], writes, size)):
            unit = self._waiting.popleft()
            names = unit.names
            if unit.done.done():  # its caller has gone, and nothing was sent yet
                self._count(unit, -1)
            elif self._busy.isdisjoint(names) and held.isdisjoint(names):
                self._count(unit, -1)
                taken.append(unit)
                self._busy.update(names)
                writes, size = writes + len(names), size + unit.size
            else:
                left.append(unit)
                held.update(names)  # what comes later must not overtake it
        self._waiting.extendleft(reversed(left))
        return taken

    def free(self, units: Iterable[U]) -> None:
        """Tell that units which were taken are settled."""
        for unit in units:
            self._busy.difference_update(unit.names)

    def _fits(self, unit: U, writes: int, size: int) -> bool:
        return writes + len(unit.names) <= self._most_writes and size + unit.size <= self._most_bytes

    def _count(self, unit: U, times: int) -> None:
        self._writes += times * len(unit.names)
        self._bytes += times * unit.size
