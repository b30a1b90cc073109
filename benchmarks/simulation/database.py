"""Firestore's limits on writes: each range serves its writes one after the other, and a cold collection ramps up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from benchmarks.simulation.assumptions import Assumptions, Settings
from benchmarks.simulation.ranges import IndexRange, ranges

__all__ = ["WRITES_A_TASK", "Database", "capacity", "ramp"]

WRITES_A_TASK = 3
"""Create, claim, complete: a task that is done before its lease has to be renewed, and succeeds."""

_WARM = float("inf")


def capacity(known: Assumptions, settings: Settings, found: Sequence[IndexRange]) -> float:
    """Give the writes a second that one shard takes: what its narrowest range does. `found`: the ranges of a task."""
    return min(
        known.range_writes * (settings.kinds if one.is_of_kind else 1) * WRITES_A_TASK / one.short_task for one in found
    )


def ramp(known: Assumptions, now: float, *, warm: bool) -> float:
    """Give the writes a second that the whole collection takes at this moment."""
    return _WARM if warm else known.ramp_start * known.ramp_growth ** (now // known.ramp_step)


class Database:
    """Tells when writes are committed that reach it at a moment; each of a call by itself, those of a range in turn.

    What is too much waits. Production answers much of that with errors, and oncetask tries again for 15 s: a range that
    is said to be saturated here fails there.
    """

    def __init__(self, known: Assumptions, settings: Settings, *, bucket: float) -> None:
        """`bucket`: seconds in which writes are counted together."""
        self._known, self._warm, self._bucket = known, settings.warm, bucket
        self._capacity = capacity(known, settings, ranges())
        self._free = [-known.range_burst] * settings.shards
        self._ramp_free = -known.range_burst
        self.writes = 0
        self.busiest: dict[int, float] = defaultdict(float)
        """Writes to the first shard, by the bucket in which they were committed."""

    def write(self, shard: int, count: int, now: float) -> tuple[float, float]:
        """Give when the first of so many writes begins, and when the last one is committed."""
        rests = now - self._known.range_burst
        begin = max(rests, self._free[shard])
        end = begin + count / self._capacity
        if not self._warm:
            start = max(rests, self._ramp_free)
            self._ramp_free = start + count / ramp(self._known, max(now, start), warm=False)
            if self._ramp_free > end:
                begin, end = max(begin, start), self._ramp_free
        self._free[shard] = end
        begin, end = max(now, begin), max(now, end)
        self.writes += count
        if shard == 0:
            self._count(begin, end, count)
        return begin, end

    def _count(self, begin: float, end: float, count: int) -> None:
        first, last = int(begin // self._bucket), int(end // self._bucket)
        if first == last:
            self.busiest[first] += count
            return
        for bucket in range(first, last + 1):
            share = min(end, (bucket + 1) * self._bucket) - max(begin, bucket * self._bucket)
            self.busiest[bucket] += count * share / (end - begin)
