"""The due line with the tasks of some resource keys left out, by the server as far as one query can say so."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

from oncetask.store.firestore import queries
from oncetask.store.firestore.codec import read_document, read_value
from oncetask.store.firestore.queries import Place
from oncetask.store.firestore.writes import LANE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from oncetask.store import Cursor
    from oncetask.store.firestore.session import Session
    from oncetask.task import Task

__all__ = ["due_without"]

_LARGEST_PAGE = 300


async def due_without(
    session: Session,
    kinds: Collection[str],
    *,
    now: datetime,
    limit: int,
    after: Cursor | None,
    without: Collection[str],
) -> list[Task]:
    """Read the beginning of the due line, those of one instant by lane and then by id. Raises StoreUnavailable."""
    behind = None if after is None else await _place_of(session, after)
    keys = frozenset(without)

    def is_wanted(place: Place, task: Task) -> bool:
        if behind is not None and behind.lane is None and (place.due_at, place.name) <= (behind.due_at, behind.name):
            return False
        return task.resource_key not in keys or task.recurrence is not None

    found = await asyncio.gather(
        *(
            _read(session, partial(queries.due_without, part, lanes, now=now), is_wanted, limit=limit, behind=behind)
            for part, lanes in queries.in_chunks_without(kinds, without)
        )
    )
    merged = sorted(itertools.chain(*found), key=lambda one: (one[0].due_at, one[0].lane, one[0].name))
    return [task for _, task in merged[:limit]]


async def _read(
    session: Session,
    query: Callable[..., Any],
    is_wanted: Callable[[Place, Task], bool],
    *,
    limit: int,
    behind: Place | None,
) -> Sequence[tuple[Place, Task]]:
    """Read page after page until so many are found that the server could not leave out."""
    found: list[tuple[Place, Task]] = []
    size = limit
    while True:
        answers = await session.answers(query(limit=size, behind=behind))
        for answer in answers:
            behind = _read_place(answer.document)
            task = read_document(session.names, answer.document, read_time=answer.read_time)
            if is_wanted(behind, task):
                found.append((behind, task))
        if len(answers) < size or len(found) >= limit:
            return found[:limit]
        size = max(size, min(2 * size, _LARGEST_PAGE))


async def _place_of(session: Session, after: Cursor) -> Place:
    """Find out which lane a task stands in, since a cursor does not say it."""
    name = session.names.task(after.task_id)
    (answer,) = await session.retrier.run("reading tasks", partial(session.rpc.batch_get, [name]))
    lane = read_value(answer.found.fields[LANE]) if answer.HasField("found") else None
    return Place(after.due_at, lane if isinstance(lane, str) else None, name)


def _read_place(document: Any) -> Place:
    return Place(read_value(document.fields["dueAt"]), read_value(document.fields[LANE]), document.name)
