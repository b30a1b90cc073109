"""`oncetask demo`: real work on real files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

import oncetask
from oncetask import SyncClient
from oncetask.cli.demo import work
from tests.integration.cli.conftest import Cli


@pytest.fixture
def files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three files, one of them below another folder; temporary files are the test's own."""
    (folder / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (folder / "files" / "below").mkdir(parents=True)
    (folder / "files" / "a.txt").write_text("one two\nthree\n")
    (folder / "files" / "b.bin").write_bytes(bytes(range(256)))
    (folder / "files" / "below" / "c").write_bytes(b"")
    return folder / "files"


def test_every_file_is_measured(cli: Cli, files: Path) -> None:
    """Each file's hash, size, lines and words come back from the store, and the sums with them."""
    answer = cli("demo", str(files), "--json")
    report = answer.json
    assert (answer.code, report["ok"]) == (0, True)
    assert [file["file"] for file in report["files"]] == ["a.txt", "b.bin", "below/c"]
    for file in report["files"]:
        assert file["sha256"] == hashlib.sha256((files / file["file"]).read_bytes()).hexdigest()
    assert report["files"][0] == {**report["files"][0], "bytes": 14, "lines": 2, "words": 3}
    assert (report["totals"]["files"], report["totals"]["bytes"]) == (3, 270)


def test_one_fails_twice_and_one_runs_once(cli: Cli, files: Path) -> None:
    """One task has two failed attempts and completes at the third; one is enqueued twice and runs once."""
    report = cli("demo", str(files), "--json").json
    flaky = report["failsTwice"]
    assert (flaky["status"], flaky["attempts"]) == ("done-completed", 3)
    assert [error["attempt"] for error in flaky["errors"]] == [1, 2]
    assert report["enqueuedTwice"] == {**report["enqueuedTwice"], "created": False, "runs": 1}
    assert flaky["id"] != report["enqueuedTwice"]["taskId"]


def test_a_folder_with_one_file_shows_both(cli: Cli, files: Path) -> None:
    """With a single file its task fails twice, is enqueued twice, and succeeds once."""
    (files / "a.txt").unlink()
    (files / "b.bin").unlink()
    report = cli("demo", str(files), "--json").json
    assert (report["ok"], report["failsTwice"]["attempts"], report["enqueuedTwice"]["runs"]) == (True, 3, 1)


def test_the_default_is_our_own_source(cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder it measures the installed package, without Python's caches, and never ONCETASK_STORE."""
    monkeypatch.setenv("ONCETASK_STORE", "redis://would-fail")
    report = cli("demo", "--json").json
    names = [file["file"] for file in report["files"]]
    assert report["folder"] == str(Path(oncetask.__file__).parent)
    assert "worker.py" in names
    assert not [name for name in names if name.endswith(".pyc")]
    assert list((files.parent / "scratch").iterdir()) == []


def test_people_get_tables_checks_and_a_next_step(cli: Cli, files: Path) -> None:
    """The report shows totals, the largest files, the attempts, what was checked, and what to try next."""
    answer = cli("demo", str(files))
    assert answer.code == 0
    assert re.search(r"^ +3 +270 +\d+ +\d+ +[\d.]+ +[\d.,]+", answer.out, re.MULTILINE)
    assert hashlib.sha256(bytes(range(256))).hexdigest()[:12] in answer.out
    assert "attempt 2  RuntimeError: fails on purpose, 2 of 2 times" in answer.out
    assert "ok       3 of 3 stored results equal those computed anew" in answer.out
    assert "ok       one task was enqueued twice (the second time: created=False) and ran once" in answer.out
    assert "--help" in answer.out.partition("Next:")[2]
    assert "3 files of " in answer.err


def test_the_database_is_kept_on_request(cli: Cli, files: Path) -> None:
    """--keep leaves the file, and the command it names lists the tasks."""
    fate = cli("demo", str(files), "--keep", "--json").json["fate"]
    command = fate.partition("oncetask ")[2].split()
    assert len(cli(*command, "--ids").out.splitlines()) == 3


def test_a_store_of_the_users_is_left_as_it_was(cli: Cli, files: Path, client: SyncClient) -> None:
    """With --store the tasks live there, in an environment of their own, and are deleted at the end."""
    url = os.environ["ONCETASK_STORE"]
    client.stats()
    report = cli("demo", str(files), "--store", url, "--env", "mine", "--json").json
    assert (report["ok"], report["where"]) == (True, f"{url}, environment mine")
    assert cli("list", "--env", "mine").out == ""
    environment = cli("demo", str(files), "--store", url, "--json").json["where"].rpartition(" ")[2]
    assert re.fullmatch(r"demo-[0-9a-f]{8}", environment)


@pytest.mark.parametrize(
    ("folder_name", "message"),
    [
        ("nowhere", "FOLDER 'nowhere' cannot be read: No such file or directory"),
        ("jobs.py", "FOLDER 'jobs.py' is a file; give the folder that it is in: '.'"),
        ("scratch", "FOLDER 'scratch' has no file that can be read, not even in its subfolders"),
        ("links", "FOLDER 'links' has no file that can be read; skipped: loop: a symbolic link"),
    ],
)
def test_a_bad_folder_is_wrong_input(cli: Cli, files: Path, folder_name: str, message: str) -> None:
    """A folder that is missing, a file, empty, or full of what is no file exits with 2."""
    (files.parent / "links").mkdir()
    (files.parent / "links" / "loop").symlink_to(files.parent / "links")
    answer = cli("demo", folder_name)
    assert (answer.code, answer.out, answer.err) == (2, "", f"error: {message}\n")


def test_strange_names_and_files_are_no_obstacle(cli: Cli, files: Path) -> None:
    """Newlines, quotes, markup and bytes that are no UTF-8 in names work; links, pipes and loops are named."""
    names = ["new\nline", "[red]markup", "100%", "émoji 🎉", "-rf"]
    if sys.platform == "linux":  # other systems refuse it
        names.append(os.fsdecode(b"latin-\xe9"))
    for name in names:
        (files / name).write_text(name, errors="surrogateescape")
    (files / "loop").symlink_to(files)
    (files / "gone").symlink_to("nowhere")
    os.mkfifo(files / "pipe")
    report = cli("demo", str(files), "--json").json
    assert report["ok"]
    assert {file["file"] for file in report["files"]} == {"a.txt", "b.bin", "below/c", *names}
    skipped = ["gone: a symbolic link", "loop: a symbolic link", "pipe: a named pipe"]
    assert report["skipped"] == skipped
    shown = cli("demo", str(files))
    assert (shown.code, [line for line in skipped if f"skipped  {line}" not in shown.out]) == (0, [])
    assert r"new\nline" in shown.out


def test_most_bounds_the_number_of_files(cli: Cli, files: Path) -> None:
    """--most takes the first files, and says that there are more."""
    report = cli("demo", str(files), "--most", "2", "--json").json
    assert ([file["file"] for file in report["files"]], report["more"]) == (["a.txt", "b.bin"], True)
    assert "There are more files than 2" in cli("demo", str(files), "--most", "2").out


def test_a_wrong_result_is_noticed(cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the store gives another result than the file has, the demo says so and exits with 1."""
    right = work.measure
    monkeypatch.setattr(work, "measure", lambda file, **given: {**right(file, **given), "lines": -1})
    answer = cli("demo", str(files))
    assert answer.code == 1
    assert "WRONG    3 of 3 differ from those computed anew: a.txt, b.bin, below/c" in answer.out
    assert answer.err.splitlines()[-1].startswith("error: the demo went wrong: 3 of 3 differ")


def test_a_task_that_fails_is_noticed(cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be measured ends failed, and so does the demo."""
    right = work.measure

    def measure(file: BinaryIO, **given: Callable[[], None]) -> object:
        if str(file.name).endswith("b.bin"):
            raise OSError("the disk is broken")
        return right(file, **given)

    monkeypatch.setattr(work, "measure", measure)
    report = cli("demo", str(files), "--json")
    assert (report.code, report.json["ok"]) == (1, False)
    assert "1 of 3 did not complete: b.bin" in [check["says"] for check in report.json["checks"]]


def test_an_interrupted_demo_cleans_up(files: Path) -> None:
    """Ctrl-C in the middle: exit code 130, and no database is left behind."""
    os.mkfifo(files.parent / "started")
    source = (
        "import sys, time\n"
        "from oncetask.cli import main\n"
        "from oncetask.cli.demo import work\n"
        "def hang(file, between):\n"
        "    open('started', 'w').close()\n"
        "    while True: between(); time.sleep(0.01)\n"
        "work.measure = hang\n"
        f"sys.argv = ['oncetask', 'demo', {str(files)!r}]\n"
        "main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.PIPE, text=True)
    (files.parent / "started").read_text()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, "Traceback" in err) == (130, False)
    assert list((files.parent / "scratch").iterdir()) == []


def test_it_runs_as_a_program_within_seconds(files: Path) -> None:
    """`python -m oncetask demo` from an empty environment prints a report and nothing that looks like an error."""
    command = [sys.executable, "-m", "oncetask", "demo", str(files), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert json.loads(done.stdout)["ok"]
    assert [line for line in done.stderr.splitlines() if "rror" in line] == []
