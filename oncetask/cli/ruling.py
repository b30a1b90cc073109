"""An RRULE in words: one function for each part that it may have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from oncetask.cli.phrases import (
    clock_times,
    counted,
    days_of_month,
    days_of_week,
    days_of_year,
    joined,
    moment,
    months,
    nth,
    numbered,
    until,
    weekday,
    weeks,
)
from oncetask.recurrence.parts import Freq

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from oncetask.recurrence.parts import Parts

__all__ = ["rule_in_words"]

_UNITS: Final = {
    Freq.YEARLY: "year",
    Freq.MONTHLY: "month",
    Freq.WEEKLY: "week",
    Freq.DAILY: "day",
    Freq.HOURLY: "hour",
    Freq.MINUTELY: "minute",
    Freq.SECONDLY: "second",
}
_LARGER: Final = (
    (Freq.SECONDLY, 60, Freq.MINUTELY, "seconds"),
    (Freq.MINUTELY, 60, Freq.HOURLY, "minutes"),
    (Freq.HOURLY, 24, Freq.DAILY, "hours"),
)
"""A frequency, how many of it are one of the next, and the part that would tell the two apart."""


def rule_in_words(parts: Parts, start: datetime) -> str:
    """Say a rule that begins at `start`, on its wall clock (naive)."""
    larger = _in_larger_unit(parts)
    plain = larger.freq is not parts.freq and not (larger.hours or larger.minutes or larger.seconds)
    full = _completed(larger, start)
    named = list(_days(full)) if full.freq < Freq.DAILY else []
    conditions = list(_conditions(full)) if named else []
    times = [] if plain and _is_whole(full, start) else _times(full, explicit=bool(parts.seconds))
    words = " ".join([counted(full.interval, _UNITS[full.freq]), *named, *times])
    return ", ".join([words, *conditions, *_limits(full), *_picks(full), *_weeks_begin(full), *_end(full)])


def _in_larger_unit(parts: Parts) -> Parts:
    """Say 3,600 seconds as an hour: the same instants, where no part speaks of the smaller unit."""
    for freq, size, larger, part in _LARGER:
        if parts.freq is freq and not parts.interval % size and not getattr(parts, part) and not parts.positions:
            parts = replace(parts, freq=larger, interval=parts.interval // size)
    return parts


def _is_whole(parts: Parts, start: datetime) -> bool:
    """Tell whether the rule begins with a whole unit of its frequency, so that nobody has to be told where in it."""
    smaller = {Freq.DAILY: (start.hour, start.minute, start.second), Freq.HOURLY: (start.minute, start.second)}
    return not any(smaller.get(parts.freq, (start.second,)))


def _completed(parts: Parts, start: datetime) -> Parts:
    """Take from the start what the rule leaves open."""
    has_days = parts.week_numbers or parts.year_days or parts.month_days or parts.weekdays
    if parts.freq is Freq.WEEKLY and not parts.weekdays:
        parts = replace(parts, weekdays=((start.weekday(), 0),))
    elif parts.freq <= Freq.MONTHLY and not has_days:
        own = parts.months or ((start.month,) if parts.freq is Freq.YEARLY else ())
        parts = replace(parts, month_days=(start.day,), months=own)
    return replace(
        parts,
        hours=parts.hours or ((start.hour,) if parts.freq < Freq.HOURLY else ()),
        minutes=parts.minutes or ((start.minute,) if parts.freq < Freq.MINUTELY else ()),
        seconds=parts.seconds or ((start.second,) if parts.freq < Freq.SECONDLY else ()),
    )


def _days(parts: Parts) -> Iterator[str]:
    """Say which days of a period are meant."""
    if parts.months and parts.freq is Freq.YEARLY:
        yield f"in {months(parts.months)}"
    if parts.week_numbers:
        yield f"in {weeks(parts.week_numbers)}"
    named = next(_named_days(parts), "every day" if parts.week_numbers else None)
    if named is not None:
        yield f"on {named}"


def _named_days(parts: Parts) -> Iterator[str]:
    """Name the days by each part that does, the one that says most first."""
    if parts.year_days:
        yield days_of_year(parts.year_days)
    in_any_month = parts.freq is Freq.YEARLY and not parts.months
    if parts.month_days:
        yield joined(days_of_month(parts.month_days)) + (" of every month" if in_any_month else "")
    if parts.weekdays:
        many = parts.freq <= Freq.MONTHLY and not parts.week_numbers
        of_year = in_any_month and any(place for _, place in parts.weekdays)
        yield joined(days_of_week(parts.weekdays, many=many)) + (" of the year" if of_year else "")


def _conditions(parts: Parts) -> Iterator[str]:
    """Say what else has to hold of the days that were named first."""
    words = []
    if parts.year_days and parts.month_days:
        words.append(f"{joined(days_of_month(parts.month_days), 'or')} of its month")
    if parts.weekdays and (parts.year_days or parts.month_days):
        each = [("" if place else "a ") + days_of_week([(day, place)])[0] for day, place in parts.weekdays]
        words.append(joined(each, "or"))
    if words:
        yield f"if it is {joined(words)}"


def _times(parts: Parts, *, explicit: bool) -> Iterator[str]:
    """Say the times of a day, hour or minute. `explicit`: the rule itself names seconds."""
    if parts.freq < Freq.HOURLY:
        yield f"at {clock_times(parts.hours, parts.minutes, parts.seconds)}"
    elif parts.freq is Freq.HOURLY:
        yield f"at {moment(parts.minutes, parts.seconds)}"
    elif parts.freq is Freq.MINUTELY and (explicit or parts.seconds != (0,)):
        yield f"at {numbered('second', parts.seconds)}"


def _limits(parts: Parts) -> Iterator[str]:
    """Say what only lets through some of a frequency's periods."""
    words = []
    if parts.seconds and parts.freq is Freq.SECONDLY:
        words.append(f"at {numbered('second', parts.seconds)}")
    if parts.minutes and parts.freq >= Freq.MINUTELY:
        words.append(f"at {numbered('minute', parts.minutes)}")
    if parts.hours and parts.freq >= Freq.HOURLY:
        words.append(f"in {numbered('hour', parts.hours)}")
    if parts.months and parts.freq > Freq.YEARLY:
        words.append(f"in {months(parts.months)}")
    if parts.freq >= Freq.DAILY:
        words += [*_days(replace(parts, months=())), *_conditions(parts)]
    if words:
        yield f"only {' '.join(words)}"


def _picks(parts: Parts) -> Iterator[str]:
    """Say which instants of each period are picked."""
    if parts.positions:
        forward = [nth(place) for place in parts.positions if place > 0]
        backward = [nth(place) for place in parts.positions if place < 0]
        yield f"of these the {joined([*forward, *backward])} one"


def _weeks_begin(parts: Parts) -> Iterator[str]:
    """Say on which day weeks begin, where that is not the usual one."""
    if parts.week_start:
        yield f"weeks beginning on {weekday(parts.week_start)}"


def _end(parts: Parts) -> Iterator[str]:
    """Say where the rule ends."""
    if parts.count is not None:
        yield "once" if parts.count == 1 else f"{parts.count:,} times"
    if parts.until is not None:
        yield until(parts.until)
