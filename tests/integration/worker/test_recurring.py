"""A worker and generators: occurrences at their instants, whatever was missed, overlaps, or stands in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from oncetask import App, Client, Context, NoRetry, Payload, Recurrence, Task, TaskStatus, Worker
from oncetask.errors import StoreUnavailable
from oncetask.store import Written
from oncetask.task import occurrence_id
from tests.integration.places import Place
from tests.integration.worker.support import LIMIT, Job, Other, app_of, done
from tests.support import T0, Shift, not_none, until

MINUTE = 60


@pytest.fixture
async def shift(connected: Client) -> Shift:
    """Moves the time of the client's store."""
    shift = Shift()
    shift.of(connected.store)
    return shift


async def begins(client: Client) -> datetime:
    """Give a moment a minute from now, in whole seconds: the first instant of the rules of these tests."""
    now = (await client.store.now()).latest
    return now.replace(microsecond=0) + timedelta(seconds=MINUTE)


async def occurrences(client: Client, generator: str = "g") -> list[Task]:
    """Give what a generator has spawned, in the order of its instants."""
    found = [task async for task in client.iter_tasks(parent=generator)]
    return sorted(found, key=lambda task: not_none(task.occurrence_timestamp))


async def enqueue(client: Client, payload: Payload, rule: str, task_id: str = "g", **options: Any) -> datetime:
    """Enqueue a generator whose first instant is in a minute, and give that."""
    start = await begins(client)
    options, own = {}, options
    options = {name: own.pop(name) for name in ("catch_up", "overlap", "exdates") if name in own}
    await client.enqueue(payload, task_id=task_id, recurrence=Recurrence(rule, start, **options), **own)
    return start


def working(app: App, client: Client, **options: Any) -> Worker:
    """Give a worker that notices soon when a test has moved the time; its leases outlast that."""
    return Worker(app, client, poll=0.05, lease=timedelta(days=1), **options)


@asynccontextmanager
async def blocking(client: Client, **options: Any) -> AsyncIterator[tuple[App, asyncio.Queue[Context]]]:
    """Give an App whose handler says that it runs, and then waits to be told to stop."""
    running: asyncio.Queue[Context] = asyncio.Queue()

    async def handler(ctx: Context, job: Job) -> str:
        running.put_nowait(ctx)
        await ctx.wait_aborted()
        return "stopped"

    yield app_of(handler, timeout=timedelta(hours=9), **options), running


async def moved(client: Client, condition: Callable[[Task], object], generator: str = "g") -> Task:
    """Wait until a generator's record fulfils a condition; its occurrences were stored together with it."""
    async with client.store.watch_tasks([generator]) as feed:
        (task,) = await until(feed, lambda found: found[0] is not None and condition(found[0]))
    return not_none(task)


async def test_occurrences_run_at_their_instants(connected: Client, shift: Shift) -> None:
    """Each is a task of its own that knows its generator and its instant; behind the last one the generator is done."""
    seen: asyncio.Queue[Task] = asyncio.Queue()

    async def handler(ctx: Context, job: Job) -> int:
        seen.put_nowait(ctx.task)
        return job.n

    app = app_of(handler)
    async with working(app, connected):
        start = await enqueue(connected, Job(n=7), "FREQ=MINUTELY;COUNT=2", resource_key="r", timeout=9, owner="ada")
        assert (await connected.get_task("g")).status is TaskStatus.WAITING
        for n in range(2):
            instant = start + timedelta(minutes=n)
            shift.advance(MINUTE)
            async with asyncio.timeout(LIMIT):
                task = await seen.get()
            assert (task.id, task.parent_recurrence_id) == (occurrence_id("g", instant), "g")
            assert (task.occurrence_timestamp, task.wait_until) == (instant, instant)
            assert (task.data, task.resource_key, task.timeout, task.owner) == ({"n": 7}, "r", 9, "ada")
            await connected.wait(task.id, LIMIT)  # else its lease ends with the next minute
        generator = await connected.wait("g", LIMIT)
        ended = await done(connected, *(task.id for task in await occurrences(connected)))
    assert (generator.status, generator.attempts, generator.result) == (TaskStatus.DONE_COMPLETED, 0, None)
    assert [(task.status, task.result) for task in ended] == [(TaskStatus.DONE_COMPLETED, 7)] * 2


