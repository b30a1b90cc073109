"""SQLite files that are damaged, or something else: the error says so, and nothing is written over them."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from oncetask import App, Context, Payload, StoreUnavailable, Worker, connect
from oncetask.cli.entry import run
from oncetask.store.sqlite import schema
from tests.integration.faults.processes import LIMIT, eventually

_PAGE = 4096
_NUMBER = 100


class Job(Payload, kind="job"):
    """What is in the file."""

    n: int = 0


def _random_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[_PAGE:] = random.Random(1).randbytes(len(content) - _PAGE)  # noqa: S311  # a test's rubbish
    path.write_bytes(content)


def _half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _no_header(path: Path) -> None:
    path.write_bytes(bytes(100) + path.read_bytes()[100:])


def _text(path: Path) -> None:
    path.write_text("Dear diary,\n" * 1_000)


def _short_text(path: Path) -> None:
    path.write_text("hello")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _somebody_elses(path: Path) -> None:
    path.unlink()
    _sql(path, "CREATE TABLE tasks (title TEXT)", "INSERT INTO tasks VALUES ('buy milk')")


def _somebody_elses_with_a_version(path: Path) -> None:
    path.unlink()
    _sql(path, "CREATE TABLE notes (title TEXT)", f"PRAGMA user_version = {schema._VERSION}")


def _newer(path: Path) -> None:
    _sql(path, "PRAGMA journal_mode = DELETE", f"PRAGMA user_version = {schema._VERSION + 1}")


def _sql(path: Path, *statements: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        for statement in statements:
            rows = sql.execute(statement).fetchall()
    return rows


_DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "random bytes in the middle": (_random_bytes, "malformed", "the file is damaged: keep it, and restore a backup"),
    "half of it": (_half, "malformed", "the file is damaged"),
    "no header": (_no_header, "file is not a database", "name another file, or restore a backup"),
    "a text": (_text, "file is not a database", "name another file"),
    "a short text": (_short_text, "file is not a database", "name another file"),
    "a folder": (_folder, "unable to open", "it has to be a file"),
    "somebody else's database": (_somebody_elses, "of something else", "a file of its own"),
    "somebody else's with a version": (_somebody_elses_with_a_version, "of something else", "a file of its own"),
    "a newer version": (_newer, f"schema version {schema._VERSION + 1}", "use a newer oncetask"),
}
"""What is done to the file; what is wrong with it, and what would be right."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with tasks in it, which nobody has open."""
    path = tmp_path / "tasks.db"
    asyncio.run(_fill(path))
    return path


async def _fill(path: Path) -> None:
    async with connect(_url(path)) as client:
        await client.enqueue_many([Job(n=n) for n in range(_NUMBER)], task_ids=[f"t{n}" for n in range(_NUMBER)])


@pytest.fixture(params=_DAMAGES)
def damaged(request: pytest.FixtureRequest, path: Path) -> tuple[Path, str, str]:
    """A file that is none of ours any more; what is wrong, and what would be right."""
    damage, wrong, right = _DAMAGES[request.param]
    damage(path)
    return path, wrong, right


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


def _content(path: Path) -> object:
    return path.read_bytes() if path.is_file() else "a folder"


def test_a_file_that_is_no_store_of_ours(damaged: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Reading and writing raise StoreUnavailable: which file, what is wrong, what would be right; the file stays."""
    path, wrong, right = damaged
    before = _content(path)
    for message in (*asyncio.run(_refusals(path)), _told_by_the_command_line(path, capsys)):
        assert str(path) in message
        assert wrong in message
        assert right in message
    assert _content(path) == before


async def _refusals(path: Path) -> list[str]:
    """Give what a client says that writes, and one that reads everything."""
    client = connect(_url(path))
    try:
        with pytest.raises(StoreUnavailable) as writing:
            await client.enqueue(Job())
        with pytest.raises(StoreUnavailable) as reading:
            await client.list_tasks(limit=500)
    finally:
        await client.aclose()
    return [str(writing.value), str(reading.value)]


def _told_by_the_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["list", "--limit", "500", "--store", _url(path)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_worker_on_a_text_file(path: Path) -> None:
    """The command ends with 3 and one line, without a traceback."""
    _text(path)
    command = [sys.executable, "-m", "oncetask", "worker", "tests.integration.processes.program:app"]
    ended = subprocess.run(
        [*command, "--store", _url(path)], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr
    assert "file is not a database" in ended.stderr


async def test_a_worker_on_a_file_with_damaged_pages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that can open a file and read none of it says so, goes on trying, and can be stopped."""
    path = tmp_path / "tasks.db"
    await _fill(path)
    _random_bytes(path)
    app = App()

    @app.handler(Job)
    async def handler(_: Context, __: Job) -> None: ...

    async with connect(_url(path)) as client:
        worker = Worker(app, client)
        running = asyncio.create_task(worker.run())

        async def says_so_twice() -> bool:
            return "looking again in 1.0 s" in caplog.text

        await eventually(says_so_twice)
        assert not running.done()
        await worker.stop()
        await running
    assert str(path) in caplog.text
    assert "malformed" in caplog.text


async def test_an_empty_file(tmp_path: Path) -> None:
    """A file without content is a new store, as it is for SQLite."""
    (tmp_path / "tasks.db").touch()
    await _fill(tmp_path / "tasks.db")
    async with connect(_url(tmp_path / "tasks.db")) as client:
        assert await client.pending_count() == _NUMBER


async def test_a_journal_of_rubbish(tmp_path: Path) -> None:
    """A `-wal` that nobody can have written is passed over, and everything that was stored before is there."""
    path = tmp_path / "tasks.db"
    await _fill(path)
    rubbish = random.Random(2).randbytes(10 * _PAGE)  # noqa: S311  # a test's
    await asyncio.to_thread(Path(f"{path}-wal").write_bytes, rubbish)
    async with connect(_url(path)) as client:
        assert await client.pending_count() == _NUMBER
        assert (await client.enqueue(Job(), task_id="one more")).created


_WITHOUT_RIGHTS = """
import contextlib, io, os, sys
from oncetask.cli.entry import run
with contextlib.redirect_stderr(io.StringIO()):
    run(["pause", "--kind", "job", "--store", "memory://"])  # so that everything is imported
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(run(["pause", "--kind", "job", "--store", sys.argv[1]]))
"""


@pytest.mark.parametrize("what", ["the file", "the file and what is beside it"])
def test_a_file_that_may_not_be_written(what: str) -> None:
    """Whoever may only read a file is told which one, and what he needs; nothing changes."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        path = Path(name, "tasks.db")
        asyncio.run(_fill(path))
        before = path.read_bytes()
        path.chmod(0o444)
        Path(f"{path}-bell").chmod(0o666 if what == "the file" else 0o444)
        path.parent.chmod(0o777 if what == "the file" else 0o555)
        command = [sys.executable, "-c", _WITHOUT_RIGHTS, _url(path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        path.parent.chmod(0o755)
        assert ended.returncode == 3, ended.stderr
        assert ended.stderr.startswith(f"error: SQLite store '{path}")
        assert "this user has to be allowed to write to the file" in ended.stderr
        assert path.read_bytes() == before
