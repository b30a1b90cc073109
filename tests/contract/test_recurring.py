"""What stores do for schedules: generators among the tasks, their commits, and the settings of an environment."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from oncetask import Recurrence, lifecycle
from oncetask.recurrence import Plan
from oncetask.store import Cursor, Settings, TaskFilter, TaskStore
from oncetask.store.firestore import FirestoreStore
from oncetask.task import NO_WAIT, Outcome, Task, TaskStatus
from tests.contract.backends import Backend
from tests.contract.places import FIRESTORE, only
from tests.integration.firestore.support import lose_answer, session_of
from tests.support import T0, a_task, at, exactly, fetch, follow, stored

NOW = exactly(T0)
RULE = Recurrence(
    "FREQ=DAILY;COUNT=9",
    datetime(2029, 12, 25, 8, tzinfo=UTC),
    "Europe/Berlin",
    exdates=[datetime(2029, 12, 26, 8, tzinfo=UTC), datetime(2029, 12, 27, 8, tzinfo=UTC)],
    catch_up="all",
    overlap="cancel-previous",
)


def a_generator(task_id: str = "daily", **fields: Any) -> Task:
    """Give a generator that is due since T0."""
    return a_task(task_id, **{"recurrence": RULE.to_fields(), **fields})


async def test_a_recurrence_comes_back_as_it_was(store: TaskStore) -> None:
    """Rule, start and left-out dates are read as they were stored, the instants among them as instants."""
    (generator,) = await stored(store, a_generator())
    paused = lifecycle.pause(generator, now=exactly(at(0.000_001)))
    assert paused is not None
    await follow(store, paused)

    found = await fetch(store, "daily")
    assert found.recurrence == {**RULE.to_fields(), "pausedAt": at(0.000_001)}
    assert Recurrence.from_fields(found.recurrence) == RULE


async def test_only_generators_are_due(store: TaskStore) -> None:
    """The due line can be read for generators alone: in its order, limited, from a place on, of some kinds."""
    await stored(
        store,
        *(a_generator(f"g{n}", wait_until=at(n)) for n in range(4)),
        *(a_task(f"t{n}", wait_until=at(n)) for n in range(4)),
        a_generator("other", kind="other"),
        a_generator("paused", recurrence={**RULE.to_fields(), "pausedAt": T0}),
        a_generator("done", outcome=Outcome.COMPLETED),
    )

    async def due(limit: int = 9, after: Cursor | None = None) -> list[str]:
        found = await store.due(["greet"], now=at(2), limit=limit, after=after, generators=True)
        return [task.id for task in found]

    assert await due() == ["g0", "g1", "g2"]
    assert await due(limit=2) == ["g0", "g1"]
    assert await due(after=Cursor(at(0), "g0")) == ["g1", "g2"]
    both = await store.due(["greet", "other"], now=at(2), limit=9, generators=True)
    assert [task.id for task in both] == ["g0", "other", "g1", "g2"]


async def test_a_paused_generator_waits(store: TaskStore) -> None:
    """It is not in the due line at all, and is counted as waiting; a cancel puts it back."""
    (generator,) = await stored(store, a_generator())
    paused = lifecycle.pause(generator, now=NOW)
    assert paused is not None
    generator = await follow(store, paused)

    assert await store.due(["greet"], now=at(10**9), limit=9) == []
    assert (await fetch(store, "daily")).status is TaskStatus.WAITING
    assert await store.stats() == {"greet": {TaskStatus.WAITING: 1}}

    cancelled = lifecycle.cancel(generator, now=NOW)
    assert cancelled is not None
    await follow(store, cancelled)
    assert [task.id for task in await store.due(["greet"], now=NO_WAIT, limit=9)] == ["daily"]


async def test_generators_are_found(store: TaskStore) -> None:
    """A filter asks for generators, open and done ones, together with other conditions."""
    await stored(
        store,
        a_generator("a"),
        a_generator("b", outcome=Outcome.COMPLETED),
        a_generator("c", kind="other", owner="ada"),
        a_task("task"),
    )

    async def found(which: TaskFilter) -> str:
        return "".join(task.id for task in await store.find(which, limit=9))

    assert await found(TaskFilter(generators=True)) == "abc"
    assert await found(TaskFilter(generators=True, done=False)) == "ac"
    assert await found(TaskFilter(generators=True, done=True, kind="greet")) == "b"
    assert await found(TaskFilter(generators=True, owner="ada")) == "c"


class TestCommits:
    """A generator, its occurrences and the cancel of the previous one are one commit."""

    async def test_all_of_it(self, store: TaskStore) -> None:
        """The generator has moved on, the occurrences are there, and the previous one is cancelled."""
        generator, previous = await stored(store, a_generator(), a_task("previous"))
        steps, made = lifecycle.spawn(generator, Plan((T0, at(60)), at(120)), now=NOW, previous=previous)

        written = await store.commit(steps, made, None)

        assert all(one.applied for one in written)
        found = await store.get(["daily", "previous", *(task.id for task in made)])
        assert [task and (task.due_at, task.is_cancelled) for task in found] == [
            (at(120), False),
            (NO_WAIT, True),
            (T0, False),
            (at(60), False),
        ]
        assert [task.version for task in found[:2] if task] == [one.version for one in written]

    @pytest.mark.parametrize("changed", ["daily", "previous"])
    async def test_or_nothing(self, store: TaskStore, changed: str) -> None:
        """Where one of the two has changed meanwhile, nothing is written, and every answer says refused."""
        generator, previous = await stored(store, a_generator(), a_task("previous"))
        steps, made = lifecycle.spawn(generator, Plan((T0,), at(120)), now=NOW, previous=previous)
        task = {"daily": generator, "previous": previous}[changed]
        await follow(store, lifecycle.claim(task, lease_id="l1", until=at(60), now=NOW))

        written = await store.commit(steps, made, None)

        assert [(one.applied, one.error) for one in written] == [(False, None)] * 2
        found = await store.get(["daily", "previous", made[0].id])
        assert [task and (task.wait_until, task.is_cancelled) for task in found] == [(T0, False), (T0, False), None]

    async def test_an_occurrence_that_exists(self, store: TaskStore) -> None:
        """It is left as it is, the generator moves on, and the others are created."""
        (generator,) = await stored(store, a_generator())
        steps, made = lifecycle.spawn(generator, Plan((T0, at(60)), at(120)), now=NOW)
        await stored(store, a_task(made[0].id, data={"name": "was here before"}))

        (written,) = await store.commit(steps, made, None)

        assert written.applied
        moved, old, new = await store.get(["daily", *(task.id for task in made)])
        assert (moved and moved.due_at, old and old.data, new and new.due_at) == (
            at(120),
            {"name": "was here before"},
            at(60),
        )

    @only(FIRESTORE)
    async def test_an_occurrence_that_goes_at_the_wrong_moment(self, store: FirestoreStore) -> None:
        """One that is deleted between the refusal and the look for its reason is created after all."""
        (generator,) = await stored(store, a_generator())
        steps, made = lifecycle.spawn(generator, Plan((T0,), at(60)), now=NOW)
        (old,) = await stored(store, a_task(made[0].id))
        session = session_of(store)
        read = session.read

        async def delete_first(names: Any) -> Any:
            await store.delete([old])
            return await read(names)

        session.read = delete_first  # type: ignore[method-assign]
        (written,) = await store.commit(steps, made, None)

        assert written.applied
        assert (await fetch(store, made[0].id)).parent_recurrence_id == "daily"

    async def test_of_many_one_succeeds(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """However many spawn the same instant at the same time, one moves the generator on."""
        (generator,) = await stored(store, a_generator())
        steps, made = lifecycle.spawn(generator, Plan((T0,), at(60)), now=NOW)
        stores = [store, *(open_store() for _ in range(4))]
        await asyncio.gather(*(one.open() for one in stores))

        answers = await asyncio.gather(*(one.commit(steps, made, None) for one in stores))

        assert sum(written.applied for (written,) in answers) == 1
        assert (await fetch(store, "daily")).wait_until == at(60)

    @only(FIRESTORE)
    async def test_a_lost_answer(self, store: FirestoreStore) -> None:
        """A commit whose answer got lost is told as applied, and nothing is there twice."""
        (generator,) = await stored(store, a_generator())
        steps, made = lifecycle.spawn(generator, Plan((T0,), at(60)), now=NOW)
        lose_answer(store, "commit")

        (written,) = await store.commit(steps, made, None)

        assert written.version == (await fetch(store, "daily")).version
        assert [task is not None for task in await store.get([made[0].id])] == [True]


class TestSettings:
    """What an environment remembers beside its tasks."""

    async def test_nobody_has_written_any(self, store: TaskStore) -> None:
        """A new environment has none."""
        assert await store.settings() == Settings({}, 0)

    async def test_written_and_read(self, store: TaskStore) -> None:
        """What is set is read, and other fields stay."""
        first = await store.write_settings(await store.settings(), {"a": {"x y/z.": {"b": "1"}}, "n": 1})
        read = await store.settings()
        assert (read.fields, read.version) == ({"a": {"x y/z.": {"b": "1"}}, "n": 1}, first.version)

        second = await store.write_settings(read, {"a": {}})
        read = await store.settings()
        assert (read.fields, read.version) == ({"a": {}, "n": 1}, second.version)
        assert (first.version or 0) < (second.version or 0)

    async def test_an_old_record_is_refused(self, store: TaskStore) -> None:
        """Whoever comes second has to read again, at the first write and at every other."""
        for n in range(2):
            old = await store.settings()
            assert (await store.write_settings(old, {"n": n})).applied
            refused = await store.write_settings(old, {"n": "late"})
            assert (refused.applied, refused.error) == (False, None)
            assert (await store.settings()).fields == {"n": n}

    async def test_of_many_one_succeeds(self, store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
        """Of those who write upon the same record at the same time, one is told that it is stored."""
        stores = [store, *(open_store() for _ in range(4))]
        old = await store.settings()
        answers = await asyncio.gather(*(s.write_settings(old, {"by": n}) for n, s in enumerate(stores)))

        (winner,) = [n for n, written in enumerate(answers) if written.applied]
        assert (await store.settings()).fields == {"by": winner}

    async def test_each_environment_has_its_own(self, backend: Backend, store: TaskStore) -> None:
        """Another environment does not see them, and its tasks are not touched by them."""
        if not backend.shared:
            return
        await stored(store, a_task("task"))
        await store.write_settings(await store.settings(), {"n": 1})
        other = backend.open_store("staging")
        assert await other.settings() == Settings({}, 0)
        assert (await fetch(store, "task")).problems == ()

    @only(FIRESTORE)
    async def test_a_lost_answer(self, store: FirestoreStore) -> None:
        """A write whose answer got lost is told as refused at the second try; reading again shows that it is there."""
        await store.open()
        lose_answer(store, "commit")
        written = await store.write_settings(Settings({}, 0), {"n": 1})
        assert not written.applied
        assert (await store.settings()).fields == {"n": 1}

    @only(FIRESTORE)
    async def test_one_that_is_too_large(self, store: FirestoreStore) -> None:
        """It is told as impossible: reading again and writing once more would not help."""
        written = await store.write_settings(await store.settings(), {"text": "x" * 1_100_000})
        assert (written.applied, written.error is not None) == (False, True)

    @only(FIRESTORE)
    async def test_what_others_wrote_is_read(self, store: FirestoreStore, backend: Backend) -> None:
        """Values of any type are no reason to fail."""
        client = backend.client  # type: ignore[attr-defined]  # only Firestore's has one
        await client.document("oncetask/default").set({"schedules": [1], "when": T0, "where": None})
        assert (await store.settings()).fields == {"schedules": [1], "when": T0, "where": None}


@pytest.mark.parametrize("most", [1, 100])
async def test_many_occurrences_in_one_commit(store: TaskStore, most: int) -> None:
    """A hundred occurrences travel with their generator."""
    (generator,) = await stored(store, a_generator())
    instants = tuple(itertools.islice((at(60 * n) for n in itertools.count()), most))
    steps, made = lifecycle.spawn(generator, Plan(instants, at(9_999)), now=NOW)

    (written,) = await store.commit(steps, made, None)

    assert written.applied
    assert await store.count(TaskFilter(parent="daily")) == most
    assert await store.count(TaskFilter()) == most
