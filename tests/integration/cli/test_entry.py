"""Exit codes, help, and errors as scripts see them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from oncetask import Payload, SyncClient
from tests.integration.cli.conftest import Cli
from tests.integration.places import FilePlace

COMMANDS = (
    *("demo", "dev", "worker", "tick", "serve", "enqueue", "list", "show", "cancel", "reset", "delete"),
    *("schedules", "pause", "resume", "stats", "doctor"),
)


class Big(Payload):
    """More than a pipe holds, of many."""

    text: str


def test_help_loads_no_large_library(tmp_path: Path) -> None:
    """`oncetask --help` does not wait for google-cloud-firestore, grpc, google.auth or a web server to be imported."""
    look = "import oncetask.cli.entry as e, sys; e.run(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "oncetask" in done.stdout
    assert "'oncetask.cli.demo'" in done.stderr
    assert not [
        name
        for name in ("google.cloud.firestore", "google.auth", "google.api_core", "grpc", "uvicorn", "starlette")
        if f"'{name}" in done.stderr
    ]


def test_root_help_documents_the_exit_codes_and_names_all_commands(cli: Cli) -> None:
    """The root's help has every command and every exit code."""
    answer = cli("--help")
    assert answer.code == 0
    assert [name for name in COMMANDS if f" {name} " not in answer.out] == []
    assert [line.split()[0] for line in answer.out.splitlines() if line.strip()[:1].isdigit()] == [
        *("0", "1", "2", "3"),
        "130",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_has_an_example_and_the_common_options(cli: Cli, command: str) -> None:
    """Every command explains itself with an example, and takes --store, --env and --json."""
    answer = cli(command, "--help")
    assert answer.code == 0
    assert f"oncetask {command}" in answer.out.split("Example:")[1]
    assert [option for option in ("--store", "--env", "--json") if option not in answer.out] == []


def test_no_command_shows_the_help_and_is_wrong_usage(cli: Cli) -> None:
    """`oncetask` alone tells what there is, and exits with 2."""
    answer = cli()
    assert answer.code == 2
    assert "Usage: oncetask" in answer.out


def test_version_is_told(cli: Cli) -> None:
    """`oncetask --version` names the installed version."""
    assert cli("--version").out.startswith("oncetask 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frobnicate",), "error: No such command 'frobnicate'"),
        (("list", "--frobnicate"), "error: No such option: --frobnicate"),
        (("show",), "error: Missing argument 'ID'"),
        (("list", "--limit", "many"), "error: Invalid value for '--limit'"),
        (("list", "--status", "done"), "error: Invalid value for '--status'"),
        (("list", "--limit", "0"), "error: limit must be a whole number from 1 to 1000, not 0"),
        (("stats", "--store", "redis://x"), "error: url must be firestore://PROJECT"),
        (("stats", "--env", "a/b"), "error: env must be 1 to 100 of the characters"),
    ],
)
def test_wrong_usage_is_one_line_and_2(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """A wrong command line or value exits with 2 and one line that names it."""
    answer = cli(*arguments)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert answer.err.startswith(message)


def test_an_unavailable_store_is_3(cli: Cli, folder: Path) -> None:
    """A store that cannot be opened exits with 3."""
    answer = cli("stats", "--store", f"sqlite:///{folder}/no/such/folder.db")
    assert answer.code == 3
    assert answer.err.startswith("error: SQLite store ")


def test_errors_are_json_on_request(cli: Cli) -> None:
    """With --json an error is JSON on stderr, with its type, its message and the exit code."""
    answer = cli("show", "nobody", "--json")
    assert answer.code == 1
    assert answer.error == {
        "type": "TaskNotFound",
        "message": "no task has the id 'nobody' in this environment",
        "exitCode": 1,
    }
    assert cli("list", "--nope", "--json").error["exitCode"] == 2


def test_options_beat_the_environment(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONCETASK_STORE and ONCETASK_ENV are honoured, --store and --env come before them."""
    monkeypatch.setenv("ONCETASK_ENV", "one")
    cli("enqueue", "greet", "{}", "--task-id", "a")
    assert cli("show", "a").code == 0
    assert cli("show", "a", "--env", "two").code == 1
    assert cli("show", "a", "--store", f"sqlite:///{folder}/other.db").code == 1


def test_a_bug_keeps_its_traceback(cli: Cli, folder: Path) -> None:
    """An error that the user's own code raises is not dressed up as wrong input."""
    (folder / "jobs.py").write_text(
        "from oncetask import App, Payload\n"
        "class Bad(Payload, kind='bad'):\n"
        "    def resource_key(self): return int('x')\n"
        "app = App()\n"
        "@app.handler(Bad)\n"
        "def bad(ctx, payload): ...\n"
    )
    with pytest.raises(ValueError, match="invalid literal"):
        cli("enqueue", "bad", "{}", "--app", "jobs:app")


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    """`python -m oncetask` is the same command line, and its exit code that of the process."""
    command = [sys.executable, "-m", "oncetask", "show", "nobody", "--store", f"sqlite:///{tmp_path}/tasks.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no task has the id 'nobody' in this environment\n"


def test_a_reader_that_has_seen_enough_is_no_error(place: FilePlace, client: SyncClient) -> None:
    """`oncetask list --all --json | head -1` says nothing on stderr."""
    client.enqueue_many(Big(text="x" * 1_000) for _ in range(300))
    command = [sys.executable, "-m", "oncetask", "list", "--all", "--json", "--store", place.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
