"""All that is measured of oncetask: in sections, each on a store of its own, with the bars that it has to keep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks import (
    cancelling,
    cold_start,
    growth,
    keyed,
    latency,
    limits,
    memory,
    recurring,
    throughput,
    workers,
)
from benchmarks.report import Bar, at_least, at_most, exactly
from oncetask import connect

__all__ = ["LOCAL", "STORED", "Local", "Sizes", "Stored"]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    tasks: int = 5_000
    """No-ops that wait before a worker starts."""
    concurrency: int = 32
    """Of each worker."""
    keyed: int = 1_000
    """Tasks of fifty resource keys that are run one by one."""
    tries: int = 50
    """Of single tasks, cancels and time limits."""
    minutes: int = 100
    """Of fifty generators that workers race for."""
    fire: int = 5_000
    """Tasks of fifty keys, while workers are killed."""
    queues: tuple[int, int, int] = (1_000, 10_000, 100_000)
    """Lengths of queues that are compared, and numbers of done tasks."""


@dataclass(frozen=True)
class Stored:
    """A section that needs a store: `run` gets its url, where nothing is stored yet."""

    name: str
    title: str
    run: Callable[[str, Sizes], Awaitable[dict[str, float]]]
    bars: Mapping[str, Mapping[str, Bar]] = field(default_factory=dict)
    """For each store."""
    stores: tuple[str, ...] = ("sqlite", "firestore")


@dataclass(frozen=True)
class Local:
    """A section that needs no store."""

    name: str
    title: str
    run: Callable[[], dict[str, float]]
    bars: Mapping[str, Bar]


async def _workers(url: str, sizes: Sizes) -> dict[str, float]:
    shared = await workers.together(url, sizes.tasks, sizes.concurrency)
    return shared | await workers.of_one_instant(url, sizes.tasks, sizes.concurrency)


async def _cancels(url: str, sizes: Sizes) -> dict[str, float]:
    async with connect(url) as client:
        figures = await cancelling.latencies(client, sizes.tries)
        return figures | await cancelling.bulk(client, sizes.tasks)


async def _limits(url: str, sizes: Sizes) -> dict[str, float]:
    async with connect(url) as client:
        return await limits.measure(client, sizes.tries, many=_LIMITS)


async def _keys(url: str, sizes: Sizes) -> dict[str, float]:
    figures: dict[str, float] = {}
    for number in (1, 4):
        figures |= await keyed.drain(lambda env: connect(url, env=env), tasks=sizes.keyed, workers=number)
    return figures | await keyed.batches(lambda env: connect(url, env=env), tasks=sizes.tasks)


async def _race(url: str, sizes: Sizes) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        return await recurring.instants(lambda: stack.enter_async_context(connect(url)), sizes.minutes)


async def _memory(url: str, sizes: Sizes) -> dict[str, float]:
    longest = sizes.queues[-1]
    if url.startswith("firestore"):  # the emulator's own memory does not do for more
        longest //= 5
    return await memory.measure(url, longest, longest // 10, longest // 50)


async def _growth(url: str, sizes: Sizes) -> dict[str, float]:
    few, some, many = sizes.queues
    figures = await growth.waiting(url, sizes.queues, few)
    figures |= await growth.done(url, (0, some, many), 2 * few)
    return figures | await growth.kinds(url, tasks=2 * few)


_LIMITS = 1_000
_FAR = 1_500
_LIMIT_BARS = {
    "limit_200_ms_first": at_least(200),
    "limit_200_ms_last": at_most(350),
    "concurrent_limits_own": exactly(_LIMITS),
}
_RACE_BARS = {"race_run_more_often": exactly(0), "race_run_never": exactly(0)}
_FIRE_BARS = {f"fire_{wrong}": exactly(0) for wrong in ("overlaps", "out_of_order", "never")}
_IN_ORDER = {f"{name}_out_of_order": exactly(0) for name in ("keyed_1", "keyed_4", "batched_1")}

LOCAL = (
    Local(
        "cold_start",
        "cold start of functions/main.py, beside importing Google's libraries alone",
        cold_start.measure,
        {"own_percent": at_most(15)},
    ),
    Local("rules", "rules of ten years ago", recurring.rules, {"next_after_worst_ms": at_most(5)}),
)
STORED = (
    Stored(
        "throughput",
        "no-op tasks, one worker, beside the floor",
        lambda url, sizes: throughput.measure(url, sizes.tasks, sizes.concurrency),
        throughput.BARS,
    ),
    Stored("workers", "no-op tasks, workers that share a queue", _workers, workers.BARS),
    Stored(
        "far",
        "workers whose store answers 20 ms later",
        lambda url, _: workers.far(url, _FAR),
        {"firestore": workers.FAR_BARS},
        stores=("firestore",),
    ),
    Stored("latency", "from idle to start", lambda url, sizes: latency.measure(url, sizes.tries), latency.BARS),
    Stored(
        "cancelling",
        "cancels of handlers in another process, and of many that wait",
        _cancels,
        {"firestore": {"cancel_p95_ms": at_most(250), "bulk_cancel_rpcs_per_500": at_most(3)}},
    ),
    Stored("limits", "time limits", _limits, {"sqlite": _LIMIT_BARS, "firestore": _LIMIT_BARS}),
    Stored(
        "keyed",
        "tasks of fifty resource keys, one by one and in batches",
        _keys,
        {
            "sqlite": _IN_ORDER,
            "firestore": {
                **_IN_ORDER,
                "keyed_1_per_second": at_least(300),
                "keyed_4_per_second": at_least(300),
                "keyed_1_writes_per_task": at_most(3.2),
                "batched_1_per_second": at_least(1_000),
            },
        },
    ),
    Stored("memory", "memory of a worker beside a long queue", _memory, memory.BARS),
    Stored("growth", "drain rate against what waits, is done, and against kinds", _growth, growth.BARS),
    Stored(
        "race",
        "three workers race for the instants of fifty generators",
        _race,
        {"sqlite": _RACE_BARS, "firestore": _RACE_BARS},
    ),
    Stored(
        "fire",
        "five workers of fifty keys, killed and stopped now and then",
        lambda url, sizes: keyed.under_fire(url, sizes.fire),
        {"sqlite": _FIRE_BARS, "firestore": _FIRE_BARS},
    ),
)
