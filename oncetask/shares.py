"""Fair shares: who is next among several that compete for something scarce."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Shares"]


class Shares:
    """Gives each its part by weight, as start-time fair queueing does (Goyal, Vin, Cheng 1996).

    Whoever has a weight of 3 gets three times as much as one with 1, as long as both want something. Who wanted
    nothing for some time has saved nothing up, and nobody who wants something waits for ever.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        """`weights`: of all that may compete."""
        self._weights = dict(weights)
        self._starts = dict.fromkeys(weights, 0.0)
        self._time = 0.0

    def first(self, among: Iterable[str]) -> str:
        """Give the one that is next; of several that would be, the first named. Raises ValueError for none."""
        return min(among, key=lambda name: max(self._starts[name], self._time))

    def took(self, name: str) -> None:
        """Count what this one got."""
        self._time = max(self._starts[name], self._time)
        self._starts[name] = self._time + 1 / self._weights[name]
