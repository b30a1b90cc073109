"""Ticks that several callers ask for at the same time."""

from __future__ import annotations

import asyncio
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

    async def run(self) -> T:
        """Wait for the end of a run that has not begun yet, and give what it gives. Raises what it raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._run_after(self._running))
        return await asyncio.shield(self._next)  # others wait for it as well

    async def _run_after(self, former: asyncio.Task[T] | None) -> T:
        if former is not None:
            await asyncio.wait({former})
        self._running, self._next = asyncio.current_task(), None
        return await self._run()
