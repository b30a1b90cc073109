"""An RRULE as text -> its parts, checked: what RFC 5545 section 3.3.10 allows, and nothing that could never be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NoReturn

from oncetask.errors import InvalidRecurrence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["WEEKDAYS", "Freq", "Parts", "parse"]

WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

_LONGEST = 2_000
_MOST_IN_A_MONTH = 5
_NUMBER = re.compile(r"[+-]?[0-9]{1,12}")
_WEEKDAY = re.compile(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)")
_UNTIL = re.compile(r"[0-9]{8}T[0-9]{6}Z?")


class Freq(IntEnum):
    """How often, from rare to frequent; the numbers are dateutil's."""

    YEARLY = 0
    MONTHLY = 1
    WEEKLY = 2
    DAILY = 3
    HOURLY = 4
    MINUTELY = 5
    SECONDLY = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a rule says; an empty tuple where it says nothing."""

    freq: Freq
    interval: int = 1
    count: int | None = None
    until: datetime | None = None
    """The last moment that may be an instant: aware in UTC, or naive on the wall clock of the rule's zone."""
    months: tuple[int, ...] = ()
    week_numbers: tuple[int, ...] = ()
    year_days: tuple[int, ...] = ()
    month_days: tuple[int, ...] = ()
    weekdays: tuple[tuple[int, int], ...] = ()
    """(0 for Monday to 6, which one of its period: 1, 2, -1 for the last, 0 for every one)."""
    hours: tuple[int, ...] = ()
    minutes: tuple[int, ...] = ()
    seconds: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    week_start: int = 0


_NUMBERS: Final[Mapping[str, tuple[str, int, bool]]] = {
    "BYMONTH": ("months", 12, False),
    "BYWEEKNO": ("week_numbers", 53, True),
    "BYYEARDAY": ("year_days", 366, True),
    "BYMONTHDAY": ("month_days", 31, True),
    "BYSETPOS": ("positions", 366, True),
}
"""Name -> attribute, greatest value, whether it also counts from the end. The least is 1."""
_TIMES: Final = {"BYHOUR": ("hours", 23), "BYMINUTE": ("minutes", 59), "BYSECOND": ("seconds", 59)}
_SUB_DAILY = {Freq.HOURLY, Freq.MINUTELY, Freq.SECONDLY}
_NOT_WITH: Final = {
    "BYWEEKNO": set(Freq) - {Freq.YEARLY},
    "BYYEARDAY": {Freq.MONTHLY, Freq.WEEKLY, Freq.DAILY},
    "BYMONTHDAY": {Freq.WEEKLY},
}
"""The table of section 3.3.10: which part makes no sense at which frequency."""


def parse(text: str) -> Parts:
    """Read a rule such as `FREQ=WEEKLY;BYDAY=MO,WE`. Raises InvalidRecurrence that names the part, TypeError."""
    if not isinstance(text, str):
        msg = f"rrule must be a text such as 'FREQ=DAILY;BYHOUR=9', not {text!r}"
        raise TypeError(msg)
    given = _given(text)
    if "FREQ" not in given:
        _refuse(text, "FREQ is missing: it must say how often, such as FREQ=DAILY")
    values: dict[str, object] = {}
    for name, value in given.items():
        read = _READERS.get(name)
        if read is None:
            _refuse(text, f"{name} is no part of a rule; there are: {', '.join(_READERS)}")
        try:
            attribute, values_of_it = read(name, value)
        except ValueError as error:
            _refuse(text, str(error))
        values[attribute] = values_of_it
    parts = Parts(**values)  # type: ignore[arg-type]  # each reader gives the type of its attribute
    _check_together(text, parts, given)
    return parts


def _given(text: str) -> dict[str, str]:
    rule = text.strip().upper().removeprefix("RRULE:").rstrip(";")
    if not rule or len(text) > _LONGEST:
        _refuse(text[:80], f"must be parts such as FREQ=DAILY;BYHOUR=9, at most {_LONGEST} characters")
    given: dict[str, str] = {}
    for part in rule.split(";"):
        name, equals, value = part.partition("=")
        if not equals or any(character.isspace() for character in part):
            _refuse(text, f"{part!r} must be of the form NAME=VALUE (one rule, without DTSTART and EXDATE lines)")
        if name in given:
            _refuse(text, f"{name} is given twice")
        given[name] = value
    return given


def _freq(_: str, value: str) -> tuple[str, Freq]:
    if value not in Freq.__members__:
        msg = f"FREQ must be one of {', '.join(Freq.__members__)}, not {value!r}"
        raise ValueError(msg)
    return "freq", Freq[value]


