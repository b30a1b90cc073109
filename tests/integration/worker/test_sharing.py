"""Workers beside each other: kinds, environments, several on one store."""

from __future__ import annotations

import asyncio
from collections import Counter

from oncetask import App, Client, Context, TaskStatus, Worker
from tests.integration.places import Place
from tests.integration.worker.support import LIMIT, Job, Other, app_of, done, enqueue, raising


async def test_kinds_without_a_handler_stay(connected: Client) -> None:
    """A worker leaves alone what its app has no handler for, and is not held up by it."""
    receipts = await connected.enqueue_many([Other(n=n) for n in range(100)])
    async with Worker(app_of(raising()), connected):
        await done(connected, *await enqueue(connected, 1))
    assert await connected.pending_count(Other) == len(receipts)
    stats = await connected.stats()
    assert stats.counts["other"] == {TaskStatus.PENDING: 100}


async def test_two_services_share_an_environment(connected: Client, place: Place) -> None:
    """Two workers whose apps handle different kinds each run their own, from clients of their own."""
    jobs, others, ran = App("jobs"), App("others"), []

    @jobs.handler(Job)
    async def job(_: Context, job: Job) -> None:
        ran.append(("job", job.n))

    @others.handler(Other)
    async def other(_: Context, other: Other) -> None:
        ran.append(("other", other.n))

    async with Worker(jobs, connected), Worker(others, place.connect()):
        receipts = await connected.enqueue_many([kind(n=n) for n in range(5) for kind in (Job, Other)])
        await done(connected, *(receipt.task_id for receipt in receipts))
    assert sorted(ran) == [(kind, n) for kind in ("job", "other") for n in range(5)]


async def test_several_workers_run_each_task_once(connected: Client, place: Place) -> None:
    """Four workers on 200 tasks: each task runs once, with one attempt."""
    runs: Counter[int] = Counter()

    async def handler(_: Context, job: Job) -> None:
        runs[job.n] += 1
        await asyncio.sleep(0)

    app = app_of(handler)
    ids = await enqueue(connected, *range(200))
    workers = [Worker(app, place.connect(), concurrency=8) for _ in range(4)]
    async with workers[0], workers[1], workers[2], workers[3]:
        tasks = await done(connected, *ids)
    assert {(task.status, task.attempts) for task in tasks} == {(TaskStatus.DONE_COMPLETED, 1)}
    assert runs == dict.fromkeys(range(200), 1)


async def test_environments_do_not_see_each_other(connected: Client, place: Place) -> None:
    """The same id in two environments is two tasks; a worker runs those of its client's environment."""
    staging = place.connect(env="staging")
    for client in (connected, staging):
        assert (await client.enqueue(Job(), task_id="same")).created
    async with Worker(app_of(raising()), staging):
        await staging.wait("same", LIMIT)
    assert (await connected.get_task("same")).status is TaskStatus.PENDING
    assert (await connected.list_tasks(status="done-completed")).tasks == []
    assert await staging.pending_count() == 0
    assert (await connected.stats()).counts == {"job": {TaskStatus.PENDING: 1}}


async def test_a_handler_enqueues_through_its_client(connected: Client) -> None:
    """`ctx.client` enqueues at once, and the worker runs what came of it."""

    async def handler(ctx: Context, job: Job) -> str | None:
        if job.n == 0:
            return None
        receipt = await ctx.client.enqueue(Job(n=job.n - 1))
        return receipt.task_id

    next_id: str | None = (await enqueue(connected, 3))[0]
    runs = 0
    async with Worker(app_of(handler), connected, poll=3600):
        while next_id is not None:
            next_id = (await connected.wait(next_id, LIMIT)).result
            runs += 1
    assert runs == 4
