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
from oncetask.claims import lease_seconds
from oncetask.endings import ending
from oncetask.errors import LeaseLost, OncetaskError
from oncetask.execution import Execution, payload_of
from oncetask.leases import Lease

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from oncetask.client import Client
    from oncetask.clock import Now
    from oncetask.context import AbortReason
    from oncetask.errors import InvalidPayload
    from oncetask.handlers import Handler
    from oncetask.lifecycle import Transition
    from oncetask.payload import Payload
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
    note: Callable[[str, int], None]
    """Is told the id and version of everything that is written."""


class Run:
    """What occupies one slot of a worker."""

    def __init__(
        self,
        handler: Handler,
        tasks: Sequence[Task],
        payloads: Sequence[Payload | InvalidPayload],
        *,
        slot: Slot,
        surroundings: Surroundings,
    ) -> None:
        """`tasks`: as claimed, several for a batch, with their payloads."""
        self._handler = handler
        self._slot = slot
        self._around = surroundings
        self._told: AbortReason | None = None
        self.kind, self.task_id = tasks[0].kind, tasks[0].id
        self._begin(tasks, payloads)

    def abort(self, reason: AbortReason) -> None:
        """Tell what runs to stop, and begin nothing more."""
        self._told = reason
        self._execution.abort(reason)

    def describe(self, running: asyncio.Task[Any] | None) -> str | None:
        """Name the handler if this is the asyncio task that runs it."""
        return self._execution.describe(running)

    def abandon(self) -> None:
        """Stop waiting for user code that has been told to stop."""
        self._execution.abandon()

    async def process(self) -> None:
        """Run the handler, then the cleanup if the task was cancelled meanwhile; whatever happens ends here."""
        try:
            goes_on = True
            while goes_on:
                goes_on = await self._attempt()
        except LeaseLost as lost:
            _log.warning("%s", lost)
        except Exception:  # noqa: BLE001  # logged; one task must not end the others
            names = ", ".join(task.id for task in self._lease.tasks)
            _log.exception("the end of task %s could not be recorded; its lease will run out", names)
        finally:
            self._free_slot()

    def _begin(self, tasks: Sequence[Task], payloads: Sequence[Payload | InvalidPayload]) -> None:
        around = self._around
        duration = lease_seconds(tasks[0], self._handler, around.longest_lease)
        self._lease = Lease(around.client.store, tasks, duration=duration, stored=self._stored)
        self._execution = Execution(
            self._handler,
            tasks,
            payloads,
            client=around.client,
            state=around.state,
            processes=around.processes,
            abort_grace=around.abort_grace,
            tell=self._lease.tell,
        )
        if self._told is not None:
            self._execution.abort(self._told)

    async def _attempt(self) -> bool:
        """Call user code once, free the slot, tell the error handlers, record the end.

        Tells whether the cleanup of the same task comes next, under the lease and in the slot that it has.
        """
        execution = self._execution
        async with self._lease.kept(stop=execution.abort):
            ended = await execution.run()
            cleans_up = self._cleans_up_after(ended)
            if not cleans_up:
                self._free_slot()
            if isinstance(ended, Failed | Expired):
                await execution.report(ended)
        if isinstance(ended, Interrupted) and ended.reason == "lease-lost":
            return False
        if cleans_up:
            return await self._go_on()
        try:
            await self._record(ended)
        except LeaseLost:
            raise
        except OncetaskError as error:  # what it returned or staged cannot be stored: so it has failed
            failed = Failed(error)
            await execution.report(failed)
            await self._record(failed)
        return False

    def _cleans_up_after(self, ended: Ended) -> bool:
        stopped = isinstance(ended, Interrupted) and ended.reason == "cancelled" and ended.ended
        return stopped and self._handler.has_cleanup and len(self._lease.tasks) == 1 and self._told is None

    async def _go_on(self) -> bool:
        """Begin the cleanup of a task whose handler was stopped."""

        def begin(task: Task, now: Now) -> Transition:
            seconds = lease_seconds(task, self._handler, self._around.longest_lease)
            return lifecycle.clean_up(task, until=now.latest + timedelta(seconds=seconds))

        for begun in await self._lease.write(begin):
            self._begin([begun.after], [payload_of(self._handler, begun.after)])
            return True
        return False  # lost, while the handler was on its way out

    async def _record(self, ended: Ended) -> None:
        """Write how the attempt ended, upon the newest records."""
        event = ending(ended, self._handler)
        if isinstance(ended, Completed):
            await self._lease.write(event, ended.staged, ended.batch)
        else:
            await self._lease.write(event)

    def _stored(self, transition: Transition) -> None:
        self._around.note(transition.after.id, transition.after.version)
        self._around.client.telemetry.changed(transition)

    def _free_slot(self) -> None:
        """Free the slot when user code has ended, so that the record travels together with the next claims."""
        thread = self._execution.thread
        if thread is None or thread.done():
            self._slot.give()
        else:
            thread.add_done_callback(lambda _: self._slot.give())
