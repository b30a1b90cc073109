"""From a wall clock to the time of the world and back: RFC 5545 section 3.3.5.

A local time that does not exist, since the clocks were put forward, takes the offset before the gap; one that exists
twice, since they were put back, is the first of the two. That is what `fold=0` means to `zoneinfo`.
"""

from __future__ import annotations

import difflib
from datetime import MAXYEAR, UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

from oncetask.errors import InvalidRecurrence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oncetask.recurrence.walk import Walk

__all__ = ["WallClock"]

_LONGEST = 100
_OF_THE_MACHINE = {"localtime", "posixrules", "Factory"}  # these mean something else on each
_SECOND = timedelta(seconds=1)
_LONGEST_GAP = timedelta(hours=25)  # Samoa left out the 30th of December 2011


class WallClock:
    """The wall clock of an IANA zone."""

    def __init__(self, name: str) -> None:
        """`name`: such as Europe/Berlin. Raises InvalidRecurrence for an unknown zone, TypeError."""
        if not isinstance(name, str):
            msg = f"timezone must be the name of an IANA zone such as 'Europe/Berlin', not {name!r}"
            raise TypeError(msg)
        if len(name) > _LONGEST:  # the import system, which looks for it in tzdata, fails in other ways then
            msg = f"timezone {name[:80]!r} is no IANA zone that this machine knows: it is too long"
            raise InvalidRecurrence(msg)
        try:
            self._zone = ZoneInfo("/" if name in _OF_THE_MACHINE else name)
        except (KeyError, ValueError, OSError) as error:
            near = difflib.get_close_matches(name, _known_zones(), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "it must be one such as Europe/Berlin or UTC"
            msg = f"timezone {name!r} is no IANA zone that this machine knows: {hint}"
            raise InvalidRecurrence(msg) from error

    def wall(self, instant: datetime) -> datetime:
        """Give the wall clock's time, naive, in whole seconds. Raises OverflowError outside of the years 1 to 9999."""
        return instant.astimezone(self._zone).replace(tzinfo=None, microsecond=0, fold=0)

    def instant(self, wall: datetime) -> datetime:
        """Give the instant, in UTC, that a wall clock's time means. Raises OverflowError as `wall`."""
        return wall.replace(tzinfo=self._zone).astimezone(UTC)

    def begin(self, instant: datetime) -> datetime:
        """Give the first wall clock's time that means this instant or a later one.

        That is its own, but in what comes twice, where the second time nothing begins again.
        """
        wall, local = self.wall(instant), instant.astimezone(self._zone)
        return self._first_not(self._comes_twice, wall, wall + _LONGEST_GAP) if local.fold else wall

    def end(self, until: datetime) -> datetime | None:
        """Give the instant of a rule's local end; None where that is behind the year 9999."""
        try:
            return self.instant(until)
        except OverflowError:
            return None if until.year == MAXYEAR else datetime.min.replace(tzinfo=UTC)

    def next_after(self, instant: datetime, walk: Walk) -> datetime | None:
        """Give the first instant of a walk that is later than `instant`; None: there is none up to the year 9999.

        Behind the beginning of a gap, times that do not exist and times that do may come in the other order.
        """
        try:
            return min(self._candidates(instant, walk), default=None)
        except OverflowError:
            return None

    def _candidates(self, instant: datetime, walk: Walk) -> Iterator[datetime]:
        if self._is_fixed:
            wall = walk.at_or_after(self.wall(instant) + _SECOND)
            if wall is not None:
                yield self.instant(wall)
            return
        local = instant.astimezone(self._zone)
        start = local.replace(tzinfo=None, microsecond=0, fold=0) + _SECOND
        if local.fold:  # what comes again comes no second time
            start = max(start, self.begin(instant))
        if gap := self._gap_before(instant, local):
            skipped = walk.at_or_after(start - gap)
            if skipped is not None and self.instant(skipped) > instant:
                yield self.instant(skipped)
        wall = walk.at_or_after(start)
        if wall is None:
            return
        yield self.instant(wall)
        if self._is_skipped(wall):
            behind = walk.at_or_after(self._first_not(self._is_skipped, wall, wall + _LONGEST_GAP))
            if behind is not None:
                yield self.instant(behind)

    @cached_property
    def _is_fixed(self) -> bool:
        return self._zone.key == "UTC"

    def _gap_before(self, instant: datetime, local: datetime) -> timedelta | None:
        """Give how far the clocks were put forward in the last hours."""
        earlier = (instant - _LONGEST_GAP).astimezone(self._zone)
        gap = (local.utcoffset() or timedelta()) - (earlier.utcoffset() or timedelta())
        return gap if gap > timedelta() else None

    def _is_skipped(self, wall: datetime) -> bool:
        return self.instant(wall).astimezone(self._zone).replace(tzinfo=None) != wall

    def _comes_twice(self, wall: datetime) -> bool:
        first, second = (wall.replace(tzinfo=self._zone, fold=fold).utcoffset() for fold in (0, 1))
        return first != second and not self._is_skipped(wall)

    def _first_not(self, holds: Callable[[datetime], bool], low: datetime, high: datetime) -> datetime:
        """Give the first wall clock's time from `low` on at which something does not hold any more, by bisection."""
        if not holds(low):
            return low
        while high - low > _SECOND:
            middle = low + (high - low) // (2 * _SECOND) * _SECOND
            low, high = (middle, high) if holds(middle) else (low, middle)
        return high


@lru_cache(1)
def _known_zones() -> frozenset[str]:
    return frozenset(available_timezones())  # which looks into hundreds of files
