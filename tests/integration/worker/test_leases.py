"""Leases: renewed while a handler runs, taken over after a crash, and never written without."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from oncetask import Client, Context, ExponentialBackoff, NoRetry, Task, TaskStatus, Worker, lifecycle
from tests.integration.places import Place
from tests.integration.worker.support import LIMIT, SOON, Job, app_of, enqueue, raising


@pytest.fixture
def _prompt_rescue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws the shortest wait after a crash, in place of a random one."""
    monkeypatch.setattr("oncetask.retry.random.uniform", lambda low, _: low)


async def _claim(client: Client, task_id: str, *, seconds: float) -> Task:
    """Take a task as a worker would, and crash: nobody renews the lease, which ends after so many seconds."""
    task, now = await client.get_task(task_id), await client.store.now()
    until = now.latest + timedelta(seconds=seconds)
    claim = lifecycle.claim(task, lease_id="of-the-dead", until=until, now=now)
    (written,) = await client.store.apply([claim])
    assert written.applied
    return claim.after


async def test_a_lease_is_renewed_while_its_handler_runs(connected: Client) -> None:
    """A handler that takes longer than the lease keeps its task, and nobody else runs it meanwhile."""
    runs = 0
    seen: set[object] = set()

    async def handler(ctx: Context, _: Job) -> None:
        nonlocal runs
        runs += 1
        async for task in connected.watch(ctx.task_id):
            seen.add(task.leased_until)
            if len(seen) == 4:
                return

    app = app_of(handler)
    (task_id,) = await enqueue(connected, 1)
    async with Worker(app, connected, lease=0.6), Worker(app, connected, lease=0.6):
        task = await connected.wait(task_id, LIMIT)
    assert (task.status, task.attempts, runs, task.errors) == (TaskStatus.DONE_COMPLETED, 1, 1, ())


@pytest.mark.usefixtures("_prompt_rescue")
@pytest.mark.parametrize("seconds", [-60, 0.3], ids=["ended long ago", "ends in a moment"])
async def test_a_crashed_workers_task_is_rescued(connected: Client, seconds: float) -> None:
    """A task whose lease ran out runs again in its old place; the crash counts as an attempt and is remembered."""
    (task_id,) = await enqueue(connected, 1)
    dead = await _claim(connected, task_id, seconds=seconds)
    async with Worker(app_of(raising()), connected, poll=3600):
        task = await connected.wait(task_id, LIMIT)
    assert (task.status, task.attempts) == (TaskStatus.DONE_COMPLETED, 2)
    assert [(e.type, e.attempt) for e in task.errors] == [("LeaseLost", 1)]
    assert task.wait_until == dead.wait_until


