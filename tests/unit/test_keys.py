"""Taking a resource key, and knowing who is next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from oncetask import connect, keys, lifecycle
from oncetask.handlers import Cleanup
from oncetask.keyreading import KeyReader
from oncetask.keys import Key
from oncetask.store import TaskStore
from oncetask.task import NO_WAIT, Task
from tests.support import a_handler, a_task, at, follow, greet, not_none, stored


def waiting(task_id: str, seconds: float = -1, **fields: Any) -> Task:
    """Give a task of one key, long due."""
    return a_task(task_id, **{"resource_key": "ada", "wait_until": at(seconds - 10**9), **fields})


@pytest.fixture
async def store() -> AsyncIterator[TaskStore]:
    """An empty store in memory."""
    async with connect("memory://") as client:
        yield client.store


def the_key(store: TaskStore, found: list[Task] | None = None, **fields: Any) -> Key:
    """Give the key, as a worker with one kind sees it."""
    aside = [] if found is None else found
    return Key(KeyReader(store), "ada", {"greet": a_handler(**fields)}, longest_lease=60, found=aside.extend)


def room(_: str) -> bool:
    """There is room for every kind."""
    return True


def ids(tasks: Any) -> list[str]:
    """Give the ids of tasks."""
    return [task.id for task in tasks]


class TestTaking:
    """One commit for the lock and the first tasks."""

    async def test_a_free_key(self, store: TaskStore) -> None:
        """The first of the line is claimed under the lock's lease id, and its lease ends with the lock's."""
        first, *_ = await stored(store, waiting("a", -3), waiting("b", -2))
        taken = not_none(await the_key(store).take(first, has_room=room))
        (lock,) = await store.locks(["ada"])
        (claimed,) = [step.after for step in taken.claimed]
        assert (claimed.id, claimed.lease_owner, claimed.leased_until) == (
            "a",
            not_none(lock).owner,
            not_none(lock).leased_until,
        )

    async def test_a_key_that_somebody_holds(self, store: TaskStore) -> None:
        """Nothing is claimed, and it is known how long nobody need look again."""
        first, *_ = await stored(store, waiting("a"))
        now = (await store.now()).latest
        change = lifecycle.lock("ada", None, owner="other", until=now.replace(year=now.year + 1))
        await store.commit([], (), None, [change])
        key = the_key(store)
        assert await key.take(first, has_room=room) is None
        assert key.closed_for > 10**6

    async def test_somebody_is_faster(self, store: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever commits second has nothing: neither the lock nor a claim."""
        first, *_ = await stored(store, waiting("a"), waiting("b"))
        mine, other = the_key(store), the_key(store)
        commit = store.commit

        async def late(*arguments: Any) -> Any:
            monkeypatch.setattr(store, "commit", commit)
            assert await other.take(first, has_room=room) is not None
            return await commit(*arguments)

        monkeypatch.setattr(store, "commit", late)
        assert await mine.take(first, has_room=room) is None
        assert [task.attempts for task in await store.get(["a", "b"]) if task] == [1, 0]

    async def test_no_room_for_the_kind_whose_turn_it_is(self, store: TaskStore) -> None:
        """A key is not taken for a task that could not run."""
        first, *_ = await stored(store, waiting("a"))
        assert await the_key(store).take(first, has_room=lambda _: False) is None
        assert await store.locks(["ada"]) == [None]

    async def test_a_task_that_runs_without_a_lock(self, store: TaskStore) -> None:
        """Where somebody has removed a lock by hand, nothing is started beside the task that it was for."""
        now = (await store.now()).latest
        (running,) = await stored(store, waiting("b"))
        until = now.replace(year=now.year + 1)
        await follow(store, lifecycle.claim(running, lease_id="other", until=until, now=await store.now()))
        (first,) = await stored(store, waiting("a", -5))
        assert await the_key(store).take(first, has_room=room) is None

    async def test_what_needs_no_key_is_told(self, store: TaskStore) -> None:
        """Tasks of the line that are cancelled, expired or a dead worker's are handed to whoever deals with them."""
        lapsed = waiting("dead", -9, lease_owner="other", leased_until=at(-(10**8)), attempts=1)
        first, *_ = await stored(
            store,
            lapsed,
            waiting("late", -8, deadline=at(-(10**8))),
            a_task("gone", resource_key="ada", wait_until=NO_WAIT, is_cancelled=True),
            waiting("theirs", -7, kind="theirs"),
            waiting("a", -6),
        )
        found: list[Task] = []
        assert await the_key(store, found).take(first, has_room=room) is None  # the dead worker's is waited for
        assert sorted(ids(found)) == ["dead", "gone", "late"]


