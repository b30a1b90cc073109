"""How many tasks of each kind there are in each status, from counts that the server makes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from oncetask.store import TaskFilter
from oncetask.store.firestore.queries import matching, next_kind
from oncetask.task import Outcome, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from oncetask.store.firestore.session import Session

__all__ = ["count_by_kind"]

_COUNTS_AT_ONCE = 16


async def count_by_kind(session: Session, *, now: datetime) -> Mapping[str, Mapping[TaskStatus, int]]:
    """Count every kind that has a task, by status at `now`."""
    few = asyncio.Semaphore(_COUNTS_AT_ONCE)

    async def count(query: Any) -> int:
        async with few:
            return await session.count(query)

    kinds = await _kinds(session)
    counts = await asyncio.gather(*(_count_by_status(kind, now=now, count=count) for kind in kinds))
    return dict(zip(kinds, counts, strict=True))


async def _kinds(session: Session) -> list[str]:
    """Find the kinds that there are, each with a query for the one that follows."""
    kinds: list[str] = []
    while True:
        query = next_kind(kinds[-1] if kinds else "")
        ask = partial(session.rpc.run_query, session.names.parent, query)
        answers = await session.retrier.run("listing kinds", ask)
        documents = [answer.document for answer in answers if answer.HasField("document")]
        if not documents:
            return kinds
        kinds.append(documents[0].fields["kind"].string_value)


async def _count_by_status(
    kind: str, *, now: datetime, count: Callable[[Any], Awaitable[int]]
) -> Mapping[TaskStatus, int]:
    """Count the tasks of one kind; statuses without a task are left out.

    A lease that has ended is told from one that holds by `dueAt`; that of a done task is absent, so "due" implies open.
    """
    of_kind = TaskFilter(kind=kind)
    unfinished = TaskFilter(kind=kind, done=False)
    questions = [
        *(matching(TaskFilter(kind=kind, outcome=outcome)) for outcome in Outcome),
        matching(unfinished),
        matching(unfinished, unleased=True),
        matching(unfinished, unleased=True, cancelled=True),
        matching(of_kind, due=now),
        matching(of_kind, due=now, unleased=True),
        matching(of_kind, due=now, cancelled=True),
        matching(of_kind, due=now, unleased=True, cancelled=True),
    ]
    *done, open_, free, free_cancelled, due, due_free, due_cancelled, due_free_cancelled = await asyncio.gather(
        *map(count, questions)
    )
    lapsed, lapsed_cancelled = due - due_free, due_cancelled - due_free_cancelled
    counts = {
        TaskStatus.WAITING: (free - free_cancelled) - (due_free - due_free_cancelled),
        TaskStatus.PENDING: due - due_cancelled,
        TaskStatus.LEASED: open_ - free - lapsed,
        TaskStatus.CANCELLATION_PENDING: free_cancelled + lapsed_cancelled,
        **{TaskStatus(f"done-{outcome}"): number for outcome, number in zip(Outcome, done, strict=True)},
    }
    return {status: number for status, number in counts.items() if number > 0}
