"""`examples/flask`, served by gunicorn with two forked workers, and by a worker process, as its README says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from queue import SimpleQueue
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from oncetask import Payload, SyncClient, TaskStatus, connect_sync
from tests.integration.examples.serving import LIMIT, Program
from tests.integration.places import Place

_USES_IT_BEFORE_THE_FORKS = """
def when_ready(_):
    from mails.web import client
    client.stats()
"""
"""Gunicorn's settings, worse than those of the README: threads and connections are open when it forks."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Stranger(Payload, kind="stranger"):
    """A task of another service."""


class MailServer(ThreadingTCPServer):
    """Takes mails."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of its own."""
        self.mails: SimpleQueue[Message] = SimpleQueue()
        super().__init__(("127.0.0.1", 0), _Speak)


class _Speak(StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        """Speak as much SMTP as smtplib needs."""
        self._say("220 here")
        while line := self.rfile.readline():
            match line[:4].upper():
                case b"DATA":
                    self._say("354 go on")
                    mail = b"".join(iter(self.rfile.readline, b".\r\n"))
                    self.server.mails.put(message_from_bytes(mail))
                    self._say("250 taken")
                case b"QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 fine")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class HalfSent:
    """An order whose process waits for the rest of the request, and takes no other one until it has it."""

    def __init__(self, url: httpx.URL, order: str) -> None:
        """Send the headers; some process has them when this returns."""
        self._body = json.dumps({"order": order, "to": "ada@example.org"}).encode()
        self._connection = HTTPConnection(url.host, url.port, timeout=LIMIT)
        self._connection.putrequest("POST", "/mails")
        headers = {"Content-Type": "application/json", "Content-Length": len(self._body), "Expect": "100-continue"}
        for name, value in headers.items():
            self._connection.putheader(name, str(value))
        self._connection.endheaders()
        assert self._connection.sock.recv(len(_CONTINUE)) == _CONTINUE

    def send_rest(self) -> None:
        """Let the process go on."""
        self._connection.send(self._body)

    def answer(self) -> tuple[int, Any]:
        """Give status and body of the answer."""
        answer = self._connection.getresponse()
        status, body = answer.status, json.load(answer)
        self._connection.close()
        return status, body


def at_once(web: httpx.Client, *orders: str) -> list[tuple[int, Any]]:
    """Enqueue orders at the same time, each through a process of its own."""
    requests = [HalfSent(web.base_url, order) for order in orders]
    for request in requests:
        request.send_rest()
    return [request.answer() for request in requests]


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """Where the mails go."""
    with MailServer() as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def environment(opened_place: Place, mail_server: MailServer, tmp_path: Path) -> dict[str, str]:
    """What web processes and worker have in common."""
    host, port = mail_server.server_address[:2]
    own_home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": ""}  # gunicorn puts a socket there
    return {**opened_place.environment, **own_home, "SMTP_SERVER": f"{host!s}:{port}"}


@pytest.fixture
def service(environment: dict[str, str], tmp_path: Path) -> Iterator[Program]:
    """Two processes, forked from one that has made the example's client, and used it."""
    settings = tmp_path / "gunicorn.conf.py"
    settings.write_text(_USES_IT_BEFORE_THE_FORKS)
    own = ("--config", str(settings), "--bind", "127.0.0.1:0")
    logs = ("--access-logfile", "-", "--access-logformat", "served by %(p)s: %(r)s")
    command = ("gunicorn", "--workers", "2", "--preload", *own, *logs, "mails.web:app")
    with Program("flask", *command, environment=environment) as program:
        yield program


@pytest.fixture
def store(opened_place: Place) -> Iterator[SyncClient]:
    """Another look at the tasks, past the service."""
    with connect_sync(opened_place.url) as client:
        yield client


@pytest.fixture
def web(service: Program) -> Iterator[httpx.Client]:
    """A caller of the service, which serves by now."""
    with httpx.Client(base_url=service.until(r"Listening at: (\S+)"), timeout=LIMIT) as caller:
        yield caller


def test_both_processes_enqueue_and_a_third_sends(
    service: Program, web: httpx.Client, environment: dict[str, str], store: SyncClient, mail_server: MailServer
) -> None:
    """Orders come in through both forks, an order that comes twice is one mail, and a cancelled one is none."""
    assert at_once(web, "A-1", "A-2") == [
        (202, {"id": "confirm-order:A-1", "created": True}),
        (202, {"id": "confirm-order:A-2", "created": True}),
    ]
    twice = at_once(web, "A-3", "A-3")
    assert sorted(body["created"] for _, body in twice) == [False, True]
    assert {(status, body["id"]) for status, body in twice} == {(202, "confirm-order:A-3")}
    for cancelled in (True, False):
        assert web.post("/mails/confirm-order:A-2/cancel").json() == {"cancelled": cancelled}

    with Program("flask", "oncetask", "worker", "mails.tasks:app", environment=environment) as worker:
        ended = {order: store.wait(f"confirm-order:{order}", LIMIT).status for order in ("A-1", "A-2", "A-3")}
        assert worker.terminate() == 0
    assert ended == {
        "A-1": TaskStatus.DONE_COMPLETED,
        "A-2": TaskStatus.DONE_CANCELLED,
        "A-3": TaskStatus.DONE_COMPLETED,
    }
    mails = [mail_server.mails.get(timeout=LIMIT) for _ in range(2)]
    assert mail_server.mails.empty()
    assert {mail["Subject"] for mail in mails} == {"Your order A-1", "Your order A-3"}
    assert {mail["To"] for mail in mails} == {"ada@example.org"}

    sent = web.get("/mails/confirm-order:A-1").json()
    assert sent == {"id": "confirm-order:A-1", "status": "done-completed", "attempts": 1, "last_error": None}
    assert service.terminate() == 0
    served = [line for line in service.told.splitlines() if line.endswith("POST /mails HTTP/1.1")]
    assert len(served) == 4
    assert len(set(served)) == 2, "the lines differ in the process only"


@pytest.mark.parametrize("opened_place", ["sqlite"], indirect=True)
def test_bad_requests_are_told(web: httpx.Client, store: SyncClient) -> None:
    """What is no order, or no task of this service, gets an answer that says so, and nothing is stored."""
    answer = web.post("/mails", json={"order": "A-1\nBcc: eve@example.org", "to": "ada"})
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == [["order"], ["to"]]
    assert web.post("/mails", json=["A-1"]).status_code == 422
    assert web.post("/mails", content="{").status_code == 415
    assert list(store.iter_tasks()) == []
    store.enqueue(Stranger(), task_id="stranger")
    for task_id in ("nobody", "stranger", "__reserved__", "x" * 2_000):
        assert web.get(f"/mails/{task_id}").status_code == 404
        assert web.post(f"/mails/{task_id}/cancel").status_code == 404
    assert not store.get_task("stranger").is_cancelled
