"""What is said about indexes and rules, as servers answer that have them or lack them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from oncetask.clock import StoreClock
from oncetask.errors import StoreUnavailable
from oncetask.store import Diagnosis
from oncetask.store.firestore.codec import Names
from oncetask.store.firestore.diagnosis import of_indexes, of_rules, queries_with_indexes
from oncetask.store.firestore.faults import Retrier, unavailable
from oncetask.store.firestore.rpc import RpcFailed
from oncetask.store.firestore.session import Session
from tests.indexes.definitions import Definitions
from tests.indexes.derivation import needless
from tests.indexes.recorder import shape_of
from tests.support import T0, FakeClock

DEFINITIONS = Definitions.read(Path(__file__).parents[2] / "firestore.indexes.json")
NAMES = Names("projects/p/databases/(default)", "prod")
LINK = "The query requires an index. You can create it here: https://console.firebase.google.com/project/p/x"


def session(*, code: grpc.StatusCode | None = None, details: str = "", for_field: str = "kind") -> Session:
    """Give what asks a server that refuses queries about a field."""

    async def run_query(parent: str, query: Any) -> list[Any]:
        if code is not None and for_field in str(query):
            raise RpcFailed("RunQuery", code, details)
        return []

    given = SimpleNamespace(
        clock=StoreClock(FakeClock()),
        names=NAMES,
        retrier=Retrier(patience=0, where="here"),
        rpc=SimpleNamespace(run_query=run_query),
        unavailable=lambda error, doing: unavailable(error, doing, where="here"),
    )
    return cast("Session", given)


def test_each_index_is_asked_for() -> None:
    """Whichever of the composite indexes is missing, one of the queries is refused; each finds one task at most."""
    queries = queries_with_indexes(T0)
    assert needless(map(shape_of, queries), DEFINITIONS) == []
    assert {query.limit.value for query in queries} == {1}


async def test_indexes_that_are_there() -> None:
    """Where no query is refused nothing is wrong."""
    assert await of_indexes(session()) == [Diagnosis("indexes", "all are there")]


async def test_a_missing_index_is_told_with_its_link() -> None:
    """Each refusal is wrong, and told in the server's words, which have a link that creates the index."""
    (found,) = await of_indexes(
        session(code=grpc.StatusCode.FAILED_PRECONDITION, details=LINK, for_field="resourceKey")
    )
    assert found.is_wrong
    assert found.message.startswith(f"{LINK}; deploy firestore.indexes.json ")


async def test_other_refusals_are_no_missing_index() -> None:
    """A store that fails for another reason is unavailable."""
    denied = session(code=grpc.StatusCode.PERMISSION_DENIED, details="no")
    with pytest.raises(StoreUnavailable, match="PERMISSION_DENIED"):
        await of_indexes(denied)
    other = session(code=grpc.StatusCode.FAILED_PRECONDITION, details="a database in Datastore mode")
    with pytest.raises(StoreUnavailable, match="Datastore mode"):
        await of_indexes(other)


@contextmanager
def service(*, query: int, get: int) -> Iterator[tuple[str, list[str]]]:
    """Serve Firestore's REST: the status for a query and for reading documents; gives the address and what is asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Answer."""
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            assert "Authorization" not in self.headers
            self.send_response(query if self.path.endswith(":runQuery") else get)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            serving.join()


def rules(address: str, emulator: str | None = None) -> Diagnosis:
    """Ask about the rules of an environment."""
    return of_rules(NAMES.parent, [NAMES.settings], emulator, service=address)


@pytest.mark.parametrize(
    ("query", "get", "told", "is_wrong"),
    [
        (403, 403, "who has not signed in may read nothing", False),
        (401, 403, "who has not signed in may read nothing", False),
        (200, 403, "anybody may read tasks, without signing in: deploy firestore.rules ", True),
        (403, 200, "anybody may read tasks, without signing in: deploy firestore.rules ", True),
        (404, 404, "not checked: answered with 404", False),
        (403, 503, "not checked: answered with 403, 503", False),
    ],
)
def test_rules_are_what_a_stranger_sees(*, query: int, get: int, told: str, is_wrong: bool) -> None:
    """Who has no token and may query, or read a document, may do what is nobody's business."""
    with service(query=query, get=get) as (address, asked):
        found = rules(address)
    assert (found.about, found.is_wrong) == ("rules", is_wrong)
    assert found.message.startswith(told)
    documents = "/v1/projects/p/databases/(default)/documents"
    assert asked == [f"{documents}/oncetask/prod:runQuery", f"{documents}:batchGet"]


def test_rules_that_nobody_tells_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a way to the service it says so; an emulator is reached past any proxy."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    assert rules(f"http://127.0.0.1:{port}").message.startswith("not checked: ")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    with service(query=403, get=403) as (address, _):
        assert rules("", address.removeprefix("http://")).message == "who has not signed in may read nothing"
