"""How fast workers drain no-op tasks, how soon cancels, time limits and instants arrive, how soon functions start.

`python -m benchmarks --help` tells its options.

Each figure is one run on this machine, with whatever else runs on it; compare figures of one run only. Reads and
writes are counted at the RPC, by the adapter itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from benchmarks import cancelling, cold_start, keyed, limits, recurring
from oncetask import App, Client, Context, Payload, Worker, connect
from tests.emulator import running_emulator

BARS = {
    "sqlite": {
        "drain_per_second": "at least 2,000",
        "limit_200_ms_first": "at least 200",
        "limit_200_ms_last": "at most 350",
        "concurrent_limits_own": "all of 1,000",
    },
    "firestore": {
        "cancel_p95_ms": "at most 250",
        "bulk_cancel_rpcs_per_500": "at most 3",
        "drain_per_second": "at least 500",
        "writes_per_task": "at most 3",
        "reads_per_task": "at most 3",
        "limit_200_ms_first": "at least 200",
        "limit_200_ms_last": "at most 350",
        "concurrent_limits_own": "all of 1,000",
    },
}
KEYED = {
    "fire_overlaps": "none",
    "fire_out_of_order": "none",
    "fire_never": "none",
    "keyed_1_out_of_order": "none",
    "keyed_4_out_of_order": "none",
    "batched_1_out_of_order": "none",
}
ON_FIRESTORE = {
    "keyed_1_per_second": "at least 300",
    "keyed_4_per_second": "at least 300",
    "keyed_1_writes_per_task": "at most 3.2",
    "batched_1_per_second": "at least 1,000",
}
RACE = {"race_run_once": "all of them", "race_run_more_often": "none", "race_run_never": "none"}
app = App("benchmark")


class Noop(Payload, kind="noop"):
    """Nothing to do."""

    n: int


class Last(Payload, kind="last"):
    """Enqueued behind the others: when it starts, the line before it is empty."""


@app.handler(Noop)
async def noop(_: Context, __: Noop) -> None:
    """Do nothing."""


async def measure(url: str, tasks: int, concurrency: int, cancels: int) -> dict[str, float]:
    """Enqueue, drain with one worker that finds them all waiting, cancel."""
    figures: dict[str, float] = {}
    async with connect(url, env=f"bench-{uuid.uuid4().hex[:8]}") as client:
        counters = getattr(client.store, "counters", None)
        started = time.perf_counter()
        await client.enqueue_many([Noop(n=n) for n in range(tasks)])
        figures["enqueue_per_second"] = tasks / (time.perf_counter() - started)
        enqueue_writes = counters.writes_sent if counters else 0
        reads_before = counters.documents_read + counters.listen_documents if counters else 0
        figures["drain_per_second"] = tasks / await drain(client, tasks, concurrency)
        if counters:
            figures["writes_per_task"] = counters.writes_sent / tasks
            figures["writes_per_task_without_enqueue"] = (counters.writes_sent - enqueue_writes) / tasks
            figures["reads_per_task"] = (counters.documents_read + counters.listen_documents - reads_before) / tasks
            figures["refused_writes"] = counters.writes_refused
            figures["rpcs_per_task"] = sum(counters.rpcs.values()) / tasks
        figures["idle_round_trip_ms"] = 1_000 * await round_trip(client)
        left = await client.pending_count()
        if left:
            sys.exit(f"{left} tasks were left over: the figures mean nothing")
    async with connect(url, env=f"bench-{uuid.uuid4().hex[:8]}") as client:
        figures |= await cancelling.latencies(client, cancels)
        figures |= await cancelling.bulk(client, tasks)
    async with connect(url, env=f"bench-{uuid.uuid4().hex[:8]}") as client:
        figures |= await limits.measure(client, cancels, many=1_000)
    return figures


async def race(url: str, minutes: int) -> dict[str, float]:
    """Let workers race for generators, in a place of its own: on the emulator every document there slows them down."""
    async with AsyncExitStack() as stack:
        return await recurring.instants(lambda: stack.enter_async_context(connect(url)), minutes)


async def keys(url: str) -> dict[str, float]:
    """Drain tasks of fifty keys with one worker and with four, and in batches."""
    open_client = partial(connect, url)
    figures: dict[str, float] = {}
    for workers in (1, 4):
        figures |= await keyed.drain(lambda env: open_client(env=env), tasks=1_000, workers=workers)
    return figures | await keyed.batches(lambda env: open_client(env=env), tasks=5_000)


async def drain(client: Client, tasks: int, concurrency: int) -> float:
    """Give the seconds from the worker's start until the last of the tasks is recorded as done."""
    done = 0
    all_done = asyncio.Event()

    async def count(_: Context, call_next) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001  # CallNext
        nonlocal done
        result = await call_next()
        done += 1
        if done == tasks:
            all_done.set()
        return result

    counting = App("counting")
    counting.middleware(count)
    counting.include(app)
    started = time.perf_counter()
    async with Worker(counting, client, concurrency=concurrency):
        await all_done.wait()
    return time.perf_counter() - started  # leaving the worker waits until every completion is stored


