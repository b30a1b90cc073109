"""Where programs run: an event loop that is stepped from outside, on a machine that stands still or is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context as Variables
from itertools import count
from typing import Any

from tests.simulation.timeline import SECOND, Timeline

__all__ = ["Host", "SteppedLoop"]

_ROUNDS_TO_END = 20


class SteppedLoop(asyncio.BaseEventLoop):
    """An event loop that somebody else steps, callback by callback, in made-up time."""

    def __init__(self, timeline: Timeline, *, begins: float = 0.0, speed: float = 1.0) -> None:
        """`begins`: its reading, in seconds, at the beginning of time. `speed`: its seconds in one true second."""
        super().__init__()
        self._timeline, self._begins, self._speed = timeline, begins, speed
        self._numbers = count()
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Give the reading of this machine's monotonic clock."""
        return self._begins + self._timeline.micros / SECOND * self._speed

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Variables | None = None
    ) -> asyncio.Handle:
        """Queue a callback."""
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Variables | None = None
    ) -> asyncio.TimerHandle:
        """Queue a callback for later."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        delay = (when - self.time()) / self._speed
        self._timeline.after(delay, lambda: None if handle.cancelled() else self.ready.append(handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future that has the same hash in every run."""
        return _Future(next(self._numbers), loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Fail loudly."""
        self._timeline.fail(f"an error that nobody took: {context}")

    def step(self) -> None:
        """Run one callback."""
        handle = self.ready.popleft()
        if not handle.cancelled():
            asyncio._set_running_loop(self)
            try:
                handle._run()
            finally:
                asyncio._set_running_loop(None)

    def end(self) -> None:
        """Cancel everything until nothing is left."""
        for _ in range(_ROUNDS_TO_END):
            left = [task for task in self.tasks if not task.done()]
            for task in left:
                task.cancel()
            while self.ready:
                self.step()
        self.close()

    def _make_task(
        self,
        _: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Task[Any]:
        """Remember every task, so that all can be ended."""
        task: asyncio.Task[Any] = _Task(next(self._numbers), work, loop=self, **options)
        self.tasks.append(task)
        return task


class _Future(asyncio.Future[Any]):
    """The order of a set of these does not depend on where they are in memory."""

    def __init__(self, number: int, **options: Any) -> None:
        self._hash = number
        super().__init__(**options)

    def __hash__(self) -> int:
        return self._hash


class _Task(asyncio.Task[Any]):
    """As `_Future`."""

    def __init__(self, number: int, work: Any, **options: Any) -> None:
        self._hash = number
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self._hash


class Host:
    """A machine with one program on it."""

    def __init__(self, timeline: Timeline, name: str, *, begins: float = 0.0, speed: float = 1.0) -> None:
        """`begins`, `speed`: as for `SteppedLoop`."""
        self.name = name
        self.loop = SteppedLoop(timeline, begins=begins, speed=speed)
        self.is_gone = False
        self.frozen_until = 0
        self.disturbed_at = -1
        """The last moment at which it, or its store, was slower than it should be."""
        self._timeline = timeline

    @property
    def can_step(self) -> bool:
        """Tell whether there is something that it would do now."""
        return bool(self.loop.ready) and not self.is_gone and self._timeline.micros >= self.frozen_until

    def step(self) -> None:
        """Run one callback."""
        self.loop.step()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Start something on it."""
        asyncio._set_running_loop(self.loop)
        try:
            self.loop.create_task(work)
        finally:
            asyncio._set_running_loop(None)

    def freeze(self, seconds: float) -> None:
        """Let nothing of it run for some time."""
        self.frozen_until = max(self.frozen_until, self._timeline.micros + int(seconds * SECOND))
        self.disturbed(seconds)
        self._timeline.after(seconds, lambda: None)

    def disturbed(self, seconds: float = 0.0) -> None:
        """Take note that for so long it is not as it should be."""
        self.disturbed_at = max(self.disturbed_at, self._timeline.micros + int(seconds * SECOND))
