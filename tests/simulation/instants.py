"""The instants of the few rules that the simulation uses, computed without oncetask."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from tests.simulation.sight import Fields

__all__ = ["first_after", "is_instant"]

_SECOND, _MINUTE = timedelta(seconds=1), timedelta(minutes=1)
_MICROSECOND = timedelta(microseconds=1)
_EVERY = re.compile(r"FREQ=SECONDLY;INTERVAL=(\d+)(?:;COUNT=(\d+))?")
_SECONDS = re.compile(r"\*/(\d+) \* \* \* \* \*")
_MINUTES = "* * * * *"


def first_after(rule: Fields, instant: datetime) -> datetime | None:
    """Give the first instant of a stored rule that is later; None: there is none."""
    if rule.get("cron") is not None:
        return _of_cron(rule["cron"], instant)
    found = _EVERY.fullmatch(rule["rrule"])
    assert found is not None, f"the oracle does not know the rule {rule}"
    interval, count = int(found[1]) * _SECOND, found[2]
    number = max(0, (instant - rule["dtstart"]) // interval + 1)
    begin: datetime = rule["dtstart"]
    return None if count is not None and number >= int(count) else begin + number * interval


def is_instant(rule: Fields, instant: datetime) -> bool:
    """Tell whether it is one of the rule's."""
    return first_after(rule, instant - _MICROSECOND) == instant


def _of_cron(expression: str, instant: datetime) -> datetime:
    minute = instant.replace(second=0, microsecond=0)
    if expression == _MINUTES:
        return minute + _MINUTE
    found = _SECONDS.fullmatch(expression)
    assert found is not None, f"the oracle does not know the expression {expression!r}"
    seconds = range(0, 60, int(found[1]))
    later: list[datetime] = [minute + second * _SECOND for second in (*seconds, 60)]
    return min(one for one in later if one > instant)
