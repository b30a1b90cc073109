"""The instants of a rule on a wall clock: where the days and the times of a day meet."""

from __future__ import annotations

from bisect import bisect_left
from datetime import date, datetime, time, timedelta
from functools import cached_property
from math import lcm
from typing import TYPE_CHECKING, Protocol

from oncetask.recurrence.days import DAYS_OF_CALENDAR, Days
from oncetask.recurrence.parts import Freq
from oncetask.recurrence.times import Slots, second_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncetask.recurrence.parts import Parts

__all__ = ["RuleWalk", "Walk"]


class Walk(Protocol):
    """Instants on a wall clock, as naive datetimes in whole seconds."""

    def at_or_after(self, wall: datetime) -> datetime | None:
        """Give the first instant that is not before `wall`, in whole seconds; None: there is none any more."""


class RuleWalk:
    """A `Walk` of an RRULE."""

    def __init__(self, parts: Parts, start: datetime, begin: datetime) -> None:
        """`start`: the wall clock's time of `dtstart`, from which the rule takes what it leaves open.

        `begin`: nothing before it, and COUNT counts from there; mostly the same.
        """
        self._start = begin
        self._count = parts.count
        self._slots = Slots(parts, start)
        self._days = Days(parts, start, self._slots.within)
        self._has_slots = parts.freq >= Freq.DAILY
        self._before_years: dict[int, int] = {}

    def at_or_after(self, wall: datetime) -> datetime | None:
        """Give the first instant that is not before `wall`."""
        wall = max(wall, self._start)
        day, second = wall.toordinal(), second_of(wall)
        found = self._first(day, second)
        if found is None or (self._count is not None and self._number_before(day, second) >= self._count):
            return None
        day, second = found
        return datetime.combine(date.fromordinal(day), time()) + timedelta(seconds=second)

    def _first(self, day: int, second: int) -> tuple[int, int] | None:
        found = self._next_day(day)
        if found == day:
            on_it = self._next_second(day, second)
            if on_it is not None:
                return day, on_it
            found = self._next_day(day + 1)
        if found is None:
            return None
        earliest = self._next_second(found, 0)
        return None if earliest is None else (found, earliest)

    def _next_day(self, day: int) -> int | None:
        """Leap from the next day of the rule to the next with a visited slot, and back, until they meet."""
        found: int | None = day
        end = day + lcm(DAYS_OF_CALENDAR, self._slots.days_to_repeat)  # where they have not met by then, they never do
        while found is not None and found <= end:
            named = self._days.next(found)
            if named is None or not self._has_slots:
                return named
            found = self._slots.next_day(named)
            if found == named:
                return named
        return None

    def _next_second(self, day: int, second: int) -> int | None:
        if self._has_slots:
            return self._slots.next_second(day, second)
        times = self._days.times_of(day)
        place = bisect_left(times, second)
        return times[place] if place < len(times) else None

    def _number_before(self, day: int, second: int) -> int:
        """Count the instants from the start to a moment."""
        earlier = self._before_start
        return self._up_to(day, second, earlier + (self._count or 0)) - earlier

    @cached_property
    def _before_start(self) -> int:
        return self._up_to(self._start.toordinal(), second_of(self._start))

    def _up_to(self, day: int, second: int, enough: int = 0) -> int:
        """Count the instants before a moment, from the first of January of the start's year, or as many as `enough`."""
        first = date(self._start.year, 1, 1).toordinal()
        year = date.fromordinal(day).year
        if self._has_slots and self._days.every_day and self._slots.is_open:
            return self._slots.count_between(first, day) + self._slots.count_before(day, second)
        number = self._before(year, enough)
        days, times = self._days.of(year)
        earlier = days[: bisect_left(days, day)]
        number += self._in_days(earlier, times)
        if len(earlier) < len(days) and days[len(earlier)] == day:
            if self._has_slots:
                number += self._slots.count_before(day, second)
            else:
                number += bisect_left(self._days.times_of(day), second)
        return number

    def _before(self, year: int, enough: int) -> int:
        """Count the instants of all years before this one, from the start's on, or as many as `enough`."""
        known = max((y for y in tuple(self._before_years) if y <= year), default=self._start.year)  # of any thread
        number = self._before_years.get(known, 0)
        while known < year and number < enough:
            number += self._in_days(*self._days.of(known))
            known += 1
            self._before_years[known] = number
        return number

    def _in_days(self, days: Sequence[int], times: Mapping[int, Sequence[int]] | None) -> int:
        if self._has_slots:
            return sum(map(self._slots.count_in, days))
        if times is None:
            return len(days) * len(self._slots.within)
        return sum(len(times[day]) for day in days)
