"""`examples/fastapi`, served by uvicorn as its README says."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from threading import Event, Thread

import httpx
import pytest

from oncetask import Payload, SyncClient, TaskStatus, connect_sync
from tests.integration.examples.serving import LIMIT, Program
from tests.integration.places import Place


class Stranger(Payload, kind="stranger"):
    """A task of another service."""


class Subscriber(ThreadingHTTPServer):
    """Takes events; a `held` one is not answered before the test ends, a `refused` one is not wanted."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of its own."""
        self.events: SimpleQueue[tuple[str, object, str]] = SimpleQueue()
        self.over = Event()
        super().__init__(("127.0.0.1", 0), _Receive)


class _Receive(BaseHTTPRequestHandler):
    server: Subscriber

    def do_POST(self) -> None:  # the name that http.server looks for
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.events.put((told["event"], told["data"], self.headers["Idempotency-Key"]))
        if told["event"] == "held":
            self.server.over.wait()
            return
        self.send_response(410 if told["event"] == "refused" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    """Somebody who wants to know what happens."""
    with Subscriber() as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture
def service(opened_place: Place, subscriber: Subscriber) -> Iterator[Program]:
    """The service, with little patience for what runs at its end."""
    about = {"WEBHOOK_URL": f"http://127.0.0.1:{subscriber.server_port}/", "GRACE": "0.2"}
    command = ("uvicorn", "webhooks.main:app", "--port", "0")
    with Program("fastapi", *command, environment={**opened_place.environment, **about}) as program:
        yield program


@pytest.fixture
def store(opened_place: Place) -> Iterator[SyncClient]:
    """Another look at the tasks, past the service."""
    with connect_sync(opened_place.url) as client:
        yield client


@pytest.fixture
def web(service: Program) -> Iterator[httpx.Client]:
    """A caller of the service, which serves by now."""
    with httpx.Client(base_url=service.until(r"running on (\S+)"), timeout=LIMIT) as caller:
        yield caller


def enqueue(web: httpx.Client, event: str) -> str:
    """Enqueue a delivery through the service; gives the path at which to ask for it."""
    answer = web.post("/deliveries", json={"event": event, "data": {"order": 7}})
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/deliveries/{answer.json()['id']}"
    return str(answer.headers["Location"])


def test_it_serves_and_stops(service: Program, web: httpx.Client, store: SyncClient, subscriber: Subscriber) -> None:
    """Events are delivered, refused and cancelled; at SIGTERM uvicorn ends, and what runs goes back as it was."""
    path = enqueue(web, "order.paid")
    task_id = path.rpartition("/")[2]
    assert store.wait(task_id, LIMIT).status is TaskStatus.DONE_COMPLETED
    assert subscriber.events.get(timeout=LIMIT) == ("order.paid", {"order": 7}, task_id)
    assert web.get(path).json() == {"id": task_id, "status": "done-completed", "attempts": 1, "last_error": None}
    assert web.post(f"{path}/cancel").json() == {"cancelled": False}

    path = enqueue(web, "refused")
    store.wait(path.rpartition("/")[2], LIMIT)
    refused = web.get(path).json()
    assert (refused["status"], refused["attempts"]) == ("done-failed", 1)
    assert refused["last_error"] == "the subscriber does not want it: 410"
    assert subscriber.events.get(timeout=LIMIT)[0] == "refused"

    path = enqueue(web, "held")
    subscriber.events.get(timeout=LIMIT)
    assert web.get(path).json()["status"] == "leased"
    assert web.post(f"{path}/cancel").json() == {"cancelled": True}
    assert store.wait(path.rpartition("/")[2], LIMIT).status is TaskStatus.DONE_CANCELLED

    path = enqueue(web, "held")
    subscriber.events.get(timeout=LIMIT)
    assert service.terminate() == -signal.SIGTERM  # what uvicorn ends with after an orderly shutdown
    assert "Application shutdown complete." in service.told
    assert "ERROR" not in service.told
    left = store.get_task(path.rpartition("/")[2])
    assert (left.status, left.attempts, left.lease_owner) == (TaskStatus.PENDING, 0, None)


@pytest.mark.parametrize("opened_place", ["sqlite"], indirect=True)
def test_bad_requests_are_told(web: httpx.Client, store: SyncClient) -> None:
    """What is no event, too large, or no task of this service gets an answer that says so, and nothing is stored."""
    assert web.post("/deliveries", json={"data": {}}).json()["detail"][0]["loc"] == ["body", "event"]
    assert web.post("/deliveries", json={"event": "big", "data": {"text": "x" * 1_200_000}}).status_code == 413
    infinite = '{"event": "odd", "data": {"number": 1e999}}'
    answer = web.post("/deliveries", content=infinite, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "Out of range float" in answer.json()["detail"]) == (422, True)
    assert list(store.iter_tasks()) == []
    store.enqueue(Stranger(), task_id="stranger")
    for task_id in ("nobody", "stranger", "__reserved__", "x" * 2_000):
        assert web.get(f"/deliveries/{task_id}").status_code == 404
        assert web.post(f"/deliveries/{task_id}/cancel").status_code == 404
    assert not store.get_task("stranger").is_cancelled
