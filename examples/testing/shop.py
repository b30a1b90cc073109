"""A shop's background work: it charges cards, packs orders and writes a statement each night.

The bank, the warehouse and the ledger are handed to `make_app`, so that tests hand in their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Protocol
from zoneinfo import ZoneInfo

from oncetask import App, Context, Discard, ExponentialBackoff, Payload, Recurrence

BERLIN = ZoneInfo("Europe/Berlin")


class CardRefusedError(Exception):
    """The bank will never charge this card."""


class Bank(Protocol):
    """Whoever moves the money."""

    async def charge(self, order: str, cents: int) -> str:
        """Charge a card, once for each order, and give a reference. Raises ConnectionError, CardRefusedError."""


class Warehouse(Protocol):
    """Where the goods are."""

    def reserve(self, order: str) -> None:
        """Keep the goods of an order."""

    def release(self, order: str) -> None:
        """Give them back, if they were kept. Raises ConnectionError."""


@dataclass
class Services:
    """What handlers need from outside: their `ctx.state`."""

    bank: Bank
    warehouse: Warehouse
    write_statement: Callable[[date], None]


class ChargeCard(Payload, kind="charge-card"):
    """One order is paid once."""

    order: str
    cents: int

    def idempotency_key(self) -> str:
        """Whoever asks twice gets one payment."""
        return self.order


class SendReceipt(Payload, kind="send-receipt"):
    """What a customer gets who has paid."""

    order: str
    reference: str


class PackOrder(Payload, kind="pack-order"):
    """Several hours of work at one of the tables."""

    order: str
    table: str

    def resource_key(self) -> str:
        """At a table, orders are packed one after the other."""
        return f"table:{self.table}"


class WriteStatement(Payload, kind="write-statement"):
    """The day's business, for the books."""


def make_app(services: Services) -> App:
    """Give an App that works with these."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Services]:
        yield services

    app = App("shop", lifespan=lifespan)
    app.schedule("statement", WriteStatement(), Recurrence.cron("0 2 * * *", timezone="Europe/Berlin"))
    backoff = ExponentialBackoff(max_attempts=6, base_delay=60, multiplier=4, max_delay=21_600, jitter=0)
    app.handler(ChargeCard, timeout=30, retry=backoff)(charge_card)
    app.handler(SendReceipt)(send_receipt)
    app.handler(PackOrder, timeout=28_800)(pack_order)
    app.cancellation_handler(PackOrder, timeout=60)(unpack_order)
    app.handler(WriteStatement, timeout=3_600)(write_statement)
    return app


async def charge_card(ctx: Context, charge: ChargeCard) -> str:
    """Charge a card; the receipt is enqueued together with the payment's completion, or not at all."""
    try:
        reference = await ctx.state.bank.charge(charge.order, charge.cents)
    except CardRefusedError as refused:
        raise Discard(str(refused)) from refused
    ctx.enqueue(SendReceipt(order=charge.order, reference=reference))
    return str(reference)


async def send_receipt(ctx: Context, receipt: SendReceipt) -> None:
    """Leave it to the mail server."""
    ctx.logger.info("receipt %s", receipt.reference)


async def pack_order(ctx: Context, job: PackOrder) -> None:
    """Pack for three hours."""
    ctx.state.warehouse.reserve(job.order)
    for hour in range(3):
        ctx.progress(hour / 3)
        await asyncio.sleep(3_600)


async def unpack_order(ctx: Context, job: PackOrder) -> None:
    """Put everything back where it was."""
    ctx.state.warehouse.release(job.order)


async def write_statement(ctx: Context, _: WriteStatement) -> str:
    """Write the statement of the night for which this is; one that was begun twice is written once."""
    assert ctx.task.occurrence_timestamp is not None  # it is an occurrence of a schedule
    day = ctx.task.occurrence_timestamp.astimezone(BERLIN).date()
    await asyncio.sleep(600)
    ctx.state.write_statement(day)
    return day.isoformat()
