"""`oncetask worker`, in a process of its own: what it says, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oncetask import Payload, SyncClient, Task
from tests.integration.cli.conftest import Cli
from tests.integration.places import FilePlace


class Greet(Payload, kind="greet"):
    """Ends at once."""

    name: str


class Hold(Payload, kind="hold"):
    """Runs in a thread until the test writes to the pipe."""

    fifo: str


class Sleep(Payload, kind="sleep"):
    """Never ends by itself."""

    in_thread_on: str | None = None


class Running:
    """A worker process."""

    def __init__(self, *options: str, environment: dict[str, str]) -> None:
        """Start it, and wait until it works."""
        command = [sys.executable, "-m", "oncetask", "worker", "jobs:app", "--json", *options]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.started: dict[str, Any] = json.loads(self.process.stdout.readline() or "{}")

    def log_until(self, message: str) -> list[str]:
        """Read the log until it says so; gives its messages."""
        assert self.process.stderr is not None
        messages: list[str] = []
        for line in self.process.stderr:
            messages.append(json.loads(line)["message"])
            if message in messages[-1]:
                return messages
        pytest.fail(f"the worker ended without saying {message!r}, but {messages}")

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end; gives exit code and the rest of its output."""
        out, err = self.process.communicate()
        return self.process.returncode, out, err


@pytest.fixture
def start(folder: Path, place: FilePlace) -> Iterator[Callable[..., Running]]:
    """Starts workers of the user's program, and sees that none outlives the test."""
    workers: list[Running] = []

    def started(*options: str) -> Running:
        workers.append(Running(*options, environment=place.environment))
        return workers[-1]

    yield started
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def wait_until_leased(client: SyncClient, task_id: str) -> Task:
    """Watch the task until a worker has it."""
    return next(task for task in client.watch(task_id) if task.status == "leased")


def test_it_runs_tasks_and_says_where(start: Callable[..., Running], client: SyncClient, place: FilePlace) -> None:
    """It tells store, environment and kinds once it works, and runs what is enqueued meanwhile."""
    worker = start()
    kinds = ["greet", "hold", "sleep"]
    assert worker.started == {"event": "started", "store": place.url, "env": "default", "kinds": kinds}
    assert f"jobs:app works on {place.url}, environment default: greet, hold, sleep; 32 at a time" in (
        worker.log_until("works on")
    )
    receipt = client.enqueue(Greet(name="Ada"))
    assert client.wait(receipt.task_id, timeout=30).result == {"greeting": "Hello Ada"}


def test_a_failed_task_is_in_the_log(start: Callable[..., Running], client: SyncClient) -> None:
    """A log line of a task is JSON that names the task, its kind and its attempt."""
    worker = start()
    client.enqueue(Greet(name="nobody"), task_id="t")
    assert "task t (greet) failed, attempt 1: ValueError: there is nobody\nto greet" in worker.log_until("task t ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(
    start: Callable[..., Running], client: SyncClient, tmp_path: Path, number: signal.Signals
) -> None:
    """At SIGTERM or Ctrl-C it lets a running task end, records it, claims nothing more, and exits with 0."""
    os.mkfifo(tmp_path / "pipe")
    worker = start("--concurrency", "1", "--grace", "30")
    client.enqueue(Hold(fifo=str(tmp_path / "pipe")), task_id="first")
    wait_until_leased(client, "first")
    client.enqueue(Greet(name="late"), task_id="second")
    worker.process.send_signal(number)
    worker.log_until("asked to stop; 1 tasks run, and have 30 s to end")
    (tmp_path / "pipe").write_text("go on")
    code, out, _ = worker.ended()
    assert (code, out) == (0, '{"event": "stopped"}\n')
    assert (client.get_task("first").status, client.get_task("first").result) == ("done-completed", "go on")
    assert client.get_task("second").status == "pending"


def test_what_does_not_end_in_time_is_given_back(start: Callable[..., Running], client: SyncClient) -> None:
    """At the end of the grace a running task is aborted and pending again, its attempt unspent; exit code 0."""
    worker = start("--grace", "0")
    client.enqueue(Sleep(), task_id="t")
    wait_until_leased(client, "t")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ended()[0] == 0
    assert (client.get_task("t").status, client.get_task("t").attempts) == ("pending", 0)


def test_a_thread_that_hangs_does_not_keep_it(
    start: Callable[..., Running], client: SyncClient, tmp_path: Path
) -> None:
    """A handler's thread that never ends is told of and left behind."""
    os.mkfifo(tmp_path / "pipe")
    worker = start("--grace", "0")
    client.enqueue(Sleep(in_thread_on=str(tmp_path / "pipe")), task_id="t")
    wait_until_leased(client, "t")
    worker.process.send_signal(signal.SIGTERM)
    code, _, err = worker.ended()
    assert code == 0
    assert "handlers are still running; not waiting for them" in err
    assert client.get_task("t").status == "pending"


def test_a_second_interrupt_ends_it_at_once(start: Callable[..., Running], client: SyncClient) -> None:
    """The second Ctrl-C waits for nothing (130 in a shell), and the task stays leased until its lease runs out."""
    worker = start("--grace", "600")
    client.enqueue(Sleep(), task_id="t")
    wait_until_leased(client, "t")
    worker.process.send_signal(signal.SIGINT)
    worker.log_until("asked to stop")
    worker.process.send_signal(signal.SIGINT)
    assert worker.ended()[0] == -signal.SIGINT
    assert client.get_task("t").status == "leased"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jobs:empty",), "jobs:empty has no handler, so there is nothing that a worker could run"),
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
