"""One handler under its limits: from a call to how it ended.

The handler runs in an asyncio task of its own, so that it can be cancelled, and abandoned where it does not obey,
without its caller being touched. Nothing is written here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from oncetask import lifecycle
from oncetask.attempts import Completed, Ended, Expired, Failed, Interrupted, failed_with
from oncetask.context import AbortReason, AbortSignal, Budget, Context, TimeLimit, running_context
from oncetask.errors import InvalidPayload, PayloadTooLarge, TaskAborted, TaskExpired, TaskTimeout
from oncetask.handlers import call_function
from oncetask.processes import Job
from oncetask.store.fitting import UnstorableResult, check_size, result_of
from oncetask.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oncetask.client import Client
    from oncetask.handlers import CallNext, Handler
    from oncetask.payload import Payload
    from oncetask.processes import Processes
    from oncetask.task import Progress, Task

__all__ = ["Execution", "payload_of"]

_REPORT_SECONDS = 10.0
_LONGEST_START = 60.0
_log = logging.getLogger("oncetask")


def payload_of(handler: Handler, task: Task) -> Payload | InvalidPayload:
    """Read a task's payload; gives the error where it does not validate."""
    try:
        return handler.payload_type.from_data(task.data)
    except InvalidPayload as error:
        return error


class Execution:
    """One attempt at one task, or at the tasks of a batch."""

    def __init__(  # what a run needs, named
        self,
        handler: Handler,
        tasks: Sequence[Task],
        payloads: Sequence[Payload | InvalidPayload],
        *,
        client: Client,
        state: object,
        processes: Processes,
        abort_grace: float,
        tell: Callable[[Progress], None],
        budget: Budget | None = None,
        is_late: bool = False,
    ) -> None:
        """`tasks`: as claimed, with their `payloads`; one that does not validate fails the attempt when it runs.

        `budget`: nothing runs beyond its end. `tell`: takes what the handler says of its progress, as long as it
        runs. `is_late`: they were claimed because their deadline had passed, whatever the clock says by now, which
        may know better.
        """
        self._is_late = is_late
        self._handler = handler
        self._to_call = handler.called_for(tasks[0])
        self._deadline = min(filter(None, map(handler.deadline_of, tasks)), default=None)
        self._telemetry = client.telemetry
        self._clock = client.store.clock
        self._processes = processes
        self._abort_grace = abort_grace
        self._budget, self._had_all_of_it = budget, False
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._signal = AbortSignal()
        # A process takes its time to start, which the handler's limit does not count.
        self._waits_for_process = self._to_call.runs_in == "process"
        self._invalid = next((payload for payload in payloads if isinstance(payload, InvalidPayload)), None)
        self._payloads = [payload for payload in payloads if not isinstance(payload, InvalidPayload)]
        self._context = Context(
            tasks=tasks,
            payload=None if self._invalid else self._payloads[0],
            client=client,
            state=state,
            clock=self._clock,
            fencing_token=max(task.version for task in tasks),
            limit=self._limit_from_now(),
            signal=self._signal,
            tell=self._take_progress,
        )
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._call: asyncio.Task[object] | None = None
        self.thread: asyncio.Future[object] | None = None
        """The thread of a `def` handler; it takes up its slot until it ends, even where it was abandoned."""
        self._timer: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None

    async def run(self) -> Ended:
        """Run the handler until it ends, or until it is told to stop and does not within the grace.

        To be called at once: its time counts from when this was made.
        """
        if self._signal.reason is not None:
            return Interrupted(self._signal.reason, ended=True)
        if too_late := self._too_late():
            return too_late
        if self._invalid is not None:
            return Failed(self._invalid)
        self._set_timer()
        self._call = self._loop.create_task(self._through_middlewares(), name=f"oncetask {self._context.task_id}")
        self._call.add_done_callback(self._note_end)
        try:
            await self._finished
        finally:
            for timer in (self._timer, self._grace):
                if timer is not None:
                    timer.cancel()
            if not self._finished.done():
                self._call.cancel()
        return self._judge(self._call)

    def abort(self, reason: AbortReason) -> None:
        """Tell the handler to stop: a coroutine is cancelled, a thread has to look at the signal."""
        if self._signal.reason is not None or self._finished.done():
            return
        self._signal.set(reason)
        if self._call is None:  # not begun yet, and now it will not
            return
        if self.thread is None:
            self._call.cancel()
        self._grace = self._loop.call_later(self._abort_grace, self._abandon)

    def abandon(self) -> None:
        """Stop waiting for a handler that has been told to stop."""
        if self._call is not None:
            self._abandon()

    async def report(self, ended: Failed | Expired) -> None:
        """Tell the error handlers of a failed attempt; one that fails itself is logged and harms nobody."""
        context = self._context
        if isinstance(ended, Expired) and len(context.tasks) > 1:
            members = zip(context.tasks, self._payloads, strict=True)  # of a batch all are valid
            over = [(task, payload) for task, payload in members if self._handler.is_over(task, ended.deadline)]
            context = context.only([task for task, _ in over], over[0][1])
        token = running_context.set(context)
        try:
            for function in self._handler.error_handlers:
                try:
                    async with asyncio.timeout(_REPORT_SECONDS):
                        await call_function(function, context, ended.error)
                except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt):  # user code raises anything
                    if (task := asyncio.current_task()) is not None and task.cancelling():
                        raise
                    _log.exception("an error handler failed for task %s", self._context.task_id)
        finally:
            running_context.reset(token)

    def let_go(self) -> None:
        """Forget what refers to each other, now that all is over: it needs no garbage collector then."""
        self._context.let_go()
        if self._call is not None and self._call.done():
            self._call = None

    def describe(self, running: asyncio.Task[Any] | None) -> str | None:
        """Name the handler if this is the asyncio task that runs it."""
        if running is None or running is not self._call:
            return None
        return f"the handler of kind {self._context.kind}, task {self._context.task_id}"

    def _limit_from_now(self) -> TimeLimit:
        """Say how long it may take from now on."""
        allowance = _LONGEST_START if self._waits_for_process else 0.0
        self._had_all_of_it = self._budget is not None and self._budget.is_whole(self._clock.monotonic())
        return TimeLimit.from_now(self._to_call.limit + allowance, self._deadline, self._clock, self._budget)

    def _set_timer(self) -> None:
        """See to it that it is told to stop at its limit."""
        if self._timer is not None:
            self._timer.cancel()
        limit = self._context.limit
        self._timer = self._loop.call_later(limit.ends - self._clock.monotonic(), self.abort, limit.reason)

    def _too_late(self) -> Expired | None:
        now, deadline_of = self._clock.now(), self._handler.deadline_of
        late = self._deadline is not None and any(
            lifecycle.is_expired(task, deadline_of(task), now) for task in self._context.tasks
        )
        if not (late or self._is_late):
            return None
        assert self._deadline is not None  # noqa: S101  # one of them has expired
        error = TaskExpired(f"the deadline {self._deadline} passed before the handler was started")
        return Expired(error, self._deadline, began=False)

    def _take_progress(self, progress: Progress) -> None:
        """Pass it on, from whatever thread; what an abandoned handler says does not count any more."""
        if threading.get_ident() == self._loop_thread:
            if not self._finished.done():
                self._tell(progress)
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._take_progress, progress)

    def _note_end(self, call: asyncio.Task[object]) -> None:
        if not call.cancelled():
            call.exception()  # retrieved, so that an abandoned handler's late error is not reported as forgotten
        if not self._finished.done():
            self._finished.set_result(None)

    def _abandon(self) -> None:
        if self._finished.done():
            return
        _log.error(
            "handler of kind %s ignored its abort (%s) for %s s and is abandoned, still running: task %s",
            self._context.kind,
            self._signal.reason,
            self._abort_grace,
            self._context.task_id,
        )
        if self._to_call.runs_in != "loop" and self._call is not None:
            self._call.cancel()
        self._finished.set_result(None)

    async def _through_middlewares(self) -> object:
        running_context.set(self._context)
        try:
            with self._telemetry.attempt(self._context.tasks, lambda: self._signal.reason):
                return await self._entered(0)()
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:  # SystemExit and the like would end the worker and everybody's tasks
            msg = f"the handler tried to end its process: {error!r}"
            raise RuntimeError(msg) from error

    def _entered(self, place: int) -> CallNext:
        """Give what a middleware calls to go on: the next one, or the handler."""
        if place == len(self._handler.middlewares):
            return self._in_function
        return lambda: self._handler.middlewares[place](self._context, self._entered(place + 1))

    async def _in_function(self) -> object:
        call = self._to_call
        payload = self._payloads if call.takes_list else self._payloads[0]
        match call.runs_in:
            case "loop":
                return await call.function(self._context, payload)  # type: ignore[misc]  # it is awaitable
            case "thread":
                self.thread = in_thread(call.function, self._context, payload)
                return await asyncio.shield(self.thread)
            case "process":
                job = Job(self._context.tasks, payload, self._context.fencing_token, self._clock)
                answer = await self._processes.run(
                    call.function, job, begin=self._begin_in_process, tell=self._take_progress
                )
                self._context.stage(answer.staged)
                return answer.returned

    def _begin_in_process(self) -> TimeLimit | None:
        """Say that a process may start the handler, and how long that may take; None: it is too late for that."""
        self._waits_for_process = False
        if self._signal.reason is not None:
            return None
        self._context.limit = self._limit_from_now()
        self._set_timer()
        return self._context.limit

    def _judge(self, call: asyncio.Task[object]) -> Ended:
        """Say how the attempt ended; one that was told to stop is never complete, since it may have stopped early."""
        ended = call.done() and (self.thread is None or self.thread.done())
        if self._signal.reason is not None:
            return self._stopped(self._signal.reason, call, ended=ended)
        if call.cancelled():
            return Failed(TaskAborted("the handler was cancelled from within, not by oncetask"))
        try:
            return self._completed(call.result())
        except Exception as error:  # noqa: BLE001  # whatever a handler raises is how it ended
            return failed_with(error)

    def _stopped(self, reason: AbortReason, call: asyncio.Task[object], *, ended: bool) -> Ended:
        """Say how an attempt ended that was told to stop; what it raised on its way out is only logged."""
        raised = call.exception() if call.done() and not call.cancelled() else None
        if raised is not None and not isinstance(raised, TaskAborted | TaskTimeout):
            where = (self._context.kind, self._context.task_id)
            _log.warning("handler of kind %s raised when told to stop, task %s", *where, exc_info=raised)
        if reason == "timeout":
            limit = f"the attempt reached its time limit of {self._to_call.limit:g} s"
            waited = f"no process was ready for the handler within {self._to_call.limit + _LONGEST_START:g} s"
            return Failed(TaskTimeout(waited if self._waits_for_process else limit), ended=ended)
        if reason == "deadline" and self._deadline is not None:
            late = TaskExpired(f"the deadline {self._deadline} passed while the handler ran")
            return Expired(late, self._deadline, ended=ended)
        if reason == "budget" and self._budget is not None and self._had_all_of_it:  # it would not do with the next one
            limit = f"the attempt had the whole budget of a tick, {self._budget.total:g} s, and did not end"
            return Failed(TaskTimeout(limit), ended=ended)
        return Interrupted(reason, ended)

    def _completed(self, returned: object) -> Ended:
        """Put the result into its JSON form. That it has none is final, since the handler has done its work."""
        try:
            result = result_of(returned)
            if result is not None:
                for task in self._context.tasks:
                    check_size(data=task.data, result=result)
        except (PayloadTooLarge, UnstorableResult) as error:
            return Failed(error, final=True)
        except (ValueError, RecursionError) as error:  # NaN, infinity, or nested too deep
            return Failed(UnstorableResult(f"the handler's result cannot be stored as JSON: {error}"), final=True)
        staged, batch = self._context.staged
        return Completed(result, staged, batch)
