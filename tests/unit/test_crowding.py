"""Where a worker reads while others read the same line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from oncetask.crowding import Crowding
from oncetask.task import Task
from tests.support import T0, a_task

AHEAD = 400
LEAST = 50


def line(number: int, *, begins: float = 0) -> list[Task]:
    """Give so many tasks that became due a second apart."""
    return [a_task(f"t:{n}", due_at=T0 + timedelta(seconds=begins + n)) for n in range(number)]


def test_one_who_is_alone_reads_more_and_more_from_the_head() -> None:
    """Without anybody else the line is read in order, in pages that grow."""
    crowding, pages = Crowding(AHEAD), []
    for _ in range(5):
        pages.append(crowding.page)
        assert crowding.place is None
        crowding.read(line(crowding.page), is_full=True)
        assert not crowding.claimed(refused=0, tried=32)

    assert pages == [LEAST, 2 * LEAST, 4 * LEAST, AHEAD, AHEAD]


def test_one_who_is_refused_goes_on_behind_what_was_read() -> None:
    """The next place is behind the page, at most eight times its length further, and not always the same."""
    places = set()
    for _ in range(50):
        crowding = Crowding(AHEAD)
        crowding.claimed(refused=10, tried=32)
        crowding.read(line(LEAST), is_full=True)
        assert crowding.is_felt
        assert crowding.place is not None
        places.add(crowding.place.due_at)

    seconds = [(place - T0).total_seconds() for place in places]
    assert min(seconds) >= LEAST - 1
    assert max(seconds) <= (LEAST - 1) * 9
    assert len(places) > 1


def test_behind_the_end_comes_the_head() -> None:
    """A page that was not full says that the line ends there."""
    crowding = Crowding(AHEAD)
    crowding.claimed(refused=10, tried=32)
    crowding.read(line(LEAST), is_full=True)
    crowding.read(line(3), is_full=False)

    assert crowding.place is None

    crowding.read([], is_full=False)

    assert crowding.place is None


def test_pages_are_small_among_others_and_grow_again() -> None:
    """What has been read for long is somebody else's by then; once the others are gone the head is read again."""
    crowding = Crowding(AHEAD)
    for _ in range(5):
        crowding.read(line(LEAST), is_full=True)
    assert crowding.page == AHEAD

    for _ in range(5):
        crowding.claimed(refused=16, tried=32)
        crowding.read(line(LEAST), is_full=True)
    assert crowding.page == LEAST

    for _ in range(10):
        crowding.claimed(refused=0, tried=32)
        crowding.read(line(LEAST), is_full=True)
    assert crowding.page == AHEAD
    assert not crowding.is_felt
    assert crowding.place is None


def test_only_one_who_was_refused_everything_leaves_what_was_read() -> None:
    """The rest of a page may well be free where some of it was."""
    crowding = Crowding(AHEAD)

    assert not crowding.claimed(refused=31, tried=32)
    assert crowding.claimed(refused=32, tried=32)


def test_among_many_of_one_instant_any_id_may_be_next() -> None:
    """Tasks that are due at the same moment stand in the order of their ids, so there the place is an id."""
    crowding = Crowding(AHEAD)
    crowding.claimed(refused=10, tried=32)
    places = set()
    for _ in range(20):
        crowding.read([a_task(f"t:{n}", due_at=T0) for n in range(LEAST)], is_full=True)
        assert crowding.place is not None
        assert crowding.place.due_at == T0
        places.add(crowding.place.task_id)

    assert len(places) == 20


def test_a_due_time_of_the_year_1_leads_nowhere_beyond_the_calendar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that reaches from the year 1 until today is read, wherever the lot says to go on."""
    monkeypatch.setattr("random.random", lambda: 0.99)
    crowding = Crowding(AHEAD)

    crowding.read([a_task("old", due_at=datetime(1, 1, 1, tzinfo=UTC)), a_task("new", due_at=T0)], is_full=True)
    crowding.claimed(refused=32, tried=32)

    assert crowding.place is None or crowding.place.due_at <= datetime.max.replace(tzinfo=UTC)
