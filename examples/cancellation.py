"""Cancel jobs, and have everything given back that they hold.

    python examples/cancellation.py

It needs nothing but oncetask. The tasks live in memory, or where ONCETASK_STORE says.

Rendering a film reserves CPUs and writes temporary files. Then nobody wants the film any more: the job is cancelled
while it runs, and its cancellation handler releases the CPUs, deletes the files and sends a notice. The mail server
does not answer at first, so the cleanup runs a second time; each of its steps knows whether it is still to be done.
After that two films that have not been begun are cancelled by the key that they share.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from oncetask import App, Client, Context, ExponentialBackoff, Payload, Task, Worker, connect


class RenderFilm(Payload, kind="render-film"):
    """All that the handler needs, and all that the cleanup needs: it may run in another process, days later."""

    film: str
    customer: str
    cpus: int
    temp_files: list[Path]

    def idempotency_key(self) -> str:
        """A film is rendered once."""
        return self.film

    def resource_key(self) -> str:
        """What can be cancelled together."""
        return f"customer:{self.customer}"


@dataclass
class Studio:
    """The world outside of the tasks: CPUs to reserve, a sound track to wait for, a mail server that is down at first.

    What a job does here is kept under the job's name. So it can be done, or undone, twice without harm.
    """

    reserved: dict[str, int] = field(default_factory=dict)
    notices: dict[str, str] = field(default_factory=dict)
    mail_failures: int = 1
    rendering: asyncio.Event = field(default_factory=asyncio.Event)
    sound_track: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self, job: RenderFilm) -> str:
        """Give the CPUs of a job back."""
        cpus = self.reserved.pop(job.film, 0)
        return f"released {cpus} CPUs" if cpus else "no CPUs to release"

    def delete_files(self, job: RenderFilm) -> str:
        """Delete what there is of a job's temporary files."""
        files = [file for file in job.temp_files if file.exists()]
        for file in files:
            file.unlink(missing_ok=True)
        return f"deleted {len(files)} temporary files" if files else "no temporary files to delete"

    def notify(self, job: RenderFilm) -> str:
        """Tell the customer, once. Raises ConnectionError while the mail server is down."""
        if self.mail_failures:
            self.mail_failures -= 1
            msg = "the mail server does not answer"
            raise ConnectionError(msg)
        self.notices.setdefault(job.film, f"{job.film} was cancelled")
        return f"notified {job.customer}"


app = App("films")
studio = Studio()


@app.handler(RenderFilm, timeout=600)
async def render(ctx: Context, job: RenderFilm) -> str:
    """Render a film, which takes long."""
    studio.reserved[job.film] = job.cpus
    say(ctx, f"reserved {job.cpus} CPUs")
    try:
        for file in job.temp_files:
            await asyncio.to_thread(file.write_bytes, bytes(100_000))
        say(ctx, f"wrote {len(job.temp_files)} temporary files, waits for the sound track")
        studio.rendering.set()
        await studio.sound_track.wait()
    except asyncio.CancelledError:
        say(ctx, f"is told to stop: {ctx.abort_reason}")
        raise
    finally:
        if ctx.abort_reason != "cancelled":  # that is left to the cleanup, which runs until it has succeeded
            studio.release(job)
            await asyncio.to_thread(studio.delete_files, job)
    return f"{job.film}.mp4"


@app.cancellation_handler(
    RenderFilm, timeout=30, retry=ExponentialBackoff(max_attempts=10, base_delay=1, max_delay=60, jitter=0)
)
def clean_up(ctx: Context, job: RenderFilm) -> None:  # `def`: it may block, so it runs in a thread
    """Undo what a cancelled job has done, however far it came. One step that fails does not keep the others."""
    errors: list[OSError] = []
    for step in (studio.release, studio.delete_files, studio.notify):
        try:
            say(ctx, step(job))
        except OSError as error:
            say(ctx, f"failed: {error}")
            errors.append(error)
    if errors:
        raise ExceptionGroup("the cleanup is not complete", errors)


