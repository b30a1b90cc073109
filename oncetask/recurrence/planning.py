"""What a generator does when it is due: which instants become occurrences, and when it is due again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from oncetask.recurrence.model import Recurrence

__all__ = ["MOST_AT_ONCE", "Plan", "begin", "plan"]

MOST_AT_ONCE: Final = 100
"""Occurrences that one commit writes."""

_MISSED_AFTER = timedelta(minutes=2)  # a function that wakes once a minute is later than a minute, but not than two
_JUST_BEGUN = timedelta(minutes=1)  # the clocks of those who say "from now on" differ from the store's
_SECOND, _MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)


class Plan(NamedTuple):
    """The next step of a generator."""

    spawn: tuple[datetime, ...]
    """The instants that become occurrences, in order."""
    next: datetime | None
    """When it is due again; None: never."""


def begin(recurrence: Recurrence, now: datetime) -> datetime:
    """Give the first instant of a generator that is new. Raises InvalidRecurrence: the rule has none left.

    What lies in the past is not caught up with; but a `dtstart` that has only just passed was meant to be the first.
    """
    if now - _JUST_BEGUN < recurrence.dtstart <= now:
        return recurrence.first()
    return recurrence.first(after=now)


def plan(
    recurrence: Recurrence,
    due: datetime,
    *,
    now: datetime,
    until: datetime | None = None,
    is_busy: bool = False,
    most: int = MOST_AT_ONCE,
) -> Plan:
    """Plan the step of a generator that is `due` at an instant of its rule, not after `now`.

    `until`: nothing from there on. `is_busy`: the last occurrence is not done. `most`: so many at once, 1 or more.
    """
    if until is not None and due >= until:
        return Plan((), None)
    present = now if until is None else min(now, until - _MICROSECOND)
    spawn = _caught_up(recurrence, due, present, most)
    following = recurrence.next_after(spawn[-1])
    if until is not None and following is not None and following >= until:
        following = None
    if recurrence.catch_up == "skip" and now - spawn[-1] > _MISSED_AFTER:
        spawn = []
    if recurrence.overlap == "skip":
        spawn = [] if is_busy else spawn[:1]
    elif recurrence.overlap == "cancel-previous":
        spawn = spawn[-1:]  # the others would be cancelled by the next one before they start
    return Plan(tuple(spawn), following)


def _caught_up(recurrence: Recurrence, due: datetime, now: datetime, most: int) -> list[datetime]:
    """Give those of the instants from `due` to `now` that are looked at in one step: the first ones, or the last."""
    if recurrence.catch_up != "all":
        return [_latest(recurrence, due, now)]
    spawn = [due]
    while len(spawn) < most and (following := recurrence.next_after(spawn[-1])) is not None and following <= now:
        spawn.append(following)
    return spawn


def _latest(recurrence: Recurrence, due: datetime, now: datetime) -> datetime:
    """Give the last instant from `due` to `now`, by bisection: there may be millions in between."""
    found, behind = due, now
    while (following := recurrence.next_after(found)) is not None and following <= now:
        found = following
        while behind - found > _SECOND:
            middle = found + (behind - found) / 2
            later = recurrence.next_after(middle)
            if later is None or later > now:
                behind = middle
            else:
                found = later
    return found
