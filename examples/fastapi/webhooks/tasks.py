"""What runs in the background: events are posted to a subscriber, again and again until he has them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import Field, JsonValue

from oncetask import App, Context, Discard, ExponentialBackoff, Payload

SUBSCRIBER = os.environ.get("WEBHOOK_URL", "http://localhost:9000/")


class Deliver(Payload, kind="deliver"):
    """Something that happened."""

    event: str = Field(min_length=1, max_length=100)
    data: dict[str, JsonValue] = Field(default_factory=dict)


@asynccontextmanager
async def connections() -> AsyncIterator[httpx.AsyncClient]:
    """Open what all deliveries of a worker share: their `ctx.state`."""
    async with httpx.AsyncClient(timeout=30) as web:
        yield web


app = App("webhooks", lifespan=connections)


@app.handler(Deliver, timeout=30, retry=ExponentialBackoff(max_attempts=8))
async def deliver(ctx: Context, event: Deliver) -> int:
    """Post an event; by its id the subscriber knows one that comes twice."""
    web: httpx.AsyncClient = ctx.state
    answer = await web.post(SUBSCRIBER, json=event.to_data(), headers={"Idempotency-Key": ctx.task_id})
    if answer.is_client_error:
        raise Discard(f"the subscriber does not want it: {answer.status_code}")
    answer.raise_for_status()
    return answer.status_code
