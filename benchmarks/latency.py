"""How soon a task starts on a worker that waits for work, beside what a bare write and a bare listener take.

From the call of `enqueue` to the first line of the handler, by the clock that all processes of a machine share; before
each try the worker was idle for 0.3 s. For Firestore the floor stands beside it, taking turns: from the call of a bare
`set` of one small document to the callback of a bare `on_snapshot` on its collection.

What such a task costs there is measured by itself: tasks that come so seldom that whatever a worker does now and then
is done for each of them. Its reads are those of the worker, from when it has had its first tasks and is idle; its
writes are those of the worker and the one that enqueued it.

`python -m benchmarks.latency` is the other process: a worker on the store of ONCETASK_STORE, environment ONCETASK_ENV,
and where it is given a collection a bare listener on that.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from google.cloud.firestore import Client as BareClient

from benchmarks.others import counted, listening, say, started
from benchmarks.report import Bar, at_most
from oncetask import App, Client, Context, Payload, Worker, connect

__all__ = ["BARS", "measure"]

BARS: dict[str, dict[str, Bar]] = {
    "sqlite": {"other_process_median_ms": at_most(10)},
    "firestore": {
        "same_process_times_floor": at_most(3),
        "other_process_times_floor": at_most(3),
        "single_task_reads": at_most(3),
        "single_task_writes": at_most(3),
    },
}
_IDLE_SECONDS = 0.3
_PATIENCE_SECONDS = 30.0
_FIRST_TRIES = 3  # not counted: connections and caches are cold
_SELDOM_SECONDS = 2.5  # longer than the 2 s in which a worker looks at most once for what goes before all others
_SELDOM_TASKS = 5

Heard = Callable[[], Awaitable[float]]


class Noop(Payload, kind="noop"):
    """Nothing to do."""


async def measure(url: str, tries: int = 50) -> dict[str, float]:
    """Give median and 95th percentile in ms, with the worker in this process and in another one, and a task's cost."""
    return {**await _same_process(url, tries), **await _other_process(url, tries), **await _cost(url)}


async def _same_process(url: str, tries: int) -> dict[str, float]:
    """Let client and worker share everything: process, loop and connection."""
    starts: asyncio.Queue[float] = asyncio.Queue()
    callbacks: asyncio.Queue[float] = asyncio.Queue()
    loop, collection = asyncio.get_running_loop(), _unique()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(url, env=_unique()))
        floor = None
        if _is_firestore(url):
            hear = lambda at: loop.call_soon_threadsafe(callbacks.put_nowait, at)  # noqa: E731  # in a thread
            await stack.enter_async_context(_bare_listener(url, collection, hear))
            floor = _BareWrites(url, collection, callbacks.get)
        await stack.enter_async_context(Worker(_app(starts.put_nowait), client))
        await _tried(client, starts.get, floor, _FIRST_TRIES)
        times, floors = await _tried(client, starts.get, floor, tries)
    return _figures("same_process", times, floors)


async def _other_process(url: str, tries: int) -> dict[str, float]:
    env, collection = _unique(), _unique()
    arguments = [collection] if _is_firestore(url) else []
    async with (
        connect(url, env=env) as client,
        started("benchmarks.latency", *arguments, ONCETASK_STORE=url, ONCETASK_ENV=env) as other,
    ):
        await other.hear()

        async def heard() -> float:
            return float(await other.hear())

        floor = _BareWrites(url, collection, heard) if _is_firestore(url) else None
        await _tried(client, heard, floor, _FIRST_TRIES)
        times, floors = await _tried(client, heard, floor, tries)
    return _figures("other_process", times, floors)


async def _cost(url: str) -> dict[str, float]:
    """Give reads and writes of a task on an idle queue; nothing for SQLite, which counts none."""
    if not _is_firestore(url):
        return {}
    starts: asyncio.Queue[float] = asyncio.Queue()
    env = _unique()
    async with (
        connect(url, env=env) as client,
        connect(url, env=env) as served,
        Worker(_app(starts.put_nowait), served),
    ):
        await _tried(client, starts.get, None, _FIRST_TRIES)
        before = counted(served)
        await _tried(client, starts.get, None, _SELDOM_TASKS, idle=_SELDOM_SECONDS)
        after = counted(served)
    reads, writes = ((after[name] - before[name]) / _SELDOM_TASKS for name in ("reads", "writes"))
    return {"single_task_reads": reads, "single_task_writes": 1 + writes}


