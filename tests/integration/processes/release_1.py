"""The shop as it was: `python -m tests.integration.processes.release_1`.

What has become of its payloads stands in `release_2`.
"""

from __future__ import annotations

import asyncio

from oncetask import App, Context, FixedDelay, Payload, Worker, connect

WHILE_IT_IS_DEPLOYED = FixedDelay(600, 0.1)
"""Retries that last until every worker is of the new release; here a minute."""


class Order(Payload, kind="order"):
    """Takes no notice of fields that it does not know, as payloads do by default."""

    number: int


class Invoice(Payload, kind="invoice", extra="forbid"):
    """Refuses fields that it does not know."""

    number: int


class Parcel(Payload, kind="parcel"):
    """Something to be sent."""

    street: str


class Refund(Payload, kind="refund"):
    """Money back."""

    number: int


class Fax(Payload, kind="fax"):
    """Nobody wants it any more."""

    text: str


app = App("shop", retry=WHILE_IT_IS_DEPLOYED)


async def work(_: Context, payload: Payload) -> str:
    """Say what this release makes of it."""
    return f"1: {payload!r}"


for each in (Order, Invoice, Parcel, Fax):
    app.handler(each)(work)
app.handler(Refund, retry=FixedDelay(2, 0.1))(work)


async def serve(app: App) -> None:
    """Work until told to stop."""
    async with connect() as client:
        await Worker(app, client).run(handle_signals=True)


if __name__ == "__main__":
    asyncio.run(serve(app))
