"""`oncetask dev`, in a process of its own: a store, the functions and ticks, all of which end with it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping
from functools import partial
from logging.handlers import QueueHandler
from pathlib import Path

import httpx
import pytest

from oncetask import App, Context, connect, connect_sync
from oncetask.cli.dev.run import Ticks
from oncetask.errors import StoreUnavailable
from tests.emulator import Startable, locate
from tests.emulator_plugin import pass_over
from tests.integration.cli.conftest import Cli, Command
from tests.integration.cli.running import GREET, LIMIT, Greet, Sleep, wait_until_begun

EMULATOR = locate({name: value for name, value in os.environ.items() if name != "FIRESTORE_EMULATOR_HOST"})
"""One that can be started; asked for before any test has changed the environment."""

RULES = """
rules_version = '2';
service cloud.firestore { match /databases/{database}/documents { match /{any=**} { allow read: if false; } } }
"""
"""Nobody may do anything."""


@pytest.fixture
def dev(command: Command) -> Command:
    """Runs everything for the user's program, on a free port."""
    return partial(command, "dev", "jobs:app", "--port", "0")


def greeter() -> App:
    """Give an App with one handler."""
    app = App()

    @app.handler(Greet)
    async def greet(ctx: Context, payload: Greet) -> None:
        """Do nothing."""

    return app


def is_listened_on(address: str) -> bool:
    """Tell whether somebody listens at `host:port`."""
    host, _, port = address.rpartition(":")
    with socket.socket() as caller:
        return caller.connect_ex((host, int(port))) == 0


@pytest.mark.emulator
def test_an_emulator_and_its_trigger(dev: Command, folder: Path, pytestconfig: pytest.Config) -> None:
    """A task runs by the created-trigger, long before the next tick; strangers are kept out by ./firestore.rules.

    Ctrl-C ends the emulator too.
    """
    if not isinstance(EMULATOR, Startable):
        pass_over(pytestconfig, "an emulator runs here, but none can be started")
    (folder / "firestore.rules").write_text(RULES)
    path = f"{EMULATOR.java.parent}{os.pathsep}{os.environ['PATH']}"
    running = dev("--every", "3600", "--env", "mine", ONCETASK_EMULATOR_JAR=str(EMULATOR.jar), PATH=path)
    emulator = running.started["emulator"]
    told = {"event": "started", "store": "firestore://demo-oncetask", "env": "mine", "trigger": True}
    assert running.started == {**told, "emulator": emulator, "url": running.url}
    assert running.post("/tasks", GREET).status_code == 202
    assert running.done("t")["result"] == {"greeting": "Hello Ada"}
    document = "v1/projects/demo-oncetask/databases/(default)/documents/oncetask/mine/onceTasks/t"
    assert httpx.get(f"http://{emulator}/{document}", trust_env=False).status_code == 403
    running.stop(signal.SIGINT)
    code, out, err = running.ended()
    assert (code, out) == (0, '{"event": "stopped"}\n')
    assert "Traceback" not in err
    assert not is_listened_on(emulator)


@pytest.mark.emulator
def test_an_emulator_that_runs_is_used_and_left(dev: Command, firestore_environment: Mapping[str, str]) -> None:
    """FIRESTORE_EMULATOR_HOST goes before all else; there ticks find the tasks, and the emulator outlives it."""
    host, project = (firestore_environment[name] for name in ("FIRESTORE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"))
    running = dev("--every", "0.2", FIRESTORE_EMULATOR_HOST=host, GOOGLE_CLOUD_PROJECT=project)
    found = {name: running.started[name] for name in ("store", "emulator", "trigger")}
    assert found == {"store": f"firestore://{project}", "emulator": host, "trigger": False}
    assert running.post("/tasks", GREET).status_code == 202
    assert running.done("t")["result"] == {"greeting": "Hello Ada"}
    running.stop(signal.SIGTERM)
    assert running.ended()[0] == 0
    assert is_listened_on(host)


