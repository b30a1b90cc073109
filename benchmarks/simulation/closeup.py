"""Every call of every worker, as discrete events: for bursts and for windows of minutes."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from benchmarks.simulation.assumptions import Assumptions, Settings
from benchmarks.simulation.database import Database
from benchmarks.simulation.result import Point, Result, percentile
from benchmarks.simulation.tasks import Tasks
from benchmarks.simulation.worker import Counts, Worker, World

__all__ = ["burst", "window"]

_POINTS = 60


def burst(known: Assumptions, settings: Settings, *, tasks: int, seed: int = 1) -> Result:
    """Enqueue so many tasks at once, with workers that wait for them, or before these begin, and run them all."""
    run = _Run(known, settings, total=tasks, seed=seed)
    if settings.waiting:
        run.have_enqueued()
    else:
        run.enqueue_at_once()
    return run.result()


def window(known: Assumptions, settings: Settings, *, rate: float, seconds: float, seed: int = 1) -> Result:
    """Enqueue so many tasks a second, each by itself at a random moment, and run them all."""
    random = Random(seed)  # noqa: S311  # a simulation, not a secret
    moments: list[float] = []
    at = random.expovariate(rate)
    while at < seconds:
        moments.append(at)
        at += random.expovariate(rate)
    run = _Run(known, settings, total=len(moments), seed=seed)
    run.enqueue_one_by_one(moments)
    return run.result()


class _Run:
    """The clock, and what happens when."""

    def __init__(self, known: Assumptions, settings: Settings, *, total: int, seed: int) -> None:
        self._known, self._settings, self._total = known, settings, total
        self._random = Random(seed)  # noqa: S311  # a simulation, not a secret
        self._bucket = 10.0 if total > _POINTS * _POINTS else 1.0
        self._database = Database(known, settings, bucket=self._bucket)
        self._tasks = Tasks(total, settings.shards)
        self._counts = Counts()
        self._delays: list[float] = []
        self._starts: Counter[int] = Counter()
        self._removed: deque[tuple[int, int]] = deque()
        self._removed_lately = 0
        self._events: list[tuple[float, int, Callable[..., None], Any]] = []
        self._numbers = itertools.count()
        self._now = 0.0
        world = World(
            known=known,
            settings=settings,
            tasks=self._tasks,
            database=self._database,
            counts=self._counts,
            random=self._random,
            later=self._later,
            started=self._started,
            removed=self._removed_before,
        )
        self._latency = world.latency
        self._workers = [Worker(world) for _ in range(settings.workers)]
        self._targets = max(1, math.ceil(settings.kinds * settings.shards / known.disjunctions))
        self._shown: dict[int, bool] = {}
        for worker in self._workers:
            self._later(0.0, _begin, worker)
        self._later(0.0, self._snapshot, None)

    def have_enqueued(self) -> None:
        """Let all tasks be there before the workers begin."""
        self._tasks.have_created(self._database)

    def enqueue_at_once(self) -> None:
        """Let the enqueuing processes keep as many full calls in flight as oncetask does."""
        for _ in range(self._settings.enqueuers * self._known.full_calls):
            self._later(self._latency(), self._enqueue_call, None)

    def enqueue_one_by_one(self, moments: Sequence[float]) -> None:
        """Enqueue at these moments."""
        coming = iter(moments)
        self._later(next(coming, 0.0), self._enqueue_one, coming)

    def result(self) -> Result:
        """Run until every task is done. Raises RuntimeError where one was lost or run twice."""
        while self._events and self._counts.done < self._total:
            self._now, _, happens, what = heapq.heappop(self._events)
            happens(self._now, what)
        if not self._counts.done == len(self._delays) == self._tasks.created == self._total or self._tasks.leased:
            msg = f"of {self._total} tasks {len(self._delays)} were started and {self._counts.done} are done"
            raise RuntimeError(msg)
        for worker in self._workers:  # an idle one looks now and then
            self._counts.reads += worker.hears * self._now / self._known.poll
        self._delays.sort()
        return Result(
            tasks=self._total,
            seconds=self._now,
            p50_s=percentile(self._delays, 0.5),
            p95_s=percentile(self._delays, 0.95),
            p99_s=percentile(self._delays, 0.99),
            writes_per_task=self._database.writes / self._total,
            reads_per_task=self._counts.reads / self._total,
            refused_percent=100 * self._counts.refused / self._counts.claims,
            timeline=self._timeline(),
        )

    # -- what happens -------------------------------------------------------------------------------------------------

    def _later(self, at: float, happens: Callable[..., None], what: object) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), happens, what))

    def _enqueue_call(self, now: float, _: None) -> None:
        count = min(self._known.call_writes, self._total - self._tasks.created)
        if count > 0:
            end = self._tasks.create(count, asked=0.0, now=now, database=self._database)
            self._later(end + self._latency(), self._enqueue_call, None)

    def _enqueue_one(self, now: float, coming: Any) -> None:
        if self._tasks.created < self._total:
            self._tasks.create(1, asked=now, now=now, database=self._database)
        if (moment := next(coming, None)) is not None:
            self._later(moment, self._enqueue_one, coming)

    def _snapshot(self, now: float, _: None) -> None:
        """Tell the listening workers what the first documents of the line are; what changes in it is billed to each."""
        self._later(now + self._known.snapshot_every, self._snapshot, None)
        if not self._counts.listening:
            self._shown = {}
            return
        width = self._known.bell_width * self._targets
        shards = range(self._settings.shards)
        free = [number for shard in shards for number in self._tasks.find(shard, now, self._known.bell_width)]
        free = sorted(free, key=self._tasks.stored.__getitem__)[:width]
        shown = dict.fromkeys(free, False)
        for number in itertools.islice(self._tasks.leased, 2 * width):
            if len(shown) < width and number not in shown:
                shown[number] = True
        changed = sum(self._shown.get(number) is not leased for number, leased in shown.items())
        for number, was_leased in self._shown.items():  # gone, because it was claimed or is done
            if number not in shown:
                changed += (number not in self._tasks.leased) if was_leased else self._tasks.claimed[number] <= now
        self._counts.reads += changed * self._counts.listening
        self._shown = shown
        if free:
            for worker in self._workers:
                if worker.hears:
                    self._later(now + self._latency(), worker.rung, free)

    def _started(self, numbers: Sequence[int], now: float) -> None:
        asked = self._tasks.asked
        self._delays += [now - asked[number] for number in numbers]
        self._starts[int(now // self._bucket)] += len(numbers)
        second = int(now)
        self._removed_lately += len(numbers)
        if self._removed and self._removed[-1][0] == second:
            self._removed[-1] = (second, self._removed[-1][1] + len(numbers))
        else:
            self._removed.append((second, len(numbers)))

    def _removed_before(self, now: float) -> float:
        """Give the entries that a query of one shard passes: each claim and each end has removed one."""
        kept = self._known.watermark_lag if self._settings.watermark else self._known.removed_kept
        while self._removed and self._removed[0][0] < now - kept:
            self._removed_lately -= self._removed.popleft()[1]
        return 2 * self._removed_lately / self._settings.shards

    def _timeline(self) -> list[Point]:
        """Give the run in at most sixty intervals."""
        last = int(self._now // self._bucket) + 1
        size = math.ceil(last / _POINTS)
        asked = Counter(int(at // self._bucket) for at in self._tasks.asked)
        points, backlog = [], 0
        for first in range(0, last, size):
            part = range(first, first + size)
            started = sum(self._starts[n] for n in part)
            backlog += sum(asked[n] for n in part) - started
            seconds = size * self._bucket
            writes = sum(self._database.busiest[n] for n in part)
            points.append(Point((first + size) * self._bucket, started / seconds, backlog, writes / seconds))
        return points


def _begin(now: float, worker: Worker) -> None:
    worker.take(now)
