"""A client that changes its mind about tasks while they run: it cancels, resets and deletes them, and pauses kinds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from oncetask import Client, OncetaskError, TaskStatus
from oncetask.payload import derive_task_id
from tests.chaos.tasks import Follow, Guarded, Keyed, Staging, Work, numbered

if TYPE_CHECKING:
    from tests.chaos.crew import Settings
    from tests.chaos.witness import Witness

__all__ = ["Meddler"]

_PAUSE_SECONDS = 0.1
_TIDIES_SECONDS = 1.0
_KEPT = timedelta(seconds=5)
_PAGE = 500
_MOST_AT_A_TIME = 20
_KINDS = (Work, Keyed, Staging, Guarded, Follow)


class Meddler:
    """Notes what was answered; what was not may have happened all the same."""

    def __init__(self, client: Client, witness: Witness, lots: Random, settings: Settings, *, tidies: bool) -> None:
        """`client`: of this process. `witness`: where it notes what was answered. `tidies`: it deletes what is done."""
        self._tidies = tidies
        self._client, self._witness, self._lots, self._settings = client, witness, lots, settings
        self._at_a_time = min(_MOST_AT_A_TIME, 2 + settings.tasks // 1_000)
        self.counts: Counter[str] = Counter(dict.fromkeys(("cancelled", "reset", "deleted", "kinds paused"), 0))

    async def meddle(self, until: asyncio.Event) -> None:
        """Go on until that is set; in the end no kind is paused."""
        await asyncio.gather(self._change(until), self._pause(until), *([self._tidy(until)] if self._tidies else []))

    async def _change(self, until: asyncio.Event) -> None:
        doing: tuple[tuple[str, Callable[[str], Awaitable[bool]]], ...] = (
            ("cancelled", self._client.cancel_task),
            ("reset", self._client.reset_task),
            ("deleted", self._client.delete_task),
        )
        while not until.is_set():
            what, change = self._lots.choice(doing)
            ids = {self._some_id() for _ in range(self._at_a_time)}
            if what == "cancelled":
                ids |= await self._some_running()
            await asyncio.gather(*(self._do(what, change, task_id) for task_id in ids))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _some_running(self) -> set[str]:
        try:
            page = await self._client.list_tasks(kind=self._lots.choice(_KINDS), status=TaskStatus.LEASED)
        except OncetaskError:
            return set()
        return {task.id for task in page.tasks[: self._at_a_time]}

    async def _do(self, what: str, change: Callable[[str], Awaitable[bool]], task_id: str) -> None:
        try:
            if await change(task_id):
                self.counts[what] += 1
                self._witness.note(what, task_id)
        except OncetaskError:
            """The store was not to be had, or the task is not there: not yet, or not any more."""

    async def _tidy(self, until: asyncio.Event) -> None:
        """Delete what was completed a while ago."""
        while not until.is_set():
            for kind in _KINDS:
                try:
                    page = await self._client.list_tasks(kind=kind, status=TaskStatus.DONE_COMPLETED, limit=_PAGE)
                    old = [task.id for task in page.tasks if task.done_at and task.read_at - task.done_at > _KEPT]
                    self.counts["deleted since they were done"] += await self._client.delete_tasks_by_ids(old)
                except OncetaskError:
                    """Next time."""
            await asyncio.sleep(_TIDIES_SECONDS)

    async def _pause(self, until: asyncio.Event) -> None:
        while not until.is_set():
            kind = self._lots.choice(_KINDS)
            try:
                self.counts["kinds paused"] += await self._client.pause_kind(kind)
            except OncetaskError:
                continue
            await asyncio.sleep(self._lots.uniform(0.2, 1.5))
            await self._resume(kind.kind)
            await asyncio.sleep(self._lots.uniform(0.5, 3.0))
        for kind in _KINDS:  # also one of which the answer to its pause got lost
            await self._resume(kind.kind)

    async def _resume(self, kind: str) -> None:
        while True:
            try:
                await self._client.resume_kind(kind)
            except OncetaskError:
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    def _some_id(self) -> str:
        settings = self._settings
        payload = numbered(self._lots.randrange(settings.tasks), tasks=settings.tasks, chunk=settings.chunk)
        return derive_task_id(payload.kind, payload.idempotency_key())
