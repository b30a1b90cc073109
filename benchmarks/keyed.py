"""How fast tasks of resource keys are drained, one by one and in batches, what they cost, and what holds under fire."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from oncetask import App, Client, Context, Payload, Worker, connect
from tests.under_fire import Fire, share_keys

__all__ = ["batches", "drain", "under_fire"]

KEYS = 50
_PROCESSES = 5
_TASKS_A_STRIKE = 200


class Keyed(Payload, kind="keyed"):
    """Nothing to do, one at a time."""

    n: int

    def resource_key(self) -> str:
        """Give one of fifty."""
        return f"key-{self.n % KEYS}"


async def drain(open_client: Callable[[str], Client], *, tasks: int, workers: int) -> dict[str, float]:
    """Let workers, each with a client of its own, drain tasks that wait when they start."""
    return await _drained(open_client, tasks=tasks, workers=workers, in_batches=False)


async def batches(open_client: Callable[[str], Client], *, tasks: int) -> dict[str, float]:
    """The same by one worker, up to a hundred of a key in one call."""
    return await _drained(open_client, tasks=tasks, workers=1, in_batches=True)


async def under_fire(url: str, tasks: int) -> dict[str, float]:
    """Let five processes, of which one is killed or stopped now and then, drain tasks; tells what a witness saw."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ONCETASK_STORE": url}
        fire = Fire(environment, Path(folder) / "witness.db", processes=_PROCESSES, seed=tasks)
        started = time.perf_counter()
        try:
            async with connect(url) as client:
                verdict = await share_keys(client, fire, tasks=tasks, keys=KEYS, strikes=tasks // _TASKS_A_STRIKE)
        finally:
            await fire.aclose()
    return {
        "fire_seconds": time.perf_counter() - started,
        "fire_runs": verdict.runs,
        "fire_overlaps": len(verdict.overlaps),
        "fire_overlaps_of_stopped": verdict.excused,
        "fire_out_of_order": len(verdict.out_of_order),
        "fire_never": len(verdict.never),
    }


async def _drained(
    open_client: Callable[[str], Client], *, tasks: int, workers: int, in_batches: bool
) -> dict[str, float]:
    env = f"bench-{uuid.uuid4().hex[:8]}"
    left, done = tasks, asyncio.Event()
    order: dict[str, list[int]] = {}

    def ran(ctx: Context, numbers: list[int]) -> None:
        nonlocal left
        order.setdefault(ctx.task.resource_key or "", []).extend(numbers)
        left -= len(numbers)
        if not left:
            done.set()

    app = App("keyed")
    if in_batches:

        @app.batch_handler(Keyed)
        async def several(ctx: Context, found: list[Keyed]) -> None:
            ran(ctx, [payload.n for payload in found])

    else:

        @app.handler(Keyed)
        async def one(ctx: Context, payload: Keyed) -> None:
            ran(ctx, [payload.n])

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_client(env)) for _ in range(workers)]
        await clients[0].enqueue_many([Keyed(n=n) for n in range(tasks)])
        started = time.perf_counter()
        async with AsyncExitStack() as working:
            for client in clients:
                await working.enter_async_context(Worker(app, client, processes=1))
            await done.wait()
        seconds = time.perf_counter() - started
        if await clients[0].pending_count():
            msg = "tasks were left over: the figures mean nothing"
            raise RuntimeError(msg)
        counters = [counter for client in clients if (counter := getattr(client.store, "counters", None))]
    name = "batched" if in_batches else "keyed"
    figures = {
        f"{name}_{workers}_per_second": tasks / seconds,
        f"{name}_{workers}_out_of_order": sum(numbers != sorted(numbers) for numbers in order.values()),
    }
    if counters:
        figures[f"{name}_{workers}_writes_per_task"] = sum(counter.writes_sent for counter in counters) / tasks
        reads = sum(counter.documents_read + counter.listen_documents for counter in counters)
        figures[f"{name}_{workers}_reads_per_task"] = reads / tasks
        figures[f"{name}_{workers}_refused_writes"] = sum(counter.writes_refused for counter in counters)
        figures[f"{name}_{workers}_queries"] = sum(counter.rpcs["RunQuery"] for counter in counters)
    return figures
