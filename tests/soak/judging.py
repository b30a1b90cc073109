"""Whether it holds on to more and more."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields

from tests.soak.gauges import Counts, Sample

__all__ = ["Growth", "growths", "leaks"]

_MOST_PERCENT = 5.0
_BARRED = frozenset({"rss", "traced"})
_WINDOW = 4


@dataclass(frozen=True)
class Growth:
    """How one figure went, from its median in the first quarter of the samples to that in the last."""

    name: str
    first: float
    last: float

    @property
    def percent(self) -> float:
        """How much it grew."""
        return 100 * (self.last / self.first - 1)

    @property
    def is_too_much(self) -> bool:
        """True where it is one that must not grow, and did."""
        return self.name in _BARRED and self.percent >= _MOST_PERCENT


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Compare the medians of the first and the last quarter of samples that were taken after the warm-up."""
    size = max(1, len(samples) // _WINDOW)

    def median(some: Sequence[Sample], name: str) -> float:
        return statistics.median(float(getattr(one, name)) for one in some)

    names = [field.name for field in fields(Sample)]
    return [Growth(name, median(samples[:size], name), median(samples[-size:], name)) for name in names]


def leaks(before: Counts, after: Counts) -> list[str]:
    """Name what there is more of, or less, than before."""
    pairs = [(field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(Counts)]
    return [f"{name}: {one} before, {other} after" for name, one, other in pairs if one != other]
