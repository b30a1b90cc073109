"""The questions that `docs/scaling.md` answers, each as a table of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from benchmarks.simulation import closeup, flow
from benchmarks.simulation.assumptions import Assumptions, Settings
from benchmarks.simulation.keys import one_key
from benchmarks.simulation.ranges import STEPS, ranges
from benchmarks.simulation.result import Result

__all__ = ["TABLES", "Row", "question"]

Row = Mapping[str, str | float]
_A_DAY = 10_000_000
_MEAN = _A_DAY / flow.DAY
_SHARDS = (1, 2, 4, 8, 16, 32)


def question(known: Assumptions, settings: Settings, *, tasks: int, seed: int) -> Iterator[Row]:
    """A burst with settings of one's own, and how it went on."""
    result = closeup.burst(known, settings, tasks=tasks, seed=seed)
    yield result.figures(known)
    for point in result.timeline:
        yield vars(point)


def _ranges(known: Assumptions, _: float, __: int) -> Iterator[Row]:
    """Which ever-growing ranges the writes of a task touch, from firestore.indexes.json."""
    for one in ranges():
        yield {
            "index": one.index,
            "range": one.where,
            "one_for_each": "kind" if one.is_of_kind else "environment",
            **{step: one.writes[step] for step in STEPS},
            "short_task": one.short_task,
            "tasks_per_second": known.range_writes / one.short_task,
        }


def _day(known: Assumptions, scale: float, _: int) -> Iterator[Row]:
    """Ten million tasks in a day, 200 workers, handlers of 0.1 s; evenly, and with an hour of four times the mean."""
    del scale  # it takes no longer for more tasks
    for busy_hour in (False, True):
        for shards in _SHARDS[:4]:
            result = flow.day(known, Settings(shards=shards, handler=0.1), tasks=_A_DAY, busy_hour=busy_hour)
            yield {
                "busy_hour": "4 times the mean" if busy_hour else "no",
                "shards": shards,
                **_some(known, result, "shard_writes_per_second", "most_backlog_tasks", "p50_s", "p95_s", "p99_s"),
                "behind_hours": result.hours_behind,
            }


def _profile(known: Assumptions, scale: float, _: int) -> Iterator[Row]:
    """The day with the busy hour, hour by hour, with one shard and with four."""
    del scale
    runs = {n: flow.day(known, Settings(shards=n, handler=0.1), tasks=_A_DAY, busy_hour=True) for n in (1, 4)}
    for points in zip(*(one.timeline[1::2] for one in runs.values()), strict=True):
        yield {"hour": points[0].at / 3600} | {
            f"{name}_{shards}": getattr(point, name)
            for shards, point in zip(runs, points, strict=True)
            for name in ("started_per_second", "backlog")
        }


def _burst(known: Assumptions, scale: float, seed: int) -> Iterator[Row]:
    """A million tasks enqueued at once by 16 processes, to 200 workers of 32 slots (and fewer)."""
    tasks = int(1_000_000 * scale)
    million = Settings(enqueuers=16)
    runs = [replace(million, shards=shards, warm=warm) for warm in (True, False) for shards in _SHARDS]
    runs += [replace(million, shards=shards, handler=1.0) for shards in (8, 32)]
    runs += [
        replace(million, shards=8, workers=workers, handler=handler) for workers in (4, 20) for handler in (0.1, 1)
    ]
    for settings in runs:
        yield _burst_row(known, settings, flow.burst(known, settings, tasks=tasks), "flow")
    for shards, workers in ((8, 20), (8, 200), (32, 200)):
        settings = replace(million, shards=shards, workers=workers, handler=0.1)
        yield _burst_row(known, settings, closeup.burst(known, settings, tasks=tasks, seed=seed), "close-up")


def _burst_row(known: Assumptions, settings: Settings, result: Result, model: str) -> Row:
    return {
        "shards": settings.shards,
        "workers": settings.workers,
        "handler_s": settings.handler,
        "warm": "yes" if settings.warm else "no",
        "model": model,
        **_some(known, result, "minutes", "tasks_per_second", "shard_writes_per_second", "p50_s", "p95_s", "p99_s"),
    }


