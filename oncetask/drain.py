"""The tick: one bounded drain, for places where nothing runs between requests.

It looks what is due, runs that until nothing is left or its budget is spent, and reports. An empty one costs two reads
and no write. Ticks may overlap: they claim as workers do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from oncetask.clock import Duration, seconds
from oncetask.context import AbortReason, Budget
from oncetask.engine import Engine, checked_handlers
from oncetask.errors import StoreUnavailable
from oncetask.lifecycle import Step, is_generator, triage
from oncetask.processes import check_main
from oncetask.store import Cursor
from oncetask.task import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oncetask.app import App
    from oncetask.client import Client
    from oncetask.lifecycle import Transition
    from oncetask.task import Task
    from oncetask.telemetry import Listener

__all__ = ["TickReport", "tick"]

_LONGEST_LEASE, _LEASE_MARGIN = 60.0, 10.0
_RESERVE, _LONGEST_RESERVE = 0.1, 5.0
_AFTER_BUDGET = 4.5
_TO_CLAIM, _TO_END, _TO_WRITE = 1.0, 1.0, 1.0
_GLANCE_SECONDS = 1.0
_POLL_SECONDS = 30.0
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
_MOMENT = timedelta(microseconds=1)
_LOWEST_ID = "!"
_CANCELLED: AbortReason = "shutdown"
_SPENT: AbortReason = "budget"
_CLAIMED = {"claimed", "cleanup-started"}
_RETRIED = {"retried", "cleanup-retried", "rescued", "snoozed"}
_INTERRUPTED = {"given-back", "attempt-given-back"}
_ENDED = {
    Outcome.COMPLETED: "completed",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "cancelled",
    Outcome.EXPIRED: "expired",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """What a tick did. Counts are of tasks, and only of what was stored."""

    claimed: int = 0
    """Attempts that it began, cleanups and those of batches among them."""
    completed: int = 0
    failed: int = 0
    """Ended `done-failed`."""
    retried: int = 0
    """Put back to run again: failed with tries left, snoozed, or left behind by a worker that died."""
    cancelled: int = 0
    """Ended `done-cancelled`."""
    expired: int = 0
    spawned: int = 0
    """Occurrences of schedules."""
    interrupted: int = 0
    """Cut off by the end of the budget, and put back with their attempts unspent."""
    next_due: datetime | None = None
    """The next moment at which somebody has to look, as far as it is known; None: nothing waits."""
    more: bool = False
    """True where due tasks were left because the budget was spent: let the next tick begin at once."""


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
    becomes due meanwhile, to the second. `abort_grace`: seconds that a handler may take to end once it was told to
    stop; it should be at most 3, so that the tick has ended five seconds after its budget.

    Being cancelled, it gives back what it runs. The App's schedules are brought about, and its lifespan is opened if
    there is something to run. In the end the client's waker, if it has one, is told when to look next. Raises
    ValueError or TypeError for bad arguments, and StoreUnavailable, after what ran has ended.
    """
    check_main()
    handlers = checked_handlers(app, concurrency=concurrency, processes=None)
    total = seconds("budget", budget)
    stays, grace = seconds("linger", linger, zero=True), seconds("abort_grace", abort_grace, zero=True)
    began = client.store.clock.monotonic()
    await client.store.open()
    tally = _Tally(client.telemetry)
    limits = Budget(total, began + total)
    drain = _Drain(client, limits, linger_until=began + stays, abort_grace=grace)
    engine = Engine(
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
    next_due, more = await drain.run(engine)
    if more or next_due is not None:
        with suppress(TimeoutError):  # a waker that takes longer goes on, but the tick has to answer
            async with asyncio.timeout(max(0.0, limits.ends + _AFTER_BUDGET - client.store.clock.monotonic())):
                await client.wake(None if more else next_due)
    return TickReport(**tally.counts, next_due=next_due, more=more)


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

    def may_claim(self) -> bool:
        """Tell whether there is budget left for further tasks."""
        return not self._stopping and self._read() < self._claims_until

    async def run(self, engine: Engine) -> tuple[datetime | None, bool]:
        """Drain; gives when to look again, and whether due tasks were left. Raises StoreUnavailable."""
        self._engine = engine
        room = engine.slots.room
        first, is_new = await asyncio.gather(self._first(room.unpaused), engine.begin())
        if room.paused:
            await engine.timekeeper.look(room.paused)
        if room.paused or is_new:  # what was found first was found in ignorance
            first = await self._first(room.unpaused)
        while not self._is_due(first):
            wait = min(_GLANCE_SECONDS, self._wait_for(first))
            if not self.may_claim() or self._read() + wait >= self._linger_until:
                return (None if first is None else first.due_at), False
            await asyncio.sleep(wait)
            first = await self._first(room.unpaused)
        async with engine.working():
            await self._run_what_is_due()
        return await self._look_ahead()

    # -- finding ------------------------------------------------------------------------------------------------------

    async def _first(self, kinds: frozenset[str], after: Cursor | None = None) -> Task | None:
        """Read the first task of the line, due or not."""
        found = await self._store.due(kinds, now=_END_OF_TIME, limit=1, after=after)
        return found[0] if found else None

    def _is_due(self, first: Task | None) -> bool:
        return first is not None and self._wait_for(first) <= 0

    def _wait_for(self, first: Task | None) -> float:
        if first is None or first.due_at is None:
            return _GLANCE_SECONDS
        return (first.due_at - self._store.clock.now().latest).total_seconds()

    async def _look_ahead(self) -> tuple[datetime | None, bool]:
        """Say when to look again, and whether what is due was left for want of budget."""
        kinds, is_spent = self._engine.slots.room.unpaused, self._read() >= self._claims_until
        try:
            first = await self._first(kinds)
            if first is None or not self._is_due(first):
                return (None if first is None else first.due_at), False
            if is_spent:
                return first.due_at, True
            # Due, and not taken: somebody else has it, or its key; or it is for a newer version.
            now = self._store.clock.now()
            following = await self._first(kinds, after=Cursor(now.latest + _MOMENT, _LOWEST_ID))
            moments = [] if following is None or following.due_at is None else [following.due_at]
            if triage(first, now) is not Step.LEAVE:
                moments.append(now.latest + timedelta(seconds=_LONGEST_LEASE))
            return min(moments, default=None), False
        except StoreUnavailable:
            return None, True

    # -- running ------------------------------------------------------------------------------------------------------

    async def _run_what_is_due(self) -> None:
        """Claim and run until nothing is left or the budget is spent; then nothing runs any more, however it ended."""
        engine, reason = self._engine, _CANCELLED
        feeding = asyncio.create_task(self._feed())
        beside = {
            asyncio.create_task(engine.timekeeper.keep(engine.left_out)),
            asyncio.create_task(self._heed_pauses()),
        }
        try:
            await asyncio.wait({feeding})
            await engine.wait(self._budget.ends - self._read())  # also where the store failed: what runs may end
            reason = _SPENT
        finally:
            self._stopping = True
            engine.slots.changed.set()
            await asyncio.shield(self._wind_up(feeding, beside, reason))
        feeding.result()

    async def _feed(self) -> None:
        """Keep the slots full as long as something is due, or may become so while the tick lingers."""
        engine = self._engine
        with _timers(engine.slots.changed.set, self._claims_until - self._read(), self._linger_until - self._read()):
            last = self._read()
            while self.may_claim():
                is_idle, lingers = not engine.runs, self._read() < self._linger_until
                listens = lingers if is_idle else self._read() - last > _GLANCE_SECONDS
                if is_idle:
                    await engine.line.rest()  # what has ended may have left something, a task that it enqueued, say
                if await engine.take(waits=listens):
                    last = self._read()
                elif engine.runs and not listens:
                    await _set(engine.slots.changed, timeout=_GLANCE_SECONDS)
                elif is_idle and not lingers:
                    return

    async def _heed_pauses(self) -> None:
        """Follow which kinds are paused; but few ticks last so long that what they have read first is old."""
        await asyncio.sleep(_GLANCE_SECONDS)
        await self._engine.heed_settings()

    async def _wind_up(self, feeding: asyncio.Task[None], beside: set[asyncio.Task[None]], reason: AbortReason) -> None:
        engine = self._engine
        await asyncio.wait({feeding}, timeout=_TO_CLAIM)
        for running in (feeding, *beside):
            running.cancel()
        await asyncio.wait({feeding, *beside})
        await engine.line.aclose()
        to_end = self._abort_grace if reason == _SPENT else min(self._abort_grace, _TO_END)
        await engine.end_all(reason, to_end=to_end, to_write=_TO_WRITE)


class _Tally:
    """Counts what is stored, and passes it on."""

    def __init__(self, listener: Listener) -> None:
        """`listener`: is told as well."""
        self._listener = listener
        self.counts: Counter[str] = Counter()
        """By the names that the report has for them."""

    def changed(self, transition: Transition) -> None:
        """Count a change."""
        self._listener.changed(transition)
        before, after = transition.before, transition.after
        if transition.event in _CLAIMED:
            self.counts["claimed"] += 1
        elif transition.event in _RETRIED:
            self.counts["retried"] += 1
        elif transition.event in _INTERRUPTED:
            self.counts["interrupted"] += 1
        if after.outcome is not None and before.outcome is None and not is_generator(after):
            self.counts[_ENDED[after.outcome]] += 1

    def spawned(self, generator: Task, number: int) -> None:
        """Count occurrences."""
        self._listener.spawned(generator, number)
        self.counts["spawned"] += number


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
