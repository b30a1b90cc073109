"""What the drain rate grows with: tasks that wait, tasks that are done, kinds.

A rate is that of one worker for the first so many no-ops in the queue, from its start to the end of the last handler.
Queues that are compared take turns, and are brought back to their length after each; the median of the turns counts.
`…_of_first` compares it with the first queue of its row.

On the emulator each query reads every document of the collection, and each write lets the listeners do the same. So
what is lost there with waiting and done tasks is the emulator's own; Firestore reads an index of which done tasks are
no part.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import new_class

from benchmarks.others import counted
from benchmarks.report import Bar, at_least
from oncetask import App, Client, Context, Payload, Worker, connect

__all__ = ["BARS", "done", "kinds", "waiting"]

BARS: dict[str, dict[str, Bar]] = {"sqlite": {"done_100000_of_first": at_least(0.8)}, "firestore": {}}
_AT_ONCE = 5_000
_TURNS = 3


class Noop(Payload, kind="noop"):
    """Nothing to do."""


async def waiting(url: str, sizes: Sequence[int] = (1_000, 10_000, 100_000), tasks: int = 1_000) -> dict[str, float]:
    """Drain so many tasks from the head of queues that are that long."""
    async with AsyncExitStack() as stack:
        queues = {f"waiting_{size}": await _opened(stack, url) for size in sizes}
        for size, queue in zip(sizes, queues.values(), strict=True):
            await queue.fill(size - tasks)
        return await _compared(queues, tasks)


async def done(url: str, sizes: Sequence[int] = (0, 10_000, 100_000), tasks: int = 2_000) -> dict[str, float]:
    """Drain so many tasks beside that many done ones, which are copies of one that has run."""
    async with AsyncExitStack() as stack:
        queues = {f"done_{size}": await _opened(stack, url) for size in sizes}
        for size, queue in zip(sizes, queues.values(), strict=True):
            await queue.put_done(size)
        return await _compared(queues, tasks)


async def kinds(url: str, sizes: Sequence[int] = (1, 30, 100), tasks: int = 2_000) -> dict[str, float]:
    """Drain so many tasks that are of that many kinds, by turns."""
    async with AsyncExitStack() as stack:
        queues = {f"kinds_{size}": await _opened(stack, url, size) for size in sizes}
        return await _compared(queues, tasks)


async def _opened(stack: AsyncExitStack, url: str, size: int = 1) -> _Queue:
    """Open a queue of so many kinds in a project, or file, of its own."""
    client = await stack.enter_async_context(connect(f"{url}-{uuid.uuid4().hex[:8]}"))
    return _Queue(client, [new_class(f"Noop{n}", (Noop,), {"kind": f"noop-{n}"}) for n in range(size)])


async def _compared(queues: Mapping[str, _Queue], tasks: int) -> dict[str, float]:
    rates: dict[str, list[float]] = {name: [] for name in queues}
    for _ in range(_TURNS):
        for name, queue in queues.items():
            await queue.fill(tasks)
            rates[name].append(await queue.drain(tasks))
    medians = {name: statistics.median(some) for name, some in rates.items()}
    first, *others = medians
    return {
        **{f"{name}_per_second": median for name, median in medians.items()},
        **{f"{name}_of_first": medians[name] / medians[first] for name in others},
        **{f"{name}_reads_per_task": queue.reads / (_TURNS * tasks) for name, queue in queues.items() if queue.reads},
    }


class _Queue:
    """Tasks that wait, in their order, and a worker for them."""

    def __init__(self, client: Client, payloads: Sequence[type[Noop]]) -> None:
        self._client = client
        self._payloads = payloads
        self._ids: list[str] = []
        self.reads = 0
        """Documents that the drains have read; 0 where the store does not count."""

    async def fill(self, tasks: int) -> None:
        """Enqueue so many tasks, behind the others."""
        for size in _parts(tasks):
            receipts = await self._client.enqueue_many([self._payloads[n % len(self._payloads)]() for n in range(size)])
            self._ids += [receipt.task_id for receipt in receipts]

    async def put_done(self, tasks: int) -> None:
        """Store so many done tasks, for good."""
        receipt = await self._client.enqueue(self._payloads[0]())
        await self._ran(1)
        ran = await self._client.get_task(receipt.task_id)
        for size in _parts(tasks):
            copies = [ran.evolve(id=uuid.uuid4().hex) for _ in range(size)]
            if not all(written.applied for written in await self._client.store.create(copies)):
                sys.exit("done tasks could not be stored: the figures mean nothing")

    async def drain(self, tasks: int) -> float:
        """Give the tasks a second, for so many; what ran is deleted afterwards."""
        before = counted(self._client)
        ran, seconds = await self._ran(tasks)
        self.reads += counted(self._client).get("reads", 0) - before.get("reads", 0)
        gone, self._ids = self._ids[:ran], self._ids[ran:]
        left, deleted = await self._client.pending_count(), await self._client.delete_tasks_by_ids(gone)
        if left != len(self._ids) or deleted != ran:
            sys.exit(f"{ran} runs left {left} tasks, not {len(self._ids)}: the figures mean nothing")
        return tasks / seconds

    async def _ran(self, tasks: int) -> tuple[int, float]:
        """Let a worker run so many tasks, and what else it has claimed by then; gives all of them, and the seconds."""
        ran, ended, enough = 0, 0.0, asyncio.Event()
        app = App("growth")

        async def noop(_: Context, __: Noop) -> None:
            nonlocal ran, ended
            ran += 1
            if ran == tasks:
                ended = time.perf_counter()
                enough.set()

        for payload in self._payloads:
            app.handler(payload)(noop)
        started = time.perf_counter()
        async with Worker(app, self._client):
            await enough.wait()
        return ran, ended - started


def _parts(tasks: int) -> Sequence[int]:
    """Give the sizes of calls that keep no more in memory than they have to."""
    return [min(_AT_ONCE, tasks - start) for start in range(0, tasks, _AT_ONCE)]
