"""A steady load of every sort of handler on one worker; what is done is deleted, as a user would do it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from oncetask import App, CallNext, Client, Context, FixedDelay, NoRetry, Payload, Recurrence, Snooze, StoreUnavailable

__all__ = ["SCHEDULE", "Load", "make_app"]

T = TypeVar("T")

_KEEPS_SECONDS = 10
_SHARES = {
    "quick": 60,
    "keyed": 15,
    "in-thread": 10,
    "failing": 5,
    "snoozing": 4,
    "telling": 3,
    "cancelled": 2,
    "late": 1,
}
_KEYS = 40
_DRAINED_SECONDS = 180.0
_LOOK_SECONDS = 0.2
_PAGE = 500
_REMEMBERED = 12_000
_FOLLOW = ":follow"
SCHEDULE = "soak:every-second"


class Sort(Payload, kind="sort"):
    """Which number it is."""

    number: int


class Quick(Sort, kind="quick"):
    """Does next to nothing."""


class Keyed(Sort, kind="keyed"):
    """Waits for others of its key."""

    def resource_key(self) -> str:
        """Give one of a few."""
        return f"key-{self.number % _KEYS}"


class InThread(Sort, kind="in-thread"):
    """Runs in a thread."""


class Failing(Sort, kind="failing"):
    """Fails until no attempt is left."""


class Snoozing(Sort, kind="snoozing"):
    """Snoozes once, and stages a follow-up."""


class Telling(Sort, kind="telling"):
    """Tells how far it is, several times."""


class Cancelled(Sort, kind="cancelled"):
    """Runs until it is cancelled, and cleans up."""


class Late(Sort, kind="late"):
    """Runs into its time limit."""


class Tick(Payload, kind="tick"):
    """Comes each second."""


_SORTS: dict[str, type[Sort]] = {
    sort.kind: sort for sort in (Quick, Keyed, InThread, Failing, Snoozing, Telling, Cancelled, Late)
}
_MIX = [sort for kind, share in _SHARES.items() for sort in [_SORTS[kind]] * share]


def make_app(ran: Counter[str]) -> App:
    """Give handlers of all sorts. `ran`: counts the calls by kind, and the attempts that failed."""
    app = App("soak", timeout=30, retry=FixedDelay(3, 0.05))

    @app.middleware
    async def count(ctx: Context, call_next: CallNext) -> object:
        ran[ctx.kind] += 1
        return await call_next()

    @app.error_handler
    async def note(ctx: Context, _: Exception) -> None:
        ran[f"{ctx.kind}, attempts failed"] += 1

    for payload_type, function in (
        (Quick, _quick),
        (Keyed, _keyed),
        (Failing, _fail),
        (Snoozing, _snooze),
        (Telling, _tell),
        (Cancelled, _wait),
        (Tick, _tick),
    ):
        app.handler(payload_type)(function)
    app.handler(InThread, concurrency=8)(_in_thread)
    app.handler(Late, timeout=0.1, retry=NoRetry())(_wait)
    app.cancellation_handler(Cancelled)(_tick)
    app.schedule("every-second", Tick(), Recurrence.every(1))
    return app


async def _quick(ctx: Context, _: Payload) -> dict[str, int]:
    return {"attempt": ctx.attempt}


async def _keyed(_: Context, __: Payload) -> None:
    await asyncio.sleep(0.002)


def _in_thread(ctx: Context, _: Payload) -> None:
    ctx.wait_aborted_sync(0.005)


async def _fail(ctx: Context, _: Payload) -> None:
    msg = f"as always: {ctx.task_id}"
    raise RuntimeError(msg)


async def _snooze(ctx: Context, _: Payload) -> None:
    if ctx.task.wait_until == ctx.task.created_at:
        raise Snooze(0.05)
    ctx.enqueue(Quick(number=0), task_id=f"{ctx.task_id}{_FOLLOW}")


async def _tell(ctx: Context, _: Payload) -> None:
    for part in range(10):
        ctx.progress(part / 10, "on its way", {"part": part})
        await asyncio.sleep(0.02)


async def _wait(ctx: Context, _: Payload) -> None:
    await ctx.wait_aborted()


async def _tick(_: Context, __: Payload) -> None:
    await asyncio.sleep(0)


class Load:
    """Enqueues so many tasks each second, cancels those that want it, and deletes what was done a while ago."""

    def __init__(self, client: Client, rate: int) -> None:
        """`client`: the one that the worker has, too."""
        self._client, self._rate = client, rate
        self._numbers = 0
        self._kept: deque[list[str]] = deque()
        self.deleted = 0

    async def fill(self) -> None:
        """Run so many tasks that what a worker remembers, of the last ten thousand, grows no more."""
        for _ in range(_REMEMBERED // _PAGE):
            await self._enqueue([Quick] * _PAGE)
            await self.rest()  # the emulator is slow where much is stored

    async def go_on(self, seconds: float) -> None:
        """Keep it up for so long."""
        loop = asyncio.get_running_loop()
        begin, turn = loop.time(), 0
        while loop.time() - begin < seconds:
            turn += 1
            await self._second()
            await asyncio.sleep(max(0.0, begin + turn - loop.time()))

    async def rest(self) -> None:
        """Wait until all is done, then delete it, so that nothing is there but the schedule. Raises TimeoutError."""
        async with asyncio.timeout(_DRAINED_SECONDS):
            while await _patiently(self._client.pending_count):
                await self._cancel_all()
                await asyncio.sleep(_LOOK_SECONDS)
        while self._kept:
            await self._delete(self._kept.popleft())
        await self._delete_occurrences()

    async def _second(self) -> None:
        sorts = itertools.islice(itertools.cycle(_MIX), self._numbers % len(_MIX), None)
        ids = await self._enqueue(list(itertools.islice(sorts, self._rate)))
        await self._client.wait(ids[0], timeout=_DRAINED_SECONDS)
        await self._cancel_all()
        await _patiently(self._client.stats)
        while len(self._kept) > _KEEPS_SECONDS:
            await self._delete(self._kept.popleft())
        await self._delete_occurrences()

    async def _enqueue(self, sorts: Sequence[type[Sort]]) -> list[str]:
        payloads = [sort(number=n) for n, sort in enumerate(sorts, self._numbers)]
        self._numbers += len(payloads)
        ids = [f"{payload.kind}-{payload.number}" for payload in payloads]
        await _patiently(lambda: self._client.enqueue_many(payloads, task_ids=ids))
        self._kept.append([*ids, *(f"{i}{_FOLLOW}" for i in ids if i.startswith(Snoozing.kind))])
        return ids

    async def _cancel_all(self) -> None:
        await _patiently(lambda: self._client.cancel_tasks_by_kind(Cancelled))

    async def _delete(self, ids: list[str]) -> None:
        self.deleted += await _patiently(lambda: self._client.delete_tasks_by_ids(ids))

    async def _delete_occurrences(self) -> None:
        page = await _patiently(lambda: self._client.list_tasks(parent=SCHEDULE, status="done-completed", limit=_PAGE))
        await self._delete([task.id for task in page.tasks])


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer: an emulator on a busy machine is late at times."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(_LOOK_SECONDS)
