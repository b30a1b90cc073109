"""The file's schema: older files are brought to it, and the queries of every round go along its indexes."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from oncetask.errors import StoreUnavailable
from oncetask.lock import Lock, LockChange
from oncetask.store.sqlite import SqliteStore, reading
from tests.support import T0, a_task, at, stored

NEWEST = 4
_KINDS = ("INDEX by_kind", "INDEX open")
ADDED = {
    1: ("INDEX generators", "INDEX schedules", "TABLE settings", "INDEX lines", "TABLE locks", *_KINDS),
    2: ("INDEX lines", "TABLE locks", *_KINDS),
    3: _KINDS,
}
"""What a file of an older version does not have."""
GONE = "CREATE INDEX kinds ON tasks (env, kind, outcome, id)"
"""What every older version has."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store on a file that is not open yet."""
    store = SqliteStore(str(tmp_path / "tasks.db"))
    yield store
    await store.aclose()


def run(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Run statements on the file; gives the rows of the last one."""
    rows: list[tuple[object, ...]] = []
    with closing(sqlite3.connect(path)) as sql, sql:
        for statement in statements:
            rows = sql.execute(statement).fetchall()
    return rows


def schema_of(path: Path) -> set[tuple[object, ...]]:
    """Give all that the file defines."""
    return set(run(path, "SELECT type, name, sql FROM sqlite_master"))


@pytest.mark.parametrize("version", ADDED)
async def test_an_older_file_is_brought_to_this_version(store: SqliteStore, tmp_path: Path, version: int) -> None:
    """What a newer version added is there after the file was opened, and all tasks are found by it."""
    path = tmp_path / "tasks.db"
    await stored(store, a_task("a", resource_key="k"), a_task("b", resource_key="k"))
    await store.aclose()
    newest = schema_of(path)
    run(path, *(f"DROP {what}" for what in ADDED[version]), GONE, f"PRAGMA user_version = {version}")
    assert not schema_of(path) >= newest

    assert [task.id for task in await store.line(["k"], now=T0, limit=5)] == ["a", "b"]
    lock = Lock(resource_key="k", owner="l1", leased_until=at(60))
    assert [one.applied for one in await store.commit([], [], None, [LockChange("k", None, lock)])] == [True]

    await store.aclose()
    assert run(path, "PRAGMA user_version") == [(NEWEST,)]
    assert schema_of(path) == newest


async def test_a_newer_file_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    """A file of a version that is not known yet is left alone, and the error says what would help."""
    run(tmp_path / "tasks.db", f"PRAGMA user_version = {NEWEST + 1}")

    with pytest.raises(StoreUnavailable, match="use a newer oncetask"):
        await store.open()


async def test_a_line_is_read_along_its_index(store: SqliteStore, tmp_path: Path) -> None:
    """The beginning of a key's line is found by one search, from any place on, and nothing is sorted."""
    await store.open()
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as sql:
        plan = sql.execute(f"EXPLAIN QUERY PLAN {reading.LINE}", ("default", "k", 0, 0, 0, "", 5)).fetchall()

    ((*_, detail),) = plan
    assert "USING INDEX lines" in detail
    assert "(waitUntil,createdAt,id)>(?,?,?)" in detail
