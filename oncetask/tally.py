"""What a tick did: counted as it is stored, reported in the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from oncetask.lifecycle import is_generator
from oncetask.task import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncetask.lifecycle import Transition
    from oncetask.task import Task
    from oncetask.telemetry import Listener

__all__ = ["Tally", "TickReport"]

_CLAIMED = {"claimed", "cleanup-started"}
_RETRIED = {"retried", "cleanup-retried", "rescued", "snoozed"}
_GIVEN_BACK = {"given-back", "attempt-given-back"}
_ENDED = {
    Outcome.COMPLETED: "completed",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "cancelled",
    Outcome.EXPIRED: "expired",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """What a tick did. Counts are of tasks, and only of what was stored."""

    claimed: int = 0
    """Claims of tasks, cleanups and those that turned out to be too late among them."""
    completed: int = 0
    failed: int = 0
    """Ended `done-failed`."""
    retried: int = 0
    """Put back to run again: failed with tries left, snoozed, stopped with a batch, or left behind by a worker."""
    cancelled: int = 0
    """Ended `done-cancelled`."""
    expired: int = 0
    spawned: int = 0
    """Occurrences of schedules."""
    interrupted: int = 0
    """Cut off by the end of the budget, and put back with their attempts unspent."""
    next_due: datetime | None = None
    """The next moment at which somebody has to look, as far as it is known; None: nothing waits."""
    more: bool = False
    """True where due tasks were left that nobody else has: let the next tick begin at once."""


class Tally:
    """Counts what is stored, and passes it on."""

    def __init__(self, listener: Listener, *, is_over: Callable[[], bool]) -> None:
        """`listener`: is told as well. `is_over`: tells whether the budget has ended."""
        self._listener = listener
        self._is_over = is_over
        self._counts: Counter[str] = Counter()

    def changed(self, transition: Transition) -> None:
        """Count a change."""
        self._listener.changed(transition)
        event, before, after = transition.event, transition.before, transition.after
        if event in _CLAIMED:
            self._counts["claimed"] += 1
        elif event in _RETRIED or (event in _GIVEN_BACK and not self._is_over()):
            self._counts["retried"] += 1
        elif event in _GIVEN_BACK:
            self._counts["interrupted"] += 1
        if after.outcome is not None and before.outcome is None and not is_generator(after):
            self._counts[_ENDED[after.outcome]] += 1

    def spawned(self, generator: Task, number: int) -> None:
        """Count occurrences."""
        self._listener.spawned(generator, number)
        self._counts["spawned"] += number

    def begin(self) -> None:
        """Count from nothing again."""
        self._counts.clear()

    def report(self, next_due: datetime | None, *, more: bool) -> TickReport:
        """Give what was counted so far."""
        return TickReport(**self._counts, next_due=next_due, more=more)
