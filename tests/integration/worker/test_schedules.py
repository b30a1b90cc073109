"""Schedules that Apps declare: brought about once, changed where the code changed, and never against an operator."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oncetask import (
    App,
    Client,
    Payload,
    Recurrence,
    Task,
    TaskStatus,
    Worker,
)
from oncetask.errors import InvalidPayload, StoreUnavailable
from oncetask.schedules import prune, reconcile, survey
from oncetask.store import Settings, TaskStore, Written
from tests.integration.places import Place
from tests.integration.worker.support import LIMIT, Job, Other, done
from tests.support import Shift

DAILY = Recurrence.cron("0 2 * * *", timezone="Europe/Berlin")
HOURLY = Recurrence.cron("0 * * * *")
OVER = Recurrence("FREQ=DAILY;UNTIL=20200101T000000Z", datetime(2019, 12, 1, tzinfo=UTC))


def an_app(*schedules: tuple[str, Payload, Recurrence], name: str = "shop", **options: Any) -> App:
    """Give an App that handles `Job` and declares these."""
    app = App(name)
    app.handler(Job)(lambda _, job: job.n)
    for schedule in schedules:
        app.schedule(*schedule, **options)
    return app


async def bring_about(client: Client, app: App) -> None:
    """Do what a worker does at its start."""
    await reconcile(client.store, app.names(), app.schedules(), client.telemetry)


async def versions(client: Client, *task_ids: str) -> list[int]:
    """Give the versions of the settings and of tasks: whoever writes makes new ones."""
    tasks = await client.get_tasks_by_ids(task_ids)
    return [(await client.store.settings()).version, *(task.version for task in tasks)]


async def test_a_worker_brings_it_about(connected: Client) -> None:
    """When a worker works, what its App declares is in the store: a generator with a name of its own."""
    app = an_app(("nightly", Job(n=7), DAILY), resource_key="r", timeout=9, owner="ada")
    async with Worker(app, connected):
        task = await connected.get_task("shop:nightly")
    assert (task.kind, task.data, task.resource_key, task.timeout, task.owner) == ("job", {"n": 7}, "r", 9, "ada")
    assert task.recurrence == {**DAILY.to_fields(), "app": "shop", "name": "nightly"}
    assert task.wait_until == DAILY.next_after(task.created_at)
    assert task.status is TaskStatus.WAITING


async def test_its_occurrences_run(connected: Client) -> None:
    """A declared schedule spawns as any generator does."""
    shift = Shift()
    shift.of(connected.store)
    async with Worker(an_app(("hourly", Job(n=7), HOURLY)), connected, poll=0.05):
        instant = (await connected.get_task("shop:hourly")).wait_until
        shift.advance(3_600)
        ended = await connected_wait(connected, f"shop:hourly:{instant:%Y-%m-%dT%H:%M:%S}Z")
    assert (ended.result, ended.occurrence_timestamp) == (7, instant)


async def connected_wait(client: Client, task_id: str) -> Task:
    """Wait for a task that does not exist yet."""
    async with asyncio.timeout(LIMIT), client.store.watch_tasks([task_id]) as feed:
        while (await feed.get())[0] is None:
            pass
    return await client.wait(task_id, LIMIT)


async def test_a_start_without_a_change_writes_nothing(connected: Client) -> None:
    """Whoever starts later finds everything as he declares it, in whatever order."""
    schedules = [("nightly", Job(n=1), DAILY), ("hourly", Job(n=2), HOURLY)]
    await bring_about(connected, an_app(*schedules))
    before = await versions(connected, "shop:nightly", "shop:hourly")
    for app in (an_app(*schedules), an_app(*reversed(schedules))):
        async with Worker(app, connected):
            pass
    assert await versions(connected, "shop:nightly", "shop:hourly") == before


async def test_an_app_without_schedules_writes_nothing(connected: Client) -> None:
    """Not even that it has none."""
    await bring_about(connected, an_app())
    assert await connected.store.settings() == Settings({}, 0)


async def test_a_hundred_workers_start_together(place: Place) -> None:
    """Each schedule is created once and the settings are written once, however many try."""
    app = an_app(("nightly", Job(), DAILY), ("hourly", Job(), HOURLY))
    clients = [place.connect() for _ in range(10)]
    applied: list[str] = []
    for client in clients:
        await client.store.open()
        _record(client.store, applied)

    await asyncio.gather(*(bring_about(client, app) for client in clients for _ in range(10)))

    assert sorted(applied) == ["settings", "shop:hourly", "shop:nightly"]
    changed = an_app(("nightly", Job(n=5), DAILY), ("hourly", Job(), HOURLY))
    await asyncio.gather(*(bring_about(client, changed) for client in clients for _ in range(10)))
    assert sorted(applied[3:]) == ["settings", "shop:nightly"]


def _record(store: TaskStore, applied: list[str]) -> None:
    """Keep a list of the writes that were applied."""
    create, apply, write_settings = store.create, store.apply, store.write_settings

    def keep(names: list[str], written: list[Written]) -> list[Written]:
        applied.extend(name for name, one in zip(names, written, strict=True) if one.applied)
        return written

    async def recorded_create(tasks: Any) -> list[Written]:
        return keep([task.id for task in tasks], await create(tasks))

    async def recorded_apply(transitions: Any) -> list[Written]:
        return keep([step.before.id for step in transitions], await apply(transitions))

    async def recorded_settings(before: Any, changes: Any) -> Written:
        return keep(["settings"], [await write_settings(before, changes)])[0]

    store.create, store.apply, store.write_settings = recorded_create, recorded_apply, recorded_settings  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "change",
    [
        ("nightly", Job(n=2), DAILY),
        ("nightly", Other(n=1), DAILY),
        ("nightly", Job(n=1), Recurrence.cron("0 3 * * *", timezone="Europe/Berlin")),
        ("nightly", Job(n=1), Recurrence.cron("0 2 * * *", timezone="Europe/Paris")),
        ("nightly", Job(n=1), Recurrence.cron("0 2 * * *", timezone="Europe/Berlin", overlap="skip")),
        ("nightly", Job(n=1), Recurrence.cron("0 2 * * *", timezone="Europe/Berlin", catch_up="all")),
    ],
)
async def test_a_change_is_brought_about(connected: Client, change: tuple[str, Payload, Recurrence]) -> None:
    """Payload, rule, zone and policies: what the code says by now is what is stored, and others are left alone."""
    await bring_about(connected, an_app(("nightly", Job(n=1), DAILY), ("hourly", Job(), HOURLY)))
    _, hourly = await versions(connected, "shop:hourly")

    await bring_about(connected, an_app(change, ("hourly", Job(), HOURLY)))

    task = await connected.get_task("shop:nightly")
    assert (task.kind, task.data) == (change[1].kind, change[1].to_data())
    assert Recurrence.from_fields(task.recurrence or {}) == change[2]
    assert (await versions(connected, "shop:hourly"))[1] == hourly


class TestOperators:
    """What somebody did by hand stays."""

    async def test_a_cancelled_one_stays_cancelled(self, connected: Client) -> None:
        """Until it is reset, a start changes nothing about it, also one that changes other schedules."""
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        await connected.cancel_task("shop:nightly")
        app = an_app(("nightly", Job(), DAILY), ("hourly", Job(), HOURLY))
        async with Worker(app, connected):
            ended = await connected.wait("shop:nightly", LIMIT)
        async with Worker(app, connected):
            assert (await connected.get_task("shop:nightly")).version == ended.version
            assert await connected.reset_task("shop:nightly")
            assert (await connected.get_task("shop:nightly")).status is TaskStatus.WAITING

    async def test_until_it_is_declared_differently(self, connected: Client) -> None:
        """That is another schedule, so it runs."""
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        await connected.cancel_task("shop:nightly")
        await bring_about(connected, an_app(("nightly", Job(), HOURLY)))
        task = await connected.get_task("shop:nightly")
        assert (task.is_cancelled, task.status) == (False, TaskStatus.WAITING)

    async def test_a_paused_one_stays_paused(self, connected: Client) -> None:
        """Also where its rule changes."""
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        assert await connected.pause_schedule("shop:nightly")
        assert not await connected.pause_schedule("shop:nightly")
        await bring_about(connected, an_app(("nightly", Job(), HOURLY)))
        assert (await connected.get_task("shop:nightly")).due_at is None
        assert await connected.resume_schedule("shop:nightly")
        assert (await connected.get_task("shop:nightly")).due_at is not None

    async def test_a_deleted_one_stays_deleted(self, connected: Client) -> None:
        """Until it is declared differently."""
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        assert await connected.delete_task("shop:nightly")
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        assert await connected.get_tasks_by_ids(["shop:nightly"]) == []
        await bring_about(connected, an_app(("nightly", Job(), HOURLY)))
        assert len(await connected.get_tasks_by_ids(["shop:nightly"])) == 1


class TestVanished:
    """What the code does not declare any more is shown, and cancelled only when somebody says so."""

    async def vanished(self, client: Client) -> list[str]:
        """Give the names of those that vanished."""
        return [found.name for found in await survey(client.store) if found.is_vanished]

    async def test_it_runs_on_and_is_shown(self, connected: Client) -> None:
        """Another version, or another service, may still count on it."""
        await bring_about(connected, an_app(("nightly", Job(), DAILY), ("hourly", Job(), HOURLY)))
        await bring_about(connected, an_app(("warehouse", Job(), DAILY), name="stock"))
        assert await self.vanished(connected) == []
        await bring_about(connected, an_app(("hourly", Job(), HOURLY)))
        assert await self.vanished(connected) == ["nightly"]
        assert (await connected.get_task("shop:nightly")).status is TaskStatus.WAITING

    async def test_the_last_one(self, connected: Client) -> None:
        """An App that declares nothing any more says so."""
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        await bring_about(connected, an_app())
        assert await self.vanished(connected) == ["nightly"]

    async def test_the_old_version_starts_again(self, connected: Client) -> None:
        """Two versions side by side do not undo each other's schedules."""
        old, new = an_app(("nightly", Job(), DAILY)), an_app(("hourly", Job(), HOURLY))
        for app, expected in ((old, []), (new, ["nightly"]), (old, ["hourly"]), (new, ["nightly"])):
            await bring_about(connected, app)
            assert await self.vanished(connected) == expected
        tasks = await connected.get_tasks_by_ids(["shop:nightly", "shop:hourly"])
        assert [task.status for task in tasks] == [TaskStatus.WAITING] * 2

    async def test_pruned(self, connected: Client) -> None:
        """Pruned ones are cancelled; declared again, as they were, they run again."""
        old, new = an_app(("nightly", Job(), DAILY), ("hourly", Job(), HOURLY)), an_app(("hourly", Job(), HOURLY))
        await bring_about(connected, old)
        await bring_about(connected, new)
        gone = [found.task for found in await survey(connected.store) if found.is_vanished]
        assert await prune(connected.store, gone, connected.telemetry) == ["shop:nightly"]
        assert await prune(connected.store, gone, connected.telemetry) == []
        assert await prune(connected.store, [], connected.telemetry) == []
        async with Worker(new, connected):
            assert (await connected.wait("shop:nightly", LIMIT)).status is TaskStatus.DONE_CANCELLED
        assert await self.vanished(connected) == []
        await bring_about(connected, old)
        assert (await connected.get_task("shop:nightly")).status is TaskStatus.WAITING

    async def test_one_that_changes_meanwhile_is_pruned_all_the_same(self, connected: Client) -> None:
        """It is read again, as for every bulk verb."""
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        (stale,) = await connected.get_tasks_by_ids(["shop:nightly"])
        await connected.pause_schedule("shop:nightly")
        await bring_about(connected, an_app())
        assert await prune(connected.store, [stale], connected.telemetry) == ["shop:nightly"]
        assert (await connected.get_task("shop:nightly")).is_cancelled

    @pytest.mark.parametrize("verb", ["settings", "apply", "write_settings"])
    async def test_one_that_comes_back_meanwhile_goes_on(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch, verb: str
    ) -> None:
        """Whenever an old version starts while somebody prunes, what it declares runs in the end."""
        app = an_app(("nightly", Job(), DAILY))
        await bring_about(connected, app)
        await bring_about(connected, an_app())
        gone = [found.task for found in await survey(connected.store) if found.is_vanished]
        call, starts = getattr(connected.store, verb), [app]

        async def start_before(*args: Any) -> Any:
            if starts:
                await bring_about(connected, starts.pop())
            return await call(*args)

        monkeypatch.setattr(connected.store, verb, start_before)
        assert await prune(connected.store, gone, connected.telemetry) == []
        task = await connected.get_task("shop:nightly")
        assert (task.is_cancelled, task.status) == (False, TaskStatus.WAITING)
        assert await self.vanished(connected) == []

    async def test_one_that_comes_back_differently(self, connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a new version declares at that moment is what runs in the end, not what was pruned."""
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        await bring_about(connected, an_app())
        gone = [found.task for found in await survey(connected.store) if found.is_vanished]
        write, starts = connected.store.write_settings, [an_app(("nightly", Job(n=2), HOURLY))]

        async def start_before(*args: Any) -> Written:
            if starts:
                await bring_about(connected, starts.pop())
            return await write(*args)

        monkeypatch.setattr(connected.store, "write_settings", start_before)
        assert await prune(connected.store, gone, connected.telemetry) == []
        task = await connected.get_task("shop:nightly")
        assert (task.data, Recurrence.from_fields(task.recurrence or {})) == ({"n": 2}, HOURLY)
        assert (task.is_cancelled, task.status) == (False, TaskStatus.WAITING)

    async def test_a_start_that_prune_overtakes(self, connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """A start that has found its schedule as it declares it is refused, looks again, and brings it back."""
        app = an_app(("nightly", Job(), DAILY))
        await bring_about(connected, app)
        await bring_about(connected, an_app())
        gone = [found.task for found in await survey(connected.store) if found.is_vanished]
        write, prunes = connected.store.write_settings, [gone]

        async def prune_before(*args: Any) -> Written:
            if prunes:
                assert await prune(connected.store, prunes.pop(), connected.telemetry) == ["shop:nightly"]
            return await write(*args)

        monkeypatch.setattr(connected.store, "write_settings", prune_before)
        await bring_about(connected, app)
        assert (await connected.get_task("shop:nightly")).status is TaskStatus.WAITING


async def test_survey(connected: Client) -> None:
    """Declared and enqueued generators are found, with their rule and their last occurrence; other tasks are not."""
    shift = Shift()
    shift.of(connected.store)
    await connected.enqueue(Job(), task_id="task")
    await connected.enqueue(Job(), task_id="own", recurrence=HOURLY)
    far = Recurrence.cron("0 2 * * *", timezone="Europe/Berlin", start=datetime(2100, 1, 1, tzinfo=UTC))
    app = an_app(("nightly", Job(), far))
    async with Worker(app, connected, poll=0.05):
        instant = (await connected.get_task("own")).wait_until
        shift.advance(3_600)
        await connected_wait(connected, f"own:{instant:%Y-%m-%dT%H:%M:%S}Z")
    nightly, own = sorted(await survey(connected.store), key=lambda found: found.name)
    assert (nightly.name, nightly.recurrence, nightly.last, nightly.problem) == ("nightly", far, None, "")
    assert (own.name, own.recurrence) == ("own", HOURLY)
    assert own.last is not None
    assert (own.last.status, own.last.occurrence_timestamp) == (TaskStatus.DONE_COMPLETED, instant)


async def test_an_unreadable_one_is_surveyed(connected: Client, place: Place) -> None:
    """It is shown with what is wrong with it."""
    await connected.enqueue(Job(), task_id="own", recurrence=HOURLY)
    await place.change("own", recurrence={"cron": "61 * * * *"})
    (found,) = await survey(connected.store)
    assert found.recurrence is None
    assert "Bad minute" in found.problem


class TestNames:
    """What a schedule is called, and whose it is."""

    async def test_included_apps_keep_their_names(self, connected: Client) -> None:
        """Their schedules come along under their own name."""
        outer, inner = an_app(("nightly", Job(), DAILY)), App("billing")
        inner.schedule("nightly", Other(), DAILY)
        outer.include(inner)
        await bring_about(connected, outer)
        tasks = await connected.get_tasks_by_ids(["shop:nightly", "billing:nightly"])
        assert [task.kind for task in tasks] == ["job", "other"]

    def test_once_each(self) -> None:
        """A name is declared once in an App, and in those of the same name together."""
        app = an_app(("nightly", Job(), DAILY))
        with pytest.raises(ValueError, match="'nightly' is declared already by an app named 'shop'"):
            app.schedule("nightly", Job(n=2), HOURLY)
        other = App("shop")
        other.schedule("nightly", Job(), DAILY)
        with pytest.raises(ValueError, match="'nightly' is declared already"):
            app.include(other)
        assert len(app.schedules()) == 1

    def test_an_included_app_of_no_name(self) -> None:
        """One that declares nothing and is called "default" does not speak for others of that name."""
        app = an_app(("nightly", Job(), DAILY))
        app.include(App())
        app.include(App("billing"))
        assert app.names() == {"shop", "billing"}
        with pytest.raises(ValueError, match="the app's name may not be of the form __…__"):
            App("__main__").schedule("n", Job(), DAILY)
        assert App().names() == set()

    async def test_an_id_that_is_taken(self, connected: Client, caplog: pytest.LogCaptureFixture) -> None:
        """A task that is no generator is left as it is, and told; the others are brought about."""
        await connected.enqueue(Job(n=5), task_id="shop:nightly", delay=99)
        await bring_about(connected, an_app(("nightly", Job(), DAILY), ("hourly", Job(), HOURLY)))
        assert (await connected.get_task("shop:nightly")).data == {"n": 5}
        assert (await connected.get_task("shop:hourly")).status is TaskStatus.WAITING
        assert "'shop:nightly' is not brought about: its id belongs to another task" in caplog.text
        before = await versions(connected)
        await bring_about(connected, an_app(("nightly", Job(), DAILY), ("hourly", Job(), HOURLY)))
        assert await versions(connected) == before
        await connected.delete_task("shop:nightly")
        await bring_about(connected, an_app(("nightly", Job(), DAILY), ("hourly", Job(), HOURLY)))
        assert (await connected.get_task("shop:nightly")).recurrence is not None


async def test_a_kind_without_a_handler(connected: Client, caplog: pytest.LogCaptureFixture) -> None:
    """It is brought about for workers that have one, and told: nobody here will look at it."""
    app = an_app(("other", Other(), DAILY))
    async with Worker(app, connected):
        assert (await connected.get_task("shop:other")).status is TaskStatus.WAITING
    assert "'shop:other' is of kind 'other', which this app has no handler for" in caplog.text


class TestRunOut:
    """A declared rule that has no instant left."""

    async def test_it_is_not_created(self, connected: Client, caplog: pytest.LogCaptureFixture) -> None:
        """A worker starts all the same, and says so."""
        async with Worker(an_app(("past", Job(), OVER)), connected):
            assert await connected.get_tasks_by_ids(["shop:past"]) == []
        assert "'shop:past' has run out" in caplog.text

    async def test_one_that_runs_ends(self, connected: Client) -> None:
        """A rule that is changed into one that is over ends what was there."""
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        await bring_about(connected, an_app(("nightly", Job(), OVER)))
        assert (await connected.get_task("shop:nightly")).is_cancelled


async def test_the_store_is_away_at_the_start(connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker works, and brings the schedules about as soon as the store answers."""
    settings, failures = connected.store.settings, [StoreUnavailable("away")]

    async def away_at_first(**options: float) -> Settings:
        if failures:
            raise failures.pop()
        return await settings(**options)

    monkeypatch.setattr(connected.store, "settings", away_at_first)
    async with Worker(an_app(("nightly", Job(), DAILY)), connected):
        (ended,) = await done(connected, (await connected.enqueue(Job(n=3))).task_id)
        async with asyncio.timeout(LIMIT), connected.store.watch_tasks(["shop:nightly"]) as feed:
            while (await feed.get())[0] is None:
                pass
    assert ended.result == 3


@pytest.mark.parametrize("marks", [{"app": "shop", "name": ["x"]}, {"app": 5, "name": None}])
async def test_rubbish_in_a_recurrence(connected: Client, place: Place, marks: dict[str, Any]) -> None:
    """Marks that nobody of us wrote are no reason to fail."""
    await connected.enqueue(Job(), task_id="own", recurrence=HOURLY)
    await place.change("own", recurrence={**HOURLY.to_fields(), **marks})
    (found,) = await survey(connected.store)
    assert (found.name, found.is_vanished) == ("own", True)


async def test_rubbish_in_the_settings(connected: Client) -> None:
    """What somebody else wrote there is replaced where it is in the way."""
    for rubbish in ([1], {"shop": "x"}, {"shop": {"nightly": 5}}, None):
        await connected.store.write_settings(await connected.store.settings(), {"schedules": rubbish})
        await bring_about(connected, an_app(("nightly", Job(), DAILY)))
        (fingerprint,) = (await connected.store.settings()).fields["schedules"]["shop"].values()
        assert len(fingerprint) == 16


BAD: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (("", Job(), DAILY), {}, ValueError, "name must be a text"),
    ((None, Job(), DAILY), {}, ValueError, "name must be a text with .*, not None"),
    (("a/b", Job(), DAILY), {}, ValueError, "name 'a/b' .*may not contain a slash"),
    (("__n__", Job(), DAILY), {}, ValueError, "name may not be of the form __…__ .*, not '__n__'"),
    (("n", "job", DAILY), {}, TypeError, "payload must be"),
    (("n", Job(), "0 2 * * *"), {}, TypeError, "recurrence must be a Recurrence"),
    (("n", Job(), DAILY), {"delay": 5}, TypeError, "takes no 'delay'"),
    (("n", Job(), DAILY), {"task_id": "x"}, TypeError, "takes no 'task_id'"),
    (("n", Job(), DAILY), {"colour": "x"}, TypeError, "unknown option 'colour'"),
    (("n", Job(), DAILY), {"timeout": -1}, ValueError, "timeout must be"),
]


