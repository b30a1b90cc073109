"""Virtual time for a running event loop: where everything waits for a timer, the clock jumps to it.

The idea is that of trio's MockClock. What really takes time still does: while a function works in a thread, or a
socket or a process is waited for, time passes as it does outside. Only while it hurries, because the test lets time
pass, are sockets and processes given no more than a moment before each jump.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from oncetask.clock import Now, StoreClock
from oncetask.threads import work_of

if TYPE_CHECKING:
    import selectors
    from collections.abc import Iterator, Mapping

__all__ = ["PATIENCE_SECONDS", "ExactClock", "VirtualClock", "VirtualTime"]

_SELECTOR = "_selector"  # asyncio has no public way to what a running loop waits in
_RESOLUTION = "_clock_resolution"  # nor to how much earlier than its time a timer may go off
PATIENCE_SECONDS = 0.01
"""What sockets and processes are given, in real time, before each jump."""
_THREADS_SECONDS = 0.2
"""What threads are given, in real time, to end at the instant at which time is to stop."""
_WAITS_FOR_PROCESS = ("waitpid-", "asyncio-waitpid-")  # what asyncio calls its threads that wait for a process


class VirtualTime:
    """The time of the running event loop, as long as it is installed."""

    def __init__(self, *, patience: float = PATIENCE_SECONDS) -> None:
        """Take the running loop. Raises TypeError for one whose waiting cannot be replaced, such as uvloop's.

        `patience`: what sockets and processes are given before each jump, in seconds of real time.
        """
        running = asyncio.get_running_loop()
        if not isinstance(running, asyncio.SelectorEventLoop):
            msg = f"virtual time needs asyncio's own selector event loop, not {type(running).__name__}"
            raise TypeError(msg)
        loop: Any = running  # whose private parts are declared to nobody
        self._loop: Any = running
        self._own_file: int = loop._ssock.fileno()  # noqa: SLF001  # with which threads wake it
        # A whole number, so that whole seconds can be added and taken away again without a rest.
        self._reading = float(math.ceil(loop.time()))
        self._executor_calls = 0
        self._limiter: Any = None
        self._settling: asyncio.Future[None] | None = None
        self._happened, self._settles_after = 0, -1
        self._ends = float("inf")
        self.patience = patience
        self.counts_work = True
        """Whether time passes while threads, sockets or processes work."""
        self.is_hurrying = False
        """Whether it jumps also where sockets or processes are waited for, once these had a moment."""

    def time(self) -> float:
        """Give the loop's time, in seconds."""
        return self._reading

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the loop go by this while the block runs."""
        loop = self._loop
        real, run_in_executor, resolution = getattr(loop, _SELECTOR), loop.run_in_executor, getattr(loop, _RESOLUTION)
        self._see_anyio()
        if isinstance(real, _Jumping):
            msg = "this event loop has virtual time already: one Harness at a time"
            raise RuntimeError(msg)  # noqa: TRY004  # it is no argument

        def counted(executor: Any, function: Any, *arguments: Any) -> asyncio.Future[Any]:
            future: asyncio.Future[Any] = run_in_executor(executor, function, *arguments)
            self._executor_calls += 1
            future.add_done_callback(self._executor_ended)
            return future

        setattr(loop, _SELECTOR, _Jumping(real, self))
        loop.time, loop.run_in_executor = self.time, counted
        self._resolve()
        try:
            yield
        finally:
            setattr(loop, _SELECTOR, real)
            setattr(loop, _RESOLUTION, resolution)
            del loop.time, loop.run_in_executor

    @contextmanager
    def hurrying(self, ends: float = float("inf")) -> Iterator[None]:
        """Jump also where sockets or processes are waited for, while the block runs; no further than to `ends`."""
        self.is_hurrying, self._ends = True, ends
        try:
            yield
        finally:
            self.is_hurrying, self._ends = False, float("inf")

    @contextmanager
    def instantly(self) -> Iterator[None]:
        """Let what threads, sockets and processes take count for nothing while the block runs; but sleeps pass."""
        self.counts_work = False
        try:
            yield
        finally:
            self.counts_work = True

    async def settled(self, *, later: bool = False) -> None:
        """Wait until nothing more happens unless time passes, or a thread ends. `later`: not before one of these did.

        Where no time may pass any more, threads have a moment to end.
        """
        self._see_anyio()
        self._settling = self._loop.create_future()
        self._settles_after = self._happened if later else -1
        try:
            await self._settling
        finally:
            self._settling = None

    def settle(self) -> bool:
        """Tell who waits for that that nothing more happens; False: nobody does."""
        if self._settling is None or self._settling.done() or self._happened <= self._settles_after:
            return False
        self._settling.set_result(None)
        return True

    def pass_by(self, seconds: float) -> None:
        """Let time pass, as far as it may."""
        self._happened += 1
        # Rounded, since the sum of many waits has to be the instant that was waited for.
        self._reading = max(self._reading, min(self._ends, round(self._reading + seconds, 9)))
        self._resolve()

    def note(self) -> None:
        """Take note that something has happened by itself."""
        self._happened += 1

    @property
    def has_ended(self) -> bool:
        """True where no time may pass any more."""
        return self._reading >= self._ends

    @property
    def has_threads(self) -> bool:
        """True while functions work in threads."""
        borrowed = 0 if self._limiter is None else self._limiter.borrowed_tokens
        return borrowed > 0 or self._executor_calls > 0 or work_of(self._loop).number > 0

    def has_files(self, files: Mapping[Any, Any]) -> bool:
        """Tell whether somebody waits for files or processes, beside the loop itself for its threads."""
        if any(key.fd != self._own_file for key in files.values()):
            return True
        return any(thread.name.startswith(_WAITS_FOR_PROCESS) for thread in threading.enumerate())

    def _resolve(self) -> None:
        """Let timers go off at their time: after half a year of it, a nanosecond does not show in a float any more."""
        setattr(self._loop, _RESOLUTION, max(getattr(self._loop, _RESOLUTION), 2 * math.ulp(self._reading)))

    def _see_anyio(self) -> None:
        """Count the threads of `anyio.to_thread` too, which Starlette and FastAPI use for `def` functions."""
        if self._limiter is None and (to_thread := sys.modules.get("anyio.to_thread")) is not None:
            self._limiter = to_thread.current_default_thread_limiter()

    def _executor_ended(self, _: asyncio.Future[Any]) -> None:
        self._executor_calls -= 1


class VirtualClock:
    """Clocks of a machine that agree with virtual time."""

    def __init__(self, virtual: VirtualTime, start: datetime) -> None:
        """`start`: what time of day it is now (aware)."""
        self._virtual = virtual
        self._start, self._began = start, virtual.time()

    def wall(self) -> datetime:
        """Give the time of day."""
        return self._start + timedelta(seconds=round(self._virtual.time() - self._began, 6))

    def monotonic(self) -> float:
        """Give the loop's time."""
        return self._virtual.time()