class _BareWrites:
    """Writes to one document, of which somebody with a bare listener tells when he heard of it."""

    def __init__(self, url: str, collection: str, heard: Heard) -> None:
        self._document = _bare_client(url).collection(collection).document("small")
        self._heard = heard

    async def seconds(self) -> float:
        """Give how long the next write takes to be heard of."""
        asked = await asyncio.to_thread(self._write)
        return await self._heard() - asked

    def _write(self) -> float:
        asked = time.monotonic()
        self._document.set({"at": asked})
        return asked


async def _tried(
    client: Client, started_at: Heard, floor: _BareWrites | None, tries: int, idle: float = _IDLE_SECONDS
) -> tuple[list[float], list[float]]:
    """Give the seconds from enqueue to start, and those of the floor, one of each in turn."""
    times: list[float] = []
    floors: list[float] = []
    async with asyncio.timeout(_PATIENCE_SECONDS + tries * (1 + idle)):
        for _ in range(tries):
            await asyncio.sleep(idle)
            asked = time.monotonic()
            await client.enqueue(Noop())
            times.append(await started_at() - asked)
            if floor is not None:
                await asyncio.sleep(_IDLE_SECONDS)
                floors.append(await floor.seconds())
        await asyncio.sleep(_IDLE_SECONDS)  # the last one has ended by then
        if await client.pending_count():
            sys.exit("tasks were left over: the figures mean nothing")
    return times, floors


def _figures(where: str, times: list[float], floors: list[float]) -> dict[str, float]:
    figures = {f"{where}_median_ms": 1_000 * statistics.median(times), f"{where}_p95_ms": 1_000 * _p95(times)}
    if not floors:
        return figures
    floor = 1_000 * statistics.median(floors)
    return {
        **figures,
        f"floor_{where}_median_ms": floor,
        f"floor_{where}_p95_ms": 1_000 * _p95(floors),
        f"{where}_times_floor": figures[f"{where}_median_ms"] / floor,
    }


def _p95(times: list[float]) -> float:
    return sorted(times)[-(-len(times) * 95 // 100) - 1]


def _app(tell: Callable[[float], None]) -> App:
    app = App("latency")

    @app.handler(Noop)
    async def noop(_: Context, __: Noop) -> None:
        tell(time.monotonic())

    return app


@asynccontextmanager
async def _bare_listener(url: str, collection: str, tell: Callable[[float], object]) -> AsyncIterator[None]:
    """Tell, in a thread, when each change of a collection arrives; entered once the listener has the first state."""
    listens = threading.Event()

    def heard(_: Any, changes: list[Any], __: Any) -> None:
        now = time.monotonic()
        if changes and listens.is_set():
            tell(now)
        listens.set()

    watch = _bare_client(url).collection(collection).on_snapshot(heard)
    try:
        if not await asyncio.to_thread(listens.wait, _PATIENCE_SECONDS):
            sys.exit("the bare listener does not begin: the figures mean nothing")
        yield
    finally:
        watch.unsubscribe()  # type: ignore[no-untyped-call]  # the library's


def _bare_client(url: str) -> BareClient:
    return BareClient(project=url.removeprefix("firestore://"))


def _is_firestore(url: str) -> bool:
    return url.startswith("firestore:")


def _unique() -> str:
    return f"bench-{uuid.uuid4().hex[:8]}"


async def _work(collection: str | None) -> None:
    async with AsyncExitStack() as stack:
        lines = await stack.enter_async_context(listening())
        client = await stack.enter_async_context(connect())
        if collection is not None:
            await stack.enter_async_context(_bare_listener(client.store.url, collection, say))
        await stack.enter_async_context(Worker(_app(say), client))
        say("ready")
        await lines.readline()


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1] if len(sys.argv) > 1 else None))
