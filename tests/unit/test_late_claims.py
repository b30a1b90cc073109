"""A claim whose answer takes longer than its lease: nothing is started under a lease that somebody else may have."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from oncetask import App, Context, FixedDelay, Payload
from oncetask.testing import Harness

LONGER_THAN_A_LEASE = 70


class Job(Payload, kind="job"):
    """Nothing special."""

    key: str | None = None

    def resource_key(self) -> str | None:
        """Give the key, if it has one."""
        return self.key


@pytest.mark.parametrize("key", [None, "k"])
async def test_what_is_confirmed_too_late_is_not_started(key: str | None) -> None:
    """A task whose claim is confirmed after its lease has ended waits for its rescue, and runs once."""
    runs: list[tuple[datetime | None, datetime]] = []
    app = App(retry=FixedDelay(5, 1))

    @app.handler(Job)
    async def handler(ctx: Context, _: Job) -> None:
        runs.append((ctx.task.leased_until, h.now))

    async with Harness(app) as h:
        receipt = await h.enqueue(Job(key=key))
        h.store.delay("apply" if key is None else "commit", by=LONGER_THAN_A_LEASE)
        await h.advance(200)
        h.assert_completed(receipt)
        assert h.task(receipt).attempts == 2
    ((until, began),) = runs
    assert until is not None
    assert until > began


async def test_a_cleanup_that_is_confirmed_too_late_is_not_started() -> None:
    """Nor is a cleanup whose lease has ended when its beginning is confirmed."""
    cleanups: list[tuple[datetime | None, datetime]] = []
    app = App(retry=FixedDelay(5, 1))

    @app.handler(Job)
    async def handler(_: Context, __: Job) -> None:
        try:
            await asyncio.sleep(250)
        finally:
            h.store.delay("apply", by=LONGER_THAN_A_LEASE)  # the write with which the cleanup begins

    @app.cancellation_handler(Job)
    async def clean_up(ctx: Context, _: Job) -> None:
        cleanups.append((ctx.task.leased_until, h.now))

    async with Harness(app) as h:
        receipt = await h.enqueue(Job())
        await h.advance(5)
        await h.cancel(receipt)
        await h.advance(300)
        h.assert_cancelled(receipt)
    ((until, began),) = cleanups
    assert until is not None
    assert until > began
