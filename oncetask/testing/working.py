"""The worker of a test: it claims and runs as a real one does, but only while it is told to, by a time that jumps."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from oncetask.clock import Now
from oncetask.engine import Engine
from oncetask.errors import StoreUnavailable
from oncetask.lifecycle import Step, triage
from oncetask.store import Cursor
from oncetask.tally import Tally, TickReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from oncetask.app import App
    from oncetask.client import Client
    from oncetask.handlers import Handler
    from oncetask.store.memory import Edit
    from oncetask.testing.store import HarnessStore
    from oncetask.testing.virtual import VirtualTime

__all__ = ["SteppedWorker"]

_LONGEST_LEASE = 60.0
_POLL_SECONDS = 30.0
_TO_END, _TO_WRITE = 1.0, 0.5
_MOMENT_SECONDS = 0.000_001
_CLOSE_GLANCES, _LONGEST_GLANCE_SECONDS = 100, 3_600.0
_MOST_GLANCES = 1_000
_FEW = 5
_HIGHEST_ID = "\U0010ffff"
_log = logging.getLogger("oncetask")


class SteppedWorker:
    """One worker after the other, each until it crashes."""

    def __init__(
        self,
        app: App,
        handlers: Mapping[str, Handler],
        client: Client,
        store: HarnessStore,
        virtual: VirtualTime,
        *,
        concurrency: int,
        abort_grace: float,
    ) -> None:
        """`handlers`: those of the `app`, none of which needs a process of its own. `abort_grace`: seconds."""
        self._app, self._handlers, self._client = app, dict(handlers), client
        self._documents, self._store, self._virtual = store.documents, store, virtual
        self._concurrency, self._abort_grace = concurrency, abort_grace
        self._tally = Tally(client.telemetry, is_over=lambda: False)
        self._working = AsyncExitStack()
        self._looking: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._is_running = self._has_begun = self._is_told = self._is_closed = False
        self._make()
        self._documents.listeners.append(self._stored)

    def _make(self) -> None:
        self._engine = Engine(
            self._app,
            self._handlers,
            self._client,
            concurrency=self._concurrency,
            processes=None,
            abort_grace=self._abort_grace,
            longest_lease=_LONGEST_LEASE,
            poll=_POLL_SECONDS,
            may_claim=lambda: True,
            listener=self._tally,
        )
        self._has_begun = False

    async def open(self) -> None:
        """Open the App's lifespan, and bring about its schedules."""
        with self._virtual.instantly():
            await self._open()

    async def _open(self) -> None:
        async with AsyncExitStack() as working:
            await working.enter_async_context(self._engine.working())
            working.push_async_callback(self._engine.line.aclose)
            try:
                await self._begin()
            except StoreUnavailable as error:
                self._failed(error)
            self._working = working.pop_all()

    async def aclose(self) -> None:
        """Tell what runs to stop, and close the lifespan."""
        self._is_closed = True
        with self._virtual.hurrying(), self._virtual.instantly():
            await self._stop_looking()
            await self._engine.end_all("shutdown", to_end=_TO_END, to_write=_TO_WRITE)
            await self._working.aclose()

    async def crash(self) -> None:
        """End without a word to the store; another one begins."""
        self._check_idle()
        crashed = self._store.failing(error=StoreUnavailable("the worker has crashed"))
        with self._virtual.hurrying(), self._virtual.instantly(), crashed:
            await self._stop_looking()
            for running, run in tuple(self._engine.runs.items()):
                run.abort("lease-lost")  # a thread cannot be cancelled, and would wait for that for ever
                running.cancel()
            await self._engine.wait(self._abort_grace)
            await self._working.aclose()
        self._make()
        await self.open()

    @property
    def is_busy(self) -> bool:
        """True while something is due that it can take, or runs; also where it is not known whether anything is due.

        Tasks that are stored together are due a microsecond after each other.
        """
        if self._engine.runs or self._is_looking or self._failure is not None:
            return True
        next_due = self._next_due()
        return next_due is not None and next_due - self._now <= timedelta(microseconds=self._store.created)

    async def run(self, is_over: Callable[[], bool], *, ends: float = float("inf")) -> TickReport:
        """Start what is due whenever something is, until it is over; time does not go beyond `ends`, the loop's.

        Raises what keeps it from going on, after weeks in which the store did not answer.
        """
        self._check_idle()
        self._tally.begin()
        self._is_running, glances = True, 0
        try:
            with self._virtual.hurrying(ends):
                while True:
                    if not self._is_looking:
                        self._looking = asyncio.create_task(self._look())
                    await self._virtual.settled()
                    if self._is_called:
                        glances = 0
                    elif is_over() or self._virtual.has_ended:
                        return self._tally.report(self._next_due(), more=False)
                    elif glances > _MOST_GLANCES and self._failure is not None and ends == float("inf"):
                        raise self._failure
                    else:
                        glances += 1
                        await self._pass(is_over, ends, glance=_glance(glances))
        finally:
            self._is_running = False

    # -- within -------------------------------------------------------------------------------------------------------

    def _check_idle(self) -> None:
        if self._is_closed:
            msg = "this harness has ended: time passes by itself again"
            raise RuntimeError(msg)
        if self._is_running:
            msg = (
                "time is being let pass already: run_due(), advance() and the like are for the test itself, one at a "
                "time, not for handlers"
            )
            raise RuntimeError(msg)

    def _stored(self, _: Sequence[Edit]) -> None:
        self._engine.slots.changed.set()

    async def _begin(self) -> None:
        await self._engine.begin()
        self._has_begun = True

    async def _look(self) -> None:
        """Start what is due and fits."""
        engine = self._engine
        self._failure = None
        engine.slots.changed.clear()
        try:
            if not self._has_begun:
                await self._begin()
            await engine.refresh()
            await engine.timekeeper.look(())  # so that schedules which could not spawn are tried again
            while not engine.is_full:
                await engine.line.rest()  # so that it looks again: much may have happened since it last did
                if not await engine.take(waits=False):
                    break
            self._is_told = False
        except Exception as error:  # noqa: BLE001  # a worker goes on as well, and tells it
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        told = None if isinstance(error, StoreUnavailable) else error
        level = logging.DEBUG if self._is_told else logging.WARNING
        _log.log(level, "the store cannot say what is due: %s", error, exc_info=told)
        self._failure, self._is_told = error, True

    @property
    def _is_called(self) -> bool:
        """True where it has to look again at once."""
        return self._engine.slots.changed.is_set() and not self._is_looking

    @property
    def _is_looking(self) -> bool:
        return self._looking is not None and not self._looking.done()

    async def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
            self._looking = None

    async def _pass(self, is_over: Callable[[], bool], ends: float, *, glance: float) -> None:
        """Let time pass until something changes or becomes due, or it is over.

        `glance`: seconds after which it looks again where something is due that could not be taken.
        """
        loop, was_looking = asyncio.get_running_loop(), self._is_looking
        schedules_at = self._engine.timekeeper.try_again_at  # a worker asks once a second
        moments = [ends, max(schedules_at, loop.time() + _MOMENT_SECONDS)]
        if (next_due := self._next_due()) is not None:
            moments.append(loop.time() + max(_MOMENT_SECONDS, (next_due - self._now).total_seconds()))
        if self._failure is not None or self._has_untaken:
            moments.append(loop.time() + glance)
        # What it sets is what changes set as well: then it looks, and finds what has become due.
        timer = None if min(moments) == float("inf") else loop.call_at(min(moments), self._engine.slots.changed.set)
        try:
            while not self._is_called and not is_over() and self._is_looking == was_looking:
                await self._virtual.settled(later=True)
                if self._virtual.has_ended:
                    break
        finally:
            if timer is not None:
                timer.cancel()

    @property
    def _now(self) -> datetime:
        return self._documents.present()

    def _next_due(self) -> datetime | None:
        """Give the next instant after now at which something becomes due."""
        room, after = self._engine.slots.room, Cursor(self._now, _HIGHEST_ID)
        first = self._documents.due(room.unpaused, now=None, limit=1, after=after)
        first += self._documents.due(room.paused, now=None, limit=1, after=after, generators=True)
        return min((task.due_at for task in first if task.due_at is not None), default=None)

    @property
    def _has_untaken(self) -> bool:
        """Tell whether something is due that this worker would take if it could."""
        now, room = Now(self._now, self._now), self._engine.slots.room
        found = self._documents.due(room.unpaused, now=self._now, limit=_FEW)
        found += self._documents.due(room.paused, now=self._now, limit=_FEW, generators=True)
        return any(triage(task, now) is not Step.LEAVE for task in found)


def _glance(number: int) -> float:
    """Give how long to wait before the next look, in seconds: as closely as a worker looks, then less and less."""
    return 1.0 if number <= _CLOSE_GLANCES else min(_LONGEST_GLANCE_SECONDS, 2.0 ** (number - _CLOSE_GLANCES))
