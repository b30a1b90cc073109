"""An order that is cancelled while it is being packed, and the next one at the same table."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from shop import PackOrder  # type: ignore[import-not-found]  # the file beside this one

from oncetask.testing import Harness


async def test_an_order_is_cancelled_while_it_is_packed(h: Harness, warehouse: Any) -> None:
    """The work stops, the goods go back, and the table goes on with the next order at that moment."""
    first = await h.enqueue(PackOrder(order="o-1", table="north"))
    second = await h.enqueue(PackOrder(order="o-2", table="north"))
    other = await h.enqueue(PackOrder(order="o-3", table="south"))

    await h.advance(timedelta(hours=1, minutes=30))
    assert warehouse.reserved == {"o-1", "o-3"}  # one at each table
    progress = h.task(first).progress
    assert progress is not None
    assert progress.fraction == pytest.approx(1 / 3)

    await h.cancel(first)
    await h.advance(1)
    h.assert_cancelled(first)
    assert warehouse.reserved == {"o-2", "o-3"}

    await h.advance(timedelta(hours=3))
    h.assert_completed(second)
    h.assert_completed(other)


async def test_a_cancelled_order_never_starts(h: Harness, warehouse: Any) -> None:
    """What is cancelled before its hour is not packed; its cleanup finds nothing to do."""
    order = await h.enqueue(PackOrder(order="o-1", table="north"), delay=timedelta(days=1))
    await h.cancel(order)
    await h.advance(timedelta(days=2))
    h.assert_cancelled(order)
    assert h.task(order).attempts == 0
    assert warehouse.reserved == set()


async def test_a_worker_dies_while_it_packs(h: Harness) -> None:
    """The table is held until the lease has ended, then another worker begins anew."""
    order = await h.enqueue(PackOrder(order="o-1", table="north"))
    await h.advance(timedelta(hours=1))
    await h.crash()
    await h.advance(timedelta(hours=3, minutes=5))
    h.assert_completed(order)
    assert h.task(order).attempts == 2
    assert [error.type for error in h.task(order).errors] == ["LeaseLost"]
