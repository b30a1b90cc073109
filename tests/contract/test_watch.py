"""What a store tells by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from oncetask import lifecycle
from oncetask.errors import StoreUnavailable
from oncetask.store import Cursor, Settings, TaskStore
from oncetask.store.document import encode
from oncetask.task import NO_WAIT, Outcome, Task
from tests.contract.backends import Backend
from tests.support import T0, a_task, at, exactly, follow, stored, until

NOW = exactly(T0)


def ids(*expected: str) -> Callable[[list[Task]], bool]:
    """Give the condition that the tasks are these."""
    return lambda tasks: [task.id for task in tasks] == list(expected)


def at_versions(*expected: int | None) -> Callable[[list[Task | None]], bool]:
    """Give the condition that the tasks have these versions; None: it is not there."""
    return lambda tasks: [task and task.version for task in tasks] == list(expected)


def at_settings(version: int | None) -> Callable[[Settings], bool]:
    """Give the condition that the settings have this version."""
    return lambda settings: settings.version == version


class TestDoorbell:
    """The tasks that are due first, due or not."""

    async def test_it_begins_with_what_is_there(self, store: TaskStore) -> None:
        """The first value is the beginning of the line: these kinds, in order, due or not, at most so many."""
        await stored(
            store,
            a_task("late", wait_until=at(10**9)),
            a_task("soon", wait_until=at(10**6)),
            a_task("done", outcome=Outcome.FAILED),
            a_task("cancelled", wait_until=NO_WAIT, is_cancelled=True),
            a_task("other", kind="sync"),
        )

        async with store.watch_due(["greet"], limit=2) as feed:
            await until(feed, ids("cancelled", "soon"))

    async def test_it_can_hang_behind_a_place(self, store: TaskStore) -> None:
        """Behind a place in the line it shows only what stands later, by time and then by id."""
        *_, last = await stored(store, *(a_task(name, wait_until=at(1)) for name in ("a", "b")))
        await stored(store, a_task("c", wait_until=at(1)), a_task("early"), a_task("d", wait_until=at(2)))
        assert last.due_at is not None

        async with store.watch_due(["greet"], limit=3, after=Cursor(last.due_at, last.id)) as feed:
            await until(feed, ids("c", "d"))

    async def test_it_begins_with_nothing(self, store: TaskStore) -> None:
        """An empty line is a first value too."""
        async with store.watch_due(["greet"], limit=5) as feed:
            await until(feed, ids())

    async def test_it_tells_of_a_new_task(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """A task that another store creates rings, with its record."""
        other = open_store()
        async with store.watch_due(["greet"], limit=5) as feed:
            await until(feed, ids())
            (task,) = await stored(other, a_task(data={"n": 7}))

            (found,) = await until(feed, ids("greet:1"))

        assert replace(found, read_at=task.read_at) == task

    async def test_it_follows_every_change(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """A claim moves a task in the line, the end takes it out, the next one comes up."""
        other = open_store()
        a, _ = await stored(other, a_task("a", wait_until=at(-9)), a_task("b"))
        async with store.watch_due(["greet"], limit=1) as feed:
            await until(feed, ids("a"))
            a = await follow(other, lifecycle.claim(a, lease_id="l1", until=at(60), now=NOW))
            await until(feed, ids("b"))
            a = await follow(other, lifecycle.give_back(a, now=NOW))
            await until(feed, ids("a"))
            a = await follow(other, lifecycle.claim(a, lease_id="l2", until=at(60), now=NOW))
            await follow(other, lifecycle.complete(a, result=None, now=NOW))
            await until(feed, ids("b"))

    async def test_a_deletion_is_a_change(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """A task that is deleted leaves the line."""
        (task,) = await stored(store, a_task())
        async with store.watch_due(["greet"], limit=1) as feed:
            await until(feed, ids("greet:1"))
            await open_store().delete([task])
            await until(feed, ids())

    async def test_more_kinds_than_one_query_takes(self, store: TaskStore) -> None:
        """Seventy kinds are one line."""
        await stored(store, *(a_task(f"t{n:02}", kind=f"kind-{n:02}", wait_until=at(-n)) for n in range(70)))
        async with store.watch_due([f"kind-{n:02}" for n in range(70)], limit=3) as feed:
            await until(feed, ids("t69", "t68", "t67"))
            await stored(store, a_task("new", kind="kind-00", wait_until=at(-99)))
            await until(feed, ids("new", "t69", "t68"))

    async def test_rubbish_does_not_silence_it(self, backend: Backend, store: TaskStore) -> None:
        """Documents whose `dueAt` is null or a text take no place in the line."""
        for n, strange in enumerate([None, "1970-01-01", b"x"]):
            await backend.raw_put(f"strange {n}", {**encode(a_task()), "dueAt": strange})
        async with store.watch_due(["greet"], limit=1) as feed:
            await until(feed, ids())
            await stored(store, a_task())
            await until(feed, ids("greet:1"))

    async def test_two_listen(self, store: TaskStore) -> None:
        """Two that watch at the same time are both told, and one that leaves takes nothing from the other."""
        async with store.watch_due(["greet"], limit=5) as stays:
            await until(stays, ids())
            async with store.watch_due(["greet"], limit=1) as leaves:
                await until(leaves, ids())
                await stored(store, a_task("a"))
                await until(leaves, ids("a"))
            await stored(store, a_task("b"))
            await until(stays, ids("a", "b"))

    async def test_it_can_be_watched_again(self, store: TaskStore) -> None:
        """A watch that ended leaves nothing behind that would disturb the next one."""
        for n in range(3):
            async with store.watch_due(["greet"], limit=5) as feed:
                await until(feed, ids(*(f"t{m}" for m in range(n))))
                await stored(store, a_task(f"t{n}"))
                await until(feed, ids(*(f"t{m}" for m in range(n + 1))))


class TestTasks:
    """Every change of tasks by id."""

    async def test_from_nothing_to_nothing(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """None while there is no task, then each newer record, and None once it is deleted."""
        other = open_store()
        async with store.watch_tasks(["greet:1"]) as feed:
            await until(feed, at_versions(None))
            (task,) = await stored(other, a_task())
            (created,) = await until(feed, at_versions(task.version))
            claimed = await follow(other, lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW))
            (changed,) = await until(feed, at_versions(claimed.version))
            await other.delete([claimed])
            await until(feed, at_versions(None))

        assert created is not None
        assert changed is not None
        assert replace(created, read_at=task.read_at) == task
        assert replace(changed, read_at=claimed.read_at) == claimed

    async def test_it_begins_with_the_records(self, store: TaskStore) -> None:
        """The first value is what is there, in the order of the ids, with None for what is not."""
        a, b = await stored(store, a_task("a"), a_task("b"))
        async with store.watch_tasks(["b", "nobody", "a"]) as feed, asyncio.timeout(20):
            found = await feed.get()

        assert [task and (task.id, task.version) for task in found] == [("b", b.version), None, ("a", a.version)]

    async def test_a_change_of_one_gives_all(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """Whichever is created, changed or deleted, the whole list comes again, each record the newest."""
        other = open_store()
        a, b = await stored(other, a_task("a"), a_task("b"))
        async with store.watch_tasks(["a", "later", "b"]) as feed:
            await until(feed, at_versions(a.version, None, b.version))
            (later,) = await stored(other, a_task("later"))
            await until(feed, at_versions(a.version, later.version, b.version))
            b = await follow(other, lifecycle.claim(b, lease_id="l1", until=at(60), now=NOW))
            found = await until(feed, at_versions(a.version, later.version, b.version))
            await other.delete([a])
            await until(feed, at_versions(None, later.version, b.version))

        assert [task and replace(task, read_at=a.read_at) for task in found] == [a, later, b]
        assert len({task and task.read_at for task in found}) == 1

    async def test_an_id_may_be_given_twice(self, store: TaskStore) -> None:
        """An id that is given twice stands in the list twice."""
        (a,) = await stored(store, a_task("a"))
        async with store.watch_tasks(["a", "nobody", "a", "nobody"]) as feed:
            await until(feed, at_versions(a.version, None, a.version, None))
            a = await follow(store, lifecycle.renew(a, until=at(1)))
            await until(feed, at_versions(a.version, None, a.version, None))

    async def test_no_ids(self, store: TaskStore) -> None:
        """No ids are an empty list."""
        async with store.watch_tasks([]) as feed:
            await until(feed, at_versions())

    async def test_a_whole_batch(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """A hundred tasks that change together are told of by one watch."""
        other = open_store()
        tasks = await stored(other, *(a_task(f"t{n:02}") for n in range(100)))
        async with store.watch_tasks([task.id for task in tasks]) as feed:
            await until(feed, at_versions(*(task.version for task in tasks)))
            written = await other.apply([lifecycle.renew(task, until=at(60)) for task in tasks])
            await until(feed, at_versions(*(one.version for one in written)))

    async def test_other_tasks_are_silent(self, store: TaskStore) -> None:
        """What is written to other tasks makes no new value."""
        (a,) = await stored(store, a_task("a"))
        async with store.watch_tasks(["a"]) as feed, store.watch_tasks(["b"]) as others:
            await until(feed, at_versions(a.version))
            (b,) = await stored(store, a_task("b"))
            await until(others, at_versions(b.version))
            a = await follow(store, lifecycle.renew(a, until=at(1)))
            async with asyncio.timeout(20):
                found = await feed.get()

        assert at_versions(a.version)(found)

    async def test_a_late_reader_gets_the_newest(self, store: TaskStore) -> None:
        """Who has not read for a while gets the last record in the end, not every one in between."""
        (task,) = await stored(store, a_task())
        async with store.watch_tasks(["greet:1"]) as feed:
            for n in range(20):
                task = await follow(store, lifecycle.renew(task, until=at(n)))
            await until(feed, at_versions(task.version))

    async def test_many_at_once(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """Each of many watches is told of its own task."""
        other = open_store()
        tasks = await stored(other, *(a_task(f"t{n}") for n in range(20)))
        async with AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(store.watch_tasks([task.id])) for task in tasks]
            for feed, task in zip(feeds, tasks, strict=True):
                await until(feed, at_versions(task.version))
            claims = [lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW) for task in tasks]
            written = await other.apply(claims)
            for feed, one in zip(feeds, written, strict=True):
                await until(feed, at_versions(one.version))

    async def test_a_strange_document_is_told_too(self, backend: Backend, store: TaskStore) -> None:
        """A record that cannot be read is a value with problems, not the end of the feed."""
        await store.open()
        await backend.raw_put("greet:1", {"kind": 5, "data": "x"})
        async with store.watch_tasks(["greet:1"]) as feed:
            (found,) = await until(feed, lambda _: True)

        assert found is not None
        assert found.problems


async def test_closing_ends_what_is_watched(store: TaskStore) -> None:
    """The feeds of a store that is closed raise `StoreUnavailable`; it can be watched anew."""
    async with store.watch_tasks(["a"]) as tasks, store.watch_due(["greet"], limit=1) as line:
        await until(tasks, at_versions(None))
        await until(line, ids())
        await store.aclose()
        with pytest.raises(StoreUnavailable, match="closed while it was watched"):
            await until(tasks, lambda _: False)
        with pytest.raises(StoreUnavailable, match="closed while it was watched"):
            await until(line, lambda _: False)
        async with store.watch_tasks(["a"]) as again:
            await until(again, at_versions(None))


async def test_a_watch_that_is_cancelled_leaves_nothing_behind(store: TaskStore) -> None:
    """Whoever is cancelled while opening, reading or leaving a watch leaves no task of it behind."""
    await store.open()

    async def watch() -> None:
        async with store.watch_tasks(["a"]) as feed:
            await feed.get()

    for steps in range(12):
        watching = asyncio.create_task(watch())
        for _ in range(steps):
            await asyncio.sleep(0)  # one step further
        watching.cancel()
        await asyncio.wait({watching})
    async with store.watch_tasks(["a"]) as feed:
        await until(feed, at_versions(None))

    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("oncetask")] == []


class TestSettings:
    """What an environment remembers beside its tasks, watched."""

    async def test_from_nothing_to_the_last_change(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """They come once at the start, also where there are none, then whenever anybody writes them."""
        other = open_store()
        async with store.watch_settings() as feed:
            assert await until(feed, lambda seen: not seen.fields) == Settings({}, 0)
            for n in range(2):
                written = await other.write_settings(await other.settings(), {"n": n})
                seen = await until(feed, at_settings(written.version))
                assert seen.fields == {"n": n}

    async def test_it_does_not_ring_for_tasks(self, store: TaskStore) -> None:
        """What happens to tasks is no news of the settings."""
        await store.write_settings(await store.settings(), {"n": 1})
        async with store.watch_settings() as feed, store.watch_tasks(["a"]) as tasks:
            first = await until(feed, lambda seen: seen.fields)
            await stored(store, a_task("a"))
            await until(tasks, lambda seen: seen[0] is not None)
            await store.write_settings(first, {"n": 2})
            assert (await until(feed, lambda _: True)).fields == {"n": 2}

    async def test_closing_the_store_ends_it(self, store: TaskStore) -> None:
        """Whoever watches is told."""
        async with AsyncExitStack() as stack:
            feed = await stack.enter_async_context(store.watch_settings())
            await until(feed, lambda _: True)
            await store.aclose()
            with pytest.raises(StoreUnavailable):
                await until(feed, lambda _: False)
