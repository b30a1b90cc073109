"""Sync calendars, each by one task at a time, and see who waits for whom.

    pip install oncetask
    python examples/calendar_sync.py

The tasks live in memory, or where ONCETASK_STORE says. Changes of three calendars come in a jumble: those of one
calendar are applied one after the other, in their order, while the calendars do not wait for each other. One that
fails keeps its place, because the changes behind it build on it. Reminders may step aside. And what came while nobody
looked is refreshed in one go.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from uuid import uuid4

from oncetask import App, Client, Context, FixedDelay, Payload, Worker, connect


class OfCalendar(Payload, kind="of-calendar"):
    """Something about one calendar: no two of these are done at the same time."""

    calendar: str
    what: str

    def resource_key(self) -> str:
        """Name what must not be touched twice at once."""
        return f"calendar:{self.calendar}"


class Apply(OfCalendar, kind="apply"):
    """A change that builds on the one before."""


class Remind(OfCalendar, kind="remind"):
    """A message that can be sent later as well."""


class Refresh(OfCalendar, kind="refresh"):
    """A hint that something has changed; many are worth no more than one."""


app = App("calendars", retry=FixedDelay(3, 0.2))
open_calendars: Counter[str] = Counter()


@app.handler(Apply, strict_order=True)
async def apply(ctx: Context, change: Apply) -> None:
    """Apply a change; the server of one calendar is down at first."""
    await touch(change)
    if change.what == "move lunch" and ctx.attempt == 1:
        show(change.calendar, f"{change.what}: the server is down")
        raise ConnectionError
    show(change.calendar, change.what)


@app.handler(Remind, retry=FixedDelay(3, 1))
async def remind(ctx: Context, message: Remind) -> None:
    """Send a message; the first one does not go through at once."""
    await touch(message)
    if message.what == "tea" and ctx.attempt == 1:
        show(message.calendar, f"remind of {message.what}: nobody answers")
        raise ConnectionError
    show(message.calendar, f"remind of {message.what}")


@app.batch_handler(Refresh, max_batch=10)
async def refresh(ctx: Context, hints: list[Refresh]) -> None:
    """Refresh once for all hints that wait."""
    await touch(hints[0])
    show(hints[0].calendar, f"refreshed for {len(ctx.tasks)} hints: {', '.join(hint.what for hint in hints)}")


async def touch(job: OfCalendar) -> None:
    """Be at work on a calendar for a moment, and make sure that nobody else is."""
    open_calendars[job.calendar] += 1
    await asyncio.sleep(0.01)
    if open_calendars[job.calendar] != 1:
        show(job.calendar, "TWO AT ONCE")
    open_calendars[job.calendar] -= 1


async def run(client: Client, title: str, *jobs: Payload) -> None:
    """Enqueue tasks, and let two workers have them."""
    print(title)
    receipts = await client.enqueue_many(jobs)
    async with Worker(app, client), Worker(app, client):
        for receipt in receipts:
            await client.wait(receipt.task_id, timeout=30)


async def main() -> None:
    """Do one thing after the other, each with two workers."""
    url = os.environ.get("ONCETASK_STORE") or "memory://"
    env = f"example-{uuid4().hex[:8]}"  # of this run only: in a shared store nobody else's tasks are touched
    async with asyncio.timeout(60), connect(url, env=env) as client:
        changes = ["add breakfast", "add lunch", "add tea", "remove tea"]
        jumble = [Apply(calendar=name, what=what) for what in changes for name in ("ada", "bob", "cleo")]
        await run(client, "One change of a calendar at a time, in order", *jumble)

        moves = [Apply(calendar="ada", what=what) for what in ("move lunch", "move lunch again", "cancel lunch")]
        await run(client, "\nA change that fails keeps its place", *moves)

        messages = [Remind(calendar="bob", what=what) for what in ("tea", "supper", "bed")]
        await run(client, "\nA reminder that fails steps aside", *messages)

        hints = [Refresh(calendar="cleo", what=what) for what in ("new event", "new guest", "new room")]
        await run(client, "\nHints are worth one refresh", *hints)


def show(who: str, what: str) -> None:
    """Print a line."""
    print(f"  {who:<8}  {what}")


if __name__ == "__main__":
    logging.getLogger("oncetask").setLevel(logging.CRITICAL)  # its warnings are what is printed here anyway
    asyncio.run(main())
