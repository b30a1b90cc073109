"""How exactly time limits are kept: from the start of a handler to its `CancelledError`, or to its process's end."""

from __future__ import annotations

import asyncio
import sys
import time

from oncetask import App, Client, Context, NoRetry, Payload, TaskStatus, Worker

app = App("limits", retry=NoRetry())
_LIMIT = 0.2
_FIRST, _STEP = 1.0, 0.001
_overrun: dict[str, float] = {}


class Endless(Payload, kind="endless"):
    """Runs until it is told to stop."""


class Busy(Payload, kind="busy"):
    """Keeps a CPU busy until its process is killed."""


@app.handler(Endless, timeout=_LIMIT)
async def wait(ctx: Context, _: Endless) -> None:
    """Note by how many seconds the limit has passed when the cancellation arrives."""
    ends = time.monotonic() + ctx.remaining
    try:
        await asyncio.Event().wait()
    finally:
        _overrun[ctx.task_id] = time.monotonic() - ends


@app.handler(Busy, timeout=_LIMIT, run_in="process")
def spin(ctx: Context, _: Busy) -> None:
    """Say when the limit ends, by the clock that all processes of a machine share."""
    ctx.progress(None, data=time.monotonic() + ctx.remaining)
    while True:
        pass


async def measure(client: Client, tries: int, many: int) -> dict[str, float]:
    """Give how long after its start a handler with a limit of 0.2 s is cancelled, and how late each of many is.

    `many` handlers run at the same time, each with a limit of its own, a millisecond apart.
    """
    return {**await _one_after_the_other(client, tries), **await _together(client, many), **await _killed(client)}


async def _one_after_the_other(client: Client, tries: int) -> dict[str, float]:
    async with Worker(app, client):
        for _ in range(tries):
            receipt = await client.enqueue(Endless())
            await client.wait(receipt.task_id, timeout=30)
    late = _taken()
    return {
        "limit_200_ms_first": 1_000 * (_LIMIT + late[0]),
        "limit_200_ms_median": 1_000 * (_LIMIT + late[len(late) // 2]),
        "limit_200_ms_last": 1_000 * (_LIMIT + late[-1]),
    }


async def _together(client: Client, many: int) -> dict[str, float]:
    receipts = [await client.enqueue(Endless(), timeout=_FIRST + n * _STEP) for n in range(many)]
    async with Worker(app, client, concurrency=many):
        tasks = await asyncio.gather(*(client.wait(receipt.task_id, timeout=60) for receipt in receipts))
    own = sum(
        task.status is TaskStatus.DONE_FAILED and task.errors[0].message.endswith(f"of {task.timeout:g} s")
        for task in tasks
    )
    late = _taken()
    if len(late) != many:
        sys.exit(f"{len(late)} of {many} handlers were cancelled: the figures mean nothing")
    return {
        "concurrent_limits_own": own,
        "concurrent_limits_first_ms_late": 1_000 * late[0],
        "concurrent_limits_median_ms_late": 1_000 * late[len(late) // 2],
        "concurrent_limits_last_ms_late": 1_000 * late[-1],
    }


async def _killed(client: Client) -> dict[str, float]:
    late: list[float] = []
    async with Worker(app, client, processes=1):
        for _ in range(10):
            receipt = await client.enqueue(Busy())
            task = await client.wait(receipt.task_id, timeout=30)
            if task.progress is not None:
                late.append(time.monotonic() - task.progress.data)
    late.sort()
    return {"process_limit_median_ms_late": 1_000 * late[len(late) // 2]}


def _taken() -> list[float]:
    late = sorted(_overrun.values())
    _overrun.clear()
    return late
