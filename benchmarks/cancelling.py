"""How long a cancel takes to reach a handler in another process, and what cancelling thousands costs.

`python -m benchmarks.cancelling` is the other process: a worker on the store of ONCETASK_STORE, environment
ONCETASK_ENV. It says when its handler starts and when it is cancelled, by the clock that all processes of a machine
share.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time

from oncetask import App, Client, Context, Payload, Worker, connect

app = App("cancelling")
_CHUNK = 500


class Held(Payload, kind="held"):
    """Runs until it is cancelled."""


class Waiting(Payload, kind="waiting"):
    """Nobody runs it."""


@app.handler(Held, timeout=600)
async def hold(_: Context, __: Held) -> None:
    """Say when it starts, and when it is cancelled."""
    print("started", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print(f"cancelled {time.monotonic()}", flush=True)


async def latencies(client: Client, tries: int) -> dict[str, float]:
    """Give median, 95th percentile and maximum in ms, from the call of `cancel_task` to the `CancelledError`.

    The cancel comes at any moment of the handler's first second, so also before it is watched.
    """
    environment = {**os.environ, "ONCETASK_STORE": client.store.url, "ONCETASK_ENV": client.store.env}
    command = (sys.executable, "-m", "benchmarks.cancelling")
    other = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    assert other.stdout is not None  # noqa: S101  # asked for, just above
    seconds: list[float] = []
    try:
        for _ in range(tries):
            receipt = await client.enqueue(Held())
            await other.stdout.readline()
            await asyncio.sleep(random.random())  # noqa: S311  # any moment will do
            asked = time.monotonic()
            await client.cancel_task(receipt.task_id)
            seconds.append(float((await other.stdout.readline()).split()[1]) - asked)
            await client.wait(receipt.task_id, timeout=30)
    finally:
        other.kill()
        await other.wait()
    ordered = sorted(seconds)
    return {
        "cancel_median_ms": 1_000 * ordered[tries // 2],
        "cancel_p95_ms": 1_000 * ordered[-(-tries * 95 // 100) - 1],
        "cancel_max_ms": 1_000 * ordered[-1],
    }


async def bulk(client: Client, tasks: int) -> dict[str, float]:
    """Cancel waiting tasks by their ids: how many a second, and how many RPCs for 500 of them."""
    receipts = await client.enqueue_many([Waiting() for _ in range(tasks)])
    counters = getattr(client.store, "counters", None)
    before = sum(counters.rpcs.values()) if counters else 0
    started = time.perf_counter()
    cancelled = await client.cancel_tasks_by_ids(receipt.task_id for receipt in receipts)
    figures = {"bulk_cancel_per_second": cancelled / (time.perf_counter() - started)}
    if counters:
        figures["bulk_cancel_rpcs_per_500"] = (sum(counters.rpcs.values()) - before) / (tasks / _CHUNK)
    if cancelled != tasks:
        sys.exit(f"{cancelled} of {tasks} tasks were cancelled: the figures mean nothing")
    return figures


async def _work() -> None:
    async with connect() as client:
        await Worker(app, client).run()


if __name__ == "__main__":
    asyncio.run(_work())
