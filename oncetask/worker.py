"""The worker: find what is due, claim it, run it, record how it ended; for ever.

`Engine` finds, claims and runs; when to go on and when to stop is decided here.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self

from oncetask.clock import Duration, seconds
from oncetask.engine import Engine, checked_handlers
from oncetask.errors import OncetaskError, StoreUnavailable
from oncetask.processes import check_main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from oncetask.app import App
    from oncetask.client import Client

__all__ = ["Worker"]

_LONGEST_LEASE = 60.0
_TO_END, _TO_WRITE = 1.0, 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
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
        self._handlers = checked_handlers(app, concurrency=concurrency, processes=processes)
        self._app, self._client = app, client
        self._concurrency, self._processes = concurrency, processes
        self._grace = seconds("grace", grace, zero=True)
        self._abort_grace = seconds("abort_grace", abort_grace, zero=True)
        self._poll = seconds("poll", poll)
        self._longest_lease = seconds("lease", lease)
        self._stopping = self._running = False
        self._background: asyncio.Task[None] | None = None
        self._started, self._stop_wanted, self._stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, *, handle_signals: bool = False) -> None:
        """Work until cancelled or stopped, then drain as `stop` says. `handle_signals`: SIGTERM and SIGINT stop it.

        A second signal ends the process at once; the leases of what it ran run out.
        """
        async with self._working(handle_signals=handle_signals):
            feeding = asyncio.create_task(self._feed())
            beside = {
                asyncio.create_task(self._engine.timekeeper.keep(self._engine.left_out)),
                asyncio.create_task(self._engine.heed_settings()),
            }
            try:
                await asyncio.shield(feeding)
            finally:
                for running in beside:
                    running.cancel()
                await asyncio.shield(self._drain(feeding))
                await asyncio.wait(beside)

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

    async def _feed(self) -> None:
        """Keep the slots full until told to stop; a store that fails is waited for."""
        pause = _FIRST_PAUSE
        while not self._stopping:
            try:
                await self._engine.take()
                pause = _FIRST_PAUSE
            except StoreUnavailable as error:
                _log.error("the store is unavailable; looking again in %s s: %s", pause, error)  # told
                pause = await self._paused(pause)
            except Exception:  # noqa: BLE001  # a worker that ended here would be missed only in the morning
                _log.exception("finding work failed; looking again in %s s", pause)
                pause = await self._paused(pause)

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
            await self._client.store.open()
            self._engine = Engine(
                self._app,
                self._handlers,
                self._client,
                concurrency=self._concurrency,
                processes=self._processes,
                abort_grace=self._abort_grace,
                longest_lease=self._longest_lease,
                poll=self._poll,
                may_claim=lambda: not self._stopping,
                listener=self._client.telemetry,
            )
            await self._begin()
            for number in numbers:
                loop.add_signal_handler(number, self._on_signal, numbers)
            async with self._engine.working():
                self._started.set()
                yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
            if numbers:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self._running = False
            self._started.clear()
            self._stopped.set()

    async def _begin(self) -> None:
        try:
            await self._engine.begin()
        except StoreUnavailable as error:  # it was there a moment ago, and will be waited for
            _log.error("the settings cannot be read yet: %s", error)  # told
            self._engine.timekeeper.fall_behind()

    def _on_signal(self, numbers: tuple[signal.Signals, ...]) -> None:
        """Stop at the first signal; the next one ends the process.

        Not by a KeyboardInterrupt, which may be raised anywhere, a handler's own code included, and get lost there.
        """
        for number in numbers:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        _log.info("asked to stop; %d tasks run, and have %g s to end", len(self._engine.runs), self._grace)
        self._request_stop()

    def _request_stop(self) -> None:
        self._stopping = True
        self._stop_wanted.set()
        if self._started.is_set():
            self._engine.slots.changed.set()

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
        await self._engine.line.aclose()
        await self._engine.wait(ends - loop.time())
        await self._engine.end_all("shutdown", to_end=_TO_END, to_write=_TO_WRITE)
