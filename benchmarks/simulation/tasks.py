"""The tasks of a run and the due line of each shard, as the store knows them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchmarks.simulation.database import Database

__all__ = ["NEVER", "Tasks"]

NEVER = math.inf


class Tasks:
    """When each task was asked for, when it was stored, and when it was claimed.

    Tasks are numbers; shards take turns, so number modulo shards is the shard. What is committed later than now is not
    seen yet, though whoever writes after it is refused.
    """

    def __init__(self, total: int, shards: int) -> None:
        """`total`: as many as there will be."""
        self.total, self.shards = total, shards
        self.asked = [NEVER] * total
        self.stored = [NEVER] * total
        self.claimed = [NEVER] * total
        self.created = 0
        self._heads, self._ends = list(range(shards)), list(range(shards))
        self.leased: dict[int, None] = {}
        """Claimed and not done, in the order of their claims."""

    def have_created(self, database: Database) -> None:
        """Have all tasks stored from the beginning: their writes count, and hold up nobody."""
        database.writes += self.total
        self.created = self.total
        self.asked = [0.0] * self.total
        self.stored = [0.0] * self.total

    def create(self, count: int, *, asked: float, now: float, database: Database) -> float:
        """Store so many more; gives when the last one is."""
        shards, first = self.shards, self.created
        self.created += count
        last = now
        for shard in {(first + n) % shards for n in range(min(count, shards))}:
            numbers = range(first + (shard - first) % shards, self.created, shards)
            begin, end = database.write(shard, len(numbers), now)
            step = (end - begin) / len(numbers)
            for place, number in enumerate(numbers, 1):
                self.asked[number] = asked
                self.stored[number] = begin + place * step
            last = max(last, end)
        return last

    def find(self, shard: int, now: float, most: int, *, behind: int = 0) -> list[int]:
        """Give the first of a line that are free, as far as can be seen. `behind`: all come before them."""
        shards, claimed, stored, total = self.shards, self.claimed, self.stored, self.total
        end, head = self._ends[shard], self._heads[shard]
        while end < total and stored[end] <= now:
            end += shards
        while head < end and claimed[head] <= now:
            head += shards
        self._ends[shard], self._heads[shard] = end, head
        at = max(head, behind + (shard - behind) % shards)
        found: list[int] = []
        while at < end and len(found) < most:
            part = range(at, min(at + most * shards, end), shards)
            found += [number for number in part if claimed[number] > now]
            at += most * shards
        return found[:most]

    def claim(self, numbers: Sequence[int], now: float, database: Database) -> tuple[list[int], float]:
        """Claim what is still free; gives that, and when the store knows about all of it.

        A write waits for the one that is to refuse it.
        """
        claimed = self.claimed
        won = [number for number in numbers if claimed[number] == NEVER]
        last = now
        if len(won) < len(numbers):
            last = max(now, *(claimed[number] for number in numbers if claimed[number] < NEVER))
        for shard, part in self.by_shard(won):
            begin, end = database.write(shard, len(part), now)
            step = (end - begin) / len(part)
            for place, number in enumerate(part, 1):
                claimed[number] = begin + place * step
            last = max(last, end)
        self.leased.update(dict.fromkeys(won))
        return won, last

    def complete(self, numbers: Sequence[int], now: float, database: Database) -> float:
        """Record that tasks are done; gives when the last one is."""
        for number in numbers:
            del self.leased[number]
        return max(database.write(shard, len(part), now)[1] for shard, part in self.by_shard(numbers))

    def by_shard(self, numbers: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
        """Give the parts of each shard."""
        shards = self.shards
        if numbers and (shards == 1 or len({number % shards for number in numbers}) == 1):
            yield numbers[0] % shards, numbers
            return
        parts: dict[int, list[int]] = {}
        for number in numbers:
            parts.setdefault(number % shards, []).append(number)
        yield from parts.items()