async def test_a_payload_says_that_it_recurs(connected: Client, shift: Shift) -> None:
    """`recurrence()` of a payload makes a generator of it; `recurrence=None` at enqueue makes it a task again."""
    start = await begins(connected)

    class Ping(Payload, kind="ping"):
        def recurrence(self) -> Recurrence:
            return Recurrence("FREQ=DAILY;COUNT=1", start)

    app = App()
    app.handler(Ping)(lambda _, __: "pong")
    generator = await connected.enqueue(Ping())
    once = await connected.enqueue(Ping(), recurrence=None)
    shift.advance(MINUTE)
    async with working(app, connected):
        tasks = await done(connected, generator.task_id, once.task_id)
        (spawned,) = await done(connected, *[task.id for task in await occurrences(connected, generator.task_id)])
    assert [task.result for task in tasks] == [None, "pong"]
    assert (spawned.result, spawned.occurrence_timestamp) == ("pong", start)


@pytest.mark.parametrize(
    ("catch_up", "late", "spawned"),
    [
        ("one", 10.5 * MINUTE, [10]),
        ("all", 10.5 * MINUTE, list(range(11))),
        ("skip", 10.5 * MINUTE, [10]),
        ("skip", 0.5 * MINUTE, [0]),
    ],
)
async def test_what_was_missed(connected: Client, shift: Shift, catch_up: str, late: float, spawned: list[int]) -> None:
    """While nobody works, a generator spawns nothing; then it does what its catch-up policy says."""
    start = await enqueue(connected, Job(), "FREQ=MINUTELY", catch_up=catch_up)
    shift.advance(MINUTE + late)
    async with working(app_of(lambda _, __: None), connected):
        generator = await moved(connected, lambda task: task.wait_until > start + timedelta(seconds=late))
        found = await occurrences(connected)
    assert [task.occurrence_timestamp for task in found] == [start + timedelta(minutes=n) for n in spawned]
    assert generator.wait_until == start + timedelta(minutes=11 if late > MINUTE else 1)


async def test_skip_leaves_out_a_daily_run_that_is_hours_late(connected: Client, shift: Shift) -> None:
    """It waits for the next day."""
    start = await enqueue(connected, Job(), "FREQ=DAILY", catch_up="skip")
    shift.advance(5 * 3_600)
    async with working(app_of(lambda _, __: None), connected):
        await moved(connected, lambda task: task.wait_until == start + timedelta(days=1))
    assert await occurrences(connected) == []


async def test_hundreds_that_were_missed_run_in_order(connected: Client, shift: Shift) -> None:
    """More than a commit takes are written in several, and start in the order of their instants."""
    order: list[datetime] = []

    async def handler(ctx: Context, _: Job) -> None:
        order.append(not_none(ctx.task.occurrence_timestamp))

    start = await enqueue(connected, Job(), "FREQ=MINUTELY;COUNT=250", catch_up="all")
    shift.advance(MINUTE * 300)
    async with working(app_of(handler), connected, concurrency=1):
        await connected.wait("g", LIMIT)
        await done(connected, *[task.id for task in await occurrences(connected)])
    assert order == [start + timedelta(minutes=n) for n in range(250)]


async def test_large_payloads_are_caught_up_with(connected: Client, shift: Shift) -> None:
    """As many occurrences travel together as a commit can hold."""

    class Large(Payload, kind="job"):
        text: str

    await enqueue(connected, Large(text="x" * 900_000), "FREQ=MINUTELY;COUNT=12", catch_up="all")
    shift.advance(MINUTE * 20)
    async with working(app_of(lambda _, __: None), connected):
        assert (await connected.wait("g", LIMIT)).status is TaskStatus.DONE_COMPLETED
    assert len(await occurrences(connected)) == 12


async def test_overlap_skip(connected: Client, shift: Shift) -> None:
    """While the last occurrence is not done the next ones are left out; then they come again."""
    release = asyncio.Event()

    async def handler(_: Context, __: Job) -> None:
        await release.wait()

    async with working(app_of(handler, timeout=timedelta(hours=9)), connected):
        start = await enqueue(connected, Job(), "FREQ=MINUTELY", overlap="skip")
        for n in range(1, 4):
            shift.advance(MINUTE)
            await waits_for(connected, start + timedelta(minutes=n))
        (first,) = await occurrences(connected)
        release.set()
        await done(connected, first.id)
        shift.advance(MINUTE)
        await waits_for(connected, start + timedelta(minutes=4))
    found = await occurrences(connected)
    assert [task.occurrence_timestamp for task in found] == [start, start + timedelta(minutes=3)]


