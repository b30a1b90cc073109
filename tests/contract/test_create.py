"""New tasks: each stored once, by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from oncetask.errors import OncetaskError
from oncetask.store import TaskStore
from oncetask.task import Progress, Task, TaskError
from tests.contract.backends import Backend
from tests.support import T0, a_task, at, fetch, stored


def same(found: Task | None, given: Task) -> bool:
    """Tell whether a record is the one that was given, apart from what reading adds."""
    return found is not None and {**_plain(found), "version": 0, "read_at": T0} == {**_plain(given), "read_at": T0}


def _plain(task: Task) -> dict[str, Any]:
    return {name: getattr(task, name) for name in Task.__dataclass_fields__}


async def test_a_created_task_is_read_as_it_was_given(store: TaskStore) -> None:
    """Every field of a new task comes back, its version is the one that the create gave."""
    task = a_task(
        resource_key="user:1",
        lease_owner="l1",
        leased_until=at(60),
        started_at=at(-1),
        attempts=2,
        cancel_attempts=1,
        errors=(TaskError(at(-2), 1, "ValueError", "é\n😀"),),
        result={"n": [1, 2.5, None, True]},
        progress=Progress(0.5, "half", {"rows": 3}, at(1)),
        is_cancelled=True,
        cancelled_at=at(2),
        parent_recurrence_id="nightly",
        occurrence_timestamp=at(3),
        timeout=2.5,
        deadline=at(99),
        owner="ada",
        expire_at=at(1_000),
    )

    (written,) = await store.create([task])
    found = await fetch(store, task.id)

    assert written.applied
    assert found.version == written.version
    assert same(found, task)
    assert found.problems == ()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"lists": [[1], [[2]]]},
        {"huge": 2**200, "small": -(2**63)},
        {"__reserved__": {"__x__": 1}},
        {"": "empty name"},
        {"a.b": 1, "`": 2, "é/ü": 3, "_": 4},
        {"n" * 1_449: "longest name of a map"},
        {"o" * 1_450: "longer name"},
        {"p" * 1_500: "longest name of Firestore"},
        {"q" * 700: [{"r" * 748: "longest path of a map"}]},
        {"s" * 700: {"t" * 800: "longer path"}},
        json.loads('{"u":' * 16 + "1" + "}" * 16),
        json.loads('{"v":' * 40 + "1" + "}" * 40),
        {"text": "\x00\x1f'\"\\ \u2028 😀"},
        {"number": 1.0, "whole": 1, "flag": True, "tiny": 5e-324, "large": 1e308},
        {"deep": {str(n): None for n in range(50)}, "d": {"d": {"d": {"d": {"d": {"d": {"d": {}}}}}}}},
    ],
    ids=lambda data: next(iter(data), "none")[:8] + str(len(next(iter(data), ""))),
)
async def test_any_json_is_kept(store: TaskStore, data: dict[str, Any]) -> None:
    """Data come back exactly, whether the store can hold them as a map or not."""
    await stored(store, a_task(data=data, result=[data]))

    found = await fetch(store, "greet:1")

    assert found.data == data
    assert found.result == [data]
    assert {name: type(value) for name, value in found.data.items()} == {n: type(v) for n, v in data.items()}


async def test_what_exists_is_refused_and_left_as_it_is(store: TaskStore) -> None:
    """A task whose id exists is refused, in its place of the answer, and the one there stays."""
    (first,) = await stored(store, a_task("b", create_id="first"))

    written = await store.create([a_task("a"), a_task("b", create_id="second", data={"other": 1}), a_task("c")])

    assert [one.applied for one in written] == [True, False, True]
    assert written[1].error is None
    assert same(await fetch(store, "b"), a_task("b", create_id="first"))
    assert (await fetch(store, "b")).version == first.version


async def test_repeating_a_create_is_no_refusal(store: TaskStore) -> None:
    """A task that an earlier try of this very create stored counts as applied, with the version that it has."""
    tasks = [a_task(f"t{n}") for n in range(3)]
    first = await store.create(tasks)

    again = await store.create(tasks)

    assert [one.version for one in again] == [one.version for one in first]


async def test_without_a_create_id_nothing_is_repeated(store: TaskStore) -> None:
    """Two tasks that do not say whose create they are, are two creates."""
    task = a_task(create_id=None)

    assert [one.applied for one in await store.create([task])] == [True]
    assert [one.applied for one in await store.create([task])] == [False]


async def test_the_same_id_twice_in_one_call(store: TaskStore) -> None:
    """Of two tasks of one id the first is stored and the second refused."""
    written = await store.create([a_task(create_id="first"), a_task(create_id="second")])

    assert [one.applied for one in written] == [True, False]
    assert (await fetch(store, "greet:1")).create_id == "first"


async def test_nothing_to_create(store: TaskStore) -> None:
    """No tasks are no problem."""
    assert await store.create([]) == []


async def test_two_thousand_at_once(store: TaskStore) -> None:
    """Thousands of tasks in one call are stored, and answered in their order."""
    tasks = [a_task(f"t{n:04}", data={"n": n}) for n in range(2_000)]
    (taken,) = await stored(store, a_task("t0777", create_id="earlier"))

    written = await store.create(tasks)

    assert [n for n, one in enumerate(written) if not one.applied] == [777]
    found = await store.get([task.id for task in tasks])
    assert [task.data["n"] for task in found if task is not None and task.version != taken.version] == [
        n for n in range(2_000) if n != 777
    ]
    assert all(task.version == one.version for task, one in zip(found, written, strict=True) if task and one.version)


async def test_many_callers_at_once(store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
    """Of many callers that create the same tasks through two stores, one succeeds for each task."""
    stores = [store, open_store()]

    written = await asyncio.gather(
        *(
            stores[caller % 2].create([a_task(f"t{n}", create_id=f"caller {caller}") for n in range(10)])
            for caller in range(20)
        )
    )

    assert [sum(answer[n].applied for answer in written) for n in range(10)] == [1] * 10
    winners = [next(c for c, answer in enumerate(written) if answer[n].applied) for n in range(10)]
    found = [await fetch(store, f"t{n}") for n in range(10)]
    assert [task.create_id for task in found] == [f"caller {winner}" for winner in winners]


async def test_one_that_is_too_large_fails_by_itself(backend: Backend, store: TaskStore) -> None:
    """A task that the store cannot take is answered with an error, and the others are stored."""
    written = await store.create([a_task("a"), a_task("b", data={"x": "x" * 1_200_000}), a_task("c")])

    assert [one.applied for one in written] == [True, backend.largest_document is None, True]
    if backend.largest_document is not None:
        assert isinstance(written[1].error, OncetaskError)
    assert [task is not None for task in await store.get(["a", "b", "c"])] == [one.applied for one in written]


async def test_one_that_is_no_document_fails_by_itself(store: TaskStore) -> None:
    """A task with text that no store can hold is answered with an error, and the others are stored."""
    written = await store.create([a_task("a"), a_task("b", owner="\ud800"), a_task("c")])

    assert [one.applied for one in written] == [True, False, True]
    assert isinstance(written[1].error, OncetaskError)


@pytest.mark.parametrize("task_id", ["é/ü".replace("/", "|"), "a b", "%2F", "x" * 1_500, "😀", "'", "a?b#c", "*"])
async def test_any_valid_id_will_do(store: TaskStore, task_id: str) -> None:
    """Ids may hold any character that is not forbidden, at any length that is allowed."""
    await stored(store, a_task(task_id))

    assert (await fetch(store, task_id)).id == task_id