async def test_a_rescued_task_waits_for_a_spread_and_keeps_its_place(
    connected: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its drawn wait is over nobody runs a rescued task; its `wait_until` stays what it was."""
    monkeypatch.setattr("oncetask.retry.random.uniform", lambda _, high: high)
    (task_id,) = await enqueue(connected, 1)
    dead = await _claim(connected, task_id, seconds=-1)
    app = app_of(raising(), retry=ExponentialBackoff(base_delay=300, jitter=0))
    async with Worker(app, connected):
        async for task in connected.watch(task_id):
            if task.lease_owner is None:
                break
    assert (task.status, task.wait_until) == (TaskStatus.WAITING, dead.wait_until)
    assert task.due_at is not None
    assert task.due_at - task.errors[0].at == timedelta(seconds=300)


@pytest.mark.usefixtures("_prompt_rescue")
async def test_a_task_that_crashes_its_worker_ends(connected: Client) -> None:
    """When a crash was the last attempt the task is done-failed, and no handler runs."""
    (task_id,) = await enqueue(connected, 1)
    await _claim(connected, task_id, seconds=-1)
    async with Worker(app_of(raising(), retry=NoRetry()), connected):
        task = await connected.wait(task_id, LIMIT)
    assert (task.status, task.attempts) == (TaskStatus.DONE_FAILED, 1)
    assert "its worker died" in task.errors[0].message


async def test_a_lease_that_holds_is_respected(connected: Client) -> None:
    """A task that another worker holds is not run, though others behind it are."""
    held, free = await enqueue(connected, 1, 2)
    await _claim(connected, held, seconds=600)
    async with Worker(app_of(raising()), connected):
        await connected.wait(free, LIMIT)
    task = await connected.get_task(held)
    assert (task.status, task.lease_owner) == (TaskStatus.LEASED, "of-the-dead")


@pytest.mark.parametrize("how", ["stolen", "deleted"])
async def test_a_lost_lease_is_noticed_at_renewal(connected: Client, place: Place, how: str) -> None:
    """A handler whose task was taken away is aborted with "lease-lost", and nothing is written for it any more."""
    started, reasons = asyncio.Event(), asyncio.Queue[Any]()

    async def handler(ctx: Context, _: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            reasons.put_nowait(ctx.abort_reason)

    (task_id,) = await enqueue(connected, 1)
    async with Worker(app_of(handler), connected, lease=0.6, poll=3600):
        await asyncio.wait_for(started.wait(), LIMIT)
        if how == "deleted":
            deleted = False
            while not deleted:  # a renewal may be quicker
                (written,) = await connected.store.delete([await connected.get_task(task_id)])
                deleted = written.applied
            assert await asyncio.wait_for(reasons.get(), LIMIT) == "lease-lost"
            assert await connected.get_tasks_by_ids([task_id]) == []
            return
        far = (await connected.get_task(task_id)).created_at + timedelta(days=1)
        await place.change(task_id, leaseOwner="another", leasedUntil=far, dueAt=far)
        assert await asyncio.wait_for(reasons.get(), LIMIT) == "lease-lost"
    task = await connected.get_task(task_id)
    assert (task.lease_owner, task.leased_until, task.attempts, task.errors) == ("another", far, 1, ())


@pytest.mark.parametrize("ends", ["returns", "fails", "snoozes"])
async def test_a_worker_that_lost_its_lease_writes_nothing(connected: Client, place: Place, ends: str) -> None:
    """However a handler ends: if another worker has its task by then, that one's record stands."""
    from oncetask import Snooze  # noqa: PLC0415  # only here

    async def handler(ctx: Context, _: Job) -> str:
        ctx.enqueue(Job(n=99), task_id="staged")
        await place.change(ctx.task_id, leaseOwner="another")
        if ends == "fails":
            raise ValueError("nobody wants to know")
        if ends == "snoozes":
            raise Snooze(0)
        return "nobody wants this"

    (task_id,) = await enqueue(connected, 1)
    ended = asyncio.Event()
    app = app_of(handler, retry=SOON)

    @app.middleware
    async def told(_: Context, call_next: Any) -> object:
        try:
            return await call_next()
        finally:
            ended.set()

    async with Worker(app, connected):
        await asyncio.wait_for(ended.wait(), LIMIT)
    task = await connected.get_task(task_id)
    assert (task.status, task.lease_owner, task.attempts) == (TaskStatus.LEASED, "another", 1)
    assert (task.result, task.errors) == (None, ())
    assert await connected.get_tasks_by_ids(["staged"]) == []


@pytest.mark.parametrize("staged", [False, True], ids=["plain", "with staged tasks"])
async def test_a_completion_that_was_overtaken_is_written_again(connected: Client, place: Place, staged: bool) -> None:
    """Somebody else's write to a running task does not stop its completion, which builds on the newest record."""

    async def handler(ctx: Context, _: Job) -> str:
        if staged:
            ctx.enqueue(Job(n=2), task_id="staged", delay=600)
        await place.change(ctx.task_id, owner="somebody")
        return "mine"

    (task_id,) = await enqueue(connected, 1)
    async with Worker(app_of(handler), connected):
        task = await connected.wait(task_id, LIMIT)
    assert (task.status, task.result, task.owner) == (TaskStatus.DONE_COMPLETED, "mine", "somebody")
    assert len(await connected.get_tasks_by_ids(["staged"])) == staged
