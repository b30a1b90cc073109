"""A session notes the queries of all its processes, and fails where the index definitions do not fit them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from google.cloud.firestore_v1.types import firestore as messages

from oncetask.store import TaskFilter
from oncetask.store.firestore import queries
from tests.indexes.derivation import described
from tests.indexes.recorder import FOLDER, shapes_in
from tests.support import T0

ROOT = Path(__file__).parents[2]

SENDER = """
from google.cloud.firestore_v1.types import firestore as messages
from oncetask.store import TaskFilter
from oncetask.store.firestore import queries, rpc

FIRST = queries.doorbell(["a"], limit=1)
OWNED = queries.filtered(TaskFilter(kind="k", owner="o"), limit=1, after_name=None)

def send(query):
    def channel(path, *, request_serializer, response_deserializer):
        return request_serializer
    serialise = rpc._stub(channel, "RunQuery", messages.RunQueryResponse)
    assert serialise(messages.RunQueryRequest.pb()(parent="p", structured_query=query))
"""
"""Sends a query as far as to its bytes."""

NOTING = """
import json, os
SHAPE = {{"collection": "onceTasks", "group": False, "where": ["{0}", "EQUAL"], "order": [["{1}", "ASCENDING"]]}}
NOTE = {{"shape": {{**SHAPE, "aggregations": [], "unknown": []}}, "test": "somebody"}}

def test_noting():
    with open(os.path.join(os.environ["SENT_QUERIES"], "0.jsonl"), "a") as file:
        file.write(json.dumps(NOTE) + "\\n")
"""
"""Notes a query as the recorder would."""


def an_index(*fields: str) -> Any:
    """Give a composite index as the file has it."""
    parts = [{"fieldPath": field, "order": "ASCENDING"} for field in fields]
    return {"collectionGroup": "onceTasks", "queryScope": "COLLECTION", "fields": parts}


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A session of its own, beside the one that this test is a part of, with an emulator in sight."""
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pytester.path), str(ROOT)]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:9")
    pytester.makeini("[pytest]\ntestpaths = .\n")
    return pytester


def define(session: pytest.Pytester, *indexes: Any, exempt: str | None = None) -> None:
    """Write the definitions of the session's project."""
    overrides = [{"collectionGroup": "onceTasks", "fieldPath": exempt, "indexes": []}] if exempt else []
    text = json.dumps({"indexes": indexes, "fieldOverrides": overrides})
    (session.path / "firestore.indexes.json").write_text(text)


def run(session: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run the session in a process of its own."""
    return session.runpytest_subprocess("-p", "tests.index_plugin", *options)


def test_all_processes_count(session: pytest.Pytester) -> None:
    """What xdist's workers send is judged, and what a process sends that a test has started and killed at once."""
    define(session, exempt="owner")
    session.makepyfile(
        test_here="import sender\ndef test_it(): sender.send(sender.FIRST)",
        test_there="""
        import subprocess, sys
        CODE = "import os, sender; sender.send(sender.OWNED); os.kill(os.getpid(), 9)"
        def test_it():
            assert subprocess.run([sys.executable, "-c", CODE]).returncode == -9
        """,
        sender=SENDER,
    )
    result = run(session, "-p", "xdist.plugin", "--numprocesses=2")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    faults = {
        ("no index serves: onceTasks where dueAt >= and kind in order by dueAt ascending, __name__ ascending", "here"),
        ("no index serves: onceTasks where kind = and owner = order by __name__ ascending", "there"),
    }
    for fault, where in faults:
        at = result.outlines.index(fault)
        assert result.outlines[at + 1] == f"    first sent by test_{where}.py::test_it"
    result.stdout.fnmatch_lines_random(["    add *kind*dueAt*", "    add *, or take owner out of the exemptions"])
    assert result.outlines[-1].startswith("FAILED firestore.indexes.json")


def test_an_index_for_every_query(session: pytest.Pytester) -> None:
    """A session passes whose queries are served by indexes that are all needed, and says how many it has seen."""
    define(session, an_index("kind", "dueAt"))
    session.makepyfile(NOTING.format("kind", "dueAt"))
    result = run(session)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines("kinds of queries sent, each served by firestore.indexes.json: 1")


def test_an_index_for_no_query(session: pytest.Pytester) -> None:
    """What no query needs is told where the whole suite has run, and has passed; a part of it cannot tell."""
    needless = "no query of the whole suite needs: *other*"
    define(session, an_index("kind", "dueAt"), an_index("kind", "other"))
    session.makepyfile(test_one=NOTING.format("kind", "dueAt"), test_two="def test_two(): pass")
    whole = run(session)
    assert whole.ret == pytest.ExitCode.TESTS_FAILED
    whole.stdout.fnmatch_lines(needless)
    for part in (["-k", "test_noting"], ["test_one.py"], ["--collect-only"]):
        assert run(session, *part).ret == pytest.ExitCode.OK, part
    session.makepyfile(test_two="def test_two(): assert False")
    failing = run(session)
    failing.assert_outcomes(passed=1, failed=1)
    failing.stdout.no_fnmatch_line(needless)


def test_a_query_that_nobody_understands(session: pytest.Pytester) -> None:
    """What the derivation does not know is not taken as served."""
    define(session)
    session.makepyfile(NOTING.format("kind", "dueAt").replace("EQUAL", "RESEMBLES"))
    result = run(session)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines("*does not know the condition*RESEMBLES*")


def test_requests() -> None:
    """Queries, counts and listeners are looked at alike; reads and listeners by name carry no query."""
    query = queries.matching(TaskFilter(kind="a", done=False))
    expected = "onceTasks where kind = and outcome is null"
    running = messages.RunQueryRequest.pb()(structured_query=query)
    counting = messages.RunAggregationQueryRequest.pb()()
    counting.structured_aggregation_query.structured_query.CopyFrom(query)
    counting.structured_aggregation_query.aggregations.add(alias="n").count.SetInParent()
    listening = messages.ListenRequest.pb()()
    listening.add_target.query.structured_query.CopyFrom(query)
    by_name = messages.ListenRequest.pb()()
    by_name.add_target.documents.documents.append("a")
    removing = messages.ListenRequest.pb()(remove_target=1)
    reading = messages.BatchGetDocumentsRequest.pb()(documents=["a"])

    def told(request: Any) -> list[str]:
        return [described(shape) for shape in shapes_in(request)]

    assert told(running) == told(listening) == [expected]
    assert told(counting) == [f"count of {expected}"]
    assert told(by_name) == told(removing) == told(reading) == []


def test_values_and_numbers_make_no_difference() -> None:
    """Queries that differ in values, limits, cursors or projection only are one kind of query."""
    first, other = queries.next_kind("a"), queries.next_kind("b")
    other.ClearField("select")
    other.limit.value = 7
    few, many = (
        queries.due_without(["a"], lanes, now=T0, limit=1, behind=None) for lanes in (["a", "b"], list("abcd"))
    )
    requests = [messages.RunQueryRequest.pb()(structured_query=query) for query in (first, other, few, many)]
    a, b, c, d = (list(shapes_in(request)) for request in requests)
    assert a == b != c == d
