"""Which days of a year a rule names. The calendar is dateutil's; what it would have to walk to is computed here."""

from __future__ import annotations

import calendar
from bisect import bisect_left
from datetime import MAXYEAR, date, datetime
from math import lcm
from typing import TYPE_CHECKING, NamedTuple

from dateutil.rrule import YEARLY, rrule, weekday

from oncetask.recurrence.parts import Freq, Parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["DAYS_OF_CALENDAR", "LAST_DAY", "Days", "Year"]

LAST_DAY = date.max.toordinal()
DAYS_OF_CALENDAR = 146_097
"""After so many days, which are 400 years and whole weeks, the calendar repeats."""

_YEARS, _MONTHS, _WEEKS = 400, 4_800, 20_871  # the same in other units
_ONCE = MAXYEAR  # years from one to the next: dateutil looks at one year and stops
_MOST_YEARS = 32
_ALL_WEEKDAYS = [weekday(day) for day in range(7)]  # where none is named it would take the start's


class Year(NamedTuple):
    """The days of one year that a rule names, as ordinals in order."""

    days: Sequence[int]
    times: Mapping[int, tuple[int, ...]] | None
    """Day -> seconds of the day, where BYSETPOS has picked them; None: every day has all of the rule's times."""


class Days:
    """The days of a rule: what its BY parts name, in the years, months or weeks that its interval visits.

    Days are ordinals, as `date.toordinal` counts them. Intervals of days and less are the business of `times.py`.
    """

    def __init__(self, parts: Parts, start: datetime, times: tuple[int, ...]) -> None:
        """`start`: on the wall clock; what the rule leaves open is taken from it. `times`: the seconds of a day."""
        self._parts = _completed(parts, start)
        self._start = start.date()
        self._times = times
        named = self._parts
        self.every_day = parts.freq >= Freq.DAILY and not (
            named.months or named.year_days or named.month_days or named.weekdays
        )
        """Whether these are all days there are."""
        # In one rule dateutil would ask for both, and the RFC means either.
        self._plain = [weekday(day) for day, nth in named.weekdays if not nth]
        self._counted = [weekday(day, nth) for day, nth in named.weekdays if nth]
        self._picks = parts.positions if parts.freq < Freq.DAILY else ()
        self._repeats_after = _years_to_repeat(parts)
        self._by_type: dict[tuple[object, ...], tuple[int, ...]] = {}
        self._years: dict[int, Year] = {}

    def next(self, day: int) -> int | None:
        """Give the first day of the rule that is not before `day`."""
        if self.every_day:
            return day if day <= LAST_DAY else None
        if day > LAST_DAY:
            return None
        first = date.fromordinal(day).year
        for year in range(first, min(MAXYEAR, first + self._repeats_after) + 1):
            days = self.of(year).days
            place = bisect_left(days, day)
            if place < len(days):
                return days[place]
        return None

    def of(self, year: int) -> Year:
        """Give the days of a year."""
        found = self._years.get(year)
        if found is None:
            if len(self._years) >= _MOST_YEARS:
                self._years.clear()
            found = self._years[year] = self._make(year)
        return found

    def times_of(self, day: int) -> tuple[int, ...]:
        """Give the seconds of a day of the rule at which it has instants; for frequencies of days and more."""
        times = self.of(date.fromordinal(day).year).times
        return self._times if times is None else times[day]

    def _make(self, year: int) -> Year:
        if not self._picks:
            return Year([day for days in self._periods(year) for day in days], None)
        picked: dict[int, tuple[int, ...]] = {}
        for days in self._periods(year):
            picked |= self._pick(days)
        first, behind = _first_of(year), _first_of(year + 1)
        picked = {day: picked[day] for day in sorted(picked) if first <= day < behind}
        return Year(tuple(picked), picked)

    def _pick(self, days: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """Pick what BYSETPOS names from the instants of one period."""
        size = len(self._times)
        number = len(days) * size
        places = {place - 1 if place > 0 else number + place for place in self._picks}
        picked: dict[int, tuple[int, ...]] = {}
        for place in sorted(place for place in places if 0 <= place < number):
            day = days[place // size]
            picked[day] = (*picked.get(day, ()), self._times[place % size])
        return picked

    def _periods(self, year: int) -> Iterator[Sequence[int]]:
        """Give the days of each period of the rule that it visits in a year; weeks with picks may overlap its ends."""
        parts, start = self._parts, self._start
        match parts.freq:
            case Freq.YEARLY:
                if (year - start.year) % parts.interval == 0:
                    yield self._named(year)
            case Freq.MONTHLY:
                if parts.interval == 1 and not self._picks:
                    yield self._named(year)
                    return
                earlier = ((year - start.year) * 12 - start.month) % parts.interval
                months = range(parts.interval - earlier, 13, parts.interval)
                days = self._named(year) if months else ()
                for month in months:
                    begin = date(year, month, 1).toordinal()
                    yield _between(days, begin, begin + calendar.monthrange(year, month)[1])
            case Freq.WEEKLY:
                if parts.interval == 1 and not self._picks:
                    yield self._named(year)
                    return
                yield from self._weeks(year)
            case _:
                yield self._named(year)

    def _weeks(self, year: int) -> Iterator[Sequence[int]]:
        """Give the days of each week that the rule visits, with those of the years before and after where one is cut.

        Only picks need those; without them a cut week is given in two parts.
        """
        first, behind = _first_of(year), _first_of(year + 1)
        week, own = self._week(first), self._week(self._start.toordinal())
        week += (own - week) % self._parts.interval
        days = self._named(year) if self._first_of_week(week) < behind else ()
        while (begin := self._first_of_week(week)) < behind:
            cut = begin < first or begin + 7 > behind
            around = [*self._named(year - 1), *days, *self._named(year + 1)] if cut and self._picks else days
            if week == own:  # picks count from the start there, as dateutil counts them
                yield _between(around, self._start.toordinal(), begin + 7)
            else:
                yield _between(around, begin, begin + 7)
            week += self._parts.interval

    def _week(self, day: int) -> int:
        return (day - 1 - self._parts.week_start) // 7

    def _first_of_week(self, week: int) -> int:
        return week * 7 + 1 + self._parts.week_start

    def _named(self, year: int) -> Sequence[int]:
        """Give the days that the BY parts name, whatever the interval.

        They depend on leap years, and those that count weeks or weekdays on the weekday of the first of January: so
        few years have to be looked up.
        """
        if not 1 <= year <= MAXYEAR:
            return ()
        if self.every_day:
            return range(_first_of(year), _first_of(year + 1))
        if self._parts.week_numbers:
            weeks = self._numbered_weeks(year)
            return [day for day in self._without_weeks(year) if self._week(day) in weeks]
        if not self._counted:
            return self._without_weeks(year)
        counted = self._looked_up(year, self._counted, by_weeks=True)
        return sorted({*counted, *self._without_weeks(year)}) if self._plain else counted

    def _numbered_weeks(self, year: int) -> set[int]:
        """Give the weeks that BYWEEKNO names, of this year and of those before and after, which may reach into it.

        Not dateutil's answer: it calls the 1st of January 2011, in week 52 of 2010, week 53, and leaves out the days of
        weeks -52 and -53 that lie in the year before.
        """
        found: set[int] = set()
        for of_year in range(year - 1, year + 2):
            first, behind = self._first_week(of_year), self._first_week(of_year + 1)
            found |= {
                first + n - 1 if n > 0 else behind + n for n in self._parts.week_numbers if abs(n) <= behind - first
            }
        return found

    def _first_week(self, year: int) -> int:
        """Give the week that has at least four days in a year: the one of the fourth of January."""
        before = year - 1
        return self._week(365 * before + before // 4 - before // 100 + before // 400 + 4)

    def _without_weeks(self, year: int) -> Sequence[int]:
        parts, days = self._parts, range(_first_of(year), _first_of(year + 1))
        named = parts.months or parts.year_days or parts.month_days
        found: Sequence[int] = self._looked_up(year, _ALL_WEEKDAYS, by_weeks=False) if named else days
        if not self._plain:
            return found
        wanted = {(day.weekday + 1) % 7 for day in self._plain}  # the first of all days was a Monday
        return [day for day in found if day % 7 in wanted]

    def _looked_up(self, year: int, weekdays: Sequence[weekday], *, by_weeks: bool) -> Sequence[int]:
        first, leap = _first_of(year), calendar.isleap(year)
        kind = (leap, first % 7) if by_weeks else (leap,)
        places = self._by_type.get(kind)
        if places is None:
            parts = self._parts
            days = rrule(
                YEARLY,
                dtstart=datetime(year, 1, 1),  # noqa: DTZ001  # on the wall clock
                interval=_ONCE,
                wkst=parts.week_start,
                bymonth=parts.months or None,
                byyearday=parts.year_days or None,
                bymonthday=parts.month_days or None,
                byweekday=weekdays,
                byhour=0,
                byminute=0,
                bysecond=0,
            )
            places = self._by_type[kind] = tuple(day.toordinal() - first for day in days)
        return [first + place for place in places]


def _years_to_repeat(parts: Parts) -> int:
    """Give the years after which the days of a rule come again in the same way."""
    match parts.freq:
        case Freq.YEARLY:
            return lcm(_YEARS, parts.interval)
        case Freq.MONTHLY:
            return lcm(_MONTHS, parts.interval) // 12
        case Freq.WEEKLY:
            return lcm(_WEEKS, parts.interval) // _WEEKS * _YEARS
    return _YEARS


def _completed(parts: Parts, start: datetime) -> Parts:
    """Take from the start what the rule leaves open; a month's weekdays are a year's that names all months."""
    values = {name: getattr(parts, name) for name in Parts.__dataclass_fields__}
    days = parts.week_numbers or parts.year_days or parts.month_days or parts.weekdays
    if parts.freq is Freq.WEEKLY and not parts.weekdays:
        values["weekdays"] = ((start.weekday(), 0),)
    elif parts.freq <= Freq.MONTHLY and not days:
        values["month_days"] = (start.day,)
        if parts.freq is Freq.YEARLY and not parts.months:
            values["months"] = (start.month,)
    if parts.freq is Freq.MONTHLY and not parts.months:
        values["months"] = tuple(range(1, 13))
    return Parts(**values)


def _first_of(year: int) -> int:
    return date(year, 1, 1).toordinal() if year <= MAXYEAR else LAST_DAY + 1


def _between(days: Sequence[int], first: int, behind: int) -> Sequence[int]:
    return days[bisect_left(days, first) : bisect_left(days, behind)]
