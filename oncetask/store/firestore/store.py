"""The store on Firestore: the port's verbs, each a few RPCs."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1 import DELETE_FIELD

from oncetask.clock import StoreClock, SystemClock, from_micros
from oncetask.errors import StoreUnavailable
from oncetask.store import Settings, TaskFilter, TaskStore, Written
from oncetask.store.document import ABSENT
from oncetask.store.firestore import queries
from oncetask.store.firestore.commit import commit
from oncetask.store.firestore.connection import Connection
from oncetask.store.firestore.creating import create
from oncetask.store.firestore.due import due_without
from oncetask.store.firestore.locks import read_locks
from oncetask.store.firestore.rpc import RpcCounter
from oncetask.store.firestore.session import Session
from oncetask.store.firestore.settings import read_settings, write_settings
from oncetask.store.firestore.stats import count_by_kind
from oncetask.store.firestore.watches import watch_due, watch_settings, watch_tasks
from oncetask.store.firestore.writes import change, changes_of, document_of, removal
from oncetask.task import place_in_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from google.auth.credentials import Credentials
    from google.cloud.firestore_v1 import AsyncClient

    from oncetask.clock import Clock
    from oncetask.lifecycle import Transition
    from oncetask.lock import Lock, LockChange
    from oncetask.store import Cursor, Diagnosis, Feed
    from oncetask.task import Task, TaskStatus

__all__ = ["FirestoreStore"]

_IDS_A_CALL = 300


class FirestoreStore(TaskStore):
    """Tasks as documents `oncetask/{env}/onceTasks/{taskId}`."""

    def __init__(
        self,
        *,
        client: AsyncClient | None = None,
        project: str | None = None,
        database: str | None = None,
        credentials: Credentials | None = None,
        env: str = "default",
        clock: Clock | None = None,
        patience: float = 15,
        rpc_timeout: float = 10,
    ) -> None:
        """Keep the settings; nothing is opened before the first use.

        `client`: use this one, and leave it open; without it the store makes one of its own from `project`,
        `database` and `credentials` (None: as Google's library finds them). `patience`: seconds for which
        something that fails for a passing reason is tried again. `rpc_timeout`: seconds that a request may take.
        """
        self.clock = StoreClock(clock or SystemClock())
        self.counters = RpcCounter()
        self.env = env
        self.url = _url(project or getattr(client, "project", None), database or getattr(client, "_database", None))
        self._client = client
        self._own = partial(Connection.own, project=project, database=database, credentials=credentials)
        self._make_session = partial(
            Session,
            env=env,
            clock=self.clock,
            counters=self.counters,
            patience=patience,
            rpc_timeout=rpc_timeout,
        )
        self._session: Session | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Connect, and learn the server's time."""
        await self._opened()

    async def aclose(self) -> None:
        """Wait for what is under way, end the listener, close the channel if it is the store's own."""
        async with self._opening:
            session = self._session
            if session is not None:
                session.check_loop()
                self._session, self._opening = None, asyncio.Lock()  # the next loop may be another one
        if session is not None:
            await session.aclose()

    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        """Store new tasks through the group commit, or in commits of their own where their order matters."""
        async with self._use() as session:
            return await create(session, tasks)

    async def get(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Read documents by name."""
        async with self._use() as session:
            names = [session.names.task(task_id) for task_id in task_ids]
            unique = list(dict.fromkeys(names))
            parts = [unique[start : start + _IDS_A_CALL] for start in range(0, len(unique), _IDS_A_CALL)]
            answers = await asyncio.gather(
                *(session.retrier.run("reading tasks", partial(session.read, part)) for part in parts)
            )
            found = {name: task for answer in answers for name, task in answer.items()}
            return [found.get(name) for name in names]

    async def due(
        self,
        kinds: Collection[str],
        *,
        now: datetime,
        limit: int,
        after: Cursor | None = None,
        generators: bool = False,
        without: Collection[str] = (),
    ) -> list[Task]:
        """Run one query for each 30 kinds, or fewer where keys are left out, and merge."""
        async with self._use() as session:
            if any(without) and not generators:  # an empty text is nobody's key
                return await due_without(session, kinds, now=now, limit=limit, after=after, without=without)
            after_name = session.names.task(after.task_id) if after else ""
            query = partial(
                queries.due, now=now, limit=limit, after=after, after_name=after_name, generators=generators
            )
            found = await asyncio.gather(*(session.query(query(part)) for part in queries.in_chunks(kinds)))
            return queries.first_due(itertools.chain(*found), limit=limit)

    async def line(
        self, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None = None
    ) -> list[Task]:
        """Run one query for each 30 keys, and merge."""
        async with self._use() as session:
            after_name = session.names.task(after.id) if after else ""
            query = partial(queries.line, now=now, limit=limit, after=after, after_name=after_name)
            found = await asyncio.gather(*(session.query(query(part)) for part in queries.in_chunks(resource_keys)))
            return sorted(itertools.chain(*found), key=place_in_line)[:limit]

    async def locks(self, resource_keys: Sequence[str]) -> list[Lock | None]:
        """Read documents by name."""
        async with self._use() as session:
            return await read_locks(session, resource_keys)

    async def apply(self, transitions: Sequence[Transition]) -> list[Written]:
        """Write the changed fields, each document on the version that it was decided from."""
        async with self._use() as session:
            return await session.write([partial(change, session.names, one) for one in transitions])

    async def commit(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task],
        batch: object | None,
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Send an atomic commit, which those of other callers may share."""
        async with self._use() as session:
            return await commit(session, transitions, creates, batch, locks)

    async def delete(self, tasks: Sequence[Task]) -> list[Written]:
        """Delete documents that are still at the version known."""
        async with self._use() as session:
            return await session.write([partial(removal, session.names, task) for task in tasks])

    async def find(self, which: TaskFilter, *, limit: int, after: str | None = None) -> list[Task]:
        """Run one query."""
        async with self._use() as session:
            if _contradicts_itself(which):
                return []
            after_name = None if after is None else session.names.task(after)
            return await session.query(queries.filtered(which, limit=limit, after_name=after_name))

    async def count(self, which: TaskFilter) -> int:
        """Let the server count all, and the generators among them."""
        async with self._use() as session:
            if _contradicts_itself(which):
                return 0
            every, generators = await asyncio.gather(
                session.count(queries.matching(which)), session.count(queries.matching(replace(which, generators=True)))
            )
            return every - generators

    async def stats(self) -> Mapping[str, Mapping[TaskStatus, int]]:
        """Find the kinds by skipping through their index, then count each in parallel."""
        async with self._use() as session:
            return await count_by_kind(session, now=self.clock.now().earliest)

    async def settings(self, *, no_older_than: float = 0.0) -> Settings:
        """Read the document of the environment."""
        async with self._use() as session:
            return await read_settings(session, no_older_than=no_older_than)

    async def write_settings(self, before: Settings, changes: Mapping[str, Any]) -> Written:
        """Commit the changed fields upon the version that was read."""
        async with self._use() as session:
            return await write_settings(session, before, changes)

    def watch_settings(self) -> AbstractAsyncContextManager[Feed[Settings]]:
        """Listen to the document of the environment."""
        return watch_settings(self._opened)

    def watch_due(
        self, kinds: Collection[str], *, limit: int, after: Cursor | None = None
    ) -> AbstractAsyncContextManager[Feed[list[Task]]]:
        """Listen to one query for each 30 kinds, and merge."""
        return watch_due(self._opened, kinds, limit=limit, after=after)

    def watch_tasks(self, task_ids: Sequence[str]) -> AbstractAsyncContextManager[Feed[list[Task | None]]]:
        """Listen to the documents, a target for each."""
        return watch_tasks(self._opened, task_ids)

    def new_batch(self) -> Any:
        """Give a write batch of Google's library."""
        if self._session is None:
            raise StoreUnavailable("the store is not open yet: await store.open() before asking for a batch")
        return self._session.client.batch()

    def create_in(self, batch: Any, task: Task) -> None:
        """Add the creation of a task to a transaction or batch of the caller's own client."""
        batch.create(
            self._reference(batch, task.id), document_of(task)
        )  # never set(): one that exists would start over

    def change_in(self, batch: Any, transitions: Sequence[Transition]) -> None:
        """Add the changed fields, each document on the version that they were decided from."""
        for transition in transitions:
            before, fields = transition.before, changes_of(transition)
            batch.update(
                self._reference(batch, before.id),
                {name: DELETE_FIELD if value is ABSENT else value for name, value in fields.items()},
                option=batch._client.write_option(last_update_time=from_micros(before.version)),  # noqa: SLF001  # as below
            )

    def _reference(self, batch: Any, task_id: str) -> Any:
        """Name a document for the client that the caller's transaction or batch belongs to."""
        return batch._client.document(f"oncetask/{self.env}/onceTasks/{task_id}")  # noqa: SLF001  # no public name

    async def diagnose(self) -> Sequence[Diagnosis]:
        """Look whether indexes and rules are deployed."""
        from oncetask.store.firestore.diagnosis import diagnose  # noqa: PLC0415  # no function needs to load it

        async with self._use() as session:
            return await diagnose(session)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Session]:
        """Give the session for one verb, which closing has to wait for."""
        session = await self._opened()
        with session.busy():
            yield session

    async def _opened(self) -> Session:
        while self._session is None:
            opening = self._opening
            async with opening:
                if opening is self._opening and self._session is None:
                    self._session = await self._open_session()
        self._session.check_loop()
        return self._session

    async def _open_session(self) -> Session:
        connection = await self._own() if self._client is None else Connection.borrowed(self._client)
        session = self._make_session(connection)
        try:
            await session.learn_time()
        except BaseException:
            await session.aclose()
            raise
        return session


def _url(project: str | None, database: str | None) -> str:
    return f"firestore://{project}" + (f"/{database}" if database not in {None, "(default)"} else "")


def _contradicts_itself(which: TaskFilter) -> bool:
    return which.done is False and which.outcome is not None
