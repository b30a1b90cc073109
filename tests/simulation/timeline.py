"""Made-up time: what is to happen in it, who may take the next step, and what has happened so far."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol

from tests.support import T0

__all__ = ["SECOND", "Stepping", "Timeline"]

SECOND = 1_000_000
"""Microseconds."""

_LONGEST_STEP = 200


class Stepping(Protocol):
    """Somebody who does one thing at a time, when it is told to."""

    @property
    def can_step(self) -> bool:
        """Tell whether there is something that it would do now."""

    def step(self) -> None:
        """Do one thing."""


class Timeline:
    """Time that passes only from step to step; everything that is drawn comes from the same lots."""

    def __init__(self, lots: random.Random) -> None:
        """`lots`: seeded, so that the same seed gives the same history."""
        self.lots = lots
        self.micros = 0
        """Microseconds since T0."""
        self.is_over = False
        """From then on nothing is held against anybody."""
        self.trace: list[tuple[Any, ...]] = []
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._number = 0
        self._broken: AssertionError | None = None

    @property
    def now(self) -> datetime:
        """The true time."""
        return T0 + timedelta(microseconds=self.micros)

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.micros + max(0, round(seconds * SECOND)), self.next_number(), what))

    def next_number(self) -> int:
        """Give a number that is higher than every one before."""
        self._number += 1
        return self._number

    def latency(self) -> float:
        """Give the seconds that a message takes."""
        return self.lots.random() * self.lots.choice((0.002, 0.02, 0.02, 0.3))

    def let_happen(self, steppers: Iterable[Stepping]) -> None:
        """Let one thing happen, or time pass until something can; raise what was found to be wrong."""
        while self._events and self._events[0][0] <= self.micros:
            heapq.heappop(self._events)[2]()
        able = [one for one in steppers if one.can_step]
        if able:
            self.lots.choice(able).step()
            self.micros += self.lots.randrange(_LONGEST_STEP)
        elif self._events:
            self.micros = max(self.micros, self._events[0][0])
        if self._broken is not None:
            raise self._broken

    def note(self, *what: object) -> None:
        """Write something into the history."""
        self.trace.append((self.micros / SECOND, *what))

    def fail(self, why: str) -> None:
        """Say that something is wrong; only the first counts."""
        if self._broken is None and not self.is_over:
            self._broken = AssertionError(why)

    def history(self, last: int | None = 80) -> str:
        """Tell what happened last; None: all of it."""
        told = self.trace if last is None else self.trace[-last:]
        return "\n".join(f"{at:10.6f}  " + " ".join(map(str, what)) for at, *what in told)