async def waits_for(client: Client, instant: datetime) -> None:
    """Wait until the generator waits for an instant."""
    await moved(client, lambda task: task.wait_until == instant)


async def test_overlap_allow(connected: Client, shift: Shift) -> None:
    """The next occurrence starts beside the last one."""
    async with blocking(connected) as (app, running), working(app, connected, grace=0):
        await enqueue(connected, Job(), "FREQ=MINUTELY")
        for _ in range(2):
            shift.advance(MINUTE)
            async with asyncio.timeout(LIMIT):
                await running.get()
        assert [task.status for task in await occurrences(connected)] == [TaskStatus.LEASED] * 2


async def test_overlap_cancel_previous(connected: Client, shift: Shift) -> None:
    """The next occurrence cancels the last one, also where that takes the only slot of its kind."""
    async with blocking(connected, concurrency=1) as (app, running), working(app, connected, grace=0):
        await enqueue(connected, Job(), "FREQ=MINUTELY", overlap="cancel-previous")
        contexts = []
        for _ in range(3):
            shift.advance(MINUTE)
            async with asyncio.timeout(LIMIT):
                contexts.append(await running.get())
        ended = await done(connected, contexts[0].task_id, contexts[1].task_id)
    assert [context.abort_reason for context in contexts[:2]] == ["cancelled", "cancelled"]
    assert [task.status for task in ended] == [TaskStatus.DONE_CANCELLED] * 2


async def test_a_full_worker_spawns(connected: Client, shift: Shift) -> None:
    """A generator takes no slot: its occurrences are in the line while every slot is taken."""
    async with blocking(connected) as (app, running), working(app, connected, concurrency=1, grace=0):
        await connected.enqueue(Job())
        async with asyncio.timeout(LIMIT):
            await running.get()
        await enqueue(connected, Job(), "FREQ=MINUTELY;COUNT=1")
        shift.advance(MINUTE)
        await connected.wait("g", LIMIT)
        (spawned,) = await occurrences(connected)
        assert spawned.status_at((await connected.store.now()).latest) is TaskStatus.PENDING


async def test_an_occurrence_that_exists_jams_nothing(connected: Client, shift: Shift) -> None:
    """Where its id is taken, the generator moves on alone."""
    start = await enqueue(connected, Job(n=1), "FREQ=MINUTELY;COUNT=2")
    await connected.enqueue(Other(n=2), task_id=occurrence_id("g", start))
    async with working(app_of(lambda _, job: job.n), connected):
        shift.advance(MINUTE)
        await waits_for(connected, start + timedelta(minutes=1))
        shift.advance(MINUTE)
        await connected.wait("g", LIMIT)
        (spawned,) = await done(connected, *[task.id for task in await occurrences(connected)])
    assert (spawned.occurrence_timestamp, spawned.result) == (start + timedelta(minutes=1), 1)
    assert (await connected.get_task(occurrence_id("g", start))).data == {"n": 2}


async def test_occurrences_fail_and_are_cancelled_alone(connected: Client, shift: Shift) -> None:
    """What becomes of one is nothing to its generator and to the others."""
    start = await enqueue(connected, Job(), "FREQ=MINUTELY;COUNT=3", catch_up="all")

    async def handler(ctx: Context, _: Job) -> str:
        if ctx.task.occurrence_timestamp == start:
            raise RuntimeError("broken")
        return "fine"

    shift.advance(MINUTE * 9)
    async with working(app_of(handler, retry=NoRetry()), connected):
        await connected.wait("g", LIMIT)
        ended = await done(connected, *[task.id for task in await occurrences(connected)])
    assert [task.status for task in ended] == [TaskStatus.DONE_FAILED, *[TaskStatus.DONE_COMPLETED] * 2]
    assert (await connected.get_task("g")).status is TaskStatus.DONE_COMPLETED


