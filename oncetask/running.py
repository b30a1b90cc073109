"""The run of a claimed task, or of a batch: call the handler, record how it ended, and clean up where it was cancelled.

Which state follows which is decided in `lifecycle`; a handler is called in `execution`; writes go through `leases`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from oncetask import lifecycle
from oncetask.attempts import Completed, Ended, Expired, Failed, Interrupted
from oncetask.claims import comes_too_late, lease_seconds
from oncetask.endings import ending
from oncetask.errors import LeaseLost, OncetaskError
from oncetask.execution import Execution, payload_of
from oncetask.leases import Lease

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from oncetask.client import Client
    from oncetask.clock import Now
    from oncetask.context import AbortReason, Budget
    from oncetask.handlers import Handler
    from oncetask.holds import HandOver, Hold
    from oncetask.lifecycle import Transition
    from oncetask.processes import Processes
    from oncetask.slots import Slot
    from oncetask.task import Task

__all__ = ["Run", "Surroundings"]

_log = logging.getLogger("oncetask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all runs of a worker share."""

    client: Client
    state: Any
    """What the App's lifespan yields."""
    abort_grace: float
    """Seconds that an aborted handler may take to end."""
    longest_lease: float
    """Seconds."""
    processes: Processes
    stored: Callable[[Transition], None]
    """Is told of everything that is written."""
    budget: Budget | None = None
    """The time that no run goes beyond; None: there is no such limit."""


class Run:
    """What occupies one slot of a worker."""

    def __init__(self, handler: Handler, task: Task, *, slot: Slot, surroundings: Surroundings) -> None:
        """`task`: as claimed."""
        self._handler = handler
        self._slot = slot
        self._around = surroundings
        self._told: AbortReason | None = None
        self._hold: Hold | None = None
        self._execution: Execution | None = None
        self.kind, self.task_id = task.kind, task.id
        self._first = task

    def abort(self, reason: AbortReason) -> None:
        """Tell what runs to stop, and begin nothing more."""
        self._told = reason
        if self._execution is not None:
            self._execution.abort(reason)

    def describe(self, running: asyncio.Task[Any] | None) -> str | None:
        """Name the handler if this is the asyncio task that runs it."""
        return None if self._execution is None else self._execution.describe(running)

    def abandon(self) -> None:
        """Stop waiting for user code that has been told to stop."""
        if self._execution is not None:
            self._execution.abandon()

    async def process(self) -> None:
        """Run the handler, then the cleanup if the task was cancelled meanwhile; whatever happens ends here."""
        try:
            goes_on = await self._start()
            while goes_on:
                goes_on = await self._attempt()
        except LeaseLost as lost:
            _log.warning("%s", lost)
        except Exception:  # noqa: BLE001  # logged; one task must not end the others
            _log.exception("the end of task %s could not be recorded; its lease will run out", self.task_id)
        finally:
            self._free_slot()
            if self._execution is not None:
                self._execution.let_go()

    async def _start(self) -> bool:
        """Begin with what was claimed."""
        self._begin([self._first])
        return True

    def _begin(self, tasks: Sequence[Task]) -> None:
        around = self._around
        self.kind, self.task_id = tasks[0].kind, tasks[0].id
        duration = lease_seconds(tasks[0], self._handler, around.longest_lease)
        self._lease = Lease(around.client.store, tasks, duration=duration, stored=around.stored, hold=self._hold)
        self._execution = Execution(
            self._handler,
            tasks,
            [payload_of(self._handler, task) for task in tasks],
            client=around.client,
            state=around.state,
            processes=around.processes,
            abort_grace=around.abort_grace,
            tell=self._lease.tell,
            budget=around.budget,
            is_late=self._hold is None and tasks[0].resource_key is not None,  # without its key nothing may start
        )
        if self._told is not None:
            self._execution.abort(self._told)

    async def _attempt(self) -> bool:
        """Call user code once, free the slot, tell the error handlers, record the end.

        Tells whether something comes next in the slot that it has: the cleanup of the same task, under the same
        lease; or the next task of its resource key.
        """
        execution = self._execution
        assert execution is not None  # noqa: S101  # begun
        async with self._lease.kept(stop=execution.abort):
            ended = await execution.run()
            cleans_up = self._cleans_up_after(ended)
            if not cleans_up:
                await self._make_room(ended)
            if isinstance(ended, Failed | Expired):
                await execution.report(ended)
        if isinstance(ended, Interrupted) and ended.reason == "lease-lost":
            return False
        if cleans_up:
            return await self._go_on()
        try:
            return await self._record(ended)
        except LeaseLost:
            raise
        except OncetaskError as error:  # what it returned or staged cannot be stored: so it has failed
            failed = Failed(error)
            await execution.report(failed)
            return await self._record(failed)

    async def _make_room(self, _: Ended) -> None:
        """Free the slot when user code has ended, so that the record travels together with the next claims."""
        self._free_slot()

    def _cleans_up_after(self, ended: Ended) -> bool:
        stopped = isinstance(ended, Interrupted) and ended.reason == "cancelled" and ended.ended
        return stopped and self._handler.has_cleanup and len(self._lease.tasks) == 1 and self._told is None

    async def _go_on(self) -> bool:
        """Begin the cleanup of a task whose handler was stopped."""

        def begin(task: Task, now: Now) -> Transition:
            seconds = lease_seconds(task, self._handler, self._around.longest_lease)
            return lifecycle.clean_up(task, until=now.latest + timedelta(seconds=seconds))

        for begun in await self._lease.prolong(begin):
            if not comes_too_late([begun.after], self._around.client.store.clock.now()):
                self._begin([begun.after])
                return True
        return False  # lost, while the handler was on its way out

    async def _record(self, ended: Ended) -> bool:
        """Write how the attempt ended, upon the newest records; tells whether another task comes next."""
        await self._write(ended, None)
        return False

    async def _write(self, ended: Ended, hand_over: HandOver | None) -> list[Transition]:
        staged, batch = (ended.staged, ended.batch) if isinstance(ended, Completed) else ((), None)
        return await self._lease.write(ending(ended, self._handler), staged, batch, hand_over)

    def _free_slot(self) -> None:
        thread = None if self._execution is None else self._execution.thread
        if thread is None or thread.done():
            self._slot.give()
        else:
            thread.add_done_callback(lambda _: self._slot.give())
