"""The lease on one running task: its newest record, its renewal, and the only road for writes to it.

The writes of one lease go one after the other, each on the version that the last one returned. A refused one is
answered by reading the task again: still ours (somebody else, a cancel say, wrote in between), or lost.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from oncetask import lifecycle
from oncetask.errors import LeaseLost, OncetaskError, StoreUnavailable
from oncetask.task import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from oncetask.lifecycle import Transition
    from oncetask.store import TaskStore, Written
    from oncetask.task import Task

__all__ = ["Lease"]

_RENEWED_AT = 1 / 3
_BREATH_SECONDS = 0.5
_log = logging.getLogger("oncetask")


class Lease:
    """What a worker holds while it runs a task."""

    def __init__(self, store: TaskStore, task: Task, *, duration: float) -> None:
        """`task`: as claimed. `duration`: seconds that each renewal adds."""
        self.task = task
        self._id = task.lease_owner or ""
        self._store = store
        self._duration = timedelta(seconds=duration)
        self._writing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._renewing: asyncio.Task[None] | None = None

    @contextmanager
    def kept(self, on_lost: Callable[[], None]) -> Iterator[None]:
        """Renew the lease as long as the block runs; call `on_lost` when that fails for good."""
        timer: asyncio.TimerHandle | None = None
        ended = False

        def arm() -> None:
            nonlocal timer
            timer = self._loop.call_later(self._duration.total_seconds() * _RENEWED_AT, start)

        def start() -> None:
            self._renewing = self._loop.create_task(renew())

        async def renew() -> None:
            try:
                await self.write(
                    lambda task: lifecycle.renew(task, until=self._store.clock.now().latest + self._duration)
                )
            except OncetaskError as lost:
                _log.warning("the lease of task %s could not be renewed: %s", self.task.id, lost)
                on_lost()
            else:
                if not ended:
                    arm()

        arm()
        try:
            yield
        finally:
            ended = True
            if timer is not None:
                timer.cancel()

    async def write(
        self,
        event: Callable[[Task], Transition],
        staged: Sequence[Task] = (),
        batch: Any = None,  # the store's own
    ) -> Transition:
        """Write what `event` makes of the newest record, together with new tasks and the user's writes, or nothing.

        Raises LeaseLost, or the error of a write that is impossible.
        """
        async with self._writing:
            while True:
                transition = event(self.task)
                try:
                    written = await self._send(transition, staged, batch)
                    if written.version is not None:
                        self.task = transition.after.evolve(version=written.version)
                        return transition
                    if written.error is not None:
                        raise written.error
                    self.task = await self._still_mine()
                except StoreUnavailable as error:
                    await self._while_it_lasts(error)

    async def _send(self, transition: Transition, staged: Sequence[Task], batch: Any) -> Written:  # as above
        if (staged or batch is not None) and transition.after.outcome is Outcome.COMPLETED:
            return await self._store.commit(transition, staged, batch)
        (written,) = await self._store.apply([transition])
        return written

    async def _still_mine(self) -> Task:
        """Read the task after a refusal. Raises LeaseLost where it is not held by this lease any more."""
        (found,) = await self._store.get([self.task.id])
        if found is None or not lifecycle.holds(found, self._id):
            now = "deleted" if found is None else found.status
            msg = f"task {self.task.id!r} is not held by this worker any more (it is {now}): nothing is written for it"
            raise LeaseLost(msg)
        return found

    async def _while_it_lasts(self, error: StoreUnavailable) -> None:
        """Go on trying as long as the lease lasts for certain; after that somebody else may hold the task."""
        now, until = self._store.clock.now().latest, self.task.leased_until
        if until is None or now >= until:
            msg = f"the lease of task {self.task.id!r} ended while the store was unavailable: {error}"
            raise LeaseLost(msg) from error
        _log.warning("the store is unavailable, the lease of task %s lasts: %s", self.task.id, error)
        await asyncio.sleep(_BREATH_SECONDS)
