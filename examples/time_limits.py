"""Give work a time limit and a deadline, and see what becomes of it.

    pip install oncetask httpx
    python examples/time_limits.py

The tasks live in memory, or where ONCETASK_STORE says. A web server of this program's own lets whoever asks it first
wait for ever. A handler with a time limit gets away from it at once, and its second attempt succeeds. A blocking one
looks at the signal, and goes on where it was. One that computes is killed in its process. And a greeting that is worth
nothing after the party is not sent any more.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Unpack
from uuid import uuid4

import httpx

from oncetask import App, Client, Context, EnqueueOptions, FixedDelay, NoRetry, Payload, Worker, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Fetch(Payload, kind="fetch"):
    """A page to be fetched."""

    url: str


class Copy(Payload, kind="copy"):
    """Many pages to be copied, by code that blocks."""

    pages: int


class Factorise(Payload, kind="factorise"):
    """A number that keeps a CPU busy for longer than anybody waits."""

    number: int


class Invite(Payload, kind="invite"):
    """Worth nothing after the party."""

    to: str


app = App("time-limits", retry=FixedDelay(3, 0))


@app.handler(Fetch, timeout=1)
async def fetch(ctx: Context, job: Fetch) -> str:
    """Use an asynchronous library: it needs no signal, because its await is cancelled."""
    say(ctx, "asks the server")
    try:
        async with httpx.AsyncClient(timeout=None) as web:  # noqa: S113  # the task's limit is the only one here
            return (await web.get(job.url)).text
    except asyncio.CancelledError:
        say(ctx, f"is told to stop: {ctx.abort_reason}")
        raise


@app.handler(Copy, timeout=1)
def copy(ctx: Context, job: Copy) -> str:
    """Run in a thread, which nothing can stop from outside: so look at the signal between the steps."""
    first = ctx.task.progress.data["copied"] if ctx.task.progress else 0
    if first:
        say(ctx, "goes on where the last attempt was")
    for page in range(first, job.pages):
        if ctx.aborted:
            say(ctx, f"looks at the signal, and stops: {ctx.abort_reason}")
            ctx.raise_if_aborted()
        ctx.progress(page / job.pages, f"page {page}", {"copied": page})
        ctx.wait_aborted_sync(0.05)  # a blocking call; one with a time limit of its own gets timeout=ctx.remaining
    return "all copied"


@app.handler(Factorise, timeout=1, run_in="process", retry=NoRetry())
def factorise(_: Context, job: Factorise) -> int:
    """Run in a process of its own, which is killed at the limit: it need not look at anything."""
    return next(n for n in range(2, job.number) if job.number % n == 0)


@app.handler(Invite)
async def invite(ctx: Context, _: Invite) -> None:
    """Send an invitation."""
    say(ctx, "invites")


@app.error_handler
async def tell(ctx: Context, error: Exception) -> None:
    """Hear of every failed attempt, and of deadlines."""
    show(f"failed: {type(error).__name__}", f"about {ctx.kind}")


@asynccontextmanager
async def slow_server() -> AsyncIterator[str]:
    """Serve pages: the first one who asks waits until he goes away, the others get an answer."""
    answers = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        await reader.readuntil(b"\r\n\r\n")
        if answers:
            show("answers", "server")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            await writer.drain()
        else:
            answers = True
            show("says nothing", "server")
            await reader.read()  # until the other end hangs up
            show("they have hung up", "server")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/page"


async def run(client: Client, title: str, job: Payload, **options: Unpack[EnqueueOptions]) -> None:
    """Enqueue a task, wait for its end, and say how it ended."""
    print(title)
    receipt = await client.enqueue(job, **options)
    task = await client.wait(receipt.task_id, timeout=30)
    show(f"{task.kind} is {task.status}: result={task.result}, attempts={task.attempts}")
    await client.delete_task(task.id)


async def main() -> None:
    """Run one task after the other, with a worker beside it."""
    url = os.environ.get("ONCETASK_STORE") or "memory://"
    env = f"example-{uuid4().hex[:8]}"  # of this run only: in a shared store nobody else's tasks are touched
    async with asyncio.timeout(60), connect(url, env=env) as client, Worker(app, client), slow_server() as page:
        await run(client, "An awaited call is cancelled at the limit", Fetch(url=page))
        await run(client, "\nBlocking code looks at the signal", Copy(pages=30))
        await run(client, "\nA process is killed", Factorise(number=(2**61 - 1) * (2**31 - 1)))
        over = datetime.now(UTC) - timedelta(hours=1)
        await run(client, "\nAfter its deadline nothing is started", Invite(to="ada"), deadline=over)


def say(ctx: Context, what: str) -> None:
    """Print what a handler does."""
    show(what, f"{ctx.kind} {ctx.attempt}")


def show(what: str, who: str = "caller") -> None:
    """Print a line, in one piece, since handlers in threads print too."""
    print(f"  {who:<16}  {what}\n", end="", flush=True)


if __name__ == "__main__":
    logging.getLogger("oncetask").setLevel(logging.CRITICAL)  # its warnings are what is printed here anyway
    asyncio.run(main())
