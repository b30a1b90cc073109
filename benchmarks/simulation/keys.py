"""One resource key that gets more and more tasks: how many run, and how often its lock is written."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from benchmarks.simulation.assumptions import Assumptions
from benchmarks.simulation.result import percentile

__all__ = ["KeyResult", "one_key"]


@dataclass(frozen=True)
class KeyResult:
    """What became of one key."""

    per_second: float
    """Tasks that were done, from the first arrival to the last end."""
    lock_writes_per_second: float
    tasks_a_run: float
    """Tasks from taking the key to letting it go."""
    p50_s: float
    p99_s: float


def one_key(
    known: Assumptions, *, rate: float, handler: float, batch: int = 1, tasks: int = 2_000, seed: int = 1
) -> KeyResult:
    """Let tasks of one key arrive at random, so many a second; a worker takes the key whenever somebody looks.

    `batch`: at most so many run in one call. Taking the key writes the lock, and so does letting it go; going on from
    task to task does not. Both wait until the document may be written again. Raises RuntimeError where a task was lost.
    """
    random = Random(seed)  # noqa: S311  # a simulation, not a secret
    arrivals, at = [], 0.0
    for _ in range(tasks):
        at += random.expovariate(rate)
        arrivals.append(at)

    def call() -> float:
        return random.uniform(known.rpc_shortest, known.rpc_longest)

    delays: list[float] = []
    now = lock_free = 0.0
    first = runs = 0
    while first < tasks:
        now = max(now, arrivals[first]) + call() + call()  # it is heard of, and its lock and line are read
        lock_free = max(now, lock_free) + 1 / known.document_writes
        now = max(now, lock_free - 1 / known.document_writes) + call()
        runs += 1
        while first < tasks and arrivals[first] <= now:
            size = 1
            while size < batch and first + size < tasks and arrivals[first + size] <= now:
                size += 1
            delays += [now - arrival for arrival in arrivals[first : first + size]]
            first += size
            now += handler
            if first < tasks and arrivals[first] <= now:  # the end of this one is the claim of the next
                now += call()
        lock_free = max(now, lock_free) + 1 / known.document_writes
        now = max(now, lock_free - 1 / known.document_writes) + call()
    if len(delays) != tasks:
        msg = f"of {tasks} tasks of the key {len(delays)} were started"
        raise RuntimeError(msg)
    seconds = now - arrivals[0]
    delays.sort()
    return KeyResult(
        per_second=tasks / seconds,
        lock_writes_per_second=2 * runs / seconds,
        tasks_a_run=tasks / runs,
        p50_s=percentile(delays, 0.5),
        p99_s=percentile(delays, 0.99),
    )
