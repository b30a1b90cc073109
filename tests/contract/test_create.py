"""New tasks: each stored once, by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from oncetask.errors import OncetaskError
from oncetask.store import TaskFilter, TaskStore
from oncetask.store.firestore import FirestoreStore
from oncetask.task import Progress, Task, TaskError
from tests.contract.backends import Backend
from tests.support import T0, a_task, at, fetch, not_none, stored


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


def of_one_key(number: int, **fields: Any) -> list[Task]:
    """Give tasks of one resource key whose ids say their places."""
    return [a_task(f"t{n:04}", resource_key="user:1", **fields) for n in range(number)]


class TestTheOrderWithinAKey:
    """Nobody may see a task of a resource key before those that were enqueued in front of it."""

    async def test_who_looks_meanwhile_sees_a_beginning(
        self, store: TaskStore, open_store: Callable[[], TaskStore]
    ) -> None:
        """While a thousand tasks of one key are stored, among others, its line is at every moment a beginning.

        The emulator shows queries a commit that is half applied (Google's own client sees that as well; Firestore
        itself does not), so there it is one of whole commits.
        """
        commit = 400 if isinstance(store, FirestoreStore) else 1
        tasks = [
            task
            for n, keyed in enumerate(of_one_key(1_000))
            for task in (keyed, a_task(f"u{n:04}"), a_task(f"v{n:04}", resource_key=f"user:{n % 400 + 2}"))
        ]
        reader = open_store()
        creating = asyncio.create_task(store.create(tasks))
        while not creating.done():
            line = [task.id for task in await reader.line(["user:1"], now=T0, limit=2_000)]
            whole = (int(line[-1][1:]) + 1) // commit * commit if line else 0
            assert line[:whole] == [f"t{n:04}" for n in range(whole)]

        assert all(one.applied for one in await creating)
        assert len(await reader.line(["user:1"], now=T0, limit=2_000)) == 1_000
        assert await store.count(TaskFilter()) == 3_000

    async def test_answers_stand_in_the_order_of_the_tasks(self, store: TaskStore) -> None:
        """Tasks of one key, of others and of none may stand in any order; each answer is that task's."""
        tasks = [
            a_task(f"t{n:03}", resource_key=[None, "a", "b", f"c{n}"][n % 4], create_id=f"mine {n}") for n in range(900)
        ]
        (taken,) = await stored(store, replace(tasks[401], create_id="earlier"))

        written = await store.create(tasks)

        assert [n for n, one in enumerate(written) if not one.applied] == [401]
        found = [not_none(task) for task in await store.get([task.id for task in tasks])]
        assert [task.version for task in found] == [one.version or taken.version for one in written]

    async def test_those_that_exist_are_refused_by_themselves(self, store: TaskStore) -> None:
        """Tasks of the key that exist already stay as they are, and all others are stored."""
        tasks = of_one_key(1_000, create_id="mine")
        await stored(store, *(replace(task, create_id="earlier") for task in tasks[::100]))

        written = await store.create(tasks)

        assert [n for n, one in enumerate(written) if not one.applied] == list(range(0, 1_000, 100))
        assert all(one.error is None for one in written)
        found = [not_none(task) for task in await store.get([task.id for task in tasks])]
        assert [n for n, task in enumerate(found) if task.create_id == "earlier"] == list(range(0, 1_000, 100))

    async def test_repeating_it_is_no_refusal(self, store: TaskStore) -> None:
        """What an earlier try of this very create stored counts as applied, with the version that it has."""
        tasks = of_one_key(900)
        first = await store.create(tasks[:500])

        again = await store.create(tasks)

        assert [one.version for one in again[:500]] == [one.version for one in first]
        assert all(one.applied for one in again)

    async def test_without_a_create_id_nothing_is_repeated(self, store: TaskStore) -> None:
        """Tasks that do not say whose create they are, are refused where they exist."""
        tasks = of_one_key(2, create_id=None)

        assert [[one.applied for one in await store.create(tasks)] for _ in range(2)] == [[True] * 2, [False] * 2]

    async def test_those_that_are_impossible_fail_by_themselves(self, backend: Backend, store: TaskStore) -> None:
        """What is too large, or no document at all, is answered with an error, and the others are stored."""
        tasks = of_one_key(9)
        tasks[2] = replace(tasks[2], data={"x": "x" * 1_200_000})
        tasks[6] = replace(tasks[6], owner="\ud800")

        written = await store.create(tasks)

        impossible = [6] if backend.largest_document is None else [2, 6]
        assert [n for n, one in enumerate(written) if isinstance(one.error, OncetaskError)] == impossible
        assert [n for n, one in enumerate(written) if not one.applied] == impossible
        found = await store.get([task.id for task in tasks])
        assert [task is not None for task in found] == [one.applied for one in written]

    @pytest.mark.parametrize("keys", [("k", "k"), ("k", None), (None, "k")], ids=["same", "first", "second"])
    async def test_the_same_id_twice_in_one_call(self, store: TaskStore, keys: tuple[str | None, str | None]) -> None:
        """Of two tasks of one id the first is stored and the second refused, whichever keys they have."""
        twins = [a_task("twin", create_id=f"mine {n}", resource_key=key) for n, key in enumerate(keys)]

        written = await store.create([*twins, a_task("a", resource_key="k"), a_task("b", resource_key="k")])

        assert [one.applied for one in written] == [True, False, True, True]
        assert (await fetch(store, "twin")).create_id == "mine 0"

    async def test_many_callers_at_once(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """Of many callers that create the same tasks of one key, one succeeds for each task."""
        stores = [store, open_store()]

        written = await asyncio.gather(
            *(stores[caller % 2].create(of_one_key(10, create_id=f"caller {caller}")) for caller in range(8))
        )

        winners = [[caller for caller, answer in enumerate(written) if answer[n].applied] for n in range(10)]
        found = [await fetch(store, task.id) for task in of_one_key(10)]
        assert [[task.create_id] for task in found] == [[f"caller {caller}" for caller in who] for who in winners]


@pytest.mark.parametrize("task_id", ["é/ü".replace("/", "|"), "a b", "%2F", "x" * 1_500, "😀", "'", "a?b#c", "*"])
async def test_any_valid_id_will_do(store: TaskStore, task_id: str) -> None:
    """Ids may hold any character that is not forbidden, at any length that is allowed."""
    await stored(store, a_task(task_id))

    assert (await fetch(store, task_id)).id == task_id
