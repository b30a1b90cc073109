"""Where the contract is tested: how a store is made there, and how somebody else would write to it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore import AsyncClient

from oncetask.clock import SystemClock, to_micros
from oncetask.store import TaskStore
from oncetask.store.coding.store import CodingStore
from oncetask.store.firestore import FirestoreStore
from oncetask.store.memory import Documents, Memory, MemoryStore
from oncetask.store.sqlite import SqliteStore
from tests.codecs import Scrambled

__all__ = ["Backend", "Coded", "FirestoreBackend", "InMemory", "SqliteFile", "SqliteMemory"]

T = TypeVar("T")
_INSERT_DOCUMENT = "INSERT OR REPLACE INTO tasks ({}) VALUES ({})"


class Backend(ABC):
    """One place for the data of one test."""

    shared = True
    """Stores that are opened one after the other see the same data."""
    largest_document: int | None = None
    """Bytes, where the store itself has a limit."""

    def __init__(self) -> None:
        self.stores: list[TaskStore] = []

    def open_store(self, env: str = "default") -> TaskStore:
        """Give another store on the same data; closed at the end of the test."""
        store = self._make(env)
        self.stores.append(store)
        return store

    async def aclose(self) -> None:
        """Close every store that was opened."""
        for store in self.stores:
            await store.aclose()

    @abstractmethod
    def _make(self, env: str) -> TaskStore: ...

    @abstractmethod
    async def raw_put(self, task_id: str, fields: Mapping[str, Any]) -> None:
        """Write a document as somebody would who has no oncetask: these fields, whatever they hold, and no others."""

    @abstractmethod
    async def raw_set(self, task_id: str, field: str, value: Any) -> None:
        """Write one field of a document, known or not."""

    @abstractmethod
    async def raw_get(self, task_id: str) -> dict[str, Any]:
        """Read the fields of a document as they are stored; what is absent is left out."""

    @abstractmethod
    async def raw_put_lock(self, resource_key: str, *, owner: Any, leased_until: Any) -> None:
        """Write a lock as somebody would who has no oncetask, whatever its fields hold."""


class _Sqlite(Backend):
    """Documents are rows, their fields columns of the same names."""

    @abstractmethod
    async def _run(self, job: Callable[[sqlite3.Connection], T]) -> T: ...

    async def raw_put(self, task_id: str, fields: Mapping[str, Any]) -> None:
        """Write a row; columns that are not named are null."""

        def put(sql: sqlite3.Connection) -> None:
            (version,) = sql.execute("UPDATE clock SET version = version + 1 RETURNING version").fetchone()
            row = {"env": "default", "id": task_id, "version": version}
            row |= {name: _column(value) for name, value in fields.items()}
            places = ", ".join("?" * len(row))
            sql.execute(_INSERT_DOCUMENT.format(", ".join(row), places), tuple(row.values()))

        await self._run(put)

    async def raw_set(self, task_id: str, field: str, value: Any) -> None:
        """Write one column, which is added where the table has none of that name."""

        def put(sql: sqlite3.Connection) -> None:
            if field not in _columns(sql):
                sql.execute(f"ALTER TABLE tasks ADD COLUMN {field}")
            sql.execute(f"UPDATE tasks SET {field} = ? WHERE id = ?", (_column(value), task_id))  # noqa: S608  # ours

        await self._run(put)

    async def raw_get(self, task_id: str) -> dict[str, Any]:
        """Read a row."""

        def get(sql: sqlite3.Connection) -> dict[str, Any]:
            row = sql.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone()
            return {name: value for name, value in zip(_columns(sql), row, strict=True) if value is not None}

        return await self._run(get)

    async def raw_put_lock(self, resource_key: str, *, owner: Any, leased_until: Any) -> None:
        """Write a row."""

        def put(sql: sqlite3.Connection) -> None:
            (version,) = sql.execute("UPDATE clock SET version = version + 1 RETURNING version").fetchone()
            row = ("default", resource_key, _column(owner), _column(leased_until), version)
            sql.execute("INSERT OR REPLACE INTO locks VALUES (?, ?, ?, ?, ?)", row)

        await self._run(put)


def _columns(sql: sqlite3.Connection) -> list[str]:
    return [row[1] for row in sql.execute("PRAGMA table_info(tasks)")]


def _column(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_micros(value)
    return json.dumps(value, default=to_micros) if isinstance(value, dict | list) else value


class SqliteFile(_Sqlite):
    """A file that several stores, and other processes, have open."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / "tasks.db"

    def _make(self, env: str) -> TaskStore:
        return SqliteStore(str(self._file), env=env)

    async def _run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        await self.open_store().open()
        with closing(sqlite3.connect(self._file)) as sql, sql:
            return job(sql)


