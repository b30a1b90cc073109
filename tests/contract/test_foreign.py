"""Documents that somebody else wrote: read without an exception, named, and ended."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud.firestore import GeoPoint

from oncetask import lifecycle
from oncetask.errors import InvalidPayload
from oncetask.payload import Payload
from oncetask.store import TaskFilter, TaskStore
from oncetask.store.document import encode
from oncetask.task import TaskStatus
from tests.contract.backends import Backend, FirestoreBackend
from tests.contract.places import FIRESTORE, SQLITE_FILE, SQLITE_MEMORY, only
from tests.support import T0, a_task, at, exactly, fetch, follow, stored

SOUND = encode(a_task(resource_key="r", owner="ada"))
REQUIRED = ["kind", "data", "waitUntil", "createdAt"]
WRONG: dict[str, list[Any]] = {
    "kind": [5, "Not A Kind"],
    "data": [[1, 2], "text"],
    "dataJson": ["{", "[1]", "[" * 50_000],
    "resultJson": ["{"],
    "resourceKey": [5],
    "leaseOwner": [5],
    "attempts": ["many", -1],
    "cancelAttempts": ["many", -1],
    "isCancelled": ["maybe", 7],
    "parentRecurrenceId": [5],
    "timeout": ["long", -1],
    "owner": [5],
    "createId": [5],
    "schema": ["new", -1],
    "recurrence": [[1]],
    "waitUntil": ["tomorrow"],
    "leasedUntil": ["tomorrow"],
    "createdAt": ["tomorrow"],
    "startedAt": ["tomorrow"],
    "doneAt": ["tomorrow"],
    "cancelledAt": ["tomorrow"],
    "occurrenceTimestamp": ["tomorrow"],
    "deadline": ["tomorrow"],
    "expireAt": ["tomorrow"],
    "dueAt": ["tomorrow"],
    "outcome": ["finished", 5],
    "errors": [["boom"], {"at": 1}, [{"at": "x"}]],
    "progress": [[1]],
}


class Greet(Payload):
    """What the documents should have held."""

    name: str


async def rejected(store: TaskStore, task_id: str) -> None:
    """Reject a record that cannot be read, and check that it is out of the way."""
    task = await fetch(store, task_id)

    await follow(store, lifecycle.reject(task, now=exactly(at(1))))

    ended = await fetch(store, task_id)
    assert ended.status == TaskStatus.DONE_FAILED
    assert ended.errors[-1].type == "UnreadableTask"
    assert await store.due(["greet", task.kind], now=at(10**6), limit=10) == []


@pytest.mark.parametrize("field", REQUIRED)
async def test_a_missing_field_is_named(backend: Backend, store: TaskStore, field: str) -> None:
    """A document without a field that it needs is read, its one problem names the field, and it can be rejected."""
    await backend.raw_put("greet:1", {name: value for name, value in SOUND.items() if name != field})

    task = await fetch(store, "greet:1")

    (problem,) = task.problems
    assert problem.startswith(f"{field}: is missing")
    await rejected(store, "greet:1")


@pytest.mark.parametrize("field", sorted(set(SOUND) - set(REQUIRED) - {"dueAt"}))
async def test_other_fields_may_be_missing(backend: Backend, store: TaskStore, field: str) -> None:
    """Any other field may be missing, and the task is found all the same."""
    await backend.raw_put("greet:1", {name: value for name, value in SOUND.items() if name != field})

    (task,) = await store.due(["greet"], now=T0, limit=5)

    assert task.problems == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}-{n}")
        for field, values in WRONG.items()
        for n, value in enumerate(values)
    ],
)
async def test_a_wrong_field_is_named_with_its_value(
    backend: Backend, store: TaskStore, field: str, value: Any
) -> None:
    """A field of a wrong type or value is one problem that names both, and the record can be rejected."""
    await backend.raw_put("greet:1", {**SOUND, field: value})

    task = await fetch(store, "greet:1")

    (problem,) = task.problems
    assert problem.startswith(f"{field.removesuffix('Json')}")
    assert str(value)[:20] in problem
    await rejected(store, "greet:1")


async def test_an_unreadable_due_time_goes_with_the_end(backend: Backend, store: TaskStore) -> None:
    """A `dueAt` that was no instant is removed when the record is rejected."""
    await backend.raw_put("greet:1", {**SOUND, "dueAt": "tomorrow"})

    await rejected(store, "greet:1")

    assert "dueAt" not in await backend.raw_get("greet:1")


async def test_an_empty_document(backend: Backend, store: TaskStore) -> None:
    """A document without any field has a problem for each that it needs, and can be rejected."""
    await store.open()
    await backend.raw_put("greet:1", {})

    assert len((await fetch(store, "greet:1")).problems) == len(REQUIRED)
    await rejected(store, "greet:1")


async def test_the_due_query_finds_what_cannot_be_read(backend: Backend, store: TaskStore) -> None:
    """A poisonous document among others is found with its problems, and hides nobody."""
    await stored(store, a_task("a"), a_task("c"))
    await backend.raw_put("b", {**SOUND, "dataJson": "[" * 50_000, "errors": ["x"], "attempts": "many"})

    found = await store.due(["greet"], now=T0, limit=10)

    assert [(task.id, len(task.problems)) for task in found] == [("a", 0), ("b", 3), ("c", 0)]


async def test_lists_show_what_cannot_be_read(backend: Backend, store: TaskStore) -> None:
    """Lists and statistics of strange documents raise nothing."""
    await stored(store, a_task("a"))
    await backend.raw_put("b", {**SOUND, "waitUntil": "soon", "outcome": "finished", "isCancelled": "maybe"})
    await backend.raw_put("c", {"kind": "greet"})
    await backend.raw_put("d", {**SOUND, "kind": 5})

    assert [task.id for task in await store.find(TaskFilter(), limit=10)] == ["a", "b", "c", "d"]
    assert await store.count(TaskFilter(kind="greet")) >= 1
    assert "greet" in await store.stats()


async def test_unknown_fields_are_no_problem(backend: Backend, store: TaskStore) -> None:
    """What a newer version added is not looked at."""
    await stored(store, a_task())
    await backend.raw_set("greet:1", "newer", "x")

    assert (await fetch(store, "greet:1")).problems == ()


@only(FIRESTORE)
async def test_firestores_own_types_in_data(backend: Backend, store: TaskStore) -> None:
    """Instants, bytes, points and references in a map of data are read, and are no valid payload."""
    assert isinstance(backend, FirestoreBackend)
    point = GeoPoint(1.0, 2.0)
    for n, value in enumerate([T0, b"x", point, backend.client.document("a/b"), [point], {"p": point}]):
        await backend.raw_put(f"t{n}", {**SOUND, "data": {"name": value}})
        task = await fetch(store, f"t{n}")
        with pytest.raises(InvalidPayload):
            task.payload(Greet)


@only(SQLITE_FILE, SQLITE_MEMORY)
@pytest.mark.parametrize("text", ["{", "[" * 50_000, '{"a":' * 50_000, "1" * 5_000, ""], ids=lambda text: text[:5])
@pytest.mark.parametrize("column", ["data", "errors", "progress", "recurrence"])
async def test_broken_json_in_a_column(backend: Backend, store: TaskStore, column: str, text: str) -> None:
    """Text that is no JSON, or too deep for it, is a problem of its field."""
    await backend.raw_put("greet:1", {**SOUND, column: text})

    task = await fetch(store, "greet:1")

    (problem,) = task.problems
    assert problem.startswith(f"{column}: must be")
    await rejected(store, "greet:1")


@only(SQLITE_FILE, SQLITE_MEMORY)
@pytest.mark.parametrize("instant", [2**62, -(2**62), 1.5], ids=str)
async def test_numbers_that_are_no_instant(backend: Backend, store: TaskStore, instant: float) -> None:
    """A number that is no instant of a year from 1 to 9999 is a problem of its field."""
    await backend.raw_put("greet:1", {**SOUND, "waitUntil": instant})

    (problem,) = (await fetch(store, "greet:1")).problems

    assert problem.startswith("waitUntil: must be a timestamp")
    await rejected(store, "greet:1")
