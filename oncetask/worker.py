"""The worker: find what is due, claim it, run it, record how it ended; for ever.

`_feed` finds, `_claim` claims, `Run.process` runs a claimed task and records its end. Which state follows which is
decided in `lifecycle`; a handler is called in `execution`; documents are written by the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from oncetask.claims import next_step
from oncetask.clock import Duration, seconds
from oncetask.errors import OncetaskError, StoreUnavailable
from oncetask.handlers import check_count
from oncetask.keyreading import KeyReader
from oncetask.keyrun import KeyRun
from oncetask.line import DueLine
from oncetask.processes import Processes, check_main, check_sendable
from oncetask.running import Run, Surroundings
from oncetask.slots import Slots
from oncetask.timekeeping import Timekeeper, is_due_generator
from oncetask.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from oncetask.app import App
    from oncetask.client import Client
    from oncetask.clock import Now
    from oncetask.lifecycle import Transition
    from oncetask.task import Task
    from oncetask.waiting import Picked

__all__ = ["Worker"]

_LONGEST_LEASE = 60.0
_TO_END, _TO_WRITE = 1.0, 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_READ_AHEAD = 16
_KEYS_AT_ONCE = 8
"""So many keys are being taken at a time: other workers that want the same ones see by then which are gone."""
_BLOCKED_SECONDS = 1.0
_SOME = 5
_FEWEST_AHEAD, _MOST_AHEAD = 50, 500
_log = logging.getLogger("oncetask")


class Worker:
    """Runs the tasks of an App's kinds, up to `concurrency` at a time.

    `await run()` until cancelled, or `async with worker:` in the background. Its client may be used for other things.
    """

    def __init__(
        self,
        app: App,
        client: Client,
        *,
        concurrency: int = 32,
        grace: Duration = 8,
        abort_grace: Duration = 5,
        poll: Duration = 30,
        lease: Duration = _LONGEST_LEASE,
        processes: int | None = None,
    ) -> None:
        """Durations are seconds or timedeltas.

        `grace`: how long `stop` waits for running handlers before it aborts them. `abort_grace`: how long an aborted
        handler may take to end before it is abandoned. `poll`: the slow look when nothing rings. `lease`: the longest
        time that a crashed worker's tasks stay held. `processes`: how many handlers with `run_in="process"` may run
        at a time; left out: one for each CPU. Raises TypeError for one of these that another process cannot import.
        """
        check_count("concurrency", concurrency)
        if processes is not None:
            check_count("processes", processes)
        self._app, self._client, self._store = app, client, client.store
        self._concurrency = concurrency
        self._grace = seconds("grace", grace, zero=True)
        self._abort_grace = seconds("abort_grace", abort_grace, zero=True)
        self._poll = seconds("poll", poll)
        self._longest_lease = seconds("lease", lease)
        self._handlers = dict(app.handlers())
        self._most_processes = processes or os.cpu_count() or 1
        for kind, handler in self._handlers.items():
            if handler.runs_in == "process":
                check_sendable(kind, handler.function, handler.payload_type)
        self._stopping = self._running = False
        self._runs: dict[asyncio.Task[None], Run] = {}
        self._background: asyncio.Task[None] | None = None
        self._started, self._stop_wanted, self._stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, *, handle_signals: bool = False) -> None:
        """Work until cancelled or stopped, then drain as `stop` says. `handle_signals`: SIGTERM and SIGINT stop it.

        A second signal ends the process at once; the leases of what it ran run out.
        """
        async with self._working(handle_signals=handle_signals):
            feeding = asyncio.create_task(self._feed())
            keeping = asyncio.create_task(self._timekeeper.keep(self._left_out))
            try:
                await asyncio.shield(feeding)
            finally:
                keeping.cancel()
                await asyncio.shield(self._drain(feeding))
                await asyncio.wait({keeping})

    async def stop(self) -> None:
        """Claim nothing more, wait `grace` for what runs, abort the rest, and give back what was aborted."""
        if self._running:
            self._request_stop()
            await self._stopped.wait()

    async def started(self) -> None:
        """Wait until it works: its App's lifespan is open, and signals are handled if they are to be."""
        await self._started.wait()

    async def __aenter__(self) -> Self:
        """Start in the background. Raises what keeps it from starting."""
        self._background = asyncio.create_task(self.run())
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait({started, self._background}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._background.done():
            self._background.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and raise what ended it early."""
        await self.stop()
        if self._background is not None:
            await self._background

    # -- find, claim, start -------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Keep the slots full until told to stop; a store that fails is waited for."""
        pause = _FIRST_PAUSE
        while not self._stopping:
            self._slots.changed.clear()
            try:
                if self._is_full:
                    await self._line.rest()
                    await self._slots.changed.wait()
                elif picked := await self._line.take(
                    self._slots.room, self._slots.changed, keys=_KEYS_AT_ONCE - self._taking
                ):
                    await self._take_on(picked)
                pause = _FIRST_PAUSE
            except StoreUnavailable as error:
                _log.error("the store is unavailable; looking again in %s s: %s", pause, error)  # told
                pause = await self._paused(pause)
            except Exception:  # noqa: BLE001  # a worker that ended here would be missed only in the morning
                _log.exception("finding work failed; looking again in %s s", pause)
                pause = await self._paused(pause)

    async def _take_on(self, picked: Picked) -> None:
        """Let generators that are due spawn, claim the others, and begin with resource keys."""
        for task in picked.keyed:
            self._start_key(task)
        found, now = picked.plain, await self._store.now()
        generators = [task for task in found if is_due_generator(task, now)]
        if not generators:
            await self._claim(found, now)
            return
        ids = {task.id for task in generators}
        others = [task for task in found if task.id not in ids]
        spawning = self._timekeeper.spawn(generators)  # which does not raise
        claimed, _ = await asyncio.gather(self._claim(others, now), spawning, return_exceptions=True)
        if claimed is not None:
            raise claimed

    def _left_out(self) -> Iterable[str]:
        """Give the kinds that the line does not look for at present."""
        return self._handlers.keys() - (frozenset() if self._is_full else self._slots.room.kinds)

    @property
    def _is_full(self) -> bool:
        return not self._slots.room or len(self._runs) >= 2 * self._concurrency

    async def _claim(self, found: list[Task], now: Now) -> None:
        """Write the next step of each found task, all in one go, and start those that it claims."""
        steps: list[Transition] = []
        for task in found:
            try:
                step = next_step(task, self._handlers[task.kind], longest_lease=self._longest_lease, now=now)
            except Exception:  # noqa: BLE001  # told; the others must not wait for it
                _log.exception("what task %s needs cannot be decided; it is passed over", task.id)
                continue
            if step is None:
                self._line.forget([task])
            else:
                steps.append(step)
        try:
            written = await self._store.apply(steps)
        except BaseException:
            self._line.forget(found)
            raise
        for step, one in zip(steps, written, strict=True):
            if one.error is not None:
                _log.error("task %s cannot be written and is passed over: %s", step.before.id, one.error)
            if one.version is None:
                continue
            self._line.note(step.before.id, one.version)
            self._client.telemetry.changed(step)
            if step.event == "claimed":
                self._start(step.after.evolve(version=one.version))
        if not all(one.applied for one in written):
            self._line.scatter()

    def _start_key(self, task: Task) -> None:
        """Begin with a resource key, for which this task waits."""
        run = KeyRun(
            self._handlers,
            task,
            slot=self._slots.take(task.kind),
            surroundings=self._surroundings,
            line=self._line,
            reader=self._reader,
            may_go_on=lambda: not self._stopping,
            is_crowded=lambda: self._is_full,
        )
        self._taking += 1
        run.begun.add_done_callback(self._key_begun)
        self._begin(run)

    def _key_begun(self, begun: asyncio.Future[bool]) -> None:
        self._taking -= 1
        if not begun.result():
            self._line.scatter()
        self._slots.changed.set()

    def _start(self, task: Task) -> None:
        slot = self._slots.take(task.kind)
        self._begin(Run(self._handlers[task.kind], task, slot=slot, surroundings=self._surroundings))

    def _begin(self, run: Run) -> None:
        running = asyncio.create_task(run.process())
        self._runs[running] = run
        self._watchdog.wake()
        running.add_done_callback(self._ended)

    def _ended(self, running: asyncio.Task[None]) -> None:
        del self._runs[running]
        if not self._runs:
            self._watchdog.sleep()
        self._slots.changed.set()

    def _describe(self, running: asyncio.Task[Any] | None) -> str:
        """Name the handler that an asyncio task runs, or those that may have started it. Called in another thread."""
        runs = tuple(self._runs.values())
        for run in runs:
            if name := run.describe(running):
                return name
        some = ", ".join(f"{run.kind} ({run.task_id})" for run in runs[:_SOME])
        what = "a callback" if running is None else f"the asyncio task {running.get_name()!r}"
        return f"{what}, which is no handler's own; running are {some}"

    # -- start and stop -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _working(self, *, handle_signals: bool) -> AsyncIterator[None]:
        """Everything that a working worker has open."""
        if self._running:
            msg = "this worker is running already: make another one"
            raise OncetaskError(msg)
        check_main()
        self._running, self._stopping = True, False
        self._stopped.clear()
        self._stop_wanted.clear()
        loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT) if handle_signals else ()
        try:
            await self._store.open()
            ahead = min(max(_READ_AHEAD * self._concurrency, _FEWEST_AHEAD), _MOST_AHEAD)
            self._line = DueLine(self._store, self._handlers, ahead=ahead, poll=self._poll)
            self._reader, self._taking = KeyReader(self._store), 0
            self._timekeeper = Timekeeper(
                self._client,
                self._app.names(),
                self._app.schedules(),
                kinds=self._handlers,
                horizon=self._poll,
                note=self._line.note,
            )
            await self._timekeeper.start()
            self._slots = Slots(self._concurrency, self._handlers, processes=self._most_processes)
            self._watchdog = Watchdog(self._describe, after=_BLOCKED_SECONDS)
            self._processes = Processes()
            for number in numbers:
                loop.add_signal_handler(number, self._on_signal, numbers)
            async with self._app.open_lifespan() as state:
                self._surroundings = Surroundings(
                    client=self._client,
                    state=state,
                    abort_grace=self._abort_grace,
                    longest_lease=self._longest_lease,
                    processes=self._processes,
                    note=self._line.note,
                )
                self._watchdog.start()
                self._started.set()
                try:
                    yield
                finally:
                    await self._watchdog.aclose()
                    await self._processes.aclose()
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
            if numbers:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self._running = False
            self._started.clear()
            self._stopped.set()

    def _on_signal(self, numbers: tuple[signal.Signals, ...]) -> None:
        """Stop at the first signal; the next one ends the process.

        Not by a KeyboardInterrupt, which may be raised anywhere, a handler's own code included, and get lost there.
        """
        for number in numbers:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        _log.info("asked to stop; %d tasks run, and have %g s to end", len(self._runs), self._grace)
        self._request_stop()

    def _request_stop(self) -> None:
        self._stopping = True
        self._stop_wanted.set()
        self._slots.changed.set()

    async def _paused(self, pause: float) -> float:
        """Wait, unless it is time to stop; gives the next pause."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stop_wanted.wait()
        return min(2 * pause, _LONGEST_PAUSE)

    async def _drain(self, feeding: asyncio.Task[None]) -> None:
        """Let what runs end within the grace, abort the rest, and leave what does not obey."""
        loop = asyncio.get_running_loop()
        self._request_stop()
        ends = loop.time() + self._grace
        await asyncio.wait({feeding}, timeout=self._grace + _TO_END)
        feeding.cancel()
        await self._line.aclose()
        await self._wait_for_all(ends - loop.time())
        for run in tuple(self._runs.values()):
            run.abort("shutdown")
        await self._wait_for_all(_TO_END)
        for run in tuple(self._runs.values()):
            run.abandon()
        if left := await self._wait_for_all(_TO_WRITE):
            _log.error("%d tasks could not be given back in time; their leases will run out", len(left))
            for running in left:
                running.cancel()
            await asyncio.wait(left)

    async def _wait_for_all(self, timeout: float) -> set[asyncio.Task[None]]:  # of a wait, not a scope
        if not self._runs:
            return set()
        _, pending = await asyncio.wait(set(self._runs), timeout=max(0.0, timeout))
        return pending
