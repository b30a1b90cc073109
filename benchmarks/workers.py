"""How workers share one queue: one, two and four processes, and two against one where the store is far.

The tasks wait before the workers start. Each worker's process opens its client, says so, and waits for the word; the
clock runs from the word, which all get at the same time, to the end of the last handler. What a worker does first (its
settings, its listener, a query) is inside of that.

`python -m benchmarks.workers CONCURRENCY` is such a process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Unpack

from benchmarks.others import Other, counted, listening, say, started
from benchmarks.report import Bar, at_least, at_most, exactly
from oncetask import App, Context, EnqueueOptions, Payload, Worker, connect

__all__ = ["BARS", "FAR_BARS", "far", "of_one_instant", "together"]

BARS: dict[str, dict[str, Bar]] = {
    "sqlite": {},
    "firestore": {
        "four_of_one": at_least(0.6),
        **{f"workers_{workers}_writes_per_task": at_most(3) for workers in (1, 2, 4)},
        "workers_1_reads_per_task": at_most(1.2),
        "workers_4_reads_per_task": at_most(2),
        "workers_1_refused_claims_percent": exactly(0),
        "workers_4_refused_claims_percent": at_most(35),
        "instant_4_reads_per_task": at_most(2),
        "instant_4_refused_claims_percent": at_most(35),
    },
}
FAR_BARS = {"two_of_one_with_20_ms": at_least(1.5)}
_FAR_SECONDS = 0.01
_TELL_SECONDS = 0.02
app = App("workers")
_ran = 0
_last = 0.0


class Noop(Payload, kind="noop"):
    """Nothing to do."""

    n: int


@app.handler(Noop)
async def noop(_: Context, __: Noop) -> None:
    """Note that it ran."""
    global _ran, _last  # what this process has to tell
    _ran, _last = _ran + 1, time.monotonic()


async def together(url: str, tasks: int, concurrency: int = 32) -> dict[str, float]:
    """Let one, two and four workers drain so many tasks each time.

    Gives tasks a second and, where the store counts them, reads and writes per task: the enqueueing is one write of
    them. A refused write changes nothing and is not among them; refused claims are given as a part of all claims.
    """
    figures: dict[str, float] = {}
    for workers in (1, 2, 4):
        figures |= _figures(f"workers_{workers}", tasks, *await _drained(url, tasks, [{}] * workers, concurrency))
    return figures | {
        f"{name}_of_one": figures[f"workers_{workers}_per_second"] / figures["workers_1_per_second"]
        for name, workers in (("two", 2), ("four", 4))
    }


async def of_one_instant(url: str, tasks: int, concurrency: int = 32) -> dict[str, float]:
    """The same for four workers, with tasks that are all due at the same instant: times do not tell places apart."""
    drained = await _drained(url, tasks, [{}] * 4, concurrency, wait_until=datetime.now(UTC))
    return _figures("instant_4", tasks, *drained)


async def far(url: str, tasks: int, concurrency: int = 4) -> dict[str, float]:
    """Let one and two workers drain so many tasks from an emulator that answers 20 ms later.

    So few handlers run at a time that a worker is waiting for its answers, not the emulator for a processor. For
    SQLite there is no such thing: its file is on this machine.
    """
    emulator = os.environ["FIRESTORE_EMULATOR_HOST"]
    async with started("benchmarks.far", emulator, str(_FAR_SECONDS)) as network:
        environment = {"FIRESTORE_EMULATOR_HOST": await network.hear()}
        one, _ = await _drained(url, tasks, [environment], concurrency)
        two, _ = await _drained(url, tasks, [environment] * 2, concurrency)
    return {
        "one_with_20_ms_per_second": one,
        "two_with_20_ms_per_second": two,
        "two_of_one_with_20_ms": two / one,
    }


async def _drained(
    url: str,
    tasks: int,
    environments: list[dict[str, str]],
    concurrency: int,
    **options: Unpack[EnqueueOptions],
) -> tuple[float, dict[str, int]]:
    """Give tasks a second, and what the workers' stores counted; one worker for each environment."""
    env = f"bench-{uuid.uuid4().hex[:8]}"
    async with connect(url, env=env) as client, AsyncExitStack() as stack:
        await client.enqueue_many([Noop(n=n) for n in range(tasks)], **options)
        others = [
            await stack.enter_async_context(
                started("benchmarks.workers", str(concurrency), ONCETASK_STORE=url, ONCETASK_ENV=env, **environment)
            )
            for environment in environments
        ]
        for other in others:
            await other.hear()
        begun = time.monotonic()
        for other in others:
            other.tell("go")
        reports = await _reports(others, tasks)
        ran, left = sum(report["ran"] for report in reports), await client.pending_count()
    if ran != tasks or left:
        sys.exit(f"{tasks} tasks ran {ran} times, and {left} were left over: the figures mean nothing")
    counts = {name: sum(report["counts"][name] for report in reports) for name in reports[0]["counts"]}
    return tasks / (max(report["last"] for report in reports) - begun), counts


def _figures(name: str, tasks: int, rate: float, counts: dict[str, int]) -> dict[str, float]:
    figures = {f"{name}_per_second": rate}
    if not counts:
        return figures
    claims = counts["writes"] - tasks  # each task has one write more, its end
    return figures | {
        f"{name}_writes_per_task": 1 + (counts["writes"] - counts["refused"]) / tasks,
        f"{name}_reads_per_task": counts["reads"] / tasks,
        f"{name}_refused_claims_percent": 100 * counts["refused"] / claims,
    }


async def _reports(others: list[Other], tasks: int) -> list[dict[str, Any]]:
    """Wait until so many tasks have run, stop the workers, and give what they report."""
    ran = [0] * len(others)
    enough = asyncio.Event()

    async def follow(which: int) -> dict[str, Any]:
        while (line := await others[which].hear()).isdigit():
            ran[which] = int(line)
            if sum(ran) >= tasks:
                enough.set()
        report: dict[str, Any] = json.loads(line)
        return report

    following = [asyncio.create_task(follow(which)) for which in range(len(others))]
    await enough.wait()
    for other in others:
        other.tell("stop")
    return await asyncio.gather(*following)


async def _work(concurrency: int) -> None:
    async with listening() as lines, connect() as client:
        await client.store.open()
        say("ready")
        await lines.readline()
        stop = asyncio.create_task(lines.readline())
        async with Worker(app, client, concurrency=concurrency):
            told = 0
            while not stop.done():
                await asyncio.wait({stop}, timeout=_TELL_SECONDS)
                if _ran > told:
                    told = _ran
                    say(told)
        counts = counted(client)
        say(json.dumps({"ran": _ran, "last": _last, "counts": counts}))


if __name__ == "__main__":
    asyncio.run(_work(int(sys.argv[1])))
