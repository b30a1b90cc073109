"""The instants of a cron expression on a wall clock. cronsim reads and expands it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cronsim import CronSim, CronSimError

from oncetask.errors import InvalidRecurrence

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["NICKNAMES", "CronWalk"]

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_LONGEST = 1_000


class CronWalk:
    """A `Walk` of a cron expression: minute, hour, day of month, month, day of week; with six fields, seconds first."""

    def __init__(self, expression: str, start: datetime) -> None:
        """`start`: where it begins, on the wall clock. Raises InvalidRecurrence that names the field, TypeError."""
        if not isinstance(expression, str):
            msg = f"cron expression must be a text such as '0 9 * * MON-FRI', not {expression!r}"
            raise TypeError(msg)
        self._expression = NICKNAMES.get(expression.strip().lower(), expression)
        self._start = start
        problem = "is too long" if len(expression) > _LONGEST else None
        try:
            if problem is None:
                CronSim(self._expression, start)
        except CronSimError as error:
            problem = f"{error} (the fields are: minute, hour, day of month, month, day of week)"
        except Exception as error:  # noqa: BLE001  # what it does not expect it asserts, or int() raises
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            msg = f"cron expression {expression[:80]!r}: {problem}"
            raise InvalidRecurrence(msg)

    def at_or_after(self, wall: datetime) -> datetime | None:
        """Give the first instant that is not before `wall`.

        cronsim gives up after fifty years, which is longer than any of these has ever to wait: the 29th of February
        comes on a given weekday every forty years at the latest.
        """
        wall = max(wall, self._start)
        try:
            return next(CronSim(self._expression, wall - timedelta(seconds=1)), None)
        except (OverflowError, ValueError):  # behind the year 9999
            return None
