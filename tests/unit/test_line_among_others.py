"""What a worker reads of the due line when others are faster with its claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oncetask.line import DueLine
from oncetask.slots import Room
from oncetask.store import Cursor
from oncetask.store.sqlite import SqliteStore
from oncetask.task import Task
from tests.support import a_handler, a_task, stored

AHEAD = 400
PAGE = 50
SLOTS = 8


class Recorded(SqliteStore):
    """A store that tells where it was asked to read the line."""

    def __init__(self) -> None:
        """In memory."""
        super().__init__(":memory:")
        self.places: list[Cursor | None] = []

    async def due(self, *args: Any, after: Cursor | None = None, **options: Any) -> list[Task]:
        """Note the place."""
        self.places.append(after)
        return await super().due(*args, after=after, **options)


@pytest.fixture
async def store() -> AsyncIterator[Recorded]:
    """An open one."""
    store = Recorded()
    await store.open()
    yield store
    await store.aclose()


async def line_of(store: Recorded, tasks: int) -> DueLine:
    """Give the line of so many tasks that are due for long, a second apart."""
    begins = datetime.now(UTC) - timedelta(hours=1)
    instants = [begins + timedelta(seconds=n) for n in range(tasks)]
    await stored(store, *(a_task(f"greet:{n:03}", wait_until=at, due_at=at) for n, at in enumerate(instants)))
    return DueLine(store, {"greet": a_handler()}, ahead=AHEAD, poll=30)


async def taken(line: DueLine) -> list[str]:
    """Give the ids of what is there to claim."""
    room = Room(SLOTS, {"greet": SLOTS}, 1, ())
    picked = await line.take(room, asyncio.Event(), keys=SLOTS, waits=False)
    return [task.id for task in picked.plain]


async def test_who_is_refused_everything_reads_elsewhere(store: Recorded) -> None:
    """The rest of the page is left to the others, and the next one begins behind it."""
    line = await line_of(store, 1_000)
    first = await taken(line)
    line.claimed(refused=SLOTS, tried=SLOTS)

    second = await taken(line)

    assert first == [f"greet:{n:03}" for n in range(SLOTS)]
    assert min(second) >= f"greet:{PAGE:03}"
    assert len(store.places) == 2
    assert store.places[1] is not None


async def test_who_is_refused_some_goes_on_in_what_was_read(store: Recorded) -> None:
    """No query is needed for that, and what comes next is not what stands next for everybody."""
    line = await line_of(store, 300)
    await taken(line)
    line.claimed(refused=SLOTS - 1, tried=SLOTS)

    second = await taken(line)

    assert len(second) == SLOTS
    assert store.places == [None]


async def test_everything_is_found_in_the_end(store: Recorded) -> None:
    """Whoever wanders comes back to the head, and misses nothing on the way."""
    line, found = await line_of(store, 300), set[str]()
    line.claimed(refused=SLOTS, tried=SLOTS)

    while some := await taken(line):
        found.update(some)
        line.claimed(refused=1, tried=SLOTS)

    assert len(found) == 300


async def test_who_loses_a_lone_task_asks_for_nothing(store: Recorded) -> None:
    """Of many idle workers that want one task all but one are refused: each query of theirs would be paid for."""
    line = await line_of(store, 1)
    assert await taken(line) == ["greet:000"]
    line.claimed(refused=1, tried=1)

    assert await taken(line) == []
    assert store.places == [None]
