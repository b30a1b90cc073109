"""The beginning of the due line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from oncetask.store import Cursor, TaskStore
from oncetask.store.document import encode
from oncetask.task import NO_WAIT, Outcome, Task
from tests.contract.backends import Backend
from tests.contract.places import FIRESTORE, only
from tests.support import MICROSECOND, T0, a_task, at, stored


def ids(tasks: list[Task]) -> list[str]:
    """Give the ids of tasks, in their order."""
    return [task.id for task in tasks]


async def test_the_earliest_come_first(store: TaskStore) -> None:
    """Tasks come in the order of `dueAt`, those of the same instant in the order of their ids."""
    await stored(
        store,
        a_task("z", wait_until=at(-3)),
        a_task("b", wait_until=at(-1)),
        a_task("a", wait_until=at(-1)),
        a_task("c", wait_until=at(-2)),
    )

    assert ids(await store.due(["greet"], now=T0, limit=10)) == ["z", "c", "a", "b"]


async def test_a_task_is_due_at_its_instant(store: TaskStore) -> None:
    """A task is found at its instant, and not a microsecond before."""
    await stored(store, a_task(wait_until=T0))

    assert await store.due(["greet"], now=T0 - MICROSECOND, limit=10) == []
    assert len(await store.due(["greet"], now=T0, limit=10)) == 1


async def test_what_is_cancelled_goes_first(store: TaskStore) -> None:
    """A task that waits for the epoch goes before everything else."""
    await stored(store, a_task("old", wait_until=at(-(10**8))), a_task("z", wait_until=NO_WAIT, is_cancelled=True))

    assert ids(await store.due(["greet"], now=T0, limit=10)) == ["z", "old"]


async def test_what_was_due_before_the_epoch_is_due(store: TaskStore) -> None:
    """Any instant that has passed is due, those before 1970 too."""
    long_ago = [datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)]
    await stored(store, a_task("b", wait_until=NO_WAIT), *(a_task(str(at.year), wait_until=at) for at in long_ago))

    assert ids(await store.due(["greet"], now=T0, limit=10)) == ["1", "1969", "b"]


async def test_only_the_kinds_that_were_asked_for(store: TaskStore) -> None:
    """Tasks of other kinds are left out; no kinds find nothing."""
    await stored(store, a_task("a"), a_task("b", kind="sync"), a_task("c", kind="other"))

    assert ids(await store.due(["sync", "greet"], now=T0, limit=10)) == ["a", "b"]
    assert await store.due(["none"], now=T0, limit=10) == []
    assert await store.due([], now=T0, limit=10) == []


async def test_more_kinds_than_one_query_takes(store: TaskStore) -> None:
    """Hundred kinds are one line, in one order and under one limit."""
    await stored(store, *(a_task(f"t{n:03}", kind=f"kind-{n:03}", wait_until=at(-n)) for n in range(100)))
    kinds = [f"kind-{n:03}" for n in range(100)]

    assert ids(await store.due(kinds, now=T0, limit=1_000)) == [f"t{n:03}" for n in range(99, -1, -1)]
    assert ids(await store.due(kinds, now=T0, limit=3)) == ["t099", "t098", "t097"]


async def test_a_kind_that_is_named_twice(store: TaskStore) -> None:
    """Naming a kind twice finds its tasks once."""
    await stored(store, a_task("a"), a_task("b"))

    assert ids(await store.due(["greet", "sync", "greet"], now=T0, limit=10)) == ["a", "b"]


async def test_the_limit(store: TaskStore) -> None:
    """At most so many are given, and fewer mean that there are no more."""
    await stored(store, *(a_task(f"t{n}") for n in range(5)))

    assert [len(await store.due(["greet"], now=T0, limit=limit)) for limit in (1, 4, 5, 6)] == [1, 4, 5, 5]


async def test_going_on_behind_a_place(store: TaskStore) -> None:
    """Page after page gives each task once, in order, also where many are due at the same instant."""
    await stored(store, *(a_task(f"t{n:02}", kind=f"k{n % 3}", wait_until=at(-(n // 7))) for n in range(30)))
    kinds = ["k0", "k1", "k2"]
    everything = await store.due(kinds, now=T0, limit=100)

    pages, after = [], None
    while page := await store.due(kinds, now=T0, limit=4, after=after):
        pages.append(page)
        assert page[-1].due_at is not None
        after = Cursor(page[-1].due_at, page[-1].id)

    assert [task for page in pages for task in ids(page)] == ids(everything)
    assert len(everything) == 30


async def test_a_place_whose_task_has_gone(store: TaskStore) -> None:
    """A place in the line stays one though no task stands there."""
    await stored(store, a_task("a", wait_until=at(-2)), a_task("c", wait_until=at(-2)), a_task("d", wait_until=at(-1)))

    assert ids(await store.due(["greet"], now=T0, limit=9, after=Cursor(at(-2), "b"))) == ["c", "d"]
    assert ids(await store.due(["greet"], now=T0, limit=9, after=Cursor(at(-1.5), "x"))) == ["d"]


async def test_ids_of_any_script_have_one_order(store: TaskStore) -> None:
    """The order of ids is that of their code points, within a page and from page to page."""
    names = ["B", "a", "é", "z", "\uff5e", "😀", "_", "1", "10", "2"]
    await stored(store, *map(a_task, names))

    pages, after = [], None
    while page := await store.due(["greet"], now=T0, limit=3, after=after):
        pages += ids(page)
        after = Cursor(T0, page[-1].id)

    assert pages == sorted(names)


async def test_leases_stand_in_the_line_with_their_end(store: TaskStore) -> None:
    """A leased task is found once its lease has ended."""
    await stored(store, a_task(lease_owner="l1", leased_until=at(60)))

    assert await store.due(["greet"], now=at(59), limit=10) == []
    assert len(await store.due(["greet"], now=at(60), limit=10)) == 1


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_done_tasks_are_never_found(store: TaskStore, outcome: Outcome) -> None:
    """What has ended costs the line nothing."""
    await stored(store, a_task(outcome=outcome, wait_until=NO_WAIT))

    assert await store.due(["greet"], now=at(10**9), limit=10) == []


@pytest.mark.parametrize("strange", [None, "", "2020-01-01T00:00:00Z", b"1970", "[]"], ids=repr)
async def test_strange_due_times_hide_nobody(backend: Backend, store: TaskStore, strange: Any) -> None:
    """Documents whose `dueAt` is no instant are not found, and take no place from those that are."""
    for n in range(3):
        await backend.raw_put(f"a{n}", {**encode(a_task(f"a{n}")), "dueAt": strange})
    await stored(store, a_task("b"), a_task("z"))

    assert ids(await store.due(["greet"], now=T0, limit=2)) == ["b", "z"]
    assert ids(await store.due(["greet"], now=T0, limit=1, after=Cursor(T0, "b"))) == ["z"]


@only(FIRESTORE)
@pytest.mark.parametrize("strange", [0, -5.5, True, [1], {"a": 1}], ids=repr)
async def test_strange_due_times_of_firestores_types_hide_nobody(
    backend: Backend, store: TaskStore, strange: Any
) -> None:
    """Numbers, booleans, lists and maps in `dueAt` are no instants in Firestore; SQLite's instants are numbers."""
    await backend.raw_put("a", {**encode(a_task("a")), "dueAt": strange})
    await stored(store, a_task("b"))

    assert ids(await store.due(["greet"], now=T0, limit=1)) == ["b"]