class TestGoingOn:
    """Who comes next."""

    async def test_one_after_the_other(self, store: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was read ahead is given without another look; then the line is read on, and known to be at its end."""
        first, *_ = await stored(store, *(waiting(f"{n:02}", n) for n in range(50)))
        reads, line = [], store.line

        async def counted(*arguments: Any, **options: Any) -> list[Task]:
            reads.append(arguments)
            return await line(*arguments, **options)

        monkeypatch.setattr(store, "line", counted)
        key = the_key(store)
        given = [ids(step.after for step in not_none(await key.take(first, has_room=room)).claimed)]
        while tasks := await key.next(None):
            (running,) = await store.get(given[-1])
            await follow(store, lifecycle.complete(not_none(running), result=None, now=await store.now()))
            (task,) = tasks
            until = (await store.now()).latest.replace(year=2100)
            await follow(store, lifecycle.claim(task, lease_id="l", until=until, now=await store.now()))
            given.append(ids(tasks))
        assert given == [[f"{n:02}"] for n in range(50)]
        assert len(reads) == 3

    async def test_nothing_is_next_beside_what_runs(self, store: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A line of nothing but what this worker runs is at its end, however often it is read: no key is closed."""
        first, *_ = await stored(store, waiting("a"), waiting("b"))
        monkeypatch.setattr(keys, "_STALE_SECONDS", 0.0)
        key = the_key(store, max_batch=5)
        taken = not_none(await key.take(first, has_room=room))
        assert ids(step.after for step in taken.claimed) == ["a", "b"]
        for _ in range(3):
            assert await key.next(None) == ()
            assert key.closed_for == 0

    async def test_what_came_meanwhile(self, store: TaskStore) -> None:
        """A task that was found since the line was read makes it worth reading again; an older one does not."""
        first, *_ = await stored(store, waiting("a"))
        key = the_key(store)
        await key.take(first, has_room=room)
        (second,) = await stored(store, waiting("b"))
        assert await key.next(first) == ()
        assert ids(await key.next(second)) == ["b"]

    async def test_what_was_put_back_waits_behind_the_others(self, store: TaskStore) -> None:
        """A task that comes back with a new place does not go before one that came while it ran."""
        first, *_ = await stored(store, waiting("a"))
        key = the_key(store)
        (claim,) = not_none(await key.take(first, has_room=room)).claimed
        await stored(store, waiting("b", 10))
        back = lifecycle.snooze(claim.after, delay=0, now=await store.now())
        key.put_back([await follow(store, back)])
        assert ids(await key.next(None)) == ["b"]

    async def test_a_batch_is_filled_beyond_what_was_read(self, store: TaskStore) -> None:
        """More tasks than were read ahead are read, so that a batch is as large as it may be."""
        first, *_ = await stored(store, *(waiting(f"{n:02}", n) for n in range(7)))
        key = the_key(store, max_batch=5)
        taken = not_none(await key.take(first, has_room=room))
        await stored(store, *(waiting(f"{n:02}", n) for n in range(7, 60)))
        assert ids(step.after for step in taken.claimed) == [f"{n:02}" for n in range(5)]
        assert ids(await key.next(None)) == ["05", "06"]  # what came later is not known yet

    async def test_a_cleanup_goes_before_what_was_read_ahead(self, store: TaskStore) -> None:
        """A task that is cancelled while others of its key run is cleaned up next, once that has been heard of."""
        first, _, third = await stored(store, waiting("a", -3), waiting("b", -2), waiting("c", -1))
        undo = Cleanup(function=greet, runs_in="loop", timeout=None, retry=None)
        key = the_key(store, cleanup=undo)
        await key.take(first, has_room=room)
        cancelled = await follow(store, not_none(lifecycle.cancel(third, now=await store.now())))
        assert ids(await key.next(cancelled)) == ["c"]
        assert ids(await key.next(cancelled)) == ["b"]
