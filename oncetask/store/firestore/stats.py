"""How many tasks of each kind there are in each status, from counts that the server makes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from oncetask.store import TaskFilter
from oncetask.store.firestore.queries import matching
from oncetask.task import Outcome, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

__all__ = ["count_by_status"]


async def count_by_status(
    kind: str, *, now: datetime, count: Callable[[Any], Awaitable[int]]
) -> Mapping[TaskStatus, int]:
    """Count the tasks of one kind; statuses without a task are left out.

    Only equality filters and `dueAt` are used, so that no further index is needed. The price: a cancelled task whose
    worker has died counts as pending, and one whose cleanup waits for its next try as if it were due.
    """
    waiting_or_held = TaskFilter(kind=kind, done=False)
    of_kind = TaskFilter(kind=kind)  # done tasks have no `dueAt`
    questions = [
        *(matching(TaskFilter(kind=kind, outcome=outcome)) for outcome in Outcome),
        matching(waiting_or_held),
        matching(waiting_or_held, unleased=True),
        matching(waiting_or_held, unleased=True, cancelled=True),
        matching(of_kind, due=now),
        matching(of_kind, due=now, unleased=True),
    ]
    *done, unfinished, free, cancelled, due, due_free = await asyncio.gather(*map(count, questions))
    lapsed = due - due_free
    pending = max(0, due_free - cancelled)
    counts = {
        TaskStatus.WAITING: free - cancelled - pending,
        TaskStatus.PENDING: pending + lapsed,
        TaskStatus.LEASED: unfinished - free - lapsed,
        TaskStatus.CANCELLATION_PENDING: cancelled,
        **{TaskStatus(f"done-{outcome}"): number for outcome, number in zip(Outcome, done, strict=True)},
    }
    return {status: number for status, number in counts.items() if number > 0}
