"""The harness: an App at work on a store in memory, in a time that passes only when the test says so."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, Unpack

from oncetask.client import Client
from oncetask.clock import Duration, check_instant, seconds
from oncetask.engine import checked_handlers
from oncetask.errors import TaskNotFound
from oncetask.tally import TickReport
from oncetask.task import Outcome, Receipt, Task, TaskStatus
from oncetask.testing import looking
from oncetask.testing.blocking import BlockingClient
from oncetask.testing.looking import Tasks
from oncetask.testing.store import HarnessStore
from oncetask.testing.virtual import PATIENCE_SECONDS, VirtualClock, VirtualTime
from oncetask.testing.working import SteppedWorker
from oncetask.waking import NoWaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncetask.app import App
    from oncetask.enqueueing import EnqueueOptions
    from oncetask.payload import Payload
    from oncetask.sync import SyncClient

__all__ = ["Harness"]

_ANY: Any = object()
_WHILE_ENTERED = {"store", "client", "sync_client", "_worker"}


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
        patience: Duration = PATIENCE_SECONDS,
    ) -> None:
        """`start`: the instant (aware) at which the test begins; left out: now.

        `patience`: what sockets and processes that handlers wait for are given, in seconds of real time, before time
        goes on without them. The others: as for `Worker`. Raises TypeError and ValueError for these.
        """
        self._app = app
        self._handlers = {
            kind: replace(handler, runs_in="thread") if handler.runs_in == "process" else handler
            for kind, handler in checked_handlers(app, concurrency=concurrency, processes=None).items()
        }
        self._start = datetime.now(UTC) if start is None else check_instant("start", start)
        self._env, self._concurrency = env, concurrency
        self._abort_grace = seconds("abort_grace", abort_grace, zero=True)
        self._patience = seconds("patience", patience, zero=True)
        self._open = AsyncExitStack()
        self._virtual: VirtualTime
        self._worker: SteppedWorker
        self.store: HarnessStore
        """Where the tasks are; `store.fail(...)`, `store.delay(...)` and `store.failing(...)` let it go wrong."""
        self.client: Client
        """What callers use, as `connect` gives it: to cancel, reset, delete, pause, wait, watch."""
        self.sync_client: SyncClient
        """What blocking callers use, as `connect_sync` gives it, for functions that the test runs in a thread."""

    async def __aenter__(self) -> Self:
        """Open the App's lifespan, and bring about its schedules."""
        async with AsyncExitStack() as opening:
            self._virtual = VirtualTime(patience=self._patience)
            opening.enter_context(self._virtual.installed())
            clock = VirtualClock(self._virtual, self._start)
            self.store = HarnessStore(clock, env=self._env)
            self.client = Client(self.store, waker=NoWaker())
            opening.push_async_callback(self.client.aclose)
            self.sync_client = BlockingClient(self.client)
            self._worker = SteppedWorker(
                self._app,
                self._handlers,
                self.client,
                self.store,
                self._virtual,
                concurrency=self._concurrency,
                abort_grace=self._abort_grace,
            )
            await self._worker.open()
            opening.push_async_callback(self._worker.aclose)
            self._open = opening.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Tell what still runs to stop, as `Worker.stop` does without any grace; then time is the machine's again."""
        await self._open.aclose()

    if not TYPE_CHECKING:  # it would let every name pass

        def __getattr__(self, name: str) -> Any:
            """Say what is missing where a harness is used that was not entered."""
            if name in _WHILE_ENTERED:
                msg = "a Harness works only while it is entered: `async with Harness(app) as h:`"
                raise RuntimeError(msg)
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The instant (aware) at which the test is."""
        return self.store.documents.present()

    async def run_due(self) -> TickReport:
        """Run everything that is due, and whatever becomes due while that runs, until nothing is; tell what was done.

        Time passes as far as handlers take any, and by the microseconds that tasks of one `enqueue_many` are apart.
        What waits for a later instant stays: `advance` lets that come. What somebody else's lease or resource key
        holds back, after a crash say, is not waited for either.
        """
        return await self._worker.run(lambda: not self._worker.is_busy)

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
        return await self._worker.run(lambda: self.now >= instant, ends=self._ends_at(instant))

    async def run_until(self, condition: Callable[[], object], *, within: Duration = 86_400) -> TickReport:
        """Let time pass until a condition holds, which is asked at every instant at which something happens.

        Raises AssertionError where it does not within so much virtual time.
        """
        end = self.now + timedelta(seconds=seconds("within", within))
        report = await self._worker.run(lambda: bool(condition()) or self.now >= end, ends=self._ends_at(end))
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
        return await self.client.cancel_task(looking.id_of(task))

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    async def crash(self) -> None:
        """Let the worker die: what runs is gone without a word to the store, and its leases run out.

        Another worker takes its place. The handlers' `finally` blocks run, since they are in this very process, but
        nothing of them is written; `ctx.abort_reason` is "lease-lost" there, also in threads, which run on until they
        look at it.
        """
        await self._worker.crash()

    # -- looking ------------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> Tasks:
        """All tasks, in the order in which they were enqueued: `h.tasks.of(SendEmail).with_status("waiting")`."""
        return Tasks(self.store.documents.everything())

    def task(self, task: Task | Receipt | str) -> Task:
        """Give a task as it is now. Raises TaskNotFound."""
        (found,) = self.store.documents.get([looking.id_of(task)])
        if found is None:
            raise TaskNotFound(looking.id_of(task))
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
        looking.check_number(self.tasks, what, count)

    def assert_idle(self) -> None:
        """Raise AssertionError where a task is due, or runs."""
        busy = self.tasks.with_status(TaskStatus.PENDING, TaskStatus.LEASED, TaskStatus.CANCELLATION_PENDING)
        if busy:
            msg = f"nothing should be due or running, but there is:\n{busy!r}"
            raise AssertionError(msg)

    def describe(self) -> str:
        """Tell which tasks there are, and at what instant; also after the end."""
        return f"at {self.now.isoformat()}\n{self.tasks!r}" if "store" in vars(self) else "(not entered)"

    def _ends_at(self, instant: datetime) -> float:
        return self._virtual.time() + (instant - self.now).total_seconds()
