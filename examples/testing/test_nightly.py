"""A month of nights, one with a crash, one with a database that is away, and one in which the clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from oncetask.testing import Harness


async def test_a_month_of_nights(h: Harness, statements: list[date]) -> None:
    """Each day has its statement, once, whatever happens."""
    await h.advance_to(datetime(2030, 3, 20, 1, 5, tzinfo=UTC))  # five past two in Berlin
    assert h.tasks.with_status("leased").one().kind == "write-statement"
    await h.crash()

    await h.advance_to(datetime(2030, 3, 25, 0, 59, tzinfo=UTC))
    with h.store.failing():
        await h.advance(timedelta(hours=2))  # the night of the 25th begins, and is made up for

    await h.advance_to(datetime(2030, 4, 8, 12, tzinfo=UTC))
    assert statements == [date(2030, 3, 10) + timedelta(days=n) for n in range(30)]
    assert len(h.tasks.spawned_by("shop:statement").with_status("done-completed")) == 30
    h.assert_idle()


async def test_summer_time(h: Harness) -> None:
    """Two in the night in Berlin is one in UTC until the last Sunday of March, where two is skipped; then midnight."""
    await h.advance(timedelta(days=30))
    begun = [task.started_at for task in h.tasks.spawned_by("shop:statement")]
    assert {instant.day: instant.hour for instant in begun if instant is not None and instant.month == 3} == {
        **dict.fromkeys(range(10, 32), 1),
    }
    assert {instant.hour for instant in begun if instant is not None and instant.month == 4} == {0}