def _workers(known: Assumptions, scale: float, seed: int) -> Iterator[Row]:
    """A minute of the day's mean rate, and of its busy hour, with more and more workers that listen (4 shards)."""
    for rate in (_MEAN, 4 * _MEAN):
        for handler, counts in ((0.1, (2, 4, 20, 200)), (1.0, (16, 200))):
            for workers in counts:
                settings = Settings(workers=workers, shards=4, handler=handler)
                result = closeup.window(known, settings, rate=rate, seconds=60 * scale, seed=seed)
                yield {
                    "tasks_per_second": rate,
                    "handler_s": handler,
                    "workers": workers,
                    **_some(known, result, "p50_s", "p95_s", "p99_s"),
                    **_costs(known, result),
                    "usd_per_day": result.money(known) * rate * flow.DAY / 1e6,
                }


def _crowd(known: Assumptions, scale: float, seed: int) -> Iterator[Row]:
    """What waits on 8 shards, or one: what workers, the size of claims and reads, and one instant do to refusals."""
    base = Settings(shards=8, handler=0.1, waiting=True)
    runs = [replace(base, workers=workers) for workers in (1, 2, 4, 8, 20, 50, 200)]
    runs += [replace(base, shards=1, workers=workers) for workers in (1, 2, 4, 20, 200)]
    runs += [replace(base, claim=claim) for claim in (8, 16)]
    runs += [replace(base, ahead=ahead) for ahead in (50, 300)]
    runs += [replace(base, workers=workers, instant=True) for workers in (4, 20, 200)]
    runs += [replace(base, concurrency=256, workers=25)]
    for settings in runs:
        result = closeup.burst(known, settings, tasks=int(200_000 * scale), seed=seed)
        yield {
            "shards": settings.shards,
            "workers": settings.workers,
            "concurrency": settings.concurrency,
            "claim": settings.claim or settings.concurrency,
            "ahead": settings.read_ahead(known),
            "instant": "yes" if settings.instant else "no",
            **_some(known, result, "tasks_per_second"),
            **_costs(known, result),
        }


def _kinds(known: Assumptions, scale: float, seed: int) -> Iterator[Row]:
    """The same burst with more kinds, evenly: each has ranges of its own, where all indexes begin with it."""
    for kinds in (1, 4, 30):
        result = closeup.burst(known, Settings(kinds=kinds, workers=50), tasks=int(100_000 * scale), seed=seed)
        yield {"kinds": kinds, **_some(known, result, "minutes", "tasks_per_second", "shard_writes_per_second")}


def _watermark(known: Assumptions, scale: float, seed: int) -> Iterator[Row]:
    """What removed entries cost each query, and what a watermark would change, for three guesses of that cost."""
    for cost in (0.0, 2e-6, 2e-5):
        for watermark in (False, True):
            guess = replace(known, removed_entry=cost)
            settings = Settings(workers=4, shards=8, watermark=watermark)
            result = closeup.burst(guess, settings, tasks=int(500_000 * scale), seed=seed)
            yield {
                "microseconds_an_entry": 1e6 * cost,
                "watermark": "yes" if watermark else "no",
                **_some(guess, result, "minutes", "tasks_per_second"),
            }


def _keys(known: Assumptions, _: float, seed: int) -> Iterator[Row]:
    """One resource key that gets more and more tasks."""
    for handler, batch in ((0.0, 1), (0.1, 1), (1.0, 1), (0.1, 100)):
        for rate in (0.1, 1.0, 5.0, 20.0, 200.0):
            result = one_key(known, rate=rate, handler=handler, batch=batch, seed=seed)
            yield {"arrive_per_second": rate, "handler_s": handler, "max_batch": batch, **vars(result)}


def _some(known: Assumptions, result: Result, *names: str) -> dict[str, float]:
    figures = result.figures(known)
    return {name: figures[name] for name in names}


def _costs(known: Assumptions, result: Result) -> dict[str, float]:
    return _some(known, result, "refused_percent", "reads_per_task", "writes_per_task", "usd_per_million")


TABLES: Mapping[str, Callable[[Assumptions, float, int], Iterator[Row]]] = {
    "ranges": _ranges,
    "day": _day,
    "profile": _profile,
    "burst": _burst,
    "workers": _workers,
    "crowd": _crowd,
    "kinds": _kinds,
    "watermark": _watermark,
    "keys": _keys,
}
"""Name -> a function of the assumptions, the size of the runs (1: full) and the seed."""