def test_without_an_emulator_it_is_sqlite(dev: Command, folder: Path) -> None:
    """Tasks are kept in ./oncetask.db, and run by ticks, or by POST /scheduler; Ctrl-C gives back what runs.

    What ONCETASK_STORE, ONCETASK_WAKE and ONCETASK_AUTH say is for a deployment, and not looked at.
    """
    running = dev("--no-emulator", "--every", "0.2", ONCETASK_WAKE="nonsense", ONCETASK_AUTH="nonsense")
    found = {name: running.started[name] for name in ("store", "emulator", "trigger")}
    assert found == {"store": "sqlite:///oncetask.db", "emulator": None, "trigger": False}
    assert running.post("/tasks", GREET).status_code == 202
    assert running.done("t")["result"] == {"greeting": "Hello Ada"}
    assert running.post("/scheduler").json()["more"] is False
    with connect_sync(f"sqlite:///{folder}/oncetask.db") as client:
        client.enqueue(Sleep(), task_id="s")
        wait_until_begun(client, "s")
        running.stop(signal.SIGINT)
        code, out, _ = running.ended()
        assert (code, out) == (0, '{"event": "stopped"}\n')
        assert (client.get_task("s").status, client.get_task("s").attempts) == ("pending", 0)
        assert client.get_task("t").status == "done-completed"


def test_a_person_is_told_what_to_type(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything is, and a call that enqueues a task, stand on stderr once it works."""

    async def no_ticks(*_: object) -> None:
        """Ends at once, and so does the command."""

    monkeypatch.setattr(Ticks, "run", no_ticks)
    answer = cli("dev", "jobs:app", "--port", "0", "--store", "memory://")
    assert (answer.code, answer.out) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in answer.err.splitlines())
    url = lines["api"].split()[0]
    assert lines["tasks"] == "greet, hold, sleep; environment default"
    assert lines["store"] == "memory://: as --store says"
    assert lines["others"] == "ONCETASK_STORE=memory://  (for your own programs)"
    data = '{"kind": "greet", "data": {"name": "…"}}'
    assert lines["try"] == f"curl {url}/tasks -H 'Content-Type: application/json' -d '{data}'"


def test_an_emulator_that_should_run_and_does_not_is_3(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIRESTORE_EMULATOR_HOST where nobody answers is told at once, not tried for long."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    answer = cli("dev", "jobs:app", "--port", "0")
    assert answer.code == 3
    assert answer.err.startswith("error: FIRESTORE_EMULATOR_HOST says that an emulator runs at 127.0.0.1:1, and none ")


def test_an_emulator_that_does_not_start_is_1(cli: Cli, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """What the JVM said is told, and how to do without."""
    java = folder / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'no such class' >&2\nexit 1\n")
    java.chmod(0o755)
    for name in ("GOOGLE_CLOUD_PROJECT", "FIRESTORE_EMULATOR_HOST"):
        monkeypatch.setenv(name, "")  # so that what the command sets is undone
    monkeypatch.setenv("JAVA_HOME", str(folder / "jdk"))
    monkeypatch.setenv("ONCETASK_EMULATOR_JAR", str(java))
    answer = cli("dev", "jobs:app", "--port", "0")
    assert answer.code == 1
    assert "no such class (--no-emulator does without it)" in answer.err


@pytest.mark.parametrize(("emulator", "ends"), [("127.0.0.1:1", True), (None, False)])
async def test_it_ends_with_its_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulator: str | None, *, ends: bool
) -> None:
    """Where the store fails it goes on ticking, but not where the emulator is gone: what was in it is gone, too."""
    log: asyncio.Queue[logging.LogRecord] = asyncio.Queue()
    monkeypatch.setattr(logging.getLogger("oncetask"), "handlers", [QueueHandler(log)])
    client = connect(f"sqlite:///{tmp_path}/no/such/folder.db")
    ticks, stop = Ticks(greeter(), client, budget=1, every=0.01, emulator=emulator), asyncio.Event()
    running = asyncio.create_task(ticks.run(stop))
    if ends:
        with pytest.raises(StoreUnavailable, match=r"the emulator at 127\.0\.0\.1:1 has ended"):
            await running
        return
    for _ in range(2):  # the first was not the last one
        record = await asyncio.wait_for(log.get(), LIMIT)
        assert record.getMessage().startswith("no tick: SQLite store ")
    stop.set()
    await running


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jobs:empty",), "jobs:empty has no handler, so there is nothing that it could run"),
        (("nojobs:app",), "there is no module 'nojobs'"),
        (("jobs:app", "--every", "0"), "every must be more than zero"),
        (("jobs:app", "--budget", "0"), "budget must be more than zero"),
        (("jobs:app", "--port", "-1"), "Invalid value for '--port'"),
    ],
)
def test_wrong_arguments_start_nothing(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """What is wrong is told before anything is started."""
    answer = cli("dev", *arguments, "--no-emulator")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {message}")


def test_a_port_that_is_taken_is_1(cli: Cli) -> None:
    """Where another program listens it says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = cli("dev", "jobs:app", "--no-emulator", "--port", str(taken.getsockname()[1]))
    assert answer.code == 1
    assert answer.err.startswith("error: cannot listen on 127.0.0.1, port ")
