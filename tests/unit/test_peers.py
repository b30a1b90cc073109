"""What measures other task runners, as far as it can be seen without them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import measuring
from benchmarks.peers.known import PEERS, Peer
from benchmarks.peers.measuring import results
from benchmarks.peers.programs import Failed, Missing, running
from benchmarks.peers.servers import Postgresql, Redis, Sqlite, postgresql_programs
from benchmarks.peers.starts import PIPE, Starts

MARKING = "import sys; from benchmarks.peers.starts import mark; [mark() for _ in range(int(sys.argv[1]))]"
ANSWERING = "[print(line.strip()[::-1], flush=True) for line in iter(input, 'stop')]"
ROOT = Path(__file__).parents[2]


def peer(**changes: Any) -> Peer:
    """Describe a runner that is installed, as pytest is, on SQLite."""
    known = Peer("pytest", ("pytest",), "on_pytest", Sqlite(), ("-c", ""), "as it comes")
    return dataclasses.replace(known, **changes)


def told(monkeypatch: pytest.MonkeyPatch, left_out: Peer) -> list[str]:
    """Measure a runner that has to be left out; gives the lines that say why."""
    monkeypatch.setitem(PEERS, "other", left_out)
    lines: list[str] = []
    assert list(results(1, ["other"], lines.append)) == []
    return lines


def test_a_title_names_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner's and its server's."""
    assert peer().title() == f"pytest {version('pytest')} on {Sqlite().version()}: as it comes"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"library": "nobody_has_this", "imports": ("nobody_has_this",)}, "other: not installed"),
        ({"imports": ("pytest", "nobody_has_this")}, "other: nobody_has_this not installed"),
    ],
)
def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], line: str) -> None:
    """In one line, and the runner is left out."""
    assert told(monkeypatch, peer(**changes)) == [line]


def test_a_library_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the last line of the error; it may want a system library."""
    (tmp_path / "wants_more.py").write_text("import os\nraise ImportError('no libpq')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    line = "other: wants_more cannot be imported: ImportError: no libpq"
    assert told(monkeypatch, peer(imports=("wants_more",))) == [line]


def test_a_server_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a library is."""
    monkeypatch.setenv("PATH", "")
    assert told(monkeypatch, peer(server=Redis())) == ["other: redis-server is not installed"]


def test_a_server_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it said."""

    @contextlib.contextmanager
    def failing(_: Sqlite, __: Path) -> Iterator[str]:
        raise Failed("no room")
        yield

    monkeypatch.setattr(Sqlite, "running", failing)
    assert told(monkeypatch, peer()) == ["other: its server does not start: no room"]


def test_a_run_that_fails_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of figures that mean nothing."""

    def failing(_: Peer, __: int) -> dict[str, float]:
        raise Failed("21 tasks were started 20 times")

    monkeypatch.setattr(measuring, "_measure", failing)
    monkeypatch.setitem(PEERS, "other", peer())
    with pytest.raises(SystemExit, match="other: 21 tasks were started 20 times"):
        list(results(1, ["other"]))


def test_the_newest_postgresql_of_debian_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its number: 9.6 is older than 15; what lacks a program does not count."""
    monkeypatch.setenv("PATH", "")
    for release in ("9.6", "15", "16"):
        folder = tmp_path / release / "bin"
        folder.mkdir(parents=True)
        for name in ("initdb", "postgres", "pg_isready"):
            (folder / name).touch()
    (tmp_path / "16" / "bin" / "pg_isready").unlink()
    assert postgresql_programs(tmp_path) == tmp_path / "15" / "bin"


def test_a_postgresql_on_the_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Links are followed, since the other programs are beside the real one."""
    own, linked = tmp_path / "own", tmp_path / "linked"
    own.mkdir()
    linked.mkdir()
    for name in ("initdb", "postgres", "pg_isready"):
        (own / name).touch(mode=0o755)
    (linked / "postgres").symlink_to(own / "postgres")
    monkeypatch.setenv("PATH", str(linked))
    assert postgresql_programs(tmp_path / "none") == own


def test_no_postgresql_at_all_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the programs that are looked for."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Missing, match=r"initdb, postgres, pg_isready\) are not installed"):
        postgresql_programs(tmp_path)


def test_root_has_postgresql_run_by_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is nobody for it, it is left out."""
    monkeypatch.setattr("os.geteuid", lambda: 0)

    def unknown(_: str) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwnam", unknown)
    with pytest.raises(Missing, match="does not run as root"):
        Postgresql().version()


def test_every_start_in_another_process_arrives(tmp_path: Path) -> None:
    """More than the pipe holds at a time, each with its instant."""
    starts = Starts(tmp_path / "pipe")
    environment = {PIPE: str(tmp_path / "pipe"), "PYTHONPATH": str(ROOT)}
    with contextlib.closing(starts):
        assert starts.count() == 0
        command = (sys.executable, "-c", MARKING, "20000")
        with running(command, tmp_path / "log", environment=environment) as program, contextlib.suppress(Failed):
            program.wait_until(lambda: starts.count() == 20_000, timeout=30)  # it may end just before that is seen
        assert starts.count() == 20_000
        assert starts.instants == sorted(starts.instants)


def test_a_program_answers_until_it_ends(tmp_path: Path) -> None:
    """What does not answer any more has failed, and its last words are told."""
    with running((sys.executable, "-c", ANSWERING), tmp_path / "log", answers=True) as program:
        assert program.ask("left").strip() == "tfel"
        with pytest.raises(Failed, match="did not answer 'stop'"):
            program.ask("stop")


def test_a_program_that_ends_too_early_has_failed(tmp_path: Path) -> None:
    """Its status and its last words are told."""
    command = (sys.executable, "-c", "raise SystemExit('no such app')")
    told = r"ended with status 1; its last words:\nno such app"
    with running(command, tmp_path / "log") as program, pytest.raises(Failed, match=told):
        program.wait_until(lambda: False, timeout=30)


def test_a_program_is_stopped_in_the_end(tmp_path: Path) -> None:
    """Whatever happens meanwhile."""
    with pytest.raises(KeyboardInterrupt), running(("sleep", "600"), tmp_path / "log") as program:
        raise KeyboardInterrupt
    assert program.process.returncode == -15
    with pytest.raises(ProcessLookupError):
        os.kill(program.process.pid, 0)
