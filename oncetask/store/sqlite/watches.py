"""What an open store watches: one follower of the bell looks for all who watch, with one read at a time.

Everybody's commits ring. A look compares versions first and reads whole rows only where they differ, and all that
rings while it is under way makes just one more.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from oncetask.errors import StoreUnavailable
from oncetask.store import Feed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from oncetask.store import Cursor, Settings
    from oncetask.store.sqlite.bell import Bell
    from oncetask.store.sqlite.connection import Connection
    from oncetask.store.sqlite.reading import Marks, Reader
    from oncetask.task import Task

__all__ = ["Watches"]

_LATER_SECONDS = 1.0
_log = logging.getLogger("oncetask")


@dataclass(frozen=True, slots=True)
class _State:
    """What somebody was told, or will be."""

    marks: Marks
    tasks: Sequence[Task | None]


class _Watch(Protocol):
    """Somebody who watches."""

    ids: Collection[str]
    """The tasks whose versions it asks for."""
    feed: Feed[Any]

    def look(
        self, sql: sqlite3.Connection, reader: Reader, versions: Mapping[str, int], read_at: datetime
    ) -> Any | None:
        """Give what it has to be told; None where nothing has changed. On the connection's thread."""

    def tell(self, state: Any) -> None:
        """Hand what `look` gave to whoever reads the feed."""


@dataclass(eq=False, slots=True)
class _TasksWatch:
    """Somebody who watches tasks."""

    marks: Callable[[sqlite3.Connection, Mapping[str, int]], Marks]
    """Gives what is there now, from the versions of `ids` or a query of its own."""
    ids: Collection[str] = ()
    feed: Feed[Any] = field(default_factory=Feed)
    told: _State | None = None

    def look(
        self, sql: sqlite3.Connection, reader: Reader, versions: Mapping[str, int], read_at: datetime
    ) -> _State | None:
        marks = self.marks(sql, versions)
        if self.told is not None and marks == self.told.marks:
            return None
        known = {} if self.told is None else {task.id: task for task in self.told.tasks if task is not None}
        return _State(marks, reader.at_marks(sql, marks, known, read_at))

    def tell(self, state: _State) -> None:
        self.told = state
        self.feed.put(list(state.tasks))


@dataclass(eq=False, slots=True)
class _SettingsWatch:
    """Somebody who watches the settings."""

    ids: Collection[str] = ()
    feed: Feed[Any] = field(default_factory=Feed)
    told: int | None = None

    def look(
        self, sql: sqlite3.Connection, reader: Reader, _versions: Mapping[str, int], _read_at: datetime
    ) -> Settings | None:
        settings = reader.settings(sql)
        return None if settings.version == self.told else settings

    def tell(self, state: Settings) -> None:
        self.told = state.version
        self.feed.put(state)


class Watches:
    """All that is watched in one open store. While nobody watches, nothing of it runs."""

    def __init__(self, bell: Bell, connection: Connection, reader: Reader) -> None:
        """Belong to the running loop, as `bell` does."""
        self._loop = asyncio.get_running_loop()
        self._bell = bell
        self._connection = connection
        self._reader = reader
        self._watches: set[_Watch] = set()
        self._unseen: set[_Watch] = set()
        self._wanted = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def line(
        self, kinds: Collection[str], *, limit: int, after: Cursor | None
    ) -> AbstractAsyncContextManager[Feed[list[Task]]]:
        """Watch the beginning of the line."""
        return self._watched(_TasksWatch(lambda sql, _: self._reader.front(sql, kinds, limit=limit, after=after)))

    def tasks(self, task_ids: Sequence[str]) -> AbstractAsyncContextManager[Feed[list[Task | None]]]:
        """Watch tasks by id."""
        ids = tuple(task_ids)
        return self._watched(_TasksWatch(lambda _, versions: [(i, versions.get(i)) for i in ids], ids))

    def settings(self) -> AbstractAsyncContextManager[Feed[Settings]]:
        """Watch the settings of the environment."""
        return self._watched(_SettingsWatch())

    def end(self) -> None:
        """Fail what is still watched, because the store closes; or is forgotten, its loop being closed."""
        self._bell.ignore(self._ring)
        if self._loop.is_closed():
            return  # with everybody who could be told
        for watch in self._watches:
            watch.feed.fail(StoreUnavailable("the store was closed while it was watched"))
        self._watches.clear()
        if self._following is not None:
            self._following.cancel()
            self._following = None

    @asynccontextmanager
    async def _watched(self, watch: _Watch) -> AsyncIterator[Feed[Any]]:
        try:
            self._add(watch)
            yield watch.feed
        finally:
            await self._remove(watch)

    def _add(self, watch: _Watch) -> None:
        if self._following is None:
            self._bell.listen(self._ring)  # before the first look, so that nothing falls between the two
            self._following = self._loop.create_task(self._follow(), name="oncetask-watches")
        self._watches.add(watch)
        self._want([watch])

    async def _remove(self, watch: _Watch) -> None:
        self._watches.discard(watch)
        self._unseen.discard(watch)
        following = self._following
        if following is not None and not self._watches:
            self._following = None
            self._bell.ignore(self._ring)
            following.cancel()
            await asyncio.wait({following})

    def _ring(self) -> None:
        self._want(self._watches)

    def _want(self, watches: Iterable[_Watch]) -> None:
        self._unseen.update(watches)
        self._wanted.set()

    async def _follow(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            watches = list(self._unseen)
            self._unseen.clear()
            try:
                states = await self._connection.read(partial(self._look, watches))
            except StoreUnavailable:
                _log.exception("cannot look at what changed; trying again in %s s", _LATER_SECONDS)
                await asyncio.sleep(_LATER_SECONDS)
                self._want(self._watches.intersection(watches))
            except Exception as error:  # noqa: BLE001  # handed to those who watch; the next ones are looked for anew
                self._give_up(watches, error)
            else:
                for watch, state in zip(watches, states, strict=True):
                    if state is not None:
                        watch.tell(state)

    def _look(self, watches: Sequence[_Watch], sql: sqlite3.Connection) -> list[Any]:
        """Look for all of them at one moment, which a transaction makes it. On the connection's thread."""
        read_at = self._reader.read_at()
        sql.execute("BEGIN")
        try:
            versions = self._reader.versions(sql, {i for watch in watches for i in watch.ids})
            return [watch.look(sql, self._reader, versions, read_at) for watch in watches]
        finally:
            if sql.in_transaction:
                sql.execute("ROLLBACK")

    def _give_up(self, watches: Iterable[_Watch], error: Exception) -> None:
        for watch in watches:
            self._watches.discard(watch)
            watch.feed.fail(error)
