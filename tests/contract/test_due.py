"""The beginning of the due line."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from oncetask.lifecycle import redeclare
from oncetask.store import Cursor, TaskStore
from oncetask.store.document import encode
from oncetask.task import NO_WAIT, Outcome, Task
from tests.contract.backends import Backend
from tests.contract.places import FIRESTORE, only
from tests.support import MICROSECOND, T0, a_task, at, follow, not_none, stored


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


CRON = {"cron": "0 2 * * *", "timezone": "UTC"}


class TestWithoutSomeKeys:
    """Looking past the tasks of resource keys that are busy."""

    async def test_their_tasks_are_left_out(self, store: TaskStore) -> None:
        """Tasks of other keys, and of none, are given in their order."""
        await stored(
            store,
            a_task("a", resource_key="busy", wait_until=at(-9)),
            a_task("b", resource_key="free", wait_until=at(-2)),
            a_task("c", resource_key="busy too"),
            a_task("d", wait_until=at(-3)),
            a_task("e", resource_key="bus", wait_until=at(-1)),
        )

        assert ids(await store.due(["greet"], now=T0, limit=10, without=["busy", "busy too"])) == ["d", "b", "e"]
        assert ids(await store.due(["greet"], now=T0, limit=10, without=["another"])) == ["a", "d", "b", "e", "c"]
        assert ids(await store.due(["greet"], now=T0, limit=10, without={"free"})) == ["a", "d", "e", "c"]
        assert await store.due([], now=T0, limit=10, without=["busy"]) == []

    async def test_no_keys_leave_nothing_out(self, store: TaskStore) -> None:
        """Without keys to look past, and with one that no task can have, the line is the whole one."""
        await stored(store, a_task("a", resource_key="k"), a_task("b"), a_task("c", recurrence=CRON))

        for none in ([], [""]):
            assert ids(await store.due(["greet"], now=T0, limit=10, without=none)) == ["a", "b", "c"]

    async def test_generators_stay(self, store: TaskStore) -> None:
        """A generator of a busy key is given all the same: it takes no slot."""
        await stored(
            store,
            a_task("a", resource_key="busy"),
            a_task("g", resource_key="busy", recurrence=CRON),
            a_task("h", recurrence=CRON),
        )

        for generators in (False, True):
            found = await store.due(["greet"], now=T0, limit=10, without=["busy"], generators=generators)
            assert ids(found) == ["g", "h"]

    async def test_a_generator_that_is_declared_anew_stays(self, backend: Backend, store: TaskStore) -> None:
        """A generator's key may change, whichever is busy."""
        (old,) = await stored(store, a_task("g", resource_key="old", recurrence=CRON))
        change = redeclare(old, replace(old, resource_key="new"))
        await follow(store, not_none(change))

        assert (await backend.raw_get("g"))["resourceKey"] == "new"
        assert ids(await store.due(["greet"], now=T0, limit=10, without=["old", "new"])) == ["g"]

    async def test_only_what_is_due(self, store: TaskStore) -> None:
        """Kinds, instants and outcomes count as they do without keys."""
        await stored(
            store,
            a_task("a", resource_key="free"),
            a_task("b", resource_key="free", kind="sync"),
            a_task("c", wait_until=T0 + MICROSECOND),
            a_task("d", outcome=Outcome.COMPLETED),
            a_task("e", lease_owner="l1", leased_until=at(60)),
        )

        assert ids(await store.due(["greet", "none"], now=T0, limit=10, without=["busy"])) == ["a"]
        assert await store.due(["greet"], now=T0 - MICROSECOND, limit=10, without=["busy"]) == []

    @pytest.mark.parametrize("kinds", [1, 3, 12])
    @pytest.mark.parametrize("keys", [1, 35, 150])
    async def test_a_crowd_in_front(self, store: TaskStore, kinds: int, keys: int) -> None:
        """However many of however many keys stand in front, the limit is reached where there are enough behind."""
        names, busy = [f"kind-{n:02}" for n in range(kinds)], [f"busy-{n:03}" for n in range(keys)]
        crowd = [
            a_task(f"a{n:03}", kind=names[n % kinds], resource_key=busy[n % keys], wait_until=at(n - 1_000))
            for n in range(150)
        ]
        behind = [a_task(f"b{n}", kind=names[-n % kinds], resource_key="free", wait_until=at(-9 + n)) for n in range(4)]
        await stored(store, *crowd, *behind)

        found = [ids(await store.due(names, now=T0, limit=limit, without=busy)) for limit in (1, 3, 4, 5)]

        assert found == [["b0"], ["b0", "b1", "b2"], ["b0", "b1", "b2", "b3"], ["b0", "b1", "b2", "b3"]]

    async def test_tasks_between_the_keys(self, store: TaskStore) -> None:
        """Where left-out tasks and others alternate, each of the others is found, in order."""
        await stored(store, *(a_task(f"t{n:02}", resource_key=f"k{n % 10}", wait_until=at(n - 60)) for n in range(60)))
        busy = [f"k{n}" for n in range(10) if n != 3]

        assert ids(await store.due(["greet"], now=T0, limit=4, without=busy)) == ["t03", "t13", "t23", "t33"]

    @pytest.mark.parametrize("keys", [2, 40])
    @pytest.mark.parametrize("instants", [1, 4, 60])
    async def test_page_after_page_gives_everything_once(self, store: TaskStore, keys: int, instants: int) -> None:
        """Going on behind the last one of each page gives each task once, however many share an instant."""
        busy = [f"busy-{n}" for n in range(keys)]
        lanes = [None, "a", "z", "free", *busy]
        tasks = [
            a_task(
                f"t{n * 7 % 60:02}",
                kind=f"k{n % 3}",
                resource_key=lanes[n % len(lanes)],
                wait_until=at(-(n % instants)),
                recurrence=CRON if n % 11 == 0 else None,
            )
            for n in range(60)
        ]
        await stored(store, *tasks)

        found: list[Task] = []
        after = None
        while page := await store.due(["k0", "k1", "k2"], now=T0, limit=4, after=after, without=busy):
            found += page
            after = Cursor(not_none(page[-1].due_at), page[-1].id)

        wanted = [task.id for task in tasks if task.resource_key not in busy or task.recurrence is not None]
        assert sorted(ids(found)) == sorted(wanted)
        assert [task.due_at for task in found] == sorted(not_none(task.due_at) for task in found)

    async def test_a_place_whose_task_has_gone(self, store: TaskStore) -> None:
        """A place in the line stays one though no task stands there: what is due later comes behind it."""
        await stored(
            store,
            a_task("a", resource_key="x", wait_until=at(-2)),
            a_task("c", resource_key="y", wait_until=at(-2)),
            a_task("d", resource_key="x", wait_until=at(-1)),
            *(a_task(f"e{n}", resource_key="busy", wait_until=at(-1)) for n in range(9)),
            a_task("f"),
        )

        async def behind(after: Cursor, limit: int) -> list[str]:
            return ids(await store.due(["greet"], now=T0, limit=limit, after=after, without=["busy"]))

        assert await behind(Cursor(at(-2), "b"), 2) == ["c", "d"]
        assert await behind(Cursor(at(-2), "b"), 9) == ["c", "d", "f"]
        assert await behind(Cursor(at(-1.5), "x"), 9) == ["d", "f"]

    async def test_keys_of_any_script(self, store: TaskStore) -> None:
        """Exactly the named keys are left out, whatever their characters and their order."""
        keys = ["B", "a", "é", "z", "\uff5e", "😀", "_", "1", "10", "2", "a b", "é/ü", "'", "x" * 1_000, "x" * 999]
        await stored(store, *(a_task(f"t{n:02}", resource_key=key) for n, key in enumerate(keys)))

        for busy in (keys[::2], keys[1::2], ["\uff5e"], ["😀"], keys):
            left = [f"t{n:02}" for n, key in enumerate(keys) if key not in busy]
            assert sorted(ids(await store.due(["greet"], now=T0, limit=50, without=busy))) == left

    @only(FIRESTORE)
    async def test_a_document_without_a_lane_hides_nobody(self, backend: Backend, store: TaskStore) -> None:
        """What somebody else wrote without the field that this goes by is found once no key is busy."""
        lanes: list[Any] = [None, 5, b"x", [], {}]
        for n, lane in enumerate(lanes):
            await backend.raw_put(f"a{n}", {**encode(a_task(f"a{n}")), "lane": lane})
        await backend.raw_put("a5", encode(a_task("a5")))
        await stored(store, a_task("b"), a_task("c"))

        assert ids(await store.due(["greet"], now=T0, limit=2, without=["busy"])) == ["b", "c"]
        assert ids(await store.due(["greet"], now=T0, limit=2, without=["busy"], after=Cursor(T0, "a5"))) == ["b", "c"]
        assert len(await store.due(["greet"], now=T0, limit=10)) == 8
