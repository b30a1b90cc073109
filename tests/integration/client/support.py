"""Payloads for the tests of the client, and tasks in every status."""

from __future__ import annotations

from datetime import timedelta

from oncetask import Client, Payload, Task, TaskStatus, lifecycle
from oncetask.lifecycle import Transition

__all__ = ["LIMIT", "Greet", "Note", "apply", "claimed", "completed", "failed", "populate"]

LIMIT = 20.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""


class Note(Payload, kind="note"):
    """A task with nothing special about it."""

    n: int = 0


class Greet(Payload, kind="greet"):
    """A task that exists once per name."""

    name: str

    def idempotency_key(self) -> str:
        """Give the name."""
        return self.name


async def apply(client: Client, transition: Transition) -> Task:
    """Apply what a worker would have written, and give the new record."""
    (written,) = await client.store.apply([transition])
    assert written.version is not None
    return transition.after.evolve(version=written.version)


async def claimed(client: Client, task_id: str, *, seconds: float = 600) -> Task:
    """Lease a task for so many seconds from now."""
    task, now = await client.get_task(task_id), await client.store.now()
    until = now.latest + timedelta(seconds=seconds)
    return await apply(client, lifecycle.claim(task, lease_id=f"lease of {task_id}", until=until, now=now))


async def completed(client: Client, task_id: str, result: object = "fine") -> Task:
    """Claim and complete a task."""
    task = await claimed(client, task_id)
    return await apply(client, lifecycle.complete(task, result=result, now=await client.store.now()))


async def failed(client: Client, task_id: str) -> Task:
    """Claim a task and let it fail for good."""
    task = await claimed(client, task_id)
    return await apply(client, lifecycle.fail(task, ValueError("no"), delay=None, now=await client.store.now()))


async def populate(client: Client) -> dict[str, TaskStatus]:
    """Make tasks of two kinds in every status that a task can have by now; gives the status of each id."""
    expected: dict[str, TaskStatus] = {}
    for number, status in enumerate((TaskStatus.PENDING, TaskStatus.WAITING, TaskStatus.LEASED) * 2):
        task_id = f"{status}-{number}"
        options = {"delay": 600} if status is TaskStatus.WAITING else {}
        await client.enqueue(Note(n=number), task_id=task_id, owner=f"owner-{number % 2}", **options)  # type: ignore[arg-type]  # a delay
        if status is TaskStatus.LEASED:
            await claimed(client, task_id)
        expected[task_id] = status
    for name in ("Ada", "Bob", "Cy"):
        receipt = await client.enqueue(Greet(name=name), resource_key="greetings")
        await (failed if name == "Cy" else completed)(client, receipt.task_id)
        expected[receipt.task_id] = TaskStatus.DONE_FAILED if name == "Cy" else TaskStatus.DONE_COMPLETED
    return expected
