"""At which times of a day a rule has instants, computed and not walked to.

A day is cut into slots as long as the rule's frequency: 86,400 seconds, 1,440 minutes, 24 hours, or one day. The rule
visits every INTERVAL-th slot, counted through from its start; a mask says which of these the BY parts let through; and
within each there are the same seconds. All of it is arithmetic on whole numbers, but for the search in the mask.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from math import gcd
from typing import TYPE_CHECKING

from oncetask.recurrence.days import LAST_DAY
from oncetask.recurrence.parts import Freq

if TYPE_CHECKING:
    from datetime import datetime

    from oncetask.recurrence.parts import Parts

__all__ = ["DAY", "Slots", "second_of"]

DAY = 86_400
_LENGTHS = {Freq.HOURLY: 3_600, Freq.MINUTELY: 60, Freq.SECONDLY: 1}
_FEW = 5_000


class Slots:
    """The slots of a rule that it visits."""

    def __init__(self, parts: Parts, start: datetime) -> None:
        """`start`: on the wall clock; what the rule leaves open is taken from it."""
        self._length = _LENGTHS.get(parts.freq, DAY)
        self._a_day = DAY // self._length
        self._interval = parts.interval if parts.freq >= Freq.DAILY else 1
        self._first = start.toordinal() * self._a_day + second_of(start) // self._length
        self.within = _within(parts, start)
        """The seconds from the beginning of a slot to its instants."""
        self._mask = _mask(parts, self._length)
        self.is_open = all(self._mask)
        """Whether every visited slot has instants, whatever the time of day."""
        self._counts: dict[int, int] = {}

    def next_day(self, day: int) -> int | None:
        """Give the first day, not before `day`, that has a visited slot with instants."""
        if not self.within or self._residues == []:
            return None
        found: int | None = day
        if self._residues is not None:
            found = _next_in(self._residues, day, self.days_to_repeat)
        elif self.is_open:
            found = self._next_visited(day * self._a_day) // self._a_day
        elif self._interval <= self._a_day:
            while found is not None and self._in_day(found, 0) is None:
                found = found + 1 if found < LAST_DAY else None
        else:
            slot = self._next_visited(day * self._a_day)
            while slot < (LAST_DAY + 1) * self._a_day and not self._mask[slot % self._a_day]:
                slot += self._interval
            found = slot // self._a_day
        return found if found is not None and found <= LAST_DAY else None

    def next_second(self, day: int, second: int) -> int | None:
        """Give the first second of this day, not before `second`, that is an instant; None: no more on that day."""
        slot, rest = divmod(second, self._length)
        found = self._in_day(day, slot)
        if found == slot:
            place = bisect_left(self.within, rest)
            if place < len(self.within):
                return slot * self._length + self.within[place]
            found = self._in_day(day, slot + 1)
        return None if found is None or not self.within else found * self._length + self.within[0]

    def count_in(self, day: int) -> int:
        """Count the instants of a day."""
        first = self._first_in(day)
        if first not in self._counts:
            self._counts[first] = self._mask[first :: self._interval].count(1) * len(self.within)
        return self._counts[first]

    def count_before(self, day: int, second: int) -> int:
        """Count the instants of a day that come before one of its seconds."""
        slot, rest = divmod(second, self._length)
        first = self._first_in(day)
        number = self._mask[first : slot : self._interval].count(1) * len(self.within)
        return number + (bisect_left(self.within, rest) if self._in_day(day, slot) == slot else 0)

    def count_between(self, day: int, end: int) -> int:
        """Count the instants from one day to another one, without it, where every slot has some."""
        first, behind = self._next_visited(day * self._a_day), self._next_visited(end * self._a_day)
        return (behind - first) // self._interval * len(self.within)

    def _in_day(self, day: int, slot: int) -> int | None:
        """Give the first visited slot of a day, not before `slot`, that the mask lets through."""
        first = self._next_visited(day * self._a_day + slot) - day * self._a_day
        if self.is_open:
            return first if first < self._a_day else None
        place = self._mask[first :: self._interval].find(1)
        return None if place < 0 else first + place * self._interval

    def _first_in(self, day: int) -> int:
        """Give the first visited slot, counted from the beginning of a day; it may lie on a later one."""
        return (self._first - day * self._a_day) % self._interval

    def _next_visited(self, slot: int) -> int:
        return slot + (self._first - slot) % self._interval

    @property
    def days_to_repeat(self) -> int:
        """Give the days after which the visited slots are the same ones again."""
        return self._interval // gcd(self._interval, self._a_day)

    @cached_property
    def _residues(self) -> list[int] | None:
        """Give which days have instants, modulo `days_to_repeat`; None where there are too many to list them.

        A slot of the day is visited on each day d with d * slots-a-day + slot = first (modulo the interval).
        """
        if self.is_open and self._a_day > 1:
            return None
        common = gcd(self._interval, self._a_day)
        offset = self._first % common
        visited = self._mask[offset::common]
        if visited.count(1) > _FEW:
            return None
        repeat = self.days_to_repeat
        if repeat == 1:
            return [0] if 1 in visited else []
        inverse = pow(self._a_day // common, -1, repeat)
        origin = (self._first - offset) // common
        found = set[int]()
        place = visited.find(1)
        while place >= 0:
            found.add((origin - place) * inverse % repeat)
            place = visited.find(1, place + 1)
        return sorted(found)


def second_of(wall: datetime) -> int:
    """Give the second of the day."""
    return wall.hour * 3_600 + wall.minute * 60 + wall.second


def _within(parts: Parts, start: datetime) -> tuple[int, ...]:
    """Give the seconds within a slot: the times that the frequency expands, and not those that it is limited by."""
    hours: tuple[int, ...] = (0,)
    minutes = seconds = hours
    if parts.freq < Freq.HOURLY:
        hours = parts.hours or (start.hour,)
    if parts.freq < Freq.MINUTELY:
        minutes = parts.minutes or (start.minute,)
    if parts.freq < Freq.SECONDLY:
        seconds = parts.seconds or (start.second,)
    all_of_it = tuple(hour * 3_600 + minute * 60 + second for hour in hours for minute in minutes for second in seconds)
    if not parts.positions or parts.freq < Freq.DAILY:
        return all_of_it
    number = len(all_of_it)
    places = {place - 1 if place > 0 else number + place for place in parts.positions}
    return tuple(all_of_it[place] for place in sorted(places) if 0 <= place < number)


def _mask(parts: Parts, length: int) -> bytes:
    """Give a byte for each slot of a day: 1 where the parts that limit the frequency let it through."""
    if length == DAY:
        return b"\x01"
    second = _bytes(60, parts.seconds) if length == 1 else b"\x01"
    minute = _bytes(60, parts.minutes) if length <= 60 else b"\x01"  # noqa: PLR2004  # seconds
    hour = b"".join(second if one else bytes(len(second)) for one in minute)
    return b"".join(hour if one else bytes(len(hour)) for one in _bytes(24, parts.hours))


def _bytes(number: int, wanted: tuple[int, ...]) -> bytes:
    return bytes(not wanted or place in wanted for place in range(number))


def _next_in(residues: list[int], day: int, modulus: int) -> int:
    here = day % modulus
    place = bisect_left(residues, here)
    return day - here + (residues[place] if place < len(residues) else residues[0] + modulus)
