"""The harness: an App at work on a store in memory, in a time that passes only when the test says so."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, Unpack

from oncetask.client import Client
from oncetask.clock import Duration, Now, check_instant, seconds
from oncetask.engine import Engine, checked_handlers
from oncetask.errors import StoreUnavailable, TaskNotFound
from oncetask.lifecycle import Step, triage
from oncetask.store import Cursor
from oncetask.tally import Tally, TickReport
from oncetask.task import Outcome, Receipt, Task, TaskStatus
from oncetask.testing import looking
from oncetask.testing.looking import Tasks
from oncetask.testing.store import HarnessStore
from oncetask.testing.virtual import VirtualClock, VirtualTime
from oncetask.waking import NoWaker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oncetask.app import App
    from oncetask.enqueueing import EnqueueOptions
    from oncetask.payload import Payload
    from oncetask.store.memory import Edit

__all__ = ["Harness"]

_LONGEST_LEASE = 60.0
_POLL_SECONDS = 30.0
_TO_END, _TO_WRITE = 1.0, 0.5
_MOMENT_SECONDS = 0.000_001
_LONGEST_GLANCE_SECONDS = 60.0
_MOST_GLANCES = 1_000
_FEW = 5
_HIGHEST_ID = "\U0010ffff"
_ANY: Any = object()
_log = logging.getLogger("oncetask")


class Harness:
    """Runs an App's tasks within a test: `async with Harness(app) as h:`, then `enqueue`, `run_due`, `advance`.

    Nothing starts but in `run_due`, `advance` and `run_until`. The event loop of the test has virtual time meanwhile,
    so that sleeps, timeouts, leases, retries, deadlines and schedules of days pass in a moment. While a `def` handler
    works in its thread, time passes as it does outside; a handler with `run_in="process"` runs in a thread here. What
    asks the machine itself for the time (`datetime.now()`) sees none of that: use `h.now`, or a library such as
    time-machine.
    """

    def __init__(
        self,
        app: App,
        *,
        start: datetime | None = None,
        env: str = "test",
        concurrency: int = 32,
        abort_grace: Duration = 5,
    ) -> None:
        """`start`: the instant (aware) at which the test begins; left out: now. The others: as for `Worker`.

        Raises TypeError and ValueError for these.
        """
        self._app = app
        self._handlers = {
            kind: replace(handler, runs_in="thread") if handler.runs_in == "process" else handler
            for kind, handler in checked_handlers(app, concurrency=concurrency, processes=None).items()
        }
        self._start = datetime.now(UTC) if start is None else check_instant("start", start)
        self._env, self._concurrency = env, concurrency
        self._abort_grace = seconds("abort_grace", abort_grace, zero=True)
        self._open, self._working = AsyncExitStack(), AsyncExitStack()
        self._looking: asyncio.Task[None] | None = None
        self._failure: StoreUnavailable | None = None
        self._engine: Engine
        self._tally: Tally
        self._virtual: VirtualTime
        self.store: HarnessStore
        """Where the tasks are; `store.fail(...)`, `store.delay(...)` and `store.failing(...)` let it go wrong."""
        self.client: Client
        """What callers use, as `connect` gives it: to cancel, reset, delete, pause, wait, watch."""

    async def __aenter__(self) -> Self:
        """Open the App's lifespan, and bring about its schedules."""
        async with AsyncExitStack() as opening:
            self._virtual = VirtualTime()
            opening.enter_context(self._virtual.installed())
            clock = VirtualClock(self._virtual, self._start)
            self.store = HarnessStore(clock, env=self._env)
            self.store.documents.listeners.append(self._stored)
            self.client = Client(self.store, waker=NoWaker())
            opening.push_async_callback(self.client.aclose)
            await self._begin()
            opening.push_async_callback(self._end)
            self._open = opening.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Tell what still runs to stop, as `Worker.stop` does without any grace; then time is the machine's again."""
        await self._open.aclose()

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The instant (aware) at which the test is."""
        return self.store.documents.present()

    async def run_due(self) -> TickReport:
        """Run everything that is due, and whatever becomes due while that runs, until nothing is; tell what was done.

        Time passes as far as handlers take any. What waits for a later instant stays: `advance` lets that come. What
        somebody else's lease or resource key holds back, after a crash say, is not waited for either.
        """
        return await self._run(lambda: not self._engine.runs and not self._is_looking)

    async def advance(self, by: Duration) -> TickReport:
        """Let so much time pass, in seconds (or a timedelta), and everything happen in it at its instant, in order.

        What runs at its end is still running afterwards. Gives what was done.
        """
        return await self.advance_to(self.now + timedelta(seconds=seconds("by", by, zero=True)))

    async def advance_to(self, instant: datetime) -> TickReport:
        """Let time pass until an instant (aware). Raises ValueError for one that is past."""
        if check_instant("instant", instant) < self.now:
            msg = f"instant must not be before {self.now.isoformat()}, which it is now, not {instant.isoformat()}"
            raise ValueError(msg)
        return await self._run(lambda: self.now >= instant, until=instant)

    async def run_until(self, condition: Callable[[], object], *, within: Duration = 86_400) -> TickReport:
        """Let time pass until a condition holds, which is asked whenever something was stored or ended.

        Raises AssertionError where it does not within so much virtual time.
        """
        end = self.now + timedelta(seconds=seconds("within", within))
        report = await self._run(lambda: bool(condition()) or self.now >= end, until=end)
        if not condition():
            msg = f"the condition does not hold until {end.isoformat()}; there is:\n{self.tasks!r}"
            raise AssertionError(msg)
        return report

    # -- what callers do ----------------------------------------------------------------------------------------------

    async def enqueue(self, payload: Payload, **options: Unpack[EnqueueOptions]) -> Receipt:
        """Enqueue a task, as `Client.enqueue` does; nothing runs yet."""
        return await self.client.enqueue(payload, **options)

    async def run(self, payload: Payload, **options: Unpack[EnqueueOptions]) -> Task:
        """Enqueue a task, let time pass until it is done, and give it. Raises AssertionError where it takes a day."""
        receipt = await self.enqueue(payload, **options)
        await self.run_until(lambda: self.task(receipt.task_id).outcome is not None)
        return self.task(receipt.task_id)

    async def cancel(self, task: Task | Receipt | str) -> bool:
        """Cancel a task; tells whether this call did. What runs is stopped in the next `run_due` or `advance`."""
        return await self.client.cancel_task(_id_of(task))

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    async def crash(self) -> None:
        """Let the worker die: what runs is gone without a word to the store, and its leases run out.

        Another worker takes its place. The handlers' `finally` blocks run, since they are in this very process, but
        nothing of them is written.
        """
        engine = self._engine
        with self._virtual.hurrying(), self.store.failing(error=StoreUnavailable("the worker has crashed")):
            await self._stop_looking()
            for running in tuple(engine.runs):
                running.cancel()
            await engine.wait(self._abort_grace)
            await self._working.aclose()
        await self._begin()

    # -- looking ------------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> Tasks:
        """All tasks, in the order in which they were enqueued: `h.tasks.of(SendEmail).with_status("waiting")`."""
        return Tasks(self.store.documents.everything())

    def task(self, task: Task | Receipt | str) -> Task:
        """Give a task as it is now. Raises TaskNotFound."""
        (found,) = self.store.documents.get([_id_of(task)])
        if found is None:
            raise TaskNotFound(_id_of(task))
        return found

    def assert_completed(self, task: Task | Receipt | str, *, result: object = _ANY) -> None:
        """Raise AssertionError unless a task has completed, with this result if one is given."""
        found = self.task(task)
        looking.check_ended(found, Outcome.COMPLETED)
        if result is not _ANY:
            looking.check_result(found, result)

    def assert_failed(
        self, task: Task | Receipt | str, *, match: str | None = None, error: type[BaseException] | None = None
    ) -> None:
        """Raise AssertionError unless a task has failed for good.

        `match`: what its last message has to contain, a regular expression; `error`: of which type that was.
        """
        found = self.task(task)
        looking.check_ended(found, Outcome.FAILED)
        looking.check_error(found, match, error)

    def assert_cancelled(self, task: Task | Receipt | str) -> None:
        """Raise AssertionError unless a task was cancelled, and is cleaned up where there was something to clean up."""
        looking.check_ended(self.task(task), Outcome.CANCELLED)

    def assert_expired(self, task: Task | Receipt | str) -> None:
        """Raise AssertionError unless a task ended because its deadline had passed."""
        looking.check_ended(self.task(task), Outcome.EXPIRED)

    def assert_waiting(self, task: Task | Receipt | str, *, until: datetime | None = None) -> None:
        """Raise AssertionError unless a task waits for a later instant, for this one if it is given."""
        looking.check_waiting(self.task(task), until)

    def assert_enqueued(self, what: Payload | type[Payload], *, count: int | None = None) -> None:
        """Raise AssertionError unless tasks with this payload, or of this kind, were enqueued, whatever became of them.

        `count`: how many; left out: at least one.
        """
        of_kind = self.tasks.of(what if isinstance(what, type) else type(what))
        found = of_kind if isinstance(what, type) else Tasks(task for task in of_kind if task.data == what.to_data())
        looking.check_number(found, f"of {what!r}", count)

    def assert_idle(self) -> None:
        """Raise AssertionError where a task is due, or runs."""
        busy = self.tasks.with_status(TaskStatus.PENDING, TaskStatus.LEASED, TaskStatus.CANCELLATION_PENDING)
        if busy:
            msg = f"nothing should be due or running, but there is:\n{busy!r}"
            raise AssertionError(msg)

    def describe(self) -> str:
        """Tell which tasks there are, and at what instant; also after the end."""
        return f"at {self.now.isoformat()}\n{self.tasks!r}" if hasattr(self, "store") else "(not entered)"

    # -- within -------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Put a new worker to work."""
        self._tally = Tally(self.client.telemetry, is_over=lambda: False)
        self._engine = engine = Engine(
            self._app,
            self._handlers,
            self.client,
            concurrency=self._concurrency,
            processes=None,
            abort_grace=self._abort_grace,
            longest_lease=_LONGEST_LEASE,
            poll=_POLL_SECONDS,
            may_claim=lambda: True,
            listener=self._tally,
        )
        async with AsyncExitStack() as working:
            await engine.begin()
            await working.enter_async_context(engine.working())
            working.push_async_callback(engine.line.aclose)
            self._working = working.pop_all()

    async def _end(self) -> None:
        with self._virtual.hurrying():
            await self._stop_looking()
            await self._engine.end_all("shutdown", to_end=_TO_END, to_write=_TO_WRITE)
            await self._working.aclose()

    def _stored(self, _: Sequence[Edit]) -> None:
        self._engine.slots.changed.set()

    async def _run(self, is_over: Callable[[], bool], *, until: datetime | None = None) -> TickReport:
        """Start what is due whenever something is, until it is over; time does not go beyond `until`."""
        self._tally.begin()
        ends = float("inf") if until is None else self._virtual.time() + (until - self.now).total_seconds()
        glances = 0
        with self._virtual.hurrying(ends):
            while True:
                if not self._is_looking:
                    self._looking = asyncio.create_task(self._look())
                await self._virtual.settled()
                if self._engine.slots.changed.is_set() and not self._is_looking:
                    glances = 0
                    continue
                if is_over() and self._failure is None:
                    return self._tally.report(self._next_due(), more=False)
                glances += 1
                if glances > _MOST_GLANCES:
                    raise self._failure or StoreUnavailable(f"nothing happens any more:\n{self.tasks!r}")
                await self._wait(until, glance=min(_LONGEST_GLANCE_SECONDS, 2.0 ** (glances - 1)))

    async def _look(self) -> None:
        """Start what is due and fits."""
        engine = self._engine
        self._failure = None
        try:
            await engine.refresh()
            await engine.line.rest()  # so that it looks again: much may have happened since it last did
            engine.slots.changed.clear()
            while not engine.is_full and await engine.take(waits=False):
                pass
        except StoreUnavailable as error:
            _log.warning("the store cannot say what is due: %s", error)
            self._failure = error

    @property
    def _is_looking(self) -> bool:
        return self._looking is not None and not self._looking.done()

    async def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
            self._looking = None

    async def _wait(self, until: datetime | None, *, glance: float) -> None:
        """Wait until something changes or becomes due, but not beyond an instant.

        `glance`: seconds after which it looks again where something is due that could not be taken.
        """
        moments = [moment for moment in (until, self._next_due()) if moment is not None]
        if self._failure is not None or self._has_untaken:
            moments.append(self.now + timedelta(seconds=glance))
        timeout = max(_MOMENT_SECONDS, (min(moments) - self.now).total_seconds()) if moments else None
        waiting = asyncio.create_task(self._engine.slots.changed.wait())
        await asyncio.wait({waiting}, timeout=timeout)
        waiting.cancel()
        await asyncio.wait({waiting})

    def _next_due(self) -> datetime | None:
        """Give the next instant after now at which something becomes due."""
        room, after = self._engine.slots.room, Cursor(self.now, _HIGHEST_ID)
        documents = self.store.documents
        first = documents.due(room.unpaused, now=None, limit=1, after=after)
        first += documents.due(room.paused, now=None, limit=1, after=after, generators=True)
        return min((task.due_at for task in first if task.due_at is not None), default=None)

    @property
    def _has_untaken(self) -> bool:
        """Tell whether something is due that this worker would take if it could."""
        now, room, documents = Now(self.now, self.now), self._engine.slots.room, self.store.documents
        found = documents.due(room.unpaused, now=self.now, limit=_FEW)
        found += documents.due(room.paused, now=self.now, limit=_FEW, generators=True)
        return any(triage(task, now) is not Step.LEAVE for task in found)


def _id_of(task: Task | Receipt | str) -> str:
    match task:
        case Task():
            return task.id
        case Receipt():
            return task.task_id
        case _:
            return task