async def cancel_while_it_runs(client: Client, folder: Path) -> Task:
    """Cancel a job that has reserved and written what it needs."""
    job = RenderFilm(film="film-1", customer="ada", cpus=4, temp_files=[folder / f"film-1.{n}" for n in range(3)])
    receipt = await client.enqueue(job)
    await studio.rendering.wait()
    show(f"{receipt.task_id} is {(await client.get_task(receipt.task_id)).status}: {await held(folder)}")
    show(f"cancel_task({receipt.task_id!r})")
    first, second = await client.cancel_task(receipt.task_id), await client.cancel_task(receipt.task_id)
    task = await client.wait(receipt.task_id, timeout=30)
    show(f"it said {first}, and {second} when it was called again")
    tell(task)
    return task


async def cancel_before_they_start(client: Client, folder: Path) -> list[Task]:
    """Cancel all jobs of a key; they are due tomorrow, and are cleaned up now."""
    films = ("film-2", "film-3")
    jobs = [RenderFilm(film=film, customer="bob", cpus=8, temp_files=[folder / film]) for film in films]
    receipts = await client.enqueue_many(jobs, delay=86_400)
    show("cancel_tasks_by_resource_key(RenderFilm, 'customer:bob')")
    number = await client.cancel_tasks_by_resource_key(RenderFilm, "customer:bob")
    tasks = [await client.wait(receipt.task_id, timeout=30) for receipt in receipts]
    show(f"it said {number}")
    for task in tasks:
        tell(task)
    return tasks


async def main(folder: Path) -> None:
    """Cancel in both ways, with a worker beside it, and look at what is left."""
    url = os.environ.get("ONCETASK_STORE") or "memory://"
    env = f"example-{uuid4().hex[:8]}"  # of this run only: in a shared store nobody else's tasks are touched
    async with asyncio.timeout(60), connect(url, env=env) as client, Worker(app, client):
        print("A job is cancelled while it runs")
        tasks = [await cancel_while_it_runs(client, folder)]
        print("\nTwo jobs are cancelled before they start")
        tasks += await cancel_before_they_start(client, folder)
        print("\nWhat is left")
        show(f"{await held(folder)}, {await client.pending_count()} tasks not done")
        show(f"notices: {', '.join(sorted(studio.notices.values()))}")
        for kind, counts in (await client.stats()).counts.items():
            show(f"{kind}: {', '.join(f'{n} {status}' for status, n in counts.items())}")
        await client.delete_tasks_by_ids(task.id for task in tasks)


async def held(folder: Path) -> str:
    """Say what jobs hold at this moment."""
    files = await asyncio.to_thread(os.listdir, folder)
    return f"{sum(studio.reserved.values())} CPUs reserved, {len(files)} temporary files"


def tell(task: Task) -> None:
    """Print how a cancelled task ended."""
    show(f"{task.id} is {task.status}: attempts={task.attempts}, cancel_attempts={task.cancel_attempts}")
    for error in task.errors:
        show(f"its cleanup {error.attempt} failed: {error.type}: {error.message}")


def say(ctx: Context, what: str) -> None:
    """Print what a handler does."""
    phase = "cleanup" if ctx.task.is_cancelled else "attempt"
    show(what, f"{ctx.task_id.partition(':')[2]} {phase} {ctx.attempt}")


def show(what: str, who: str = "caller") -> None:
    """Print a line, in one piece, since handlers in threads print too."""
    print(f"  {who:<16}  {what}\n", end="", flush=True)


if __name__ == "__main__":
    log = logging.StreamHandler(sys.stdout)
    log.setFormatter(logging.Formatter(f"  {'oncetask logs':<16}  %(message)s"))
    logging.getLogger("oncetask").addHandler(log)  # warnings and errors
    with TemporaryDirectory(prefix="oncetask-example-") as temporary:
        asyncio.run(main(Path(temporary)))
