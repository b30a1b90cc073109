"""The phrases that rules in words are made of: lists, ordinals, days and times."""

from __future__ import annotations

from datetime import datetime, time
from itertools import product
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "clock_times",
    "counted",
    "days_of_month",
    "days_of_week",
    "days_of_year",
    "joined",
    "moment",
    "months",
    "nth",
    "numbered",
    "ordinal",
    "until",
    "weekday",
    "weeks",
]

_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FIRST: Final = ("first", "second", "third", "fourth", "fifth")
_SHORTEST_RANGE = 3
_MOST_CLOCK_TIMES = 6


def joined(words: Sequence[str], last: str = "and") -> str:
    """Join words: `a`, `a and b`, `a, b and c`."""
    return f" {last} ".join([*([", ".join(words[:-1])] if words[:-1] else []), words[-1]])


def listed(numbers: Sequence[int], name: Callable[[int], str]) -> list[str]:
    """Name numbers that are in order; three and more that follow each other are a range: `9 to 16`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    words: list[str] = []
    for run in ranges:
        words += [f"{name(run[0])} to {name(run[-1])}"] if len(run) >= _SHORTEST_RANGE else map(name, run)
    return words


def ordinal(number: int) -> str:
    """Give `1st`, `2nd`, `11th`, `22nd`."""
    teens = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def nth(number: int) -> str:
    """Say a place: `first`, `6th`, `last`, `second to last`."""
    if number == -1:
        return "last"
    name = _FIRST[abs(number) - 1] if abs(number) <= len(_FIRST) else ordinal(abs(number))
    return name if number > 0 else f"{name} to last"


def counted(number: int, unit: str) -> str:
    """Say how often: `every day`, `every 2 days`."""
    return f"every {unit}" if number == 1 else f"every {number} {unit}s"


def numbered(unit: str, numbers: Sequence[int]) -> str:
    """Say `hour 9`, `hours 9 to 16`."""
    return f"{unit}{'s' if len(numbers) > 1 else ''} {joined(listed(numbers, str))}"


def months(numbers: Sequence[int]) -> str:
    """Say `January and March`."""
    return joined(listed(numbers, lambda n: _MONTHS[n - 1]))


def weeks(numbers: Sequence[int]) -> str:
    """Say `weeks 20 and 21`, `week 1 and the last week`."""
    forward = [n for n in numbers if n > 0]
    return joined(
        [*([numbered("week", forward)] if forward else []), *(f"the {nth(n)} week" for n in numbers if n < 0)]
    )


def days_of_year(numbers: Sequence[int]) -> str:
    """Say `the 1st, the 100th and the last day of the year`."""
    return f"{joined(_the(numbers))} day of the year"


def days_of_month(numbers: Sequence[int]) -> list[str]:
    """Say `the 15th`, `the last day`."""
    forward = [n for n in numbers if n > 0]
    return [*_the(forward), *(f"the {nth(n)} day" for n in numbers if n < 0)]


def days_of_week(days: Sequence[tuple[int, int]], *, many: bool = False) -> list[str]:
    """Say `Monday to Friday`, `the last Friday`. `many`: `Mondays to Fridays`, since there are several of each."""
    plain = listed([day for day, place in days if not place], lambda day: weekday(day) + ("s" if many else ""))
    numbered_ones = sorted(((place, day) for day, place in days if place), key=lambda one: (one[0] < 0, *one))
    return [*plain, *(f"the {nth(place)} {weekday(day)}" for place, day in numbered_ones)]


def weekday(day: int) -> str:
    """Name a day of the week, 0 for Monday."""
    return _WEEKDAYS[day]


def clock_times(hours: Sequence[int], minutes: Sequence[int], seconds: Sequence[int]) -> str:
    """Say `09:00 and 17:00`, or, where they are many, `minutes 0 and 30 of hours 9 to 16`."""
    if len(hours) * len(minutes) * len(seconds) > _MOST_CLOCK_TIMES:
        return f"{moment(minutes, seconds)} of {numbered('hour', hours)}"
    shape = "minutes" if seconds == (0,) else "seconds"
    return joined([time(*one).isoformat(shape) for one in product(hours, minutes, seconds)])


def moment(minutes: Sequence[int], seconds: Sequence[int]) -> str:
    """Say where in an hour: `minute 30`, `second 15 of minutes 0 and 30`."""
    exact = "" if tuple(seconds) == (0,) else f"{numbered('second', seconds)} of "
    return f"{exact}{numbered('minute', minutes)}"


def until(end: datetime) -> str:
    """Say the last moment of a rule: in UTC, or on the wall clock of its zone."""
    shape = "minutes" if not end.second else "seconds"
    return f"until {end.replace(tzinfo=None).isoformat(' ', shape)}{' UTC' if end.tzinfo else ''}"


def _the(numbers: Sequence[int]) -> list[str]:
    """Say `the 1st`, `the 3rd to the 5th`, `the last`."""
    forward = [n for n in numbers if n > 0]
    return [*listed(forward, lambda n: f"the {ordinal(n)}"), *(f"the {nth(n)}" for n in numbers if n < 0)]
