"""Kinds that are paused, as workers and clients see them."""

from __future__ import annotations

import asyncio

import pytest

from oncetask import Client, Context, Recurrence, TaskStatus, Worker, connect_sync
from tests.integration.places import Place
from tests.integration.worker.keys_support import Also, Keyed, Stage, enqueue_keyed, keyed_app
from tests.integration.worker.support import LIMIT, Job, Other, app_of, done, enqueue, raising


async def respected(client: Client) -> None:
    """Wait until fresh jobs are left alone."""
    async with asyncio.timeout(LIMIT):
        while True:
            (task_id,) = await enqueue(client, 0)
            try:
                await client.wait(task_id, 0.3)
            except TimeoutError:
                return


class TestClient:
    """Pausing, resuming, and asking."""

    async def test_once(self, connected: Client, place: Place) -> None:
        """Each tells whether it changed anything; everybody sees it."""
        other = place.connect()
        assert await connected.paused_kinds() == []
        assert [await connected.pause_kind(Job), await other.pause_kind("job")] == [True, False]
        assert await other.pause_kind("another")
        assert await connected.paused_kinds() == ["another", "job"]
        assert [await other.resume_kind(Job), await connected.resume_kind(Job)] == [True, False]
        assert await other.paused_kinds() == ["another"]

    async def test_all_at_once(self, connected: Client, place: Place) -> None:
        """Nobody's pause is lost, however many write the settings at the same time."""
        clients = [connected, *(place.connect() for _ in range(4))]
        changed = await asyncio.gather(*(client.pause_kind(f"kind-{n % 3}") for n, client in enumerate(clients * 2)))
        assert sum(changed) == 3
        assert await connected.paused_kinds() == ["kind-0", "kind-1", "kind-2"]

    @pytest.mark.parametrize("kind", ["No Kind", "", None, 3])
    async def test_what_is_no_kind(self, connected: Client, kind: object) -> None:
        """It is refused, and nothing is paused."""
        with pytest.raises((ValueError, TypeError), match="kind must be"):
            await connected.pause_kind(kind)  # type: ignore[arg-type]
        assert await connected.paused_kinds() == []

    async def test_nonsense_in_the_settings(self, connected: Client) -> None:
        """What somebody else wrote there counts as far as it can be read."""
        for stored, read in (("job", []), ({"job": True}, []), (["job", 3, None], ["job"])):
            await connected.store.write_settings(await connected.store.settings(), {"pausedKinds": stored})
            assert await connected.paused_kinds() == read

    def test_blocking(self, opened_place: Place) -> None:
        """The blocking client does the same."""
        if opened_place.url == "memory://":
            return
        with connect_sync(opened_place.url) as client:
            assert client.pause_kind(Job)
            assert client.paused_kinds() == ["job"]
            assert client.resume_kind("job")


class TestWorkers:
    """What a pause does to those who run tasks."""

    async def test_one_that_starts_while_it_is_paused(self, connected: Client) -> None:
        """It runs the other kinds, and goes on with this one as soon as it is resumed."""
        app = app_of(raising())
        app.handler(Other)(raising())  # type: ignore[arg-type]
        await connected.pause_kind(Job)
        (waiting,) = await enqueue(connected, 1)
        async with Worker(app, connected, poll=3_600):
            other = await connected.enqueue(Other())
            await done(connected, other.task_id)
            assert (await connected.get_task(waiting)).status is TaskStatus.PENDING
            await connected.resume_kind(Job)
            await done(connected, waiting)

    async def test_one_that_runs(self, connected: Client, place: Place) -> None:
        """What runs goes on to its end; nothing further starts, and nothing is lost."""
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def handler(_: Context, job: Job) -> None:
            if job.n == 1:
                begun.set()
                await go_on.wait()

        client = place.connect()
        async with Worker(app_of(handler), connected, poll=3_600):
            (running,) = await enqueue(client, 1)
            await begun.wait()
            await client.pause_kind(Job)
            await respected(client)
            go_on.set()
            await done(client, running)
            await client.resume_kind(Job)
            await done(client, *[task.id async for task in client.iter_tasks()])

    async def test_a_cancel_waits_as_well(self, connected: Client, place: Place) -> None:
        """A cancelled task of a paused kind ends when that is resumed."""
        client = place.connect()
        await client.pause_kind(Job)
        (task_id,) = await enqueue(client, 1)
        await client.cancel_task(task_id)
        async with Worker(app_of(raising()), connected):
            await client.resume_kind(Job)
            (task,) = await done(client, task_id)
        assert task.status is TaskStatus.DONE_CANCELLED

    async def test_the_line_of_a_key_stands_still(self, connected: Client, place: Place) -> None:
        """A paused kind keeps its place before others of its key; order comes before progress."""
        client, stage = place.connect(), Stage()
        app = keyed_app(stage, Keyed, Also)
        await client.pause_kind(Keyed)
        ids = await enqueue_keyed(client, 1, 2)
        async with Worker(app, connected):
            other = await client.enqueue(Also(n=3))
            free = await client.enqueue(Also(n=4, user=None))
            await done(client, free.task_id)
            assert stage.numbers == [4]
            await client.resume_kind(Keyed)
            await done(client, *ids, other.task_id)
        assert stage.numbers == [4, 1, 2, 3]

    async def test_schedules_go_on(self, connected: Client, place: Place) -> None:
        """Occurrences of a paused kind are spawned, and wait."""
        client = place.connect()
        await client.pause_kind(Job)
        await client.enqueue(Job(), recurrence=Recurrence.every(1), task_id="often")
        async with Worker(app_of(raising()), connected), asyncio.timeout(LIMIT):
            async for generator in client.watch("often"):
                if generator.occurrence_timestamp is not None:
                    break
        occurrences = [task async for task in client.iter_tasks(parent="often")]
        assert {task.attempts for task in occurrences} == {0}
