"""What runs in the background: cards are charged, or what was reserved on them is released."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import BaseModel, Field

from oncetask import App, Context, ExponentialBackoff, Payload

PROVIDER = os.environ.get("PAYMENT_PROVIDER", "http://localhost:9000")


class Order(BaseModel):
    """What a customer wants to pay for."""

    number: str = Field(pattern=r"^[A-Za-z0-9-]{1,40}$")
    customer: str = Field(pattern=r"^[A-Za-z0-9-]{1,40}$")
    cents: int = Field(gt=0, le=1_000_000)


class Charge(Payload, kind="charge"):
    """An order, and by what name the provider knows the money that is reserved for it."""

    order: Order
    reservation: str

    def idempotency_key(self) -> str:
        """Charge an order once, however often it is placed."""
        return self.order.number

    def resource_key(self) -> str:
        """Charge a customer's orders one after the other; those of others go on meanwhile."""
        return f"customer:{self.order.customer}"


@asynccontextmanager
async def provider() -> AsyncIterator[httpx.AsyncClient]:
    """Open connections to the provider: `ctx.state` of all charges of a tick."""
    async with httpx.AsyncClient(base_url=PROVIDER, timeout=15) as web:
        yield web


app = App("charges", timeout=20, retry=ExponentialBackoff(max_attempts=8), lifespan=provider)


@app.handler(Charge)
async def charge(ctx: Context, payload: Charge) -> None:
    """Take the money; by the task's id the provider knows a request that comes twice."""
    await _post(ctx, f"/reservations/{payload.reservation}/charge")


@app.cancellation_handler(Charge)
async def release(ctx: Context, payload: Charge) -> None:
    """Give the money free. If the charge had come through already, this is where it would be paid back."""
    await _post(ctx, f"/reservations/{payload.reservation}/release")


async def _post(ctx: Context, path: str) -> None:
    web: httpx.AsyncClient = ctx.state
    answer = await web.post(path, headers={"Idempotency-Key": f"{ctx.task_id}{path}"})
    answer.raise_for_status()
