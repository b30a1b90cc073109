"""Time: what a duration and an instant may be, and what the store's clock says.

The clocks of workers and enqueuers may be wrong by minutes, so every decision uses the store's time. A store
answer with read time t says that it is now between t + (time since it was received) and t + (time since it was
asked for). `StoreClock` keeps both bounds: the lower one decides that another's lease has ended, the upper one
that mine has.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

__all__ = [
    "EPOCH",
    "LONGEST_SECONDS",
    "Clock",
    "Duration",
    "Now",
    "StoreClock",
    "SystemClock",
    "check_instant",
    "from_micros",
    "seconds",
    "to_micros",
]

Duration = float | timedelta
"""Seconds (int or float), or a timedelta."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LONGEST_SECONDS = 100 * 366 * 86_400.0


def to_micros(instant: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (instant - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Give the aware UTC instant of so many microseconds since 1970."""
    return EPOCH + timedelta(microseconds=micros)


def seconds(name: str, value: Duration, *, zero: bool = False) -> float:
    """Check a duration and give it in seconds.

    Raises TypeError for what is no number or timedelta and ValueError for NaN, infinity, a negative value, more
    than a hundred years, or zero unless `zero` allows it; the message names the argument and the value.
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer beyond every float
            number = math.inf
    else:
        msg = f"{name} must be seconds (int or float) or a timedelta, not {value!r}"
        raise TypeError(msg)
    if not math.isfinite(number) or number < 0 or number > LONGEST_SECONDS or (number == 0 and not zero):
        least = "zero or more" if zero else "more than zero"
        msg = f"{name} must be {least} and at most a hundred years, in seconds, not {_shown(value)}"
        raise ValueError(msg)
    return number


def _shown(value: Duration) -> str:
    try:
        return repr(value)
    except ValueError:
        return "a number of more digits than Python writes"


def check_instant(name: str, value: datetime) -> datetime:
    """Check that an instant is an aware datetime and give it in UTC."""
    if not isinstance(value, datetime):
        msg = f"{name} must be an aware datetime, not {value!r}"
        raise TypeError(msg)
    if value.tzinfo is None or value.utcoffset() is None:
        msg = f"{name} must be aware (say which zone it is in, e.g. tzinfo=UTC), not the naive {value!r}"
        raise ValueError(msg)
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        msg = f"{name} must lie within the years 1 to 9999 in UTC, not {value!r}"
        raise ValueError(msg) from error


class Clock(Protocol):
    """This machine's clocks; tests pass their own."""

    def wall(self) -> datetime:
        """Give the aware UTC time of day, as this machine believes it."""

    def monotonic(self) -> float:
        """Seconds that never run backwards, from an arbitrary start."""


class SystemClock:
    """The clocks of this machine."""

    def wall(self) -> datetime:
        """Give the time of day of this machine."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Give the monotonic clock of this machine."""
        return time.monotonic()


class Now(NamedTuple):
    """What is known about the store's present: it is not before `earliest` and not after `latest`."""

    earliest: datetime
    latest: datetime


class StoreClock:
    """The store's time, bounded by the answers that it gave.

    Until the first answer (`known` is False) it is this machine's time.
    """

    def __init__(self, clock: Clock) -> None:
        """`clock`: this machine's, which only has to run at the right speed."""
        self._clock = clock
        self._low = self._high = 0.0
        self.known = False

    def monotonic(self) -> float:
        """Give the local reading that `observe` wants for `asked`."""
        return self._clock.monotonic()

    def observe(self, store_time: datetime, *, asked: float) -> None:
        """Learn from an answer that carried `store_time` and was asked for at the local reading `asked`."""
        micros = float(to_micros(store_time))
        received = self._clock.monotonic()
        low, high = micros - received * 1e6, micros - asked * 1e6
        if not self.known or high < low:
            self._low, self._high, self.known = low, high, True
            return
        # Both statements hold, so their intersection does; where they contradict each other one of the two clocks
        # has drifted or jumped, and the newest answer is believed.
        self._low, self._high = max(self._low, low), min(self._high, high)
        if self._low > self._high:
            self._low, self._high = low, high

    def now(self) -> Now:
        """Give the bounds of the store's present."""
        if not self.known:
            wall = self._clock.wall()
            return Now(wall, wall)
        reading = self._clock.monotonic() * 1e6
        return Now(from_micros(int(self._low + reading)), from_micros(int(self._high + reading)))
