"""The line of a resource key: its open tasks, in the order in which they may run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from oncetask import lifecycle
from oncetask.store import TaskStore
from oncetask.store.document import encode
from oncetask.task import NO_WAIT, Outcome, Task
from tests.contract.backends import Backend, FirestoreBackend
from tests.contract.places import FIRESTORE, SQLITE_FILE, SQLITE_MEMORY, only
from tests.integration.firestore.support import firestore
from tests.support import MICROSECOND, T0, a_task, at, exactly, fetch, follow, stored


def keyed(task_id: str, **fields: Any) -> Task:
    """Give a task of the resource key that these tests are about."""
    return a_task(task_id, **{"resource_key": "user:1", **fields})


async def line(store: TaskStore, *, now: datetime = T0, limit: int = 100, after: Task | None = None) -> list[str]:
    """Give the ids of the line's beginning."""
    return [task.id for task in await store.line(["user:1"], now=now, limit=limit, after=after)]


async def test_the_order(store: TaskStore) -> None:
    """The line is ordered by `waitUntil`, then by `createdAt`, then by id."""
    await stored(
        store,
        keyed("d", wait_until=at(-1), created_at=at(-8)),
        keyed("c", wait_until=at(-1), created_at=at(-8)),
        keyed("a", wait_until=at(-1), created_at=at(-7)),
        keyed("b", wait_until=T0, created_at=at(-9)),
        keyed("z", wait_until=at(-2)),
    )

    assert await line(store) == ["z", "c", "d", "a", "b"]


async def test_records_are_whole(store: TaskStore) -> None:
    """What is found in a line is what reading it by id gives."""
    await stored(store, keyed("a", data={"n": [1, None]}, attempts=3))

    (found,) = await store.line(["user:1"], now=T0, limit=5)

    assert found.evolve(read_at=T0) == (await fetch(store, "a")).evolve(read_at=T0)


async def test_only_one_key(store: TaskStore) -> None:
    """Tasks of another key, or of none, stand in no line but their own; the key's tasks of all kinds do."""
    await stored(
        store,
        keyed("a"),
        keyed("b", kind="sync"),
        a_task("c"),
        keyed("d", resource_key="user:10"),
        keyed("e", resource_key="USER:1"),
    )

    assert await line(store) == ["a", "b"]
    assert await store.line(["nobody"], now=T0, limit=5) == []


@pytest.mark.parametrize("key", ["é/ü", "..", "__x__", "x" * 1_000, "😀", "'", " "], ids=lambda key: key[:5])
async def test_any_key_will_do(store: TaskStore, key: str) -> None:
    """A key may hold any character, at any length that is allowed."""
    await stored(store, a_task("a", resource_key=key), a_task("b", resource_key=key[:-1] or None))

    assert [task.id for task in await store.line([key], now=T0, limit=5)] == ["a"]


async def test_a_task_stands_there_from_its_instant_on(store: TaskStore) -> None:
    """A task is found at the instant for which it waits, and not a microsecond before."""
    await stored(store, keyed("a"))

    assert await line(store, now=T0 - MICROSECOND) == []
    assert await line(store, now=T0) == ["a"]


async def test_whoever_holds_them(store: TaskStore) -> None:
    """Tasks keep their place while somebody runs them, while they are not due, and when they are cancelled."""
    await stored(
        store,
        keyed("a", lease_owner="l1", leased_until=at(60)),
        keyed("b", leased_until=at(60)),
        keyed("c", due_at=None),
        keyed("d", is_cancelled=True, lease_owner="l1", leased_until=at(60)),
    )

    assert await line(store) == ["a", "b", "c", "d"]


async def test_what_is_cancelled_goes_first(store: TaskStore) -> None:
    """A task that waits for the epoch goes before all that wait for a later instant."""
    await stored(store, keyed("a", wait_until=at(-(10**8))), keyed("z", wait_until=NO_WAIT, is_cancelled=True))

    assert await line(store) == ["z", "a"]


async def test_instants_before_the_epoch(store: TaskStore) -> None:
    """Any instant that has passed has its place, those before 1970 too."""
    long_ago = [datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)]
    await stored(store, keyed("b", wait_until=NO_WAIT), *(keyed(str(at.year), wait_until=at) for at in long_ago))

    first, *_ = await store.line(["user:1"], now=T0, limit=5)
    assert await line(store) == ["1", "1969", "b"]
    assert await line(store, after=first) == ["1969", "b"]


async def test_generators_stand_in_it(store: TaskStore) -> None:
    """The generator of a recurrence is found like any task of its key."""
    await stored(store, keyed("g", recurrence={"cron": "0 2 * * *", "timezone": "UTC"}), keyed("h"))

    assert await line(store) == ["g", "h"]


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_done_tasks_have_left_it(store: TaskStore, outcome: Outcome) -> None:
    """What has ended stands in no line."""
    await stored(store, keyed("a", outcome=outcome, wait_until=NO_WAIT), keyed("b"))

    assert await line(store) == ["b"]


