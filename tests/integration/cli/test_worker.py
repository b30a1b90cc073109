"""`oncetask worker`, in a process of its own: what it says, and how it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from oncetask import SyncClient
from tests.integration.cli.conftest import Cli, Command
from tests.integration.cli.running import Greet, Hold, Sleep, wait_until_begun
from tests.integration.places import FilePlace


@pytest.fixture
def start(command: Command) -> Command:
    """Starts workers of the user's program."""
    return partial(command, "worker", "jobs:app")


def test_it_runs_tasks_and_says_where(start: Command, client: SyncClient, place: FilePlace) -> None:
    """It tells store, environment and kinds once it works, and runs what is enqueued meanwhile."""
    worker = start()
    kinds = ["greet", "hold", "sleep"]
    assert worker.started == {"event": "started", "store": place.url, "env": "default", "kinds": kinds}
    assert f"jobs:app works on {place.url}, environment default: greet, hold, sleep; 32 at a time" in (
        worker.log_until("works on")
    )
    receipt = client.enqueue(Greet(name="Ada"))
    assert client.wait(receipt.task_id, timeout=30).result == {"greeting": "Hello Ada"}


def test_a_failed_task_is_in_the_log(start: Command, client: SyncClient) -> None:
    """A log line of a task is JSON that names the task, its kind and its attempt."""
    worker = start()
    client.enqueue(Greet(name="nobody"), task_id="t")
    assert "task t (greet) failed, attempt 1: ValueError: there is nobody\nto greet" in worker.log_until("task t ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(start: Command, client: SyncClient, tmp_path: Path, number: signal.Signals) -> None:
    """At SIGTERM or Ctrl-C it lets a running task end, records it, claims nothing more, and exits with 0."""
    os.mkfifo(tmp_path / "pipe")
    worker = start("--concurrency", "1", "--grace", "30")
    client.enqueue(Hold(fifo=str(tmp_path / "pipe")), task_id="first")
    wait_until_begun(client, "first")
    client.enqueue(Greet(name="late"), task_id="second")
    worker.stop(number)
    worker.log_until("asked to stop; 1 tasks run, and have 30 s to end")
    (tmp_path / "pipe").write_text("go on")
    code, out, _ = worker.ended()
    assert (code, out) == (0, '{"event": "stopped"}\n')
    assert (client.get_task("first").status, client.get_task("first").result) == ("done-completed", "go on")
    assert client.get_task("second").status == "pending"


def test_what_does_not_end_in_time_is_given_back(start: Command, client: SyncClient) -> None:
    """At the end of the grace a running task is aborted and pending again, its attempt unspent; exit code 0."""
    worker = start("--grace", "0")
    client.enqueue(Sleep(), task_id="t")
    wait_until_begun(client, "t")
    worker.stop(signal.SIGTERM)
    assert worker.ended()[0] == 0
    assert (client.get_task("t").status, client.get_task("t").attempts) == ("pending", 0)


def test_a_thread_that_hangs_does_not_keep_it(start: Command, client: SyncClient, tmp_path: Path) -> None:
    """A handler's thread that never ends is told of and left behind."""
    os.mkfifo(tmp_path / "pipe")
    worker = start("--grace", "0")
    client.enqueue(Sleep(in_thread_on=str(tmp_path / "pipe")), task_id="t")
    wait_until_begun(client, "t")
    worker.stop(signal.SIGTERM)
    code, _, err = worker.ended()
    assert code == 0
    assert "handlers are still running; not waiting for them" in err
    assert client.get_task("t").status == "pending"


def test_a_second_interrupt_ends_it_at_once(start: Command, client: SyncClient) -> None:
    """The second Ctrl-C waits for nothing (130 in a shell), and the task stays leased until its lease runs out."""
    worker = start("--grace", "600")
    client.enqueue(Sleep(), task_id="t")
    wait_until_begun(client, "t")
    worker.stop(signal.SIGINT)
    worker.log_until("asked to stop")
    worker.stop(signal.SIGINT)
    assert worker.ended()[0] == -signal.SIGINT
    assert client.get_task("t").status == "leased"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jobs:empty",), "jobs:empty has no handler, so there is nothing that it could run"),
        (("nojobs:app",), "there is no module 'nojobs'"),
        (("jobs:app", "--concurrency", "0"), "concurrency must be a whole number, 1 or more, not 0"),
        (("jobs:app", "--grace", "-1"), "grace must be zero or more"),
        (("jobs:app", "--log-level", "loud"), "Invalid value for '--log-level'"),
    ],
)
def test_wrong_arguments_start_nothing(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """What is wrong is told before anything is started."""
    answer = cli("worker", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {message}")


def test_a_lifespan_that_fails_keeps_its_traceback(folder: Path, place: FilePlace) -> None:
    """An error of the user's own lifespan ends the worker with 1, and is shown with its place."""
    (folder / "broken.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from jobs import greet, Greet\n"
        "from oncetask import App\n"
        "@asynccontextmanager\n"
        "async def lifespan():\n"
        "    raise ValueError('no database')\n"
        "    yield\n"
        "app = App(lifespan=lifespan)\n"
        "app.handler(Greet)(greet)\n"
    )
    command = [sys.executable, "-m", "oncetask", "worker", "broken:app"]
    done = subprocess.run(command, env=place.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "broken.py" in done.stderr
    assert done.stderr.endswith("ValueError: no database\n")
