"""Writes that wait together go to SQLite in few statements, and each is still judged by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oncetask.lifecycle import Transition, cancel, claim, complete
from oncetask.store import Written
from oncetask.store.sqlite import SqliteStore, writing
from oncetask.task import Task
from tests.support import T0, a_task, at, exactly, fetch, stored

MANY = 50
FEW = 15
"""Statements: for the transaction, and for fifty writes of one shape and fifty of another."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store on a file."""
    store = SqliteStore(str(tmp_path / "tasks.db"))
    yield store
    await store.aclose()


@pytest.fixture(params=["together", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways, as a new SQLite and one that knows no UPDATE ... FROM go them."""
    monkeypatch.setattr(writing, "_CAN_DO_MANY", request.param == "together")
    return str(request.param)


def claimed(task: Task) -> Transition:
    """Claim a task."""
    return claim(task, lease_id=f"l-{task.id}", until=at(60), now=exactly(T0))


async def a_crowd(store: SqliteStore) -> list[Task]:
    """Store fifty tasks."""
    return await stored(store, *(a_task(f"greet:{n:02}") for n in range(MANY)))


async def traced(store: SqliteStore) -> list[str]:
    """Give the statements that are run from now on."""
    statements: list[str] = []
    await store._connection.read(lambda sql: sql.set_trace_callback(statements.append))
    return statements


async def test_calls_at_the_same_time_take_few_statements(store: SqliteStore) -> None:
    """A hundred calls with a write each, of two shapes, are one transaction of a few statements."""
    tasks = await a_crowd(store)
    running = [Transition.stored(step, one.version or 0).after for step, one in await applied(store, tasks)]
    more = await stored(store, *(a_task(f"wave:{n:02}") for n in range(MANY)))
    ends = [complete(task, result={"n": n}, now=exactly(T0)) for n, task in enumerate(running)]

    statements = await traced(store)
    answers = await asyncio.gather(*(store.apply([step]) for step in [*ends, *map(claimed, more)]))

    assert all(one.applied for (one,) in answers)
    assert [text for text in statements if text.startswith("BEGIN")] == ["BEGIN IMMEDIATE"]
    assert len(statements) <= FEW
    assert (await fetch(store, "greet:07")).result == {"n": 7}
    assert (await fetch(store, "wave:07")).lease_owner == "l-wave:07"


async def applied(store: SqliteStore, tasks: list[Task]) -> list[tuple[Transition, Written]]:
    """Claim tasks in one call."""
    steps = [claimed(task) for task in tasks]
    return list(zip(steps, await store.apply(steps), strict=True))


@pytest.mark.usefixtures("way")
async def test_one_that_is_refused_is_refused_alone(store: SqliteStore) -> None:
    """Somebody else was faster with one of fifty."""
    tasks = await a_crowd(store)
    await store.apply([claimed(tasks[7])])

    written = await store.apply([claimed(task) for task in tasks])

    assert [n for n, one in enumerate(written) if not one.applied] == [7]
    assert written[7].error is None
    assert (await fetch(store, tasks[8].id)).version == written[8].version


@pytest.mark.usefixtures("way")
async def test_one_that_cannot_be_stored_fails_alone(store: SqliteStore) -> None:
    """What SQLite has no form for harms neither its own call's other writes nor those of other calls."""
    tasks = await a_crowd(store)
    wrong = claimed(tasks[1].evolve(attempts=2**70))

    (first, second, third), others = await asyncio.gather(
        store.apply([claimed(tasks[0]), wrong, claimed(tasks[2])]),
        store.apply([claimed(task) for task in tasks[3:]]),
    )

    assert first.applied
    assert second.error is not None
    assert not second.applied
    assert third.applied
    assert all(one.applied for one in others)


@pytest.mark.usefixtures("way")
async def test_the_second_write_of_a_task_finds_the_first(store: SqliteStore) -> None:
    """Of two writes that come from one version the first is applied, whatever shape the second has."""
    (task,) = await stored(store, a_task())
    cancelled = cancel(task, now=exactly(T0))
    assert cancelled is not None

    (first, second), (third,) = await asyncio.gather(
        store.apply([claimed(task), cancelled]), store.apply([claimed(task)])
    )

    assert first.applied
    assert (second, third) == (Written(), Written())
    assert not (await fetch(store, task.id)).is_cancelled


@pytest.mark.usefixtures("way")
async def test_new_tasks_among_those_that_exist(store: SqliteStore) -> None:
    """What exists is left as it is, an id that is given twice is stored once, and a repeated create knows its own."""
    await stored(store, a_task("a", create_id="mine"), a_task("b", create_id="another's"))
    new = [
        a_task("a", create_id="mine"),
        a_task("b", create_id="mine"),
        a_task("c"),
        a_task("d"),
        a_task("c", create_id="late"),
    ]

    written = await store.create(new)

    assert [one.applied for one in written] == [True, False, True, True, False]
    assert (await fetch(store, "b")).create_id == "another's"