async def test_a_task_leaves_it_when_it_is_done_and_comes_back(store: TaskStore) -> None:
    """A task that ends makes room for the next one; one that is tried again later stands behind it."""
    first, second = await stored(store, keyed("a"), keyed("b", wait_until=T0 + MICROSECOND))
    claims = [lifecycle.claim(task, lease_id="l1", until=at(60), now=exactly(at(1))) for task in (first, second)]
    first, second = [await follow(store, claim) for claim in claims]

    await follow(store, lifecycle.fail(first, ValueError("no"), delay=5, now=exactly(at(1))))
    assert await line(store, now=at(1)) == ["b"]
    assert await line(store, now=at(60)) == ["b", "a"]

    await follow(store, lifecycle.complete(second, result=1, now=exactly(at(2))))
    assert await line(store, now=at(60)) == ["a"]


async def test_the_limit(store: TaskStore) -> None:
    """At most so many are given, and fewer mean that there are no more."""
    await stored(store, *(keyed(f"t{n}") for n in range(5)))

    assert [len(await line(store, limit=limit)) for limit in (1, 4, 5, 6)] == [1, 4, 5, 5]


async def test_page_after_page_gives_everything_once(store: TaskStore) -> None:
    """Going on behind the last one of each page gives each task once, in order, however many share an instant."""
    tasks = [keyed(f"t{n % 30:02}", wait_until=at(-(n % 3)), created_at=at(-(n % 2))) for n in range(7, 37)]
    await stored(store, *tasks)

    pages: list[str] = []
    page = await store.line(["user:1"], now=T0, limit=4)
    while page:
        pages += [task.id for task in page]
        page = await store.line(["user:1"], now=T0, limit=4, after=page[-1])

    ordered = sorted(tasks, key=lambda task: (task.wait_until, task.created_at, task.id))
    assert pages == [task.id for task in ordered]


async def test_going_on_behind_a_task_that_has_gone(store: TaskStore) -> None:
    """A place in the line stays one though no task stands there."""
    a, b, _ = await stored(store, *map(keyed, "abc"))
    await store.delete([b])

    assert await line(store, after=b) == ["c"]
    assert await line(store, after=a) == ["c"]


async def test_ids_of_any_script_have_one_order(store: TaskStore) -> None:
    """The order of ids is that of their code points."""
    names = ["B", "a", "é", "z", "\uff5e", "😀", "_", "1", "10", "2"]
    await stored(store, *map(keyed, names))

    assert await line(store) == sorted(names)


@only(SQLITE_FILE, FIRESTORE)
async def test_environments_have_lines_of_their_own(backend: Backend, store: TaskStore) -> None:
    """The same key in another environment is another line."""
    await stored(store, keyed("a"))

    assert await line(backend.open_store("staging")) == []


@pytest.mark.parametrize("field", ["waitUntil", "createdAt"])
@pytest.mark.parametrize("strange", [None, "", "2020-01-01T00:00:00Z", b"1970", "[]"], ids=repr)
async def test_strange_instants_hide_nobody(backend: Backend, store: TaskStore, field: str, strange: Any) -> None:
    """A document without a place in the line is not found, and takes no place from those that have one."""
    for n in range(3):
        await backend.raw_put(f"a{n}", {**encode(keyed(f"a{n}")), field: strange})
    b, _ = await stored(store, keyed("b"), keyed("z"))

    assert await line(store, limit=2) == ["b", "z"]
    assert await line(store, limit=1, after=b) == ["z"]


@only(SQLITE_FILE, SQLITE_MEMORY)
@pytest.mark.parametrize("field", ["waitUntil", "createdAt"])
@pytest.mark.parametrize("strange", [2**62, -(2**62), 1.5, -1.5], ids=str)
async def test_numbers_that_are_no_instants_hide_nobody(
    backend: Backend, store: TaskStore, field: str, strange: float
) -> None:
    """A number that is no instant of a year from 1 to 9999 is no place in the line."""
    await backend.raw_put("a", {**encode(keyed("a")), field: strange})
    await stored(store, keyed("b"))

    assert await line(store) == ["b"]


@only(FIRESTORE)
@pytest.mark.parametrize("field", ["waitUntil", "createdAt"])
@pytest.mark.parametrize("strange", [0, -5.5, True, [1], {"a": 1}], ids=repr)
async def test_strange_instants_of_firestores_types_hide_nobody(
    backend: Backend, store: TaskStore, field: str, strange: Any
) -> None:
    """Numbers, booleans, lists and maps are no instants in Firestore; SQLite's instants are numbers."""
    await backend.raw_put("a", {**encode(keyed("a")), field: strange})
    await stored(store, keyed("b"))

    assert await line(store) == ["b"]


@only(FIRESTORE)
async def test_a_document_without_instants(backend: Backend, store: TaskStore) -> None:
    """A document that lacks one of the two instants stands in no line."""
    assert isinstance(backend, FirestoreBackend)
    for name in ("waitUntil", "createdAt"):
        fields = encode(keyed(name))
        del fields[name]
        await backend.raw_put(name, fields)
    await stored(store, keyed("b"))

    assert await line(store) == ["b"]


@only(FIRESTORE)
async def test_the_beginning_of_a_long_line_is_all_that_is_read(store: TaskStore) -> None:
    """Of a thousand tasks only those are read that were asked for."""
    await stored(store, *(keyed(f"t{n:03}") for n in range(1_000)))
    counters = firestore(store).counters
    before = counters.documents_read

    assert await line(store, limit=3) == ["t000", "t001", "t002"]
    assert counters.documents_read - before == 3
