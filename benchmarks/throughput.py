"""How many no-op tasks a second are enqueued and drained, beside what the store itself can do, taking turns with it."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

from benchmarks import floor
from benchmarks.report import Bar, at_least, at_most, exactly
from oncetask import App, CallNext, Client, Context, Payload, Worker, connect

__all__ = ["BARS", "measure"]

_TURNS = 3
_WARM_UP = 1_000
_SHARES = {"enqueue_of_floor": at_least(0.8), "drain_of_floor": at_least(0.7)}
BARS: dict[str, dict[str, Bar]] = {
    "sqlite": {"enqueue_per_second": at_least(20_000), "drain_per_second": at_least(5_000)},
    "firestore": {
        **_SHARES,
        "writes_per_task": at_most(3),
        "reads_per_task": at_most(1.2),
        "refused_writes": exactly(0),
    },
}
app = App("throughput")


class Noop(Payload, kind="noop"):
    """Nothing to do."""

    n: int


@app.handler(Noop)
async def noop(_: Context, __: Noop) -> None:
    """Do nothing."""


async def measure(url: str, tasks: int, concurrency: int) -> dict[str, float]:
    """Give the medians of three runs, and of three of the floor between them; reads and writes of the first run.

    The store is warmed up before, since the emulator is slow at first. Every run has a place of its own.
    """
    await _run(url, _WARM_UP, concurrency)
    ours, floors = [], []
    for _ in range(_TURNS):
        ours.append(await _run(url, tasks, concurrency))
        floors.append(await _floor(url, tasks, concurrency))
    figures = {name: _median(ours, name) for name in ours[0]}
    for name in ("enqueue", "drain"):
        figures[f"floor_{name}_per_second"] = _median(floors, f"{name}_per_second")
        figures[f"{name}_of_floor"] = figures[f"{name}_per_second"] / figures[f"floor_{name}_per_second"]
    return figures


async def _drain(client: Client, tasks: int, concurrency: int) -> float:
    """Give the seconds from the worker's start until the last of the tasks is recorded as done."""
    done = 0
    all_done = asyncio.Event()

    async def count(_: Context, call_next: CallNext) -> object:
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


async def _run(url: str, tasks: int, concurrency: int) -> dict[str, float]:
    """Enqueue, and drain with one worker that finds them all waiting."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with connect(_fresh(url, folder)) as client:
            payloads = [Noop(n=n) for n in range(tasks)]
            started = time.perf_counter()
            await client.enqueue_many(payloads)
            figures["enqueue_per_second"] = tasks / (time.perf_counter() - started)
            counters = getattr(client.store, "counters", None)
            reads_before = counters.documents_read + counters.listen_documents if counters else 0
            figures["drain_per_second"] = tasks / await _drain(client, tasks, concurrency)
            if counters:
                reads = counters.documents_read + counters.listen_documents - reads_before
                figures["writes_per_task"] = counters.writes_sent / tasks
                figures["reads_per_task"] = reads / tasks
                figures["rpcs_per_task"] = sum(counters.rpcs.values()) / tasks
                figures["refused_writes"] = counters.writes_refused
            if left := await client.pending_count():
                sys.exit(f"{left} of {tasks} tasks were left over: the figures mean nothing")
    return figures


async def _floor(url: str, tasks: int, concurrency: int) -> dict[str, float]:
    payloads = [Noop(n=n) for n in range(tasks)]
    with tempfile.TemporaryDirectory() as folder:
        fresh = _fresh(url, folder)
        if url.startswith("sqlite"):
            return floor.sqlite(fresh.removeprefix("sqlite:///"), payloads, batch=concurrency)
        return await floor.firestore(fresh.removeprefix("firestore://"), payloads, batch=concurrency)


def _fresh(url: str, folder: str) -> str:
    """Give a place where nothing is yet: a new file, or a project of its own."""
    if url.startswith("sqlite"):
        return f"sqlite:///{Path(folder) / 'bench.db'}"
    return f"{url}-{uuid.uuid4().hex[:8]}"


def _median(runs: list[dict[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)
