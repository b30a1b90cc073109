"""What the store watches: the head of the due line, and single tasks."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1.types import firestore as messages

from oncetask.store import Feed
from oncetask.store.firestore import queries
from oncetask.store.firestore.codec import read_document
from oncetask.store.firestore.listen import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from oncetask.store import Cursor
    from oncetask.store.firestore.session import Session
    from oncetask.task import Task

__all__ = ["watch_due", "watch_task"]

_Target: Any = messages.Target.pb()


@asynccontextmanager
async def watch_due(
    opened: Callable[[], Awaitable[Session]], kinds: Collection[str], *, limit: int, after: Cursor | None
) -> AsyncIterator[Feed[list[Task]]]:
    """Watch the tasks that are due first, whenever that is: one query target for each 30 kinds, merged."""
    session = await opened()
    feed: Feed[list[Task]] = Feed()

    def deliver(documents: list[Any], read_time: Any) -> None:
        tasks = [read_document(session.names, document, read_time=read_time) for document in documents]
        feed.put(queries.first_due(tasks, limit=limit))

    after_name = session.names.task(after.task_id) if after else ""
    requests = []
    for part in queries.in_chunks(kinds):
        request = _Target()
        request.query.parent = session.names.parent
        request.query.structured_query.CopyFrom(queries.doorbell(part, limit=limit, after=after, after_name=after_name))
        requests.append(request)
    if not requests:
        feed.put([])
    async with _watched(session, Watch(requests, deliver=deliver, fail=feed.fail)):
        yield feed


@asynccontextmanager
async def watch_task(opened: Callable[[], Awaitable[Session]], task_id: str) -> AsyncIterator[Feed[Task | None]]:
    """Watch one document."""
    session = await opened()
    feed: Feed[Task | None] = Feed()

    def deliver(documents: list[Any], read_time: Any) -> None:
        tasks = [read_document(session.names, document, read_time=read_time) for document in documents]
        feed.put(tasks[0] if tasks else None)

    request = _Target()
    request.documents.documents.append(session.names.task(task_id))
    async with _watched(session, Watch([request], deliver=deliver, fail=feed.fail)):
        yield feed


@asynccontextmanager
async def _watched(session: Session, watch: Watch) -> AsyncIterator[None]:
    session.listener.add(watch)
    try:
        yield
    finally:
        await session.listener.remove(watch)