def _whole(name: str, value: str) -> tuple[str, int]:
    if not _NUMBER.fullmatch(value) or int(value) < 1:
        msg = f"{name} must be a whole number, 1 or more (of at most 12 digits), not {value!r}"
        raise ValueError(msg)
    return name.lower(), int(value)


def _until(_: str, value: str) -> tuple[str, datetime]:
    if _UNTIL.fullmatch(value):
        try:
            read = datetime.strptime(value.removesuffix("Z"), "%Y%m%dT%H%M%S")  # noqa: DTZ007  # on the rule's wall clock
        except ValueError:
            pass  # the thirteenth month, say
        else:
            return "until", read.replace(tzinfo=UTC) if value.endswith("Z") else read
    msg = f"UNTIL must be an instant such as 20301231T225959Z, or without the Z a local time, not {value!r}"
    raise ValueError(msg)


def _numbers(name: str, value: str) -> tuple[str, tuple[int, ...]]:
    attribute, most, backwards = _NUMBERS[name]
    numbers = _list(name, value)
    if any(abs(n) > most or n < (-most if backwards else 1) or n == 0 for n in numbers):
        also = f" or -{most} to -1" if backwards else ""
        msg = f"{name} must be whole numbers from 1 to {most}{also}, not {value!r}"
        raise ValueError(msg)
    return attribute, numbers


def _times(name: str, value: str) -> tuple[str, tuple[int, ...]]:
    attribute, most = _TIMES[name]
    numbers = _list(name, value)
    if any(not 0 <= n <= most for n in numbers):
        msg = f"{name} must be whole numbers from 0 to {most}, not {value!r}"
        raise ValueError(msg)
    return attribute, numbers


def _list(name: str, value: str) -> tuple[int, ...]:
    texts = value.split(",")
    if not all(map(_NUMBER.fullmatch, texts)):
        msg = f"{name} must be whole numbers, separated by commas, not {value!r}"
        raise ValueError(msg)
    return tuple(sorted(set(map(int, texts))))


def _weekdays(name: str, value: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    days: set[tuple[int, int]] = set()
    for text in value.split(","):
        match = _WEEKDAY.fullmatch(text)
        nth = int(match[1] or 0) if match else 0
        if match is None or abs(nth) > 53 or (match[1] is not None and nth == 0):  # noqa: PLR2004  # weeks of a year
            msg = f"{name} must be days such as MO,WE or 1MO,-1FR (the first Monday, the last Friday), not {value!r}"
            raise ValueError(msg)
        days.add((WEEKDAYS.index(match[2]), nth))
    return "weekdays", tuple(sorted(days))


def _week_start(_: str, value: str) -> tuple[str, int]:
    if value not in WEEKDAYS:
        msg = f"WKST must be one of {', '.join(WEEKDAYS)}, not {value!r}"
        raise ValueError(msg)
    return "week_start", WEEKDAYS.index(value)


_READERS: Final[Mapping[str, Callable[[str, str], tuple[str, object]]]] = {
    "FREQ": _freq,
    "INTERVAL": _whole,
    "COUNT": _whole,
    "UNTIL": _until,
    **dict.fromkeys(_NUMBERS, _numbers),
    **dict.fromkeys(_TIMES, _times),
    "BYDAY": _weekdays,
    "WKST": _week_start,
}


def _check_together(text: str, parts: Parts, given: Mapping[str, str]) -> None:
    """Refuse what section 3.3.10 forbids to stand side by side."""
    if parts.count is not None and parts.until is not None:
        _refuse(text, "COUNT and UNTIL exclude each other: give one end")
    for name, frequencies in _NOT_WITH.items():
        if name in given and parts.freq in frequencies:
            _refuse(text, f"{name} cannot stand with FREQ={parts.freq.name}")
    if any(nth for _, nth in parts.weekdays):
        if parts.freq > Freq.MONTHLY:
            _refuse(text, f"BYDAY={given['BYDAY']} counts weekdays, which needs FREQ=MONTHLY or YEARLY")
        most = max(abs(nth) for _, nth in parts.weekdays)
        if most > _MOST_IN_A_MONTH and (parts.freq is Freq.MONTHLY or parts.months):
            _refuse(text, f"BYDAY={given['BYDAY']} counts more weekdays than the five that a month has at most")
        if parts.week_numbers:
            _refuse(text, f"BYDAY={given['BYDAY']} counts weekdays, which cannot stand with BYWEEKNO")
    if parts.positions and not any(name.startswith("BY") and name != "BYSETPOS" for name in given):
        _refuse(text, "BYSETPOS picks from what another BY part names, and there is none")


def _refuse(text: str, why: str) -> NoReturn:
    msg = f"rrule {text!r}: {why}"
    raise InvalidRecurrence(msg)
