"""Whole days, in steps of a second: quantities instead of calls.

That is enough where the question is what saturates, for how long, and how far starts fall behind: these are decided by
sums over minutes, and the line is first in, first out, so a delay is the time between two sums. What happens within a
second (calls, refused claims, listeners) is `closeup`'s; a test holds both to the same answer for the same burst.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from benchmarks.simulation.assumptions import Assumptions, Settings
from benchmarks.simulation.database import WRITES_A_TASK, capacity, ramp
from benchmarks.simulation.ranges import ranges
from benchmarks.simulation.result import Point, Result

__all__ = ["DAY", "day"]

DAY = 86_400
_HOUR = 3_600
_BUSY_FROM = 9 * _HOUR
_BUSY_TIMES = 4.0
_POINTS = 48
_NONE = 1e-9  # of a task: what rounding leaves


def day(known: Assumptions, settings: Settings, *, tasks: int, busy_hour: bool) -> Result:
    """Enqueue so many tasks in a day, and go on until all are done. `busy_hour`: one of four times the mean."""
    mean = tasks / DAY
    quiet = mean * (24 - _BUSY_TIMES) / 23 if busy_hour else mean

    def rate(second: int) -> float:
        if second >= DAY:
            return 0.0
        is_busy = busy_hour and _BUSY_FROM <= second < _BUSY_FROM + _HOUR
        return mean * _BUSY_TIMES if is_busy else quiet

    return _run(known, settings, rate=rate)


def burst(known: Assumptions, settings: Settings, *, tasks: int) -> Result:
    """Enqueue so many tasks at once, to compare with the close-up."""
    return _run(known, settings, rate=lambda second: 0.0 if second else float(tasks))


def _run(known: Assumptions, settings: Settings, *, rate: Callable[[int], float]) -> Result:
    """Move, second by second, what the limits let through; each side gets its part of what waits.

    Raises RuntimeError where tasks were lost.
    """
    full = settings.shards * capacity(known, settings, ranges())
    slots = settings.workers * settings.concurrency
    enqueueing = settings.enqueuers * known.full_calls * known.call_writes
    call = (known.rpc_shortest + known.rpc_longest) / 2
    starts = slots / (settings.handler + call)  # a second, with all of them busy
    lasting = max(1, round(settings.handler))
    asked, running = deque[list[float]](), deque([0.0] * lasting)
    total = unstored = stored = ended = done = writes = 0.0
    delays: dict[int, float] = defaultdict(float)
    seconds: list[tuple[float, float, float]] = []
    at = 0
    while rate(at) or done < total - 0.5:
        new = rate(at)
        total += new
        unstored += new
        asked.append([at, new])
        ended += running.popleft()
        allowed = min(full, ramp(known, at, warm=settings.warm))
        create = min(unstored, enqueueing)
        claim = min(stored + create, starts)
        finish = ended
        if create + claim + finish > allowed:
            create, claim, finish = _shared(allowed, create, claim, finish, slots)
        claim = min(claim, stored + create)
        unstored, stored = unstored - create, stored + create - claim
        ended, done = ended - finish, done + finish
        running.append(claim)
        writes += create + claim + finish
        _started(asked, claim, at, delays)
        seconds.append((claim, unstored + stored, (create + claim + finish) / settings.shards))
        at += 1
    if abs(done - total) > 1 + 1e-6 * total or abs(writes - WRITES_A_TASK * total) > 3 + 1e-6 * total:
        msg = f"of {total:.0f} tasks {done:.0f} are done"
        raise RuntimeError(msg)
    p50, p95, p99 = (_quantile(delays, share) + 2 * call for share in (0.5, 0.95, 0.99))
    return Result(
        tasks=round(total),
        seconds=at,
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        writes_per_task=writes / total,
        reads_per_task=math.nan,
        refused_percent=math.nan,
        timeline=_timeline(seconds),
    )


def _shared(allowed: float, create: float, claim: float, finish: float, slots: float) -> tuple[float, float, float]:
    """Share what is allowed: a range serves in turn, so each side gets its part of what it has sent and waits for.

    Workers have no more on its way than they have slots. What they get is for ends and claims alike.
    """
    sent = min(claim + finish, slots)
    create = min(create, max(allowed * create / (create + sent), allowed - claim - finish))
    left = allowed - create
    finish = min(finish, max(left / 2, left - claim))
    return create, min(claim, left - finish), finish


def _started(asked: deque[list[float]], count: float, at: int, delays: dict[int, float]) -> None:
    """Count the delays of so many that start now: those that were asked for first."""
    while count > _NONE and asked:
        first = asked[0]
        part = min(count, first[1])
        delays[at - int(first[0])] += part
        count -= part
        first[1] -= part
        if first[1] <= _NONE:
            asked.popleft()


def _quantile(delays: dict[int, float], share: float) -> float:
    left = share * sum(delays.values())
    for delay in sorted(delays):
        left -= delays[delay]
        if left <= 0:
            return delay
    return max(delays, default=0)


def _timeline(seconds: Sequence[tuple[float, float, float]]) -> list[Point]:
    size = max(1, round(len(seconds) / _POINTS))
    return [
        Point(
            min(first + size, len(seconds)),
            sum(one[0] for one in part) / len(part),
            part[-1][1],
            sum(one[2] for one in part) / len(part),
        )
        for first in range(0, len(seconds), size)
        if (part := seconds[first : first + size])
    ]