@pytest.mark.parametrize(("declared", "options", "error", "reason"), BAD)
def test_a_bad_declaration_is_refused(
    declared: tuple[Any, ...], options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    """At the declaration, with the name of what is wrong."""
    app = App()
    with pytest.raises(error, match=reason):
        app.schedule(*declared, **options)
    assert app.schedules() == []


def test_a_payload_with_a_time_of_its_own() -> None:
    """A payload that says when it runs cannot be a schedule's."""

    class Timed(Payload, kind="timed"):
        def wait_until(self) -> datetime:
            return datetime(2040, 1, 1, tzinfo=UTC)

    with pytest.raises(ValueError, match="wait_until and a recurrence exclude each other"):
        App().schedule("n", Timed(), DAILY)


class TestOptions:
    """What `enqueue` refuses beside a recurrence."""

    @pytest.mark.parametrize(
        ("options", "error", "reason"),
        [
            ({"wait_until": datetime(2040, 1, 1, tzinfo=UTC)}, ValueError, "wait_until and a recurrence exclude"),
            ({"delay": 5}, ValueError, "delay and a recurrence exclude"),
            ({"recurrence": "daily"}, TypeError, "recurrence must be a Recurrence"),
            ({"recurrence": OVER}, ValueError, "has no instant after"),
            ({"deadline": datetime(2020, 1, 1, tzinfo=UTC)}, ValueError, "deadline must be later than wait_until"),
        ],
    )
    async def test_refused(
        self, connected: Client, options: dict[str, Any], error: type[Exception], reason: str
    ) -> None:
        """Nothing is stored."""
        with pytest.raises(error, match=reason):
            await connected.enqueue(Job(), **{"recurrence": DAILY, **options})
        assert [task async for task in connected.iter_tasks()] == []

    async def test_other_tasks_are_no_schedules(self, connected: Client) -> None:
        """A task without a recurrence can be neither paused nor resumed."""
        await connected.enqueue(Job(), task_id="task")
        for verb in (connected.pause_schedule, connected.resume_schedule):
            with pytest.raises(ValueError, match="'task' is no schedule"):
                await verb("task")

    async def test_once_per_idempotency_key(self, connected: Client) -> None:
        """A generator is created once, like any task."""

        class Sync(Payload, kind="sync"):
            user: str

            def idempotency_key(self) -> str:
                return self.user

            def recurrence(self) -> Recurrence:
                return Recurrence.every(timedelta(minutes=5))

        receipts = [await connected.enqueue(Sync(user="ada")) for _ in range(2)]
        assert [(receipt.task_id, receipt.created) for receipt in receipts] == [("sync:ada", True), ("sync:ada", False)]


def test_a_payload_that_cannot_be_stored() -> None:
    """It is refused at the declaration too."""

    class Odd(Payload, kind="odd"):
        n: float

    with pytest.raises(InvalidPayload):
        App().schedule("n", Odd(n=float("nan")), DAILY)
