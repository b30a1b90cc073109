"""What a worker and a tick have in common: what was found is claimed and run, up to so many at a time.

`take` finds and claims, `Run.process` runs a claimed task and records its end. Which state follows which is decided in
`lifecycle`; a handler is called in `execution`; documents are written by the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from oncetask.claims import comes_too_late, next_step
from oncetask.errors import StoreUnavailable
from oncetask.handlers import check_count
from oncetask.keyreading import KeyReader
from oncetask.keyrun import KeyRun
from oncetask.line import DueLine
from oncetask.pausing import paused_kinds
from oncetask.processes import Processes, check_sendable
from oncetask.running import Run, Surroundings
from oncetask.slots import Slots
from oncetask.timekeeping import Timekeeper, is_due_generator
from oncetask.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from oncetask.app import App
    from oncetask.client import Client
    from oncetask.clock import Now
    from oncetask.context import AbortReason, Budget
    from oncetask.handlers import Handler
    from oncetask.lifecycle import Transition
    from oncetask.task import Task
    from oncetask.telemetry import Listener
    from oncetask.waiting import Picked

__all__ = ["Engine", "checked_handlers"]

_READ_AHEAD = 16
_FEWEST_AHEAD, _MOST_AHEAD = 50, 500
_KEYS_AT_ONCE = 8
"""So many keys are being taken at a time: other workers that want the same ones see by then which are gone."""
_BLOCKED_SECONDS = 1.0
_BREATH_SECONDS = 1.0
_FRESH_SECONDS = 0.5
_TO_LEAVE_SECONDS = 0.2
_SOME = 5
_log = logging.getLogger("oncetask")


def checked_handlers(app: App, *, concurrency: int, processes: int | None) -> dict[str, Handler]:
    """Give the handlers of an App that so many may run at a time.

    Raises ValueError or TypeError for these numbers, TypeError for a handler that another process cannot import.
    """
    check_count("concurrency", concurrency)
    if processes is not None:
        check_count("processes", processes)
    handlers = dict(app.handlers())
    for kind, handler in handlers.items():
        if handler.runs_in == "process":
            check_sendable(kind, handler.function, handler.payload_type)
    return handlers


class Engine:
    """Claims and runs tasks, as long as it is asked to; made on the loop on which they run."""

    def __init__(
        self,
        app: App,
        handlers: dict[str, Handler],
        client: Client,
        *,
        concurrency: int,
        processes: int | None,
        abort_grace: float,
        longest_lease: float,
        poll: float,
        may_claim: Callable[[], bool],
        listener: Listener,
        budget: Budget | None = None,
    ) -> None:
        """Keep the settings; the client's store has to be open.

        Durations are seconds. `processes`: None for one for each CPU. `may_claim`: tells whether further tasks may be
        claimed. `listener`: is told of every change that is stored. `budget`: no run lasts longer.
        """
        self._app, self._handlers, self._client, self._store = app, handlers, client, client.store
        self._concurrency, self._longest_lease, self._abort_grace = concurrency, longest_lease, abort_grace
        self._may_claim, self._listener, self._budget = may_claim, listener, budget
        self.runs: dict[asyncio.Task[None], Run] = {}
        """What runs at present."""
        self.slots = Slots(concurrency, handlers, processes=processes or os.cpu_count() or 1)
        ahead = min(max(_READ_AHEAD * concurrency, _FEWEST_AHEAD), _MOST_AHEAD)
        self.line = DueLine(self._store, handlers, ahead=ahead, poll=poll)
        self.timekeeper = Timekeeper(
            client.store,
            app.names(),
            app.schedules(),
            kinds=handlers,
            horizon=poll,
            note=self.line.note,
            telemetry=listener,
        )
        self._reader, self._taking = KeyReader(self._store), 0
        self._watchdog = Watchdog(self._describe, after=_BLOCKED_SECONDS)
        self._knows_settings = False
        self._told: AbortReason | None = None
        self._paused_until = 0.0

    async def begin(self) -> bool:
        """Learn which kinds are paused, and bring about the App's schedules; tells whether any of these were new.

        Raises StoreUnavailable.
        """
        settings = await self._store.settings(no_older_than=_FRESH_SECONDS)
        self._heed(paused_kinds(settings))
        return await self.timekeeper.start(settings)

    async def refresh(self) -> None:
        """Learn anew which kinds are paused, and let their schedules spawn. Raises StoreUnavailable."""
        self._heed(paused_kinds(await self._store.settings()))
        paused, reading = self.slots.room.paused, asyncio.get_running_loop().time()
        if paused and reading >= self._paused_until:
            self._paused_until = reading + await self.timekeeper.look(paused)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Open the App's lifespan, and everything else that runs beside handlers."""
        processes = Processes()
        async with self._app.open_lifespan() as state:
            self._surroundings = Surroundings(
                client=self._client,
                state=state,
                abort_grace=self._abort_grace,
                longest_lease=self._longest_lease,
                processes=processes,
                stored=self._stored,
                budget=self._budget,
            )
            self._watchdog.start()
            try:
                yield
            finally:
                await self._watchdog.aclose()
                await processes.aclose()

    async def heed_settings(self) -> None:
        """Follow which kinds are paused, for ever."""
        while True:
            try:
                async with self._store.watch_settings() as feed:
                    while True:
                        self._heed(paused_kinds(await feed.get()))
            except StoreUnavailable as error:
                _log.warning("pauses are not seen at present, again in %g s: %s", _BREATH_SECONDS, error)
            except Exception:  # noqa: BLE001  # told; a pause that nobody sees would be missed only in the morning
                _log.exception("pauses are not seen at present, again in %g s", _BREATH_SECONDS)
            await asyncio.sleep(_BREATH_SECONDS)

    def _heed(self, paused: frozenset[str]) -> None:
        self._knows_settings = True
        if self.slots.pause(paused & self._handlers.keys()):
            _log.info("kinds that are paused from now on: %s", ", ".join(sorted(self.slots.room.paused)) or "none")

    # -- find, claim, start -------------------------------------------------------------------------------------------

    async def take(self, *, waits: bool = True) -> bool:
        """Claim and begin what there is room for; tells whether there was anything.

        `waits`: until there is something, or something ends; without it what is due at this moment is all. Raises
        StoreUnavailable.
        """
        self.slots.changed.clear()
        if not self._knows_settings:
            self._heed(paused_kinds(await self._store.settings()))
        if self.is_full:
            await self.line.rest()
            if waits or self.runs:
                await self.slots.changed.wait()
            return False
        picked = await self.line.take(
            self.slots.room, self.slots.changed, keys=_KEYS_AT_ONCE - self._taking, waits=waits
        )
        if picked:
            await self._take_on(picked)
        return bool(picked)

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
        spawning = self.timekeeper.spawn(generators)  # which does not raise
        claimed, _ = await asyncio.gather(self._claim(others, now), spawning, return_exceptions=True)
        if claimed is not None:
            raise claimed

    def left_out(self) -> Iterable[str]:
        """Give the kinds that the line does not look for at present."""
        return self._handlers.keys() - (frozenset() if self.is_full else self.slots.room.kinds)

    @property
    def is_full(self) -> bool:
        """True where nothing more may start, or too many ends are still to be recorded."""
        return not self.slots.room or len(self.runs) >= 2 * self._concurrency

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
                self.line.forget([task])
            else:
                steps.append(step)
        try:
            written = await self._store.apply(steps)
        except BaseException:
            self.line.forget(found)
            raise
        for step, one in zip(steps, written, strict=True):
            if one.error is not None:
                _log.error("task %s cannot be written and is passed over: %s", step.before.id, one.error)
            if one.version is None:
                continue
            self.line.note(step.before.id, one.version)
            self._listener.changed(step)
            if step.event == "claimed":
                self._start(step.stored(one.version).after)
        refused = sum(not one.applied and one.error is None for one in written)
        if steps:
            self.line.claimed(refused=refused, tried=len(steps))

    def _start_key(self, task: Task) -> None:
        """Begin with a resource key, for which this task waits."""
        run = KeyRun(
            self._handlers,
            task,
            slot=self.slots.take(task.kind),
            surroundings=self._surroundings,
            line=self.line,
            reader=self._reader,
            may_go_on=self._may_claim,
            is_crowded=lambda: self.is_full,
        )
        self._taking += 1
        run.begun.add_done_callback(self._key_begun)
        self._begin(run)

    def _key_begun(self, begun: asyncio.Future[bool]) -> None:
        self._taking -= 1
        if not begun.result():
            self.line.scatter()
        self.slots.changed.set()

    def _start(self, task: Task) -> None:
        if comes_too_late([task], self._store.clock.now()):
            return
        slot = self.slots.take(task.kind)
        self._begin(Run(self._handlers[task.kind], task, slot=slot, surroundings=self._surroundings))

    def _begin(self, run: Run) -> None:
        if self._told is not None:
            run.abort(self._told)
        running = asyncio.create_task(run.process())
        self.runs[running] = run
        self._watchdog.wake()
        running.add_done_callback(self._ended)

    def _ended(self, running: asyncio.Task[None]) -> None:
        del self.runs[running]
        if not self.runs:
            self._watchdog.sleep()
        self.slots.changed.set()

    def _stored(self, transition: Transition) -> None:
        self.line.note(transition.after.id, transition.after.version)
        self._listener.changed(transition)

    def _describe(self, running: asyncio.Task[Any] | None) -> str:
        """Name the handler that an asyncio task runs, or those that may have started it. Called in another thread."""
        runs = tuple(self.runs.values())
        for run in runs:
            if name := run.describe(running):
                return name
        some = ", ".join(f"{run.kind} ({run.task_id})" for run in runs[:_SOME])
        what = "a callback" if running is None else f"the asyncio task {running.get_name()!r}"
        return f"{what}, which is no handler's own; running are {some}"

    # -- the end ------------------------------------------------------------------------------------------------------

    async def wait(self, timeout: float) -> set[asyncio.Task[None]]:  # of a wait, not a scope
        """Wait for what runs, at most so many seconds; gives what runs on."""
        if not self.runs:
            return set()
        _, pending = await asyncio.wait(set(self.runs), timeout=max(0.0, timeout))
        return pending

    async def end_all(self, reason: AbortReason, *, to_end: float, to_write: float) -> set[asyncio.Task[None]]:
        """Abort what runs, and what is still begun; leave what does not obey, and give that.

        Seconds: for handlers to end, and to record all ends.
        """
        self._told = reason
        for run in tuple(self.runs.values()):
            run.abort(reason)
        await self.wait(to_end)
        for run in tuple(self.runs.values()):
            run.abandon()
        if left := await self.wait(to_write):
            _log.error("%d tasks could not be given back in time; their leases will run out", len(left))
            for running in left:
                running.cancel()
            _, left = await asyncio.wait(left, timeout=_TO_LEAVE_SECONDS)
            if left:
                _log.error("%d error handlers do not even end when they are cancelled, and are left running", len(left))
        return left
