"""Where the tasks of one test live: a store of its own, reached by url, and how somebody else would write to it."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from google.cloud.firestore import DELETE_FIELD, AsyncClient

from oncetask import Client, connect
from oncetask.clock import to_micros

__all__ = ["FilePlace", "FirestorePlace", "MemoryPlace", "Place"]

_AT_ONCE = 500


class Place(ABC):
    """One store's data. A field that is None in a raw write is absent afterwards."""

    url: str

    def __init__(self) -> None:
        self._clients: list[Client] = []

    def connect(self, env: str = "default") -> Client:
        """Give a fresh client; it is closed at the end of the test."""
        client = connect(self.url, env=env)
        self._clients.append(client)
        return client

    async def aclose(self) -> None:
        """Close every client."""
        for client in self._clients:
            await client.aclose()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that is to work here."""
        return {**os.environ, "ONCETASK_STORE": self.url}

    @abstractmethod
    async def put(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Write whole documents by id, as somebody would who has no oncetask; their tasks may have to be new."""

    @abstractmethod
    async def change(self, task_id: str, **fields: Any) -> None:
        """Write some fields of a document past oncetask."""


class FilePlace(Place):
    """An SQLite file, which other clients and processes can open too."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "tasks.db"
        self.url = f"sqlite:///{self.path}"

    async def put(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Insert rows."""
        await asyncio.to_thread(self._insert, documents)

    async def change(self, task_id: str, **fields: Any) -> None:
        """Update a row, and ring as the library does."""
        await asyncio.to_thread(self._update, task_id, _columns(fields))

    def _insert(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        with closing(self._sql()) as sql, sql:
            version = _next_version(sql)
            for task_id, fields in documents.items():
                row = {"env": "default", "id": task_id, "version": version, **_columns(fields)}
                places = ", ".join("?" * len(row))
                sql.execute(f"INSERT INTO tasks ({', '.join(row)}) VALUES ({places})", tuple(row.values()))  # noqa: S608  # ours

    def _update(self, task_id: str, columns: Mapping[str, Any]) -> None:
        settings = "".join(f"{name} = ?, " for name in columns)
        with closing(self._sql()) as sql, sql:
            values = (*columns.values(), _next_version(sql), task_id)
            sql.execute(f"UPDATE tasks SET {settings}version = ? WHERE id = ?", values)  # noqa: S608  # ours
        Path(f"{self.path}-bell").write_bytes(b"!")

    def _sql(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=20)


class MemoryPlace(Place):
    """SQLite in memory, private to its one client."""

    url = "memory://"

    def connect(self, env: str = "default") -> Client:
        """Give the one client."""
        assert not self._clients, "nobody else can see what is in memory"
        return super().connect(env)

    async def put(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Nobody can."""
        raise NotImplementedError

    async def change(self, task_id: str, **fields: Any) -> None:
        """Nobody can."""
        raise NotImplementedError


class FirestorePlace(Place):
    """A project of its own in the emulator."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self.project = project
        self.url = f"firestore://{project}"
        self._native: AsyncClient | None = None

    @property
    def native(self) -> AsyncClient:
        """Google's own client, as another program would have it."""
        if self._native is None:
            self._native = AsyncClient(project=self.project)
        return self._native

    async def aclose(self) -> None:
        """Close Google's client too."""
        await super().aclose()
        if self._native is not None:
            await self._native._firestore_api.transport.close()

    async def put(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Set documents through Google's client."""
        pairs = list(documents.items())
        for start in range(0, len(pairs), _AT_ONCE):
            batch = self.native.batch()
            for task_id, fields in pairs[start : start + _AT_ONCE]:
                batch.set(self.document(task_id), {k: v for k, v in fields.items() if v is not None})
            await batch.commit()

    async def change(self, task_id: str, **fields: Any) -> None:
        """Update a document through Google's client."""
        await self.document(task_id).update({k: DELETE_FIELD if v is None else v for k, v in fields.items()})

    def document(self, task_id: str, env: str = "default") -> Any:
        """Give Google's reference to a task's document."""
        return self.native.document("oncetask", env, "onceTasks", task_id)


def _next_version(sql: sqlite3.Connection) -> int:
    (version,) = sql.execute("UPDATE clock SET version = version + 1 RETURNING version").fetchone()
    assert isinstance(version, int)
    return version


def _columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _column(value) for name, value in fields.items()}


def _column(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_micros(value)
    return json.dumps(value, default=to_micros) if isinstance(value, dict | list) else value
