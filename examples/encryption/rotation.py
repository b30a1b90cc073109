"""Encrypt what tasks hold, and change the key while tasks wait.

    python examples/encryption/rotation.py

It needs `pip install oncetask cryptography`. The tasks live in a file of its own, or where ONCETASK_STORE says.

A letter is enqueued and encrypted with the old key; whoever looks into the store sees no word of it. Then the key is
rotated in three steps, between which everything runs on. In production each step is a deploy with another TASK_KEYS.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from cryptography.fernet import Fernet
from encryption import FernetCodec  # type: ignore[import-not-found]  # the file beside this one

from oncetask import App, Client, Codec, Context, InvalidPayload, Payload, Recurrence, Task, Worker, connect


class Letter(Payload, kind="letter"):
    """Nobody's business but the reader's."""

    reader: str
    text: str

    def idempotency_key(self) -> str:
        """Ids are not encrypted, so nothing of the letter is in it."""
        return uuid4().hex


app = App("post")


@app.handler(Letter)
async def deliver(_: Context, letter: Letter) -> str:
    """Say to whom."""
    return f"{letter.reader} has read {len(letter.text)} characters"


async def rotate(url: str) -> None:
    """Go through all the steps; each `connecting` is what a process would do that was started with these keys."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    env = f"example-{uuid4().hex[:8]}"  # of this run only: in a shared store nobody else's tasks are touched

    def connecting(codec: Codec | None) -> Client:
        return connect(url, env=env, codec=codec)

    print("With the old key")
    async with connecting(FernetCodec(old)) as client:
        letter = Letter(reader="Ada", text="meet me at noon")
        done, waits, later = [
            (await client.enqueue(letter)).task_id,
            (await client.enqueue(letter, delay=86_400)).task_id,
            (await client.enqueue(letter, recurrence=Recurrence.cron("0 2 * * *"))).task_id,
        ]
        await deliver_one(client, done)
    async with connecting(None) as anybody:
        task = await anybody.get_task(waits)
        show(f"in the store: {', '.join(sorted(task.data))}; of the letter itself: {'noon' in repr(task) or 'nothing'}")
        show(refused(task))

    print("\n1. Every process learns the new key, and still writes with the old one")
    async with connecting(FernetCodec(old, new)) as client:
        show(f"reads {(await client.get_task(waits)).data['text']!r}")

    print("\n2. Every process writes with the new key, and still reads with the old one")
    async with connecting(FernetCodec(new, old)) as client:
        show(f"reads {(await client.get_task(waits)).data['text']!r}")
        show(f"writes {await client.recode_tasks()} tasks anew: one done, one that waits, one schedule")

    print("\n3. The old key goes")
    async with connecting(FernetCodec(new)) as client:
        for task_id in (done, waits, later):
            show(f"reads {(await client.get_task(task_id)).data['text']!r}")
        await client.reset_task(done)
        await deliver_one(client, done)
    async with connecting(FernetCodec(old)) as somebody:
        show(refused(await somebody.get_task(waits)))
        await somebody.cancel_task(later)
        await somebody.delete_tasks_by_ids([done, waits, later])  # which needs no key


async def deliver_one(client: Client, task_id: str) -> None:
    """Let a worker run a task."""
    async with Worker(app, client):
        task = await client.wait(task_id, timeout=30)
    show(f"{task.status}: {task.result}")


def refused(task: Task) -> str:
    """Say what a handler would fail with."""
    try:
        return f"reads {task.payload(Letter).text!r}"
    except InvalidPayload as error:
        return f"InvalidPayload: {error}"


def show(line: str) -> None:
    """Print what happened."""
    print(f"  {line}")


def main() -> None:
    """Run in the store that is configured, or in one that is gone afterwards."""
    with TemporaryDirectory() as folder:
        asyncio.run(rotate(os.environ.get("ONCETASK_STORE") or f"sqlite:///{Path(folder, 'tasks.db')}"))


if __name__ == "__main__":
    main()