async def round_trip(client: Client) -> float:
    """Give the median seconds from enqueue to done, with a worker that waits for work."""
    times = []
    async with Worker(app, client):
        for n in range(20):
            started = time.perf_counter()
            receipt = await client.enqueue(Noop(n=-n))
            await client.wait(receipt.task_id, timeout=30)
            times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def main() -> None:
    """Measure the stores that were asked for; print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--tasks", type=int, default=5_000, help="no-op tasks that wait before the worker starts")
    parser.add_argument("--concurrency", type=int, default=32, help="the worker's")
    parser.add_argument("--cancels", type=int, default=100, help="handlers cancelled in another process")
    parser.add_argument("--minutes", type=int, default=100, help="of fifty generators that workers race for")
    parser.add_argument("--under-fire", type=int, default=5_000, help="tasks of fifty keys, while workers are killed")
    parser.add_argument("--stores", nargs="+", choices=["sqlite", "firestore"], default=["sqlite", "firestore"])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    asked = parser.parse_args()
    logging.getLogger("oncetask").setLevel(logging.CRITICAL)  # a thousand time limits are reached on purpose
    results, rules, start = {}, recurring.rules(), cold_start.measure()
    for store in asked.stores:
        if store == "sqlite":
            with tempfile.TemporaryDirectory() as folder:
                url = f"sqlite:///{Path(folder) / 'bench.db'}"
                raced = asyncio.run(race(f"sqlite:///{Path(folder) / 'race.db'}", asked.minutes))
                raced |= asyncio.run(keyed.under_fire(f"sqlite:///{Path(folder) / 'fire.db'}", asked.under_fire))
                raced |= asyncio.run(keys(f"sqlite:///{Path(folder) / 'keys.db'}"))
                results[store] = raced | asyncio.run(measure(url, asked.tasks, asked.concurrency, asked.cancels))
        else:
            with running_emulator() as host:
                os.environ["FIRESTORE_EMULATOR_HOST"] = host
                url = f"firestore://bench-{uuid.uuid4().hex[:8]}"
                raced = asyncio.run(race(f"{url}-race", asked.minutes))
                raced |= asyncio.run(keyed.under_fire(f"{url}-fire", asked.under_fire))
                raced |= asyncio.run(keys(f"{url}-keys"))
                results[store] = raced | asyncio.run(measure(url, asked.tasks, asked.concurrency, asked.cancels))
    if asked.json:
        print(
            json.dumps(
                {
                    "python": platform.python_version(),
                    "cpus": os.cpu_count(),
                    "rules": rules,
                    "cold_start": start,
                    "stores": results,
                },
                indent=2,
            )
        )
        return
    show("rules of ten years ago", rules, {"next_after_worst_ms": "at most 5"})
    show("cold start of functions/main.py, beside importing Google's libraries alone", start, cold_start.BARS)
    for store, figures in results.items():
        title = f"{store}: {asked.tasks} no-op tasks, one worker, concurrency {asked.concurrency}"
        show(title, figures, {**BARS[store], **RACE, **KEYED, **(ON_FIRESTORE if store == "firestore" else {})})


def show(title: str, figures: dict[str, float], bars: dict[str, str]) -> None:
    """Print figures, with what they should be."""
    print(title)
    for name, figure in figures.items():
        print(f"  {name.replace('_', ' '):34} {figure:12,.2f}  {bars.get(name, '')}".rstrip())


if __name__ == "__main__":
    main()