class SqliteMemory(_Sqlite):
    """A database that nobody but its one store sees."""

    shared = False

    def _make(self, env: str) -> TaskStore:
        return self.stores[0] if self.stores else SqliteStore(":memory:", env=env)

    async def _run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        store = self.open_store()
        assert isinstance(store, SqliteStore)
        return await store._write(lambda transaction: job(transaction.sql))


class Coded(SqliteFile):
    """A file in which what users put into tasks is coded."""

    largest_document = 1_048_576

    def _make(self, env: str) -> TaskStore:
        return CodingStore(super()._make(env), Scrambled())


class InMemory(Backend):
    """Documents in this process, which several stores share."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = Memory(SystemClock().wall)

    def _make(self, env: str) -> TaskStore:
        return MemoryStore(self._memory, env=env)

    async def raw_put(self, task_id: str, fields: Mapping[str, Any]) -> None:
        """Put a document."""
        self._documents.put(task_id, fields)

    async def raw_set(self, task_id: str, field: str, value: Any) -> None:
        """Put a document in which one field is another one."""
        self._documents.put(task_id, {**(self._documents.fields(task_id) or {}), field: value})

    async def raw_get(self, task_id: str) -> dict[str, Any]:
        """Give a document; nulls are left out, as elsewhere in SQL."""
        return {name: value for name, value in (self._documents.fields(task_id) or {}).items() if value is not None}

    async def raw_put_lock(self, resource_key: str, *, owner: Any, leased_until: Any) -> None:
        """Put a lock."""
        self._documents.put_lock(resource_key, {"leaseOwner": owner, "leasedUntil": leased_until})

    @property
    def _documents(self) -> Documents:
        return self._memory.documents("default")


class FirestoreBackend(Backend):
    """A project of this test's own in the emulator."""

    largest_document = 1_048_576

    def __init__(self, project: str) -> None:
        super().__init__()
        self.project = project
        self._client: AsyncClient | None = None

    @property
    def client(self) -> AsyncClient:
        """Google's own client, as another program would have it."""
        if self._client is None:
            self._client = AsyncClient(project=self.project, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
        return self._client

    def _make(self, env: str) -> TaskStore:
        return FirestoreStore(project=self.project, credentials=AnonymousCredentials(), env=env)  # type: ignore[no-untyped-call]

    async def aclose(self) -> None:
        """Close the stores, and Google's client."""
        await super().aclose()
        if self._client is not None:
            await self._client._firestore_api.transport.close()

    async def raw_put(self, task_id: str, fields: Mapping[str, Any]) -> None:
        """Write a document."""
        await self._document(task_id).set(dict(fields))

    async def raw_set(self, task_id: str, field: str, value: Any) -> None:
        """Write one field of a document."""
        await self._document(task_id).set({field: value}, merge=True)

    async def raw_get(self, task_id: str) -> dict[str, Any]:
        """Read a document."""
        return (await self._document(task_id).get()).to_dict() or {}

    async def raw_put_lock(self, resource_key: str, *, owner: Any, leased_until: Any) -> None:
        """Write a document of these two fields only."""
        await self.lock_document(resource_key).set({"leaseOwner": owner, "leasedUntil": leased_until})

    def lock_document(self, resource_key: str) -> Any:
        """Give Google's reference of a lock."""
        name = hashlib.sha256(resource_key.encode()).hexdigest()
        return self.client.document("oncetask", "default", "onceLocks", name)

    def _document(self, task_id: str) -> Any:
        return self.client.document("oncetask", "default", "onceTasks", task_id)