async def test_cancelling_a_generator_in_two_steps(connected: Client, shift: Shift) -> None:
    """Cancelled by its id it spawns no more, and its occurrences run on; by the key those are cancelled too."""
    async with blocking(connected) as (app, running), working(app, connected):
        await enqueue(connected, Job(), "FREQ=MINUTELY", resource_key="r")
        shift.advance(MINUTE)
        async with asyncio.timeout(LIMIT):
            context = await running.get()

        assert await connected.cancel_task("g")
        generator = await connected.wait("g", LIMIT)
        shift.advance(MINUTE * 5)
        assert not context.aborted
        assert await connected.cancel_tasks_by_resource_key("job", "r") == 1
        (spawned,) = await done(connected, *[task.id for task in await occurrences(connected)])
    assert (generator.status, spawned.status) == (TaskStatus.DONE_CANCELLED, TaskStatus.DONE_CANCELLED)


async def test_the_key_reaches_a_generator(connected: Client) -> None:
    """A generator carries its payload's key, so it is cancelled with everything of that key; it takes no lock."""
    await enqueue(connected, Job(), "FREQ=MINUTELY", resource_key="r")
    assert await connected.cancel_tasks_by_resource_key(None, "r") == 1
    async with working(app_of(lambda _, __: None), connected):
        assert (await connected.wait("g", LIMIT)).status is TaskStatus.DONE_CANCELLED


async def test_reset_pause_and_resume(connected: Client, shift: Shift) -> None:
    """Each goes on from now, and what passed in between is not caught up with."""
    async with working(app_of(lambda _, __: None), connected):
        start = await enqueue(connected, Job(), "FREQ=HOURLY", catch_up="all")
        await connected.cancel_task("g")
        await connected.wait("g", LIMIT)
        shift.advance(2.5 * 3_600)
        assert await connected.reset_task("g")
        assert (await connected.get_task("g")).wait_until == start + timedelta(hours=3)

        assert await connected.pause_schedule("g")
        shift.advance(3 * 3_600)
        assert await connected.resume_schedule("g")
        assert (await connected.get_task("g")).wait_until == start + timedelta(hours=6)
        shift.advance(3_600)
        await moved(connected, lambda task: task.occurrence_timestamp == start + timedelta(hours=6))
    assert len(await occurrences(connected)) == 1


@pytest.mark.parametrize(
    ("recurrence", "reason"),
    [
        ({"rrule": "FREQ=OFTEN", "dtstart": T0}, "FREQ must be one of"),
        ({"cron": "61 * * * *"}, "Bad minute"),
        ({"cron": "* * * * *", "timezone": "Europe/Atlantis"}, "no IANA zone"),
        ({"nonsense": [1]}, "dtstart must be"),
    ],
)
async def test_an_unreadable_rule_ends(
    connected: Client, place: Place, shift: Shift, recurrence: dict[str, Any], reason: str
) -> None:
    """A rule that somebody else wrote badly ends with the reason, and holds up nobody."""
    await enqueue(connected, Job(), "FREQ=MINUTELY", task_id="bad")
    await place.change("bad", recurrence=recurrence)
    shift.advance(MINUTE)
    async with working(app_of(lambda _, __: "fine"), connected):
        other = await connected.enqueue(Job())
        ended, fine = await done(connected, "bad", other.task_id)
    assert (ended.status, fine.result) == (TaskStatus.DONE_FAILED, "fine")
    assert reason in ended.errors[-1].message


async def test_a_deadline_ends_a_generator(connected: Client, shift: Shift) -> None:
    """It spawns nothing from there on, and its occurrences have the deadline too."""
    start = await begins(connected)
    deadline = start + timedelta(minutes=2)
    await enqueue(connected, Job(), "FREQ=MINUTELY", catch_up="all", deadline=deadline)
    shift.advance(MINUTE * 1.5)
    async with working(app_of(lambda _, __: None), connected):
        await moved(connected, lambda task: task.occurrence_timestamp == start)
        shift.advance(MINUTE * 9)
        generator = await connected.wait("g", LIMIT)
    found = await occurrences(connected)
    assert generator.status is TaskStatus.DONE_COMPLETED
    assert [(task.occurrence_timestamp, task.deadline) for task in found] == [
        (start, deadline),
        (start + timedelta(minutes=1), deadline),
    ]


async def test_a_generator_whose_start_has_just_passed(connected: Client) -> None:
    """`dtstart` at this moment is the first instant, although the store is asked a little later."""
    now = (await connected.store.now()).earliest
    await connected.enqueue(Job(), task_id="g", recurrence=Recurrence("FREQ=DAILY", now))
    async with working(app_of(lambda _, __: None), connected):
        await moved(connected, lambda task: task.occurrence_timestamp == now.replace(microsecond=0))