class ExactClock(StoreClock):
    """The time of a store that is in this very process: known to the microsecond."""

    def __init__(self, clock: VirtualClock) -> None:
        """`clock`: this machine's, which is the store's as well."""
        super().__init__(clock)
        self._exact = clock
        self.known = True

    def observe(self, store_time: datetime, *, asked: float) -> None:
        """There is nothing to learn."""

    def now(self) -> Now:
        """Give the present, twice."""
        now = self._exact.wall()
        return Now(now, now)


class _Jumping:
    """The loop's selector, but that it does not wait for time to pass."""

    def __init__(self, real: selectors.BaseSelector, virtual: VirtualTime) -> None:
        self._real, self._virtual = real, virtual

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def select(self, timeout: float | None = None) -> list[Any]:
        """Give what has happened; where nothing has, and nothing will by itself, go on to the next timer."""
        real, virtual = self._real, self._virtual
        ready = self._seen(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        has_threads, has_files = virtual.has_threads, virtual.has_files(real.get_map())
        if not (virtual.has_ended and (has_threads or has_files)) and virtual.settle():
            return ready
        if has_threads or (has_files and not virtual.is_hurrying):
            return self._in_real_time(timeout)
        if has_files:
            ready = self._seen(virtual.patience)
        return ready or self._jump(timeout)

    def _jump(self, timeout: float | None) -> list[Any]:
        """Go on to the next timer, `timeout` seconds away; where there is none, wait for what is never foreseen."""
        if self._virtual.settle():
            return []
        if timeout is None:
            return self._seen(None)
        self._virtual.pass_by(timeout)
        return []

    def _in_real_time(self, timeout: float | None) -> list[Any]:
        virtual, began = self._virtual, time.monotonic()
        waits = _THREADS_SECONDS if virtual.has_ended else timeout
        ready = self._seen(waits)
        if ready and not virtual.counts_work:
            return ready
        passed = time.monotonic() - began
        virtual.pass_by(passed if timeout is None else min(passed, timeout))
        if not ready and virtual.has_ended:
            virtual.settle()
        return ready

    def _seen(self, waits: float | None) -> list[Any]:
        """Give what happens within so many seconds of real time; None: until something does."""
        ready = self._real.select(waits)
        if ready:
            self._virtual.note()
        return ready
