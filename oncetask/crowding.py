"""Where in the due line a worker reads next while others read it too, and how much.

All who begin at its head find the same tasks and try to claim the same ones: of W workers W - 1 are refused. So one who
is refused goes on somewhere behind what it has read, a random piece further each time, and from the end of the line
to its head again. It reads less at a time, since what has been read for long is somebody else's by then. Whoever
meets nobody stays at the head: first in, first out.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from oncetask.ids import new_id
from oncetask.store import Cursor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncetask.task import Task

__all__ = ["LOWEST_ID", "Crowding"]

_SMALLEST_PART = 8
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)
_LONGEST_LEAP = 8.0  # times what was read: so many places are there to be at, at most
_FORGETS = 0.5
_ALONE = 0.02
LOWEST_ID = "!"
"""No id sorts before it: with an instant it is the place before all that is due then."""


class Crowding:
    """Notes how many claims are refused, and says where to read."""

    def __init__(self, ahead: int) -> None:
        """`ahead`: how many tasks one reads who has been alone for some time."""
        self._most = ahead
        self._least = self._page = max(1, ahead // _SMALLEST_PART)
        self._refused = 0.0
        self._after: Cursor | None = None

    def claimed(self, *, refused: int, tried: int) -> bool:
        """Take note of claims; tells whether the rest of what was read had better be left to others.

        That is where they were faster with all: to try the rest costs more than to read anew.
        """
        self._refused = _FORGETS * self._refused + (1 - _FORGETS) * refused / tried
        return refused == tried

    @property
    def is_felt(self) -> bool:
        """Tell whether others read the line at present."""
        return self._refused > _ALONE

    @property
    def page(self) -> int:
        """How many tasks to read."""
        return self._page

    @property
    def place(self) -> Cursor | None:
        """Give where to read; None: at the head of the line."""
        return self._after if self.is_felt else None

    def read(self, found: Sequence[Task], *, is_full: bool) -> None:
        """Take note of what was there: a piece behind it is where to read next; behind the end there is the head."""
        self._page = self._least if self.is_felt else min(self._most, 2 * self._page)
        first, last = (found[0].due_at, found[-1].due_at) if is_full else (None, None)
        if first is None or last is None:
            self._after = None
        elif first == last:  # many that are due at one instant stand in the order of their ids
            self._after = Cursor(last, new_id())
        else:
            leap = random.random() * _LONGEST_LEAP  # noqa: S311  # spreading, not hiding
            rest = _END_OF_TIME - last  # somebody's dueAt in the year 1 would leap beyond the calendar
            self._after = Cursor(last + min(leap * (last - first), rest), LOWEST_ID)
