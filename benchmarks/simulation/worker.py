"""A simulated worker: reads ahead, claims for its free slots, runs, records; listens while there is nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.simulation.assumptions import Assumptions, Settings
from benchmarks.simulation.database import Database
from benchmarks.simulation.tasks import Tasks

__all__ = ["Counts", "Worker", "World"]


@dataclass
class Counts:
    """What all workers have done."""

    reads: float = 0.0
    claims: int = 0
    refused: int = 0
    done: int = 0
    listening: int = 0
    """Workers whose doorbell is open."""


@dataclass
class World:
    """What a worker meets."""

    known: Assumptions
    settings: Settings
    tasks: Tasks
    database: Database
    counts: Counts
    random: Random
    later: Callable[[float, Callable[..., None], object], None]
    """Calls with the time and what is given, at a time."""
    started: Callable[[Sequence[int], float], None]
    removed: Callable[[float], float]
    """Gives how many entries a query passes at a time that were removed lately."""

    def latency(self) -> float:
        """Draw what a call takes beside its wait for a range."""
        return self.random.uniform(self.known.rpc_shortest, self.known.rpc_longest)


class Worker:
    """One process. It has one query or one claim on its way at a time; ends of handlers travel beside."""

    def __init__(self, world: World) -> None:
        """`world`: shared by all."""
        self._world, self._tasks = world, world.tasks
        self._settings, self._counts = world.settings, world.counts
        self._ahead = world.settings.read_ahead(world.known)
        self._most = world.settings.claim or world.settings.concurrency
        self._running = self._ending = 0
        self._candidates: list[int] = []
        self._tried: set[int] = set()
        self._dry: set[int] = set()
        self._page = self._least = max(1, self._ahead // world.known.page_part)
        self._refused = 0.0
        self._after: int | None = None
        self._is_busy = False
        self._looked_before = self._looked = 0.0
        self.hears = False
        """Its doorbell is open."""

    def take(self, now: float) -> None:
        """Do what is next, unless something is on its way."""
        if self._is_busy:
            return
        slots = self._settings.concurrency
        free = min(slots - self._running, 2 * slots - self._running - self._ending, self._most)
        if free <= 0:
            self._dry.clear()
            self._close_bell()
        elif self._candidates:
            self._claim(free, now)
        elif len(self._dry) < self._settings.shards:
            self._query(now)
        else:
            self._listen(now)

    def rung(self, now: float, shown: Sequence[int]) -> None:
        """Look at what the doorbell shows."""
        if self._is_busy or not self.hears:
            return
        new = [number for number in shown if number not in self._tried]
        if len(new) >= self._world.known.bell_width:
            self._dry.clear()
        if new:
            self._candidates = new
            self.take(now)

    def _listen(self, now: float) -> None:
        known = self._world.known
        if not self.hears:
            self.hears, self._looked = True, now
            self._counts.listening += 1
            self._counts.reads += min(known.bell_width, max(1, len(self._tasks.leased)))
        elif now - self._looked >= known.poll:
            self._dry.clear()
            self._query(now)

    def _close_bell(self) -> None:
        if self.hears:
            self.hears = False
            self._counts.listening -= 1

    def _query(self, now: float) -> None:
        world, known = self._world, self._world.known
        self._is_busy, self._looked = True, now
        left = [shard for shard in range(self._settings.shards) if shard not in self._dry]
        shard = world.random.choice(left)
        place = self._after if self._is_refused else None
        found = self._tasks.find(shard, now, self._page, behind=place or 0)
        self._counts.reads += max(known.empty_query_reads, len(found))
        passed = world.removed(now) * known.removed_entry if place is None else 0.0
        world.later(now + world.latency() + passed, self._found, (shard, found, place is None))

    @property
    def _is_refused(self) -> bool:
        return self._refused > self._world.known.alone

    def _found(self, now: float, answer: tuple[int, list[int], bool]) -> None:
        shard, found, is_at_head = answer
        self._is_busy = False
        tried = self._tried
        self._candidates = [number for number in found if number not in tried]
        is_full = len(found) == self._page
        if not is_full and is_at_head:  # a short answer from further on says nothing about the head
            self._dry.add(shard)
        self._page = self._least if self._is_refused else min(self._ahead, 2 * self._page)
        self._after = self._place_behind(found) if is_full else None
        self.take(now)

    def _place_behind(self, found: Sequence[int]) -> int:
        """Give where to read next, if others are here: a piece further on, or any id of what is due at one instant."""
        random = self._world.random
        if self._settings.instant:
            return random.randrange(self._tasks.created)
        return int(found[-1] + random.random() * self._world.known.longest_leap * (found[-1] - found[0])) + 1

    def _scatter(self) -> None:
        if self._candidates:
            at = self._world.random.randrange(len(self._candidates))
            self._candidates = self._candidates[at:] + self._candidates[:at]

    def _claim(self, most: int, now: float) -> None:
        world, counts = self._world, self._counts
        picked, self._candidates = self._candidates[:most], self._candidates[most:]
        if now >= self._looked_before + world.known.look_before and self._candidates:
            self._looked_before = now
            counts.reads += world.known.empty_query_reads
        if len(self._tried) > 10 * self._ahead:
            self._tried.clear()  # the real one forgets the oldest of 10,000
        self._tried.update(picked)
        won, known_at = self._tasks.claim(picked, now, world.database)
        refused = len(picked) - len(won)
        counts.claims += len(picked)
        counts.refused += refused
        counts.reads += refused * world.known.refused_reads
        self._is_busy = True
        forgets = world.known.forgets
        self._refused = forgets * self._refused + (1 - forgets) * refused / len(picked)
        if not won and self._candidates:  # the rest of the page is left to others
            self._candidates = []
            self._dry.clear()
        elif refused:
            self._scatter()
        world.later(known_at + world.latency(), self._claimed, won)

    def _claimed(self, now: float, won: list[int]) -> None:
        self._is_busy = False
        if won:
            self._world.started(won, now)
            self._running += len(won)
            if self._settings.handler:
                self._world.later(now + self._settings.handler, self._ended, won)
            else:
                self._end(now, won)
        self.take(now)

    def _ended(self, now: float, numbers: list[int]) -> None:
        self._end(now, numbers)
        self.take(now)

    def _end(self, now: float, numbers: list[int]) -> None:
        """Free the slots; the ends are recorded beside what comes next."""
        self._running -= len(numbers)
        self._ending += len(numbers)
        done = self._tasks.complete(numbers, now, self._world.database)
        self._world.later(done + self._world.latency(), self._recorded, len(numbers))

    def _recorded(self, now: float, count: int) -> None:
        self._ending -= count
        self._counts.done += count
        self.take(now)
