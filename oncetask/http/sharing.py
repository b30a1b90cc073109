"""Ticks that several callers ask for at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["OneAtATime"]

T = TypeVar("T")


class OneAtATime(Generic[T]):
    """Lets those who ask at the same time share a run that begins after they have asked."""

    def __init__(self, run: Callable[[], Awaitable[T]]) -> None:
        """`run`: never called while it runs."""
        self._run = run
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None
        self._waiting: Counter[asyncio.Task[T]] = Counter()

    async def run(self) -> T:
        """Wait for the end of a run that has not begun yet, and give what it gives. Raises what it raises.

        A run is cancelled when all who wait for it are.
        """
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._run_after(self._running))
        shared = self._next
        self._waiting[shared] += 1
        try:
            return await asyncio.shield(shared)
        finally:
            self._waiting[shared] -= 1
            if not self._waiting[shared]:
                del self._waiting[shared]
                if not shared.done():
                    shared.cancel()
                    await asyncio.wait({shared})

    async def _run_after(self, former: asyncio.Task[T] | None) -> T:
        if former is not None:
            await asyncio.wait({former})
        self._running, self._next = asyncio.current_task(), None
        return await self._run()
