"""`examples/cloud_function`, served by functions-framework as its README says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import httpx
import pytest

from oncetask import SyncClient, TaskStatus, connect_sync
from tests.functions.serving import caller_of, function
from tests.integration.examples.serving import LIMIT
from tests.integration.places import Place
from tests.integration.stores import ON_SQLITE

MAIN = Path(__file__).parents[3] / "examples" / "cloud_function" / "main.py"

pytestmark = ON_SQLITE  # functions on Firestore: tests/functions


class Provider(ThreadingHTTPServer):
    """Takes reservations and what is to be done with them; of the customer `patience` it keeps everybody waiting."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of its own."""
        self.done: SimpleQueue[str] = SimpleQueue()
        self.left = Event()
        """The function has hung up."""
        super().__init__(("127.0.0.1", 0), _Serve)


class _Serve(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:  # the name that http.server looks for
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if told.get("customer") == "patience":
            self.rfile.read(1)  # nothing more comes but the end
            self.server.left.set()
            return
        answer = json.dumps({"id": f"of-{told.get('number')}"}).encode()
        if not told:
            self.server.done.put(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    """Who reserves and charges."""
    with Provider() as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def environment(opened_place: Place, provider: Provider) -> dict[str, str]:
    """What both functions have in common; orders can be cancelled for a second only."""
    about = {"PAYMENT_PROVIDER": f"http://127.0.0.1:{provider.server_port}", "CHANGE_OF_MIND": "1"}
    return {**opened_place.environment, **about}


@pytest.fixture
def orders(environment: dict[str, str]) -> Iterator[httpx.Client]:
    """A customer."""
    with function("orders", environment, source=MAIN) as program, caller_of(program) as caller:
        yield caller


@pytest.fixture
def store(opened_place: Place) -> Iterator[SyncClient]:
    """Another look at the tasks, past the functions."""
    with connect_sync(opened_place.url) as client:
        yield client


def order(number: str, customer: str = "ada") -> dict[str, object]:
    """Give an order."""
    return {"number": number, "customer": customer, "cents": 4_200}


def test_orders_are_charged_on_the_second(
    orders: httpx.Client, environment: dict[str, str], provider: Provider, store: SyncClient
) -> None:
    """One tick sees an order become due, and the money of one that was cancelled in time goes back."""
    with function("scheduler", environment, source=MAIN) as ticking, caller_of(ticking) as scheduler:
        scheduler.get("/")  # it serves by now
        for number in ("A-1", "A-2"):
            placed = orders.post("/", json=order(number))
            assert (placed.status_code, placed.json()) == (202, {"task": f"charge:{number}", "created": True})
        assert orders.post("/", json=order("A-1")).json()["created"] is False
        assert [orders.delete("/A-2").json() for _ in range(2)] == [{"cancelled": True}, {"cancelled": False}]
        assert provider.done.empty()
        report = scheduler.post("/?linger=3&budget=20").json()
    assert (report["completed"], report["cancelled"], report["nextDue"]) == (1, 1, None)
    assert [store.get_task(f"charge:{number}").status for number in ("A-1", "A-2")] == [
        TaskStatus.DONE_COMPLETED,
        TaskStatus.DONE_CANCELLED,
    ]
    assert [provider.done.get(timeout=LIMIT) for _ in range(2)] == [
        "/reservations/of-A-2/release",
        "/reservations/of-A-1/charge",
    ]
    assert provider.done.empty()


def test_an_order_has_its_answer_in_time(environment: dict[str, str], provider: Provider, store: SyncClient) -> None:
    """Where the provider says nothing the customer is told so, the provider is hung up on, and no task is left."""
    impatient = {**environment, "ORDER_TIMEOUT": "0.5"}
    with function("orders", impatient, source=MAIN) as program, caller_of(program) as orders:
        answer = orders.post("/", json=order("A-3", "patience"))
        assert (answer.status_code, answer.json()) == (504, {"error": "the request reached its time limit of 0.5 s"})
        assert provider.left.wait(LIMIT)
        program.until(r"an order failed: the request reached its time limit of 0.5 s")
    assert list(store.iter_tasks()) == []


def test_bad_requests_are_told(orders: httpx.Client, store: SyncClient) -> None:
    """What is no order, or no order of this shop, gets an answer that says so, and nothing is stored."""
    for content in (b"{", b"[]", b'{"number": "A/1", "customer": "ada", "cents": 0}'):
        answer = orders.post("/", content=content)
        assert (answer.status_code, list(answer.json())) == (422, ["errors"])
    for path in ("/A-9", "/", "/a%2Fb", f"/{'x' * 2_000}"):
        assert orders.delete(path).status_code == 404
    assert orders.get("/").headers["Allow"] == "POST, DELETE"
    assert list(store.iter_tasks()) == []
