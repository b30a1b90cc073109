"""Clients, their options and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from oncetask import (
    App,
    Client,
    EnqueueOptions,
    Outcome,
    Payload,
    Progress,
    Receipt,
    Stats,
    SyncClient,
    Task,
    TaskError,
    TaskPage,
    TaskStatus,
    Worker,
    connect,
    connect_sync,
)


class Greet(Payload):
    """A payload."""

    name: str


async def asynchronous() -> None:
    """What the asynchronous client takes and gives."""
    async with connect("memory://", env="test") as client:
        assert_type(client, Client)
        assert_type(await client.enqueue(Greet(name="a")), Receipt)
        await client.enqueue(
            Greet(name="a"),
            task_id="greet:a",
            resource_key="user:1",
            wait_until=datetime(2030, 1, 1, tzinfo=UTC),
            timeout=30,
            deadline=datetime(2031, 1, 1, tzinfo=UTC),
            owner="ada",
        )
        await client.enqueue(Greet(name="a"), delay=timedelta(minutes=1), resource_key=None)
        assert_type(await client.enqueue_many([Greet(name="a")], delay=5), list[Receipt])
        assert_type(await client.get_task("a"), Task)
        assert_type(await client.get_tasks_by_ids(["a"]), list[Task])
        assert_type(await client.get_tasks_by_resource_key(Greet, "user:1"), list[Task])
        assert_type(await client.list_tasks(kind=Greet, status="pending", limit=5), TaskPage)
        async for task in client.iter_tasks(kind="greet", status=TaskStatus.PENDING):
            assert_type(task, Task)
        assert_type(await client.pending_count(Greet), int)
        assert_type(await client.stats(), Stats)
        assert_type(await client.wait("a", timeout=30), Task)
        async for task in client.watch("a"):
            assert_type(task, Task)
        assert_type(await client.reset_task("a"), bool)
        assert_type(await client.reset_tasks_by_ids({"a"}), int)
        assert_type(await client.delete_task("a"), bool)
        assert_type(await client.delete_tasks_by_ids(["a"]), int)


async def refused(client: Client) -> None:
    """What the type checker does not let through."""
    await client.enqueue({"name": "a"})  # type: ignore[arg-type]
    await client.enqueue(Greet)  # type: ignore[arg-type]
    await client.enqueue(Greet(name="a"), delay="5")  # type: ignore[arg-type]
    await client.enqueue(Greet(name="a"), wait_until="tomorrow")  # type: ignore[arg-type]
    await client.enqueue(Greet(name="a"), deadline=60)  # type: ignore[arg-type]
    await client.enqueue(Greet(name="a"), timeout="60")  # type: ignore[arg-type]
    await client.enqueue(Greet(name="a"), unknown=1)  # type: ignore[call-arg]
    await client.list_tasks(kind=5)  # type: ignore[arg-type]
    await client.pending_count(str)  # type: ignore[arg-type]
    client.enqueue(Greet(name="a"))  # type: ignore[unused-coroutine]


def blocking() -> None:
    """The blocking client has the same methods with the same types."""
    with connect_sync("memory://") as client:
        assert_type(client, SyncClient)
        assert_type(client.enqueue(Greet(name="a"), delay=5), Receipt)
        assert_type(client.enqueue_many([Greet(name="a")]), list[Receipt])
        assert_type(client.get_task("a"), Task)
        assert_type(client.list_tasks(kind=Greet), TaskPage)
        for task in client.iter_tasks():
            assert_type(task, Task)
        assert_type(client.stats(), Stats)
        assert_type(client.wait("a", timeout=timedelta(seconds=30)), Task)
        assert_type(client.reset_task("a"), bool)
        client.enqueue(Greet(name="a"), delay="5")  # type: ignore[arg-type]


def options() -> None:
    """Options can be collected before they are passed on."""
    collected: EnqueueOptions = {"delay": 5, "owner": "ada"}
    collected["timeout"] = timedelta(minutes=1)
    wrong: EnqueueOptions = {"priority": 5}  # type: ignore[typeddict-unknown-key]
    del wrong


def records(task: Task, page: TaskPage, stats: Stats, receipt: Receipt) -> None:
    """What the records hold."""
    assert_type(task.id, str)
    assert_type(task.data, Mapping[str, Any])
    assert_type(task.wait_until, datetime)
    assert_type(task.started_at, datetime | None)
    assert_type(task.errors, tuple[TaskError, ...])
    assert_type(task.progress, Progress | None)
    assert_type(task.outcome, Outcome | None)
    assert_type(task.status, TaskStatus)
    assert_type(task.status_at(task.read_at), TaskStatus)
    assert_type(task.payload(Greet), Greet)
    assert_type(task.status.is_done, bool)
    assert_type(page.tasks, list[Task])
    assert_type(page.cursor, str | None)
    assert_type(stats.total(TaskStatus.PENDING), int)
    assert_type(receipt.task_id, str)
    assert_type(receipt.created, bool)
    task.payload(dict)  # type: ignore[type-var]
    task.attempts = 3  # type: ignore[misc]
    receipt.created = True  # type: ignore[misc]


async def worker(app: App, client: Client) -> None:
    """How a worker is run."""
    async with Worker(app, client, concurrency=32, grace=8) as running:
        assert_type(running, Worker)
    await Worker(app, client).run(handle_signals=False)
    Worker(client, app)  # type: ignore[arg-type]
