"""`oncetask serve`, in a process of its own: what it serves, to whom, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from oncetask import SyncClient
from oncetask.cli.listening import listen, url_of
from tests.integration.cli.conftest import Cli, Command
from tests.integration.cli.running import GREET, LIMIT, Hold, Sleep, wait_until_begun
from tests.integration.places import FilePlace


@pytest.fixture
def serve(command: Command) -> Command:
    """Serves the user's program on a free port."""
    return partial(command, "serve", "jobs:app", "--port", "0")


def test_it_serves_the_api_and_runs_nothing_by_itself(serve: Command, client: SyncClient, place: FilePlace) -> None:
    """It tells where it listens, takes tasks, runs them at POST /tick only, and ends in order at SIGTERM."""
    serving = serve()
    told = {"event": "started", "store": place.url, "env": "default", "worker": False}
    assert serving.started == {**told, "url": serving.url}
    assert not serving.url.endswith(":0")
    assert serving.post("/tasks", GREET).status_code == 202
    assert client.get_task("t").status == "pending"
    assert serving.post("/tick").json()["completed"] == 1
    assert client.get_task("t").result == {"greeting": "Hello Ada"}
    serving.stop(signal.SIGTERM)
    code, out, err = serving.ended()
    assert (code, out) == (0, '{"event": "stopped"}\n')
    assert [json.loads(line)["message"] for line in err.splitlines()][1:] == ["asked to stop", "stopped"]


def test_a_worker_runs_beside_it(serve: Command, client: SyncClient) -> None:
    """With --worker a task is run without a tick, and a WebSocket tells how it ends; Ctrl-C stops the worker as well.

    The grace is for both: what the worker runs at the end of it is given back.
    """
    serving = serve("--worker", "--grace", "0")
    assert serving.started["worker"] is True
    assert serving.post("/tasks", GREET).status_code == 202
    assert serving.done("t")["result"] == {"greeting": "Hello Ada"}
    client.enqueue(Sleep(), task_id="s")
    wait_until_begun(client, "s")
    serving.stop(signal.SIGINT)
    assert serving.ended()[0] == 0
    assert (client.get_task("s").status, client.get_task("s").attempts) == ("pending", 0)


def test_requests_in_flight_end(serve: Command, client: SyncClient, tmp_path: Path) -> None:
    """At a signal a request that runs is answered as ever; only then it ends."""
    os.mkfifo(tmp_path / "pipe")
    serving = serve("--grace", "30")
    client.enqueue(Hold(fifo=str(tmp_path / "pipe")), task_id="t")
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(serving.post, "/tick")
        wait_until_begun(client, "t")
        serving.stop(signal.SIGTERM)
        serving.log_until("asked to stop")
        (tmp_path / "pipe").write_text("go on")
        assert answer.result(LIMIT).json()["completed"] == 1
    assert serving.ended()[0] == 0


def test_what_does_not_end_in_time_is_cut_off(serve: Command, client: SyncClient) -> None:
    """At the end of the grace a request is answered with 503, and what it ran is pending again, its attempt unspent."""
    serving = serve("--grace", "0")
    client.enqueue(Sleep(), task_id="t")
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(serving.post, "/tick")
        wait_until_begun(client, "t")
        serving.stop(signal.SIGTERM)
        assert answer.result(LIMIT).status_code == 503
    code, _, err = serving.ended()
    assert (code, "Traceback" in err) == (0, False)
    assert (client.get_task("t").status, client.get_task("t").attempts) == ("pending", 0)


def test_with_authentication_it_serves_others(serve: Command) -> None:
    """Where ONCETASK_AUTH is set it listens on any address, and refuses who has no token."""
    oidc = {"ONCETASK_AUTH": "oidc", "ONCETASK_AUDIENCE": "https://jobs.example.com", "ONCETASK_CALLERS": "a@b.example"}
    serving = serve("--host", "0.0.0.0", **oidc)  # noqa: S104  # that is the case
    port = serving.url.rpartition(":")[2]
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
    assert httpx.get(f"http://127.0.0.1:{port}/tasks", trust_env=False).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "jobs.example.com"])  # noqa: S104  # as above
def test_without_authentication_it_does_not_listen_for_others(cli: Cli, host: str) -> None:
    """An address that others could reach needs ONCETASK_AUTH, whether it is this machine's or not."""
    answer = cli("serve", "jobs:app", "--host", host, "--port", "0")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: --host {host} lets callers on other machines in, ")
    assert "ONCETASK_AUTH=oidc with ONCETASK_AUDIENCE and ONCETASK_CALLERS" in answer.err


def test_nonsense_about_callers_is_wrong_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONCETASK_AUTH that nobody knows starts nothing, on whatever address."""
    monkeypatch.setenv("ONCETASK_AUTH", "basic")
    answer = cli("serve", "jobs:app", "--port", "0")
    assert (answer.code, answer.err.partition(" must be ")[0]) == (2, "error: ONCETASK_AUTH")


def test_a_port_that_is_taken_is_told(cli: Cli) -> None:
    """Where another program listens it exits with 1, and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = cli("serve", "jobs:app", "--port", str(port))
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"error: cannot listen on 127.0.0.1, port {port}: another program listens there")


def test_it_listens_on_ipv6_too() -> None:
    """An address of IPv6 stands in brackets in the url; a name that has addresses of both kinds means IPv4."""
    with listen("::1", 0) as listening:
        assert url_of("::1", listening) == f"http://[::1]:{listening.getsockname()[1]}"
        assert listening.family is socket.AF_INET6
    with listen("localhost", 0) as listening:
        assert listening.family is socket.AF_INET


@pytest.mark.parametrize("library", ["uvicorn", "starlette"])
def test_a_missing_library_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Without the extra it says what to install."""
    for name in list(sys.modules):
        if name.partition(".")[0] == library or name.startswith(("oncetask.http", "oncetask.cli.serving")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    answer = cli("serve", "jobs:app")
    assert (answer.code, answer.err) == (
        2,
        f'error: this command needs {library}, which is not installed: pip install "oncetask[http]"\n',
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jobs:empty", "--worker"), "jobs:empty has no handler, so there is nothing that it could run"),
        (("nojobs:app",), "there is no module 'nojobs'"),
        (("jobs:app", "--port", "65536"), "Invalid value for '--port'"),
        (("jobs:app", "--grace", "-1"), "grace must be zero or more"),
        (("jobs:app", "--concurrency", "0"), "concurrency must be a whole number, 1 or more, not 0"),
    ],
)
def test_wrong_arguments_start_nothing(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """What is wrong is told before anything is started."""
    answer = cli("serve", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {message}")


def test_an_unavailable_store_is_3(cli: Cli) -> None:
    """A store that cannot be opened ends it before it serves."""
    assert cli("serve", "jobs:app", "--port", "0", "--store", "sqlite:////no/such/folder/x.db").code == 3
