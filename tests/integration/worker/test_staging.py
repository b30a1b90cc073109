"""What a handler stages is stored with its completion, or not at all."""

from __future__ import annotations

import pytest

from oncetask import Client, Context, NoRetry, Payload, TaskNotFound, TaskStatus
from tests.integration.places import FirestorePlace
from tests.integration.stores import ON_FIRESTORE, ON_SQLITE
from tests.integration.worker.support import Job, Other, app_of, outcome_of


class Unique(Payload, kind="unique"):
    """Once per name."""

    name: str

    def idempotency_key(self) -> str:
        """Give the name."""
        return self.name


async def test_staged_tasks_are_stored_with_the_completion(connected: Client) -> None:
    """What `ctx.enqueue` stages exists once its task is completed, in the order of the calls, and not before."""

    async def handler(ctx: Context, _: Job) -> list[str]:
        ids = [ctx.enqueue(Other(n=n), owner="me") for n in range(3)]
        assert await connected.get_tasks_by_ids(ids) == []
        return ids

    task = await outcome_of(app_of(handler), connected)
    staged = await connected.get_tasks_by_ids(task.result)
    assert [one.data["n"] for one in sorted(staged, key=lambda one: one.wait_until)] == [0, 1, 2]
    assert {(one.status, one.owner) for one in staged} == {(TaskStatus.PENDING, "me")}


async def test_staged_tasks_are_dropped_with_a_failure(connected: Client) -> None:
    """An attempt that fails stores nothing of what it staged."""
    dropped: list[str] = []

    async def handler(ctx: Context, _: Job) -> str:
        task_id = ctx.enqueue(Other())
        if ctx.attempt == 1:
            dropped.append(task_id)
            raise ValueError("changed my mind")
        return task_id

    task = await outcome_of(app_of(handler), connected)
    assert (await connected.get_task(task.result)).kind == "other"
    with pytest.raises(TaskNotFound):
        await connected.get_task(dropped[0])


async def test_staged_tasks_that_exist_are_left_out(connected: Client) -> None:
    """Staging what exists already, twice, or under the id of the running task harms nothing: the rest is stored."""
    before = await connected.enqueue(Unique(name="old"), owner="first")

    async def handler(ctx: Context, _: Job) -> str:
        assert ctx.enqueue(Unique(name="old"), owner="second") == before.task_id
        assert ctx.enqueue(Unique(name="new")) == ctx.enqueue(Unique(name="new"))
        ctx.enqueue(Other(), task_id=ctx.task_id)
        return ctx.enqueue(Other())

    task = await outcome_of(app_of(handler), connected)
    assert (task.status, task.kind, task.attempts) == (TaskStatus.DONE_COMPLETED, "job", 1)
    assert (await connected.get_task(before.task_id)).owner == "first"
    assert (await connected.get_task("unique:new")).kind == "unique"
    assert (await connected.get_task(task.result)).kind == "other"


async def test_many_tasks_can_be_staged(connected: Client) -> None:
    """A handler that fans out stores six hundred tasks with its own completion."""

    async def handler(ctx: Context, _: Job) -> None:
        for n in range(600):
            ctx.enqueue(Other(n=n))

    task = await outcome_of(app_of(handler), connected)
    assert task.status is TaskStatus.DONE_COMPLETED
    assert await connected.pending_count(Other) == 600


async def test_a_bad_staged_task_fails_in_the_handler(connected: Client) -> None:
    """Options of `ctx.enqueue` are checked where it is called."""

    async def handler(ctx: Context, _: Job) -> None:
        ctx.enqueue(Other(), task_id="a/b")

    task = await outcome_of(app_of(handler, retry=NoRetry()), connected)
    assert (task.errors[0].type, task.status) == ("ValueError", TaskStatus.DONE_FAILED)
    assert "task_id" in task.errors[0].message


@ON_SQLITE
async def test_a_batch_needs_firestore(connected: Client) -> None:
    """On SQLite `ctx.batch` raises `Unsupported`, which says what it needs."""

    async def handler(ctx: Context, _: Job) -> None:
        _ = ctx.batch

    task = await outcome_of(app_of(handler, retry=NoRetry()), connected)
    assert task.errors[0].type == "Unsupported"
    assert "Firestore" in task.errors[0].message


@ON_FIRESTORE
async def test_a_batch_is_committed_with_the_completion(connected: Client, place: FirestorePlace) -> None:
    """The user's own writes appear with the completion and not before; those of a failed attempt never do."""

    async def handler(ctx: Context, _: Job) -> None:
        ctx.batch.set(place.native.document("accounts", f"of-attempt-{ctx.attempt}"), {"paid": True})
        ctx.enqueue(Other(), task_id="staged-too")
        assert not (await place.native.document("accounts", f"of-attempt-{ctx.attempt}").get()).exists
        if ctx.attempt == 1:
            raise ValueError("not yet")

    task = await outcome_of(app_of(handler), connected)
    assert task.status is TaskStatus.DONE_COMPLETED
    assert [document.id async for document in place.native.collection("accounts").list_documents()] == ["of-attempt-2"]
    assert (await connected.get_task("staged-too")).kind == "other"


@ON_FIRESTORE
async def test_a_batch_works_in_a_def_handler(connected: Client, place: FirestorePlace) -> None:
    """A plain function in its thread may use the batch as well."""

    def handler(ctx: Context, _: Job) -> None:
        ctx.batch.create(place.native.document("accounts", "1"), {"paid": True})

    await outcome_of(app_of(handler), connected)
    assert (await place.native.document("accounts", "1").get()).to_dict() == {"paid": True}


@ON_FIRESTORE
async def test_a_batch_that_cannot_be_stored_fails_the_attempt(connected: Client, place: FirestorePlace) -> None:
    """Where a write of the batch is refused, nothing of the attempt is stored, and it is retried."""
    seen: list[str] = []

    async def handler(ctx: Context, _: Job) -> str:
        ctx.batch.set(place.native.document("accounts", "1"), {"attempt": ctx.attempt})
        ctx.enqueue(Other(), task_id=f"of-attempt-{ctx.attempt}")
        if ctx.attempt == 1:
            ctx.batch.update(place.native.document("accounts", "missing"), {"paid": True})
        if ctx.attempt == 2:
            ctx.batch.set(place.native.document("accounts", "2"), {"text": "x" * 1_100_000})
        return "stored"

    app = app_of(handler)
    app.error_handler(lambda ctx, error: seen.append(f"{ctx.attempt}: {error}"))
    task = await outcome_of(app, connected)
    assert (task.status, task.result, task.attempts) == (TaskStatus.DONE_COMPLETED, "stored", 3)
    assert len(seen) == len(task.errors) == 2
    assert "missing" in task.errors[0].message
    assert (await place.native.document("accounts", "1").get()).to_dict() == {"attempt": 3}
    assert await connected.get_tasks_by_ids(["of-attempt-1", "of-attempt-2"]) == []
