"""Reading the locks and lines of resource keys: one call for all that are asked for at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from oncetask.together import Together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncetask.clock import Now
    from oncetask.lock import Lock
    from oncetask.store import TaskStore
    from oncetask.task import Task

__all__ = ["KeyReader", "Page"]

_LARGEST_PAGE = 500


class Page(NamedTuple):
    """The beginning of a key's line, as it was read."""

    tasks: Sequence[Task]
    is_whole: bool
    """There are no more."""
    last: Task | None
    """All that stands before this task, of whatever key, was read."""
    now: Now
    """When it was read: what is due later, or was written later, may be missing."""


class KeyReader:
    """Reads locks and lines of many keys, with one call for all that are asked for at the same time."""

    def __init__(self, store: TaskStore) -> None:
        """Belong to the running loop, as `store` does."""
        self.store = store
        self._locks: Together[None, Lock | None] = Together(self._read_locks)
        self._lines: Together[int, Page] = Together(self._read_lines)

    async def lock(self, resource_key: str) -> Lock | None:
        """Read a key's lock. Raises StoreUnavailable, as `line`."""
        return await self._locks.ask(resource_key, None)

    async def line(self, resource_key: str, *, limit: int) -> Page:
        """Read the beginning of a key's line: about so much, less where others that are asked for wait longer."""
        return await self._lines.ask(resource_key, limit)

    async def line_alone(self, resource_key: str, *, limit: int, after: Task | None) -> Page:
        """Read so much of a key's line, whatever is asked of others; `after`: behind a task."""
        return (await self._read([resource_key], limit, after))[resource_key]

    async def _read_locks(self, asked: Mapping[str, None]) -> dict[str, Lock | None]:
        return dict(zip(asked, await self.store.locks(list(asked)), strict=True))

    async def _read_lines(self, asked: Mapping[str, int]) -> dict[str, Page]:
        parts: list[dict[str, int]] = [{}]
        for key, limit in asked.items():
            if sum(parts[-1].values()) + limit > _LARGEST_PAGE:
                parts.append({})
            parts[-1][key] = limit
        reads = [self._read(list(part), sum(part.values()), None) for part in parts if part]
        return {key: page for pages in await asyncio.gather(*reads) for key, page in pages.items()}

    async def _read(self, resource_keys: Sequence[str], limit: int, after: Task | None) -> dict[str, Page]:
        now = await self.store.now()
        found = await self.store.line(resource_keys, now=now.latest, limit=limit, after=after)
        lines: dict[str, list[Task]] = {key: [] for key in resource_keys}
        for task in found:
            lines[task.resource_key or ""].append(task)
        is_whole, last = len(found) < limit, found[-1] if found else after
        return {key: Page(tasks, is_whole, last, now) for key, tasks in lines.items()}
