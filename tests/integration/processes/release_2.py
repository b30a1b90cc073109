"""The shop as it is: `python -m tests.integration.processes.release_2`."""

from __future__ import annotations

import asyncio

from pydantic import AliasChoices, Field

from oncetask import App, Context, FixedDelay, Payload
from tests.integration.processes.release_1 import WHILE_IT_IS_DEPLOYED, serve


class Order(Payload, kind="order"):
    """Has a new field, with a default for what was stored before."""

    number: int
    gift: bool = False


class Invoice(Payload, kind="invoice", extra="forbid"):
    """Has a new field, which the release before refuses."""

    number: int
    currency: str = "EUR"


class Parcel(Payload, kind="parcel"):
    """A field has a new name, and is still read by its old one."""

    address: str = Field(validation_alias=AliasChoices("address", "street"))


class Refund(Payload, kind="refund"):
    """Has a new field, without which it is not valid: the mistake among these changes."""

    number: int
    reason: str


class Sms(Payload, kind="sms"):
    """In place of a fax, whose kind is gone."""

    text: str


app = App("shop", retry=WHILE_IT_IS_DEPLOYED)


async def work(_: Context, payload: Payload) -> str:
    """Say what this release makes of it."""
    return f"2: {payload!r}"


for each in (Order, Invoice, Parcel, Sms):
    app.handler(each)(work)
app.handler(Refund, retry=FixedDelay(2, 0.1))(work)


if __name__ == "__main__":
    asyncio.run(serve(app))