async def test_a_schedule_may_be_deleted(connected: Client, shift: Shift) -> None:
    """A deleted generator spawns no more, and its occurrences stay."""
    async with working(app_of(lambda _, __: None), connected):
        await enqueue(connected, Job(), "FREQ=MINUTELY")
        shift.advance(MINUTE)
        await moved(connected, lambda task: task.occurrence_timestamp is not None)
        (spawned,) = await occurrences(connected)
        assert await connected.delete_task("g")
        shift.advance(MINUTE * 3)
        other = await connected.enqueue(Job())
        await done(connected, other.task_id, spawned.id)
    assert len(await occurrences(connected)) == 1


class TestTrouble:
    """A generator that cannot spawn for a moment is tried again, and holds up nobody."""

    @pytest.mark.parametrize("failure", [RuntimeError("a bug"), StoreUnavailable("away")])
    async def test_what_fails_once(
        self, connected: Client, shift: Shift, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        """Whatever it was, the occurrence comes, and other tasks run meanwhile."""
        commit, failures = connected.store.commit, [failure]

        async def fail_once(*args: Any) -> Any:
            if failures:
                raise failures.pop()
            return await commit(*args)

        monkeypatch.setattr(connected.store, "commit", fail_once)
        async with working(app_of(lambda _, __: "fine"), connected):
            start = await enqueue(connected, Job(), "FREQ=MINUTELY;COUNT=1")
            shift.advance(MINUTE)
            other = await connected.enqueue(Job())
            assert [task.result for task in await done(connected, other.task_id)] == ["fine"]
            await connected.wait("g", LIMIT)
            (spawned,) = await done(connected, *[task.id for task in await occurrences(connected)])
        assert (spawned.occurrence_timestamp, failures) == (start, [])

    async def test_a_last_occurrence_that_changes_all_the_time(
        self, connected: Client, shift: Shift, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Refused again and again, it is tried again until it succeeds."""
        commit, refusals = connected.store.commit, list(range(7))

        async def refuse_at_first(steps: Any, creates: Any, batch: Any) -> Any:
            if len(steps) > 1 and refusals:
                refusals.pop()
                return [Written()] * len(steps)
            return await commit(steps, creates, batch)

        monkeypatch.setattr(connected.store, "commit", refuse_at_first)
        async with blocking(connected) as (app, running), working(app, connected, grace=0):
            await enqueue(connected, Job(), "FREQ=MINUTELY", overlap="cancel-previous")
            for _ in range(2):
                shift.advance(MINUTE)
                async with asyncio.timeout(LIMIT):
                    await running.get()
        assert refusals == []

    async def test_a_kind_that_fills_up_later(self, connected: Client, shift: Shift) -> None:
        """Its schedules are looked after soon, although those of another full kind were looked at just before."""
        async with blocking(connected, concurrency=1) as (app, running):
            release = asyncio.Event()

            @app.handler(Other, concurrency=1, timeout=timedelta(hours=9))
            async def handler(ctx: Context, _: Other) -> None:
                running.put_nowait(ctx)
                await release.wait()

            async with Worker(app, connected, lease=timedelta(days=1), grace=0):  # with the slow poll that all have
                await connected.enqueue(Job())
                start = await enqueue(connected, Other(), "FREQ=SECONDLY;INTERVAL=60", catch_up="all")
                await running.get()
                await connected.enqueue(Other())
                await running.get()
                shift.advance(MINUTE)
                await moved(connected, lambda task: task.occurrence_timestamp == start)

    async def test_many_that_cannot_spawn(self, connected: Client, shift: Shift) -> None:
        """More cancelled generators of a full kind than one query reads hide no other one."""
        async with blocking(connected, concurrency=1) as (app, running), working(app, connected, grace=0):
            await connected.enqueue(Job())
            await running.get()
            rule = Recurrence("FREQ=YEARLY", await begins(connected))
            ids = [f"x{n}" for n in range(110)]
            await connected.enqueue_many([Job() for _ in ids], task_ids=ids, recurrence=rule)
            assert await connected.cancel_tasks_by_ids(ids) == 110
            start = await enqueue(connected, Job(), "FREQ=MINUTELY")
            shift.advance(MINUTE)
            await moved(connected, lambda task: task.occurrence_timestamp == start)
