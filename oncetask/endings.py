"""What a worker writes last about a task that it ran: `lifecycle`'s answer to how the attempt ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncetask import lifecycle
from oncetask.attempts import Completed, Ended, Expired, Failed, Interrupted, Snoozed
from oncetask.claims import elapsed

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncetask.clock import Now
    from oncetask.handlers import Handler
    from oncetask.lifecycle import Transition
    from oncetask.task import Task

__all__ = ["ending"]


def ending(  # noqa: PLR0911  # one answer for each end
    ended: Ended, handler: Handler
) -> Callable[[Task, Now], Transition]:
    """Give what makes the transition of each task that took part, from its newest record and the store's time."""
    cleanup = handler.has_cleanup
    match ended:
        case Completed(result):
            return lambda task, now: lifecycle.complete(task, result=result, now=now, has_cleanup=cleanup)
        case Failed(error):
            backoff, alive = _Backoff(ended, handler), not ended.ended
            return lambda task, now: lifecycle.fail(
                task,
                error,
                delay=backoff.delay(task, now),
                now=now,
                has_cleanup=cleanup,
                is_alive=alive,
                keeps_place=handler.keeps_place(task),
            )
        case Expired():
            return lambda task, now: _expire(task, now, ended, handler)
        case Snoozed(delay):
            return lambda task, now: lifecycle.snooze(
                task,
                delay=delay,
                now=now,
                has_cleanup=cleanup,
                keeps_place=handler.keeps_place(task),
            )
        case Interrupted("cancelled", ended=False):
            return lambda task, _: lifecycle.abandon(task)
        case Interrupted(ended=False):
            return lambda task, _: lifecycle.give_back_attempt(task)
        case Interrupted():
            return lambda task, now: lifecycle.give_back(task, now=now, has_cleanup=cleanup)


def _expire(task: Task, now: Now, ended: Expired, handler: Handler) -> Transition:
    """End a task whose deadline it was; to the other members of its batch it did nothing."""
    cleanup = handler.has_cleanup
    if task.is_cancelled or handler.is_over(task, ended.deadline):
        alive = not ended.ended
        return lifecycle.expire(task, ended.error, began=ended.began, now=now, has_cleanup=cleanup, is_alive=alive)
    if ended.ended:
        return lifecycle.give_back(task, now=now, has_cleanup=cleanup)
    return lifecycle.give_back_attempt(task)


class _Backoff:
    """The wait after a failed attempt: for each task by its own attempts, and drawn once for those of a batch."""

    def __init__(self, failed: Failed, handler: Handler) -> None:
        self._failed = failed
        self._handler = handler
        self._drawn: float | None = None

    def delay(self, task: Task, now: Now) -> float | None:
        """Give the seconds until the next attempt; None: there is none left."""
        failed = self._failed
        if failed.final:
            return None
        delay = self._handler.called_for(task).retry.next_delay(
            attempt=lifecycle.attempt_of(task), elapsed=elapsed(task, now), error=failed.error, after=failed.after
        )
        if delay is not None and self._drawn is None:
            self._drawn = delay
        return None if delay is None else self._drawn
