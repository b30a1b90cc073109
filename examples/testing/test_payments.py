"""A payment whose bank is away for hours, and one that will never be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from shop import CardRefusedError, ChargeCard, SendReceipt  # type: ignore[import-not-found]  # the file beside this one

from oncetask import StoreUnavailable
from oncetask.testing import Harness


async def test_a_bank_that_is_away_for_some_time(h: Harness, bank: Any) -> None:
    """The card is charged at the third attempt, five minutes later, and then the receipt goes out."""
    bank.fails_with = [ConnectionError("no route to the bank")] * 2
    payment = await h.enqueue(ChargeCard(order="o-1", cents=1_999))

    await h.run_due()
    h.assert_waiting(payment, until=h.now + timedelta(minutes=1))
    h.assert_enqueued(SendReceipt, count=0)

    await h.advance(timedelta(minutes=5))  # one minute, and then four
    h.assert_completed(payment, result="ref-o-1")
    assert h.task(payment).attempts == 3
    assert bank.charged == {"o-1": 1_999}
    h.assert_completed(h.tasks.of(SendReceipt).one())


async def test_a_bank_that_is_away_for_too_long(h: Harness, bank: Any) -> None:
    """After six attempts in twelve hours the payment has failed, and the error of each attempt is kept."""
    bank.fails_with = [ConnectionError("no route to the bank")] * 6
    payment = await h.run(ChargeCard(order="o-1", cents=1_999))

    h.assert_failed(payment, match="no route", error=ConnectionError)
    assert [error.attempt for error in payment.errors] == [1, 2, 3, 4, 5, 6]
    h.assert_enqueued(SendReceipt, count=0)


async def test_a_card_that_is_refused(h: Harness, bank: Any) -> None:
    """There is no second attempt at what the bank has refused."""
    bank.fails_with = [CardRefusedError("stolen")]
    payment = await h.run(ChargeCard(order="o-1", cents=1_999))

    h.assert_failed(payment, match="stolen")
    assert payment.attempts == 1


async def test_an_order_is_paid_once(h: Harness, bank: Any) -> None:
    """Whoever asks a second time finds the payment that there is, also when the answer to the first was lost."""
    h.store.fail("create", when="after")
    with pytest.raises(StoreUnavailable):
        await h.enqueue(ChargeCard(order="o-1", cents=1_999))
    assert not (await h.enqueue(ChargeCard(order="o-1", cents=1_999))).created

    await h.run_due()
    assert bank.charged == {"o-1": 1_999}
    h.assert_enqueued(SendReceipt, count=1)
