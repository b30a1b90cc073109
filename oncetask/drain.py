"""The tick: one bounded drain, for places where nothing runs between requests.

It looks what is due, runs that until nothing is left or its budget is spent, and reports. An empty one costs two reads
and no write. Ticks may overlap: they claim as workers do.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from oncetask.clock import Duration, seconds
from oncetask.context import AbortReason, Budget
from oncetask.engine import Engine, checked_handlers
from oncetask.errors import StoreUnavailable
from oncetask.lifecycle import Step, is_held, present_for, triage
from oncetask.processes import check_main
from oncetask.store import Cursor
from oncetask.tally import Tally, TickReport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from oncetask.app import App
    from oncetask.client import Client
    from oncetask.task import Task

__all__ = ["TickReport", "tick"]

_LONGEST_LEASE, _LEASE_MARGIN = 60.0, 10.0
_RESERVE, _LONGEST_RESERVE = 0.1, 5.0
_AFTER_BUDGET = 4.5
"""Seconds after its budget at which a tick has ended, whatever store and handlers do."""
_TO_CLAIM, _TO_END, _TO_WRITE, _TO_LEAVE = 1.0, 1.0, 0.7, 0.2
_GLANCE_SECONDS = 1.0
_HEED_AFTER_SECONDS = 0.5
_POLL_SECONDS = 30.0
_FEW = 5
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
_MOMENT = timedelta(microseconds=1)
_LOWEST_ID = "!"
_CANCELLED: AbortReason = "shutdown"
_SPENT: AbortReason = "budget"
_log = logging.getLogger("oncetask")

T = TypeVar("T")


async def tick(
    app: App,
    client: Client,
    *,
    budget: Duration = 50,
    concurrency: int = 32,
    linger: Duration = 0,
    abort_grace: Duration = 3,
) -> TickReport:
    """Run what is due, until nothing is left or the budget is spent.

    `budget`: seconds (or a timedelta) that no handler outlasts. An attempt that it cuts off goes back with its attempt
    unspent; but one that had all of it has failed with `TaskTimeout`, since the next tick could do no more for it.
    Nothing is claimed in the last tenth of it (at most 5 s), so that little is begun in vain. `concurrency`: how many
    tasks run at a time. `linger`: so many seconds from its start it stays, as far as the budget goes, and takes what
    becomes due meanwhile, to the second. `abort_grace`: seconds, at most 3, that a handler may take to end once it was
    told to stop. 4.5 s after its budget the tick has ended, whatever hangs: a handler, the store, the App's lifespan.

    Being cancelled, it gives back what it runs. The App's schedules are brought about, and its lifespan is opened if
    there is something to run. In the end the client's waker, if it has one, is told when to look next. Raises
    ValueError or TypeError for bad arguments, and StoreUnavailable, after what ran has ended.
    """
    check_main()
    handlers = checked_handlers(app, concurrency=concurrency, processes=None)
    total = seconds("budget", budget)
    stays, grace = seconds("linger", linger, zero=True), seconds("abort_grace", abort_grace, zero=True)
    read = client.store.clock.monotonic
    limits = Budget(total, read() + total)
    tally = Tally(client.telemetry, is_over=lambda: read() >= limits.ends)
    drain = _Drain(client, limits, linger_until=read() + stays, abort_grace=grace)

    def make_engine() -> Engine:
        return Engine(
            app,
            handlers,
            client,
            concurrency=concurrency,
            processes=None,
            abort_grace=grace,
            longest_lease=min(_LONGEST_LEASE, total + _LEASE_MARGIN),
            poll=_POLL_SECONDS,
            may_claim=drain.may_claim,
            listener=tally,
            budget=limits,
        )

    next_due, more = await drain.run(make_engine)
    if more or next_due is not None:  # a waker that takes longer goes on, but the tick has to answer
        waking = asyncio.ensure_future(client.wake(None if more else next_due))
        await asyncio.wait({waking}, timeout=max(0.0, limits.ends + _AFTER_BUDGET - read()))
    return tally.report(next_due, more=more)


class _Drain:
    """One tick, after its preparations."""

    def __init__(self, client: Client, budget: Budget, *, linger_until: float, abort_grace: float) -> None:
        """`linger_until`: a reading of the monotonic clock, as in `budget`. `abort_grace`: seconds."""
        self._client, self._store = client, client.store
        self._read = client.store.clock.monotonic
        self._budget = budget
        self._claims_until = budget.ends - min(_RESERVE * budget.total, _LONGEST_RESERVE)
        self._linger_until = linger_until
        self._abort_grace = abort_grace
        self._stopping = False
        self._engine: Engine
        self._lingered = 0.0

    def may_claim(self) -> bool:
        """Tell whether there is budget left for further tasks."""
        return not self._stopping and self._read() < self._claims_until

    async def run(self, make_engine: Callable[[], Engine]) -> tuple[datetime | None, bool]:
        """Drain; gives when to look again, and whether due tasks were left. Raises StoreUnavailable."""
        first = await self._within(self._budget.ends, self._look(make_engine))
        if not self._is_due(first):
            return await self._within(self._budget.ends, self._next_due(first)), False
        await self._work()
        try:
            return await self._within(self._budget.ends + _AFTER_BUDGET, self._look_ahead())
        except StoreUnavailable as error:
            _log.warning("when to look again is not known: %s", error)
            return None, True

    async def _within(self, until: float, asking: Coroutine[Any, Any, T]) -> T:
        """Ask the store something, no longer than until then. Raises StoreUnavailable where it does not answer."""
        answer = asyncio.ensure_future(asking)
        try:
            await asyncio.wait({answer}, timeout=max(_TO_LEAVE, until - self._read()))
        finally:
            if not answer.done():
                answer.cancel()
        if answer.done():
            return answer.result()
        raise self._no_answer()

    def _no_answer(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._store.url} did not answer within the budget of the tick, {self._budget.total:g} s"
        )

    # -- finding ------------------------------------------------------------------------------------------------------

    async def _look(self, make_engine: Callable[[], Engine]) -> Task | None:
        """Give the first task of the line, once it is due or there is no time to linger for it."""
        await self._store.open()
        self._engine = engine = make_engine()
        room = engine.slots.room
        first, is_new = await asyncio.gather(self._first(room.unpaused), engine.begin())
        if room.paused:
            await engine.timekeeper.look(room.paused)
        if room.paused or is_new:  # what was found first was found in ignorance
            first = await self._first(room.unpaused)
        while not self._is_due(first) and self.may_claim() and self._read() < self._linger_until:
            began = self._read()
            ends = min(self._linger_until, self._claims_until)
            await asyncio.sleep(min(_GLANCE_SECONDS, self._wait_for(first), ends - began))
            await engine.refresh()
            first = await self._first(room.unpaused)
            self._lingered += self._read() - began
        return first

    async def _first(self, kinds: frozenset[str], after: Cursor | None = None) -> Task | None:
        """Read the first task of the line, due or not."""
        if not kinds:
            return None
        found = await self._store.due(kinds, now=_END_OF_TIME, limit=1, after=after)
        return found[0] if found else None

    def _is_due(self, first: Task | None) -> bool:
        return first is not None and self._wait_for(first) <= 0

    def _wait_for(self, first: Task | None) -> float:
        """Give the seconds until the first task is due; a glance where there is none."""
        if first is None or first.due_at is None:
            return _GLANCE_SECONDS
        return (first.due_at - present_for(first, self._store.clock.now())).total_seconds()

    async def _next_due(self, first: Task | None) -> datetime | None:
        """Give the next moment to look at; a kind that is paused has generators all the same."""
        moments = [] if first is None or first.due_at is None else [first.due_at]
        if paused := self._engine.slots.room.paused:
            generators = await self._store.due(paused, now=_END_OF_TIME, limit=1, generators=True)
            moments += [task.due_at for task in generators if task.due_at is not None]
        return min(moments, default=None)

    async def _look_ahead(self) -> tuple[datetime | None, bool]:
        """Say when to look again, and whether anything is due that was left."""
        kinds = self._engine.slots.room.unpaused
        first = await self._first(kinds)
        if not self._is_due(first):
            return await self._next_due(first), False
        now = self._store.clock.now()
        found = await self._store.due(kinds, now=now.latest, limit=_FEW)
        if any(self._engine.line.is_news(task) for task in found):
            return found[0].due_at, True
        # Due, and not taken: somebody else has it, or its key; or it is for a newer version.
        moment = await self._next_due(await self._first(kinds, after=Cursor(now.latest + _MOMENT, _LOWEST_ID)))
        moments = [] if moment is None else [moment]
        if any(triage(task, now) is not Step.LEAVE or is_held(task, now) for task in found):
            moments.append(now.latest + timedelta(seconds=_LONGEST_LEASE))
        return min(moments, default=None), False

    # -- running ------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Run what is due, within the App's lifespan; neither may keep the tick beyond its end.

        All of it is one task, so that a lifespan is closed where it was opened.
        """
        opened = asyncio.get_running_loop().create_future()
        working = asyncio.ensure_future(self._run_in_lifespan(opened))
        try:
            await asyncio.wait({working, opened}, timeout=self._left(0.0), return_when=asyncio.FIRST_COMPLETED)
            if opened.done():
                await asyncio.wait({working}, timeout=self._left(_AFTER_BUDGET - 2 * _TO_LEAVE))
        except asyncio.CancelledError:
            working.cancel()
            await _done(working, timeout=_TO_CLAIM + _TO_END + _TO_WRITE + _TO_LEAVE)
            raise
        if not working.done():
            _log.error("the App's lifespan did not %s within the tick", "close" if opened.done() else "open")
            working.cancel()
            await asyncio.wait({working}, timeout=_TO_LEAVE)
        elif not working.cancelled():
            working.result()

    async def _run_in_lifespan(self, opened: asyncio.Future[None]) -> None:
        async with self._engine.working():
            self._budget.lost = self._budget.total - (self._budget.ends - self._read()) - self._lingered
            opened.set_result(None)
            await self._run_what_is_due()

    async def _run_what_is_due(self) -> None:
        """Claim and run until nothing is left or the budget is spent; then nothing runs any more, however it ended."""
        engine, reason = self._engine, _CANCELLED
        feeding = asyncio.create_task(self._feed())
        beside = {
            asyncio.create_task(engine.timekeeper.keep(engine.left_out)),
            asyncio.create_task(self._heed_pauses()),
        }
        try:
            await asyncio.wait({feeding}, timeout=self._left(0.0))
            await engine.wait(self._left(0.0))  # also where the store failed: what runs may end
            reason = _SPENT
        finally:
            self._stopping = True
            engine.slots.changed.set()
            to_end = self._abort_grace if reason == _SPENT else min(self._abort_grace, _TO_END)
            leaving = asyncio.ensure_future(self._leave(feeding, beside))
            await asyncio.shield(self._wind_up(reason, leaving, to_end=to_end))
        if feeding.done() and not feeding.cancelled():
            feeding.result()
        else:
            raise self._no_answer()

    async def _feed(self) -> None:
        """Keep the slots full as long as something is due, or may become so while the tick lingers."""
        engine, slots = self._engine, self._engine.slots
        with _timers(slots.changed.set, self._claims_until - self._read(), self._linger_until - self._read()):
            last = self._read()
            while self.may_claim():
                if is_idle := not engine.runs:
                    await engine.line.rest()  # what has ended may have left something, a task that it enqueued, say
                    if not self.may_claim():  # a ring for that may just have been missed
                        return
                lingers = self._read() < self._linger_until
                listens = lingers if is_idle else self._read() - last > _GLANCE_SECONDS
                if await engine.take(waits=listens):
                    last = self._read()
                elif (engine.runs and not listens) or slots.is_held_up:
                    await _set(slots.changed, timeout=_GLANCE_SECONDS)
                elif is_idle and not lingers:
                    return

    async def _heed_pauses(self) -> None:
        """Follow which kinds are paused; but few ticks last so long that what they have read first is old."""
        await asyncio.sleep(_HEED_AFTER_SECONDS)
        await self._engine.heed_settings()

    async def _wind_up(self, reason: AbortReason, leaving: asyncio.Future[None], *, to_end: float) -> None:
        """End what runs, and then what a claim has begun that arrived meanwhile: that is given back at once."""
        left = await self._engine.end_all(reason, to_end=to_end, to_write=_TO_WRITE)
        await asyncio.wait({leaving})
        if late := self._engine.runs.keys() - left:
            await asyncio.wait(late, timeout=_TO_WRITE)

    async def _leave(self, feeding: asyncio.Task[None], beside: set[asyncio.Task[None]]) -> None:
        """Stop looking for tasks. A claim that is on its way may arrive, so that nothing is left claimed."""
        await asyncio.wait({feeding}, timeout=_TO_CLAIM)
        for running in (feeding, *beside):
            running.cancel()
        await asyncio.wait({feeding, *beside}, timeout=_TO_LEAVE)
        await asyncio.wait({asyncio.ensure_future(self._engine.line.aclose())}, timeout=_TO_LEAVE)

    def _left(self, extra: float) -> float:
        """Give the seconds until so many after the budget's end."""
        return max(0.0, self._budget.ends + extra - self._read())


async def _done(running: asyncio.Future[Any], *, timeout: float) -> None:  # of a wait, not a scope
    """Wait for something for some seconds, whoever else wants this to end meanwhile."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    while not running.done() and loop.time() < until:
        with suppress(asyncio.CancelledError):
            await asyncio.wait({running}, timeout=until - loop.time())


@contextmanager
def _timers(ring: Callable[[], None], *delays: float) -> Iterator[None]:
    """Call `ring` after so many seconds each, while the block runs."""
    loop = asyncio.get_running_loop()
    handles = [loop.call_later(max(0.0, delay), ring) for delay in delays]
    try:
        yield
    finally:
        for handle in handles:
            handle.cancel()


async def _set(event: asyncio.Event, *, timeout: float) -> None:  # of a wait, not a scope
    """Wait until an event is set, at most so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await event.wait()
