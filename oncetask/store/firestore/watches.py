"""What the store watches: the head of the due line, tasks by id, and the settings."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1.types import firestore as messages

from oncetask.clock import from_micros
from oncetask.store import Feed
from oncetask.store.firestore import queries
from oncetask.store.firestore.codec import micros, read_document
from oncetask.store.firestore.listen import Watch
from oncetask.store.firestore.settings import settings_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

    from oncetask.store import Cursor, Settings
    from oncetask.store.firestore.session import Session
    from oncetask.task import Task

__all__ = ["watch_due", "watch_settings", "watch_tasks"]

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
async def watch_tasks(
    opened: Callable[[], Awaitable[Session]], task_ids: Sequence[str]
) -> AsyncIterator[Feed[list[Task | None]]]:
    """Watch documents by name, each with a target: of several in one the emulator sends all when one has changed."""
    session = await opened()
    feed: Feed[list[Task | None]] = Feed()
    names = [session.names.task(task_id) for task_id in task_ids]
    known: dict[str, Task] = {}

    def deliver(documents: list[Any], read_time: Any) -> None:
        nonlocal known
        known = {
            document.name: _read(session, document, read_time, known=known.get(document.name)) for document in documents
        }
        feed.put([known.get(name) for name in names])

    if not names:
        feed.put([])
    requests = [_document(name) for name in dict.fromkeys(names)]
    async with _watched(session, Watch(requests, deliver=deliver, fail=feed.fail)):
        yield feed


@asynccontextmanager
async def watch_settings(opened: Callable[[], Awaitable[Session]]) -> AsyncIterator[Feed[Settings]]:
    """Watch the document of the environment."""
    session = await opened()
    feed: Feed[Settings] = Feed()

    def deliver(documents: list[Any], _: Any) -> None:
        feed.put(settings_in(documents))

    async with _watched(session, Watch([_document(session.names.settings)], deliver=deliver, fail=feed.fail)):
        yield feed


def _document(name: str) -> Any:
    request = _Target()
    request.documents.documents.append(name)
    return request


def _read(session: Session, document: Any, read_time: Any, *, known: Task | None) -> Task:
    """Read a document; one whose version is known is not decoded again, since a hundred of them may be watched."""
    if known is not None and known.version == micros(document.update_time):
        return known.evolve(read_at=from_micros(micros(read_time)))
    return read_document(session.names, document, read_time=read_time)


@asynccontextmanager
async def _watched(session: Session, watch: Watch) -> AsyncIterator[None]:
    session.listener.add(watch)
    try:
        yield
    finally:
        await session.listener.remove(watch)
