"""An SQLite file whose own trigger keeps a record of every write of a task, and somebody who locks it."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from oncetask import Client, connect
from tests.chaos.ledger import Change
from tests.chaos.signals import end

__all__ = ["SqliteGround"]

_ROOT = Path(__file__).parents[2]
_LOCKS = Path("/proc/locks")
_WRITE_LOCK = "120"
"""Where in the shared memory of a WAL database its one writer has a lock (https://www.sqlite.org/walformat.html)."""
_MUTABLE = (
    *("leaseOwner", "leasedUntil", "outcome", "isCancelled", "attempts", "cancelAttempts"),
    *("waitUntil", "doneAt", "result", "errors", "progress"),
)
_ALL = (
    *_MUTABLE,
    *("kind", "resourceKey", "createdAt", "createId", "parentRecurrenceId", "occurrenceTimestamp"),
    *("recurrence", "data"),
)
_POLL_SECONDS = 0.001


def _fields(names: tuple[str, ...]) -> str:
    pairs = (f"'{name}', NEW.{name}" for name in names)
    return f"json_object({', '.join(pairs)})"


_RECORD = f"""
CREATE TABLE chaos_record (number INTEGER PRIMARY KEY, at INTEGER, id TEXT, fields TEXT);
CREATE TRIGGER chaos_insert AFTER INSERT ON tasks BEGIN
    INSERT INTO chaos_record (at, id, fields) VALUES (NEW.version, NEW.id, {_fields(_ALL)});
END;
CREATE TRIGGER chaos_update AFTER UPDATE ON tasks BEGIN
    INSERT INTO chaos_record (at, id, fields) VALUES (NEW.version, NEW.id, {_fields(_MUTABLE)});
END;
CREATE TRIGGER chaos_delete AFTER DELETE ON tasks BEGIN
    INSERT INTO chaos_record (at, id, fields) VALUES ((SELECT version FROM clock), OLD.id, NULL);
END;
"""  # noqa: S608  # names of ours


class SqliteGround:
    """One file, which all processes open."""

    backlog: int | None = None

    def __init__(self, folder: Path) -> None:
        """`folder`: empty, or without a database."""
        self.path = folder / "tasks.db"
        self._url = f"sqlite:///{self.path}"

    async def open(self, *_: str) -> Client:
        """Make the tables, begin the record, and give a client."""
        client = connect(self._url)
        await client.store.open()
        with closing(sqlite3.connect(self.path)) as sql:
            sql.executescript(_RECORD)
        return client

    def environment(self, _: str) -> dict[str, str]:
        """Give the environment of a process that is to work here."""
        return {**os.environ, "ONCETASK_STORE": self._url}

    def changes(self) -> Iterator[Change]:
        """Give every write, in order."""
        with closing(sqlite3.connect(self.path)) as sql:
            for at, task_id, fields in sql.execute("SELECT at, id, fields FROM chaos_record ORDER BY number"):
                yield Change(at, task_id, None if fields is None else json.loads(fields))

    async def aclose(self) -> None:
        """There is nothing to end."""

    async def lock(self, seconds: float, *, kill: bool) -> None:
        """Let another process hold the write lock for so long, then roll back, or be killed."""
        command = (sys.executable, "-m", "tests.chaos.locker", str(self.path))
        pipe = asyncio.subprocess.PIPE
        locker = await asyncio.create_subprocess_exec(*command, cwd=_ROOT, stdin=pipe, stdout=pipe)
        try:
            assert locker.stdin is not None
            assert locker.stdout is not None
            assert await locker.stdout.readline() == b"held\n"
            await asyncio.sleep(seconds)
            if kill:
                end(locker)
            locker.stdin.write(b"\n")
            await locker.wait()
        finally:
            end(locker)
            await locker.wait()

    async def writer_among(self, pids: set[int], *, seconds: float) -> int | None:
        """Wait for one of these processes to be in the middle of a transaction; None: not seen, or cannot be seen."""
        if not _LOCKS.exists():  # noqa: ASYNC240  # is no file on a disk
            return None
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if (pid := self._writer()) in pids:
                return pid
            await asyncio.sleep(_POLL_SECONDS)
        return None

    def _writer(self) -> int | None:
        inode = Path(f"{self.path}-shm").stat().st_ino
        for line in _LOCKS.read_text().splitlines():
            _, _, _, mode, pid, place, first, *_ = line.replace("->", "").split()
            if mode == "WRITE" and first == _WRITE_LOCK and place.endswith(f":{inode}"):
                return int(pid)
        return None
