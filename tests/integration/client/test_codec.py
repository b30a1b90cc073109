"""Tasks whose contents pass through a codec: they run as others do, and the store holds nothing of what they say."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from oncetask import (
    App,
    Client,
    Codec,
    Context,
    FixedDelay,
    InvalidPayload,
    NoRetry,
    OncetaskError,
    Payload,
    PayloadTooLarge,
    Recurrence,
    Retry,
    Task,
    TaskStatus,
    Unsupported,
    Worker,
    connect,
    connect_sync,
    lifecycle,
    tick,
)
from oncetask.codec import CODED, SealedMap
from oncetask.store import Written
from tests.codecs import Broken, Scrambled
from tests.integration.client.support import LIMIT
from tests.integration.places import FilePlace, FirestorePlace, Place
from tests.integration.stores import ON_FIRESTORE, ON_SQLITE

SECRET = "hush-hush"


class Tell(Payload, kind="tell"):
    """Something to be kept secret."""

    secret: str = SECRET


Connect = Callable[..., Client]


@pytest.fixture
async def connect_with(place: Place) -> AsyncIterator[Connect]:
    """Connects with a codec, or None; closed at the end of the test."""
    clients: list[Client] = []

    def connecting(codec: Codec | None) -> Client:
        clients.append(connect(place.url, codec=codec))
        return clients[-1]

    yield connecting
    for client in clients:
        await client.aclose()


@pytest.fixture
def coded(connect_with: Connect) -> Client:
    """A client with a codec."""
    return connect_with(Scrambled())


async def stored_in(place: Place) -> str:
    """Give all that a store holds, as text: the bytes of its files, or its documents."""
    if isinstance(place, FirestorePlace):
        found = place.native.collection("oncetask", "default", "onceTasks").stream()
        return repr([document.to_dict() async for document in found])
    assert isinstance(place, FilePlace)
    files = [file for file in place.path.parent.iterdir() if file.is_file() and file.name.startswith("tasks.db")]
    assert any(file.name.endswith("-wal") for file in files)
    return "".join([(await asyncio.to_thread(file.read_bytes)).decode("latin-1") for file in files])


def telling(*, fails: bool = False, retry: Retry | None = None, name: str = "default") -> App:
    """Give an App whose handler repeats the secret wherever it can, and fails in the end where it is to."""
    app = App(name)

    @app.handler(Tell, retry=retry or NoRetry())
    async def tell(ctx: Context, payload: Tell) -> list[str]:
        ctx.progress(0.5, f"telling {payload.secret}", {"told": payload.secret})
        if fails:
            raise ValueError(f"I was to keep {payload.secret}")
        return [payload.secret]

    return app


async def run(app: App, client: Client, task_id: str) -> Task:
    """Let a worker end a task."""
    async with Worker(app, client):
        return await client.wait(task_id, LIMIT)


async def test_the_store_holds_nothing_of_what_tasks_say(coded: Client, place: Place) -> None:
    """Data, result, progress and errors are read as they were written, and no byte of them is in the store."""
    good = await coded.enqueue(Tell(), resource_key="open", owner="ada")
    done = await run(telling(), coded, good.task_id)
    assert (done.status, done.data, done.result) == (TaskStatus.DONE_COMPLETED, {"secret": SECRET}, [SECRET])
    bad = await coded.enqueue(Tell())
    failed = await run(telling(fails=True), coded, bad.task_id)
    assert failed.status is TaskStatus.DONE_FAILED
    assert failed.errors[-1].message == f"I was to keep {SECRET}"
    assert failed.progress is not None
    assert (failed.progress.fraction, failed.progress.data) == (0.5, {"told": SECRET})
    assert failed.progress.message == f"telling {SECRET}"
    content = await stored_in(place)
    assert SECRET not in content
    assert all(word in content for word in ("open", "ada", "tell", "ValueError", CODED))


async def test_what_was_stored_before_is_read_as_it_is(coded: Client, connect_with: Connect) -> None:
    """A codec may be introduced while tasks wait: those run too, and their results are coded."""
    receipt = await connect_with(None).enqueue(Tell())
    assert (await coded.get_task(receipt.task_id)).data == {"secret": SECRET}
    done = await run(telling(), coded, receipt.task_id)
    assert done.result == [SECRET]
    seen = await connect_with(None).get_task(receipt.task_id)
    assert seen.data == {"secret": SECRET}
    assert CODED in seen.result


class TestWithoutTheKey:
    """What somebody can do with coded tasks who has no codec, or one with another key."""

    @pytest.fixture(params=[None, Scrambled(b"another key")], ids=["no codec", "another key"])
    def other(self, connect_with: Connect, request: pytest.FixtureRequest) -> Client:
        """Somebody who cannot read what there is."""
        return connect_with(request.param)

    async def test_tasks_are_looked_at_and_changed_as_any(self, coded: Client, other: Client) -> None:
        """They are listed, with data as stored, cancelled, reset and deleted; nothing that is coded is lost."""
        ids = [receipt.task_id for receipt in await coded.enqueue_many([Tell(), Tell()])]
        listed = await other.list_tasks(kind="tell")
        assert {task.id for task in listed.tasks} == set(ids)
        assert all(CODED in task.data and SECRET not in repr(task.data) and not task.problems for task in listed.tasks)
        assert await other.cancel_task(ids[0])
        assert await other.delete_task(ids[1])
        async with Worker(telling(), other):
            assert (await other.wait(ids[0], LIMIT)).status is TaskStatus.DONE_CANCELLED
        assert await other.reset_task(ids[0])
        assert (await run(telling(), coded, ids[0])).result == [SECRET]

    async def test_running_one_fails_until_the_right_key_comes(self, coded: Client, other: Client) -> None:
        """The attempt fails with InvalidPayload that says why, is retried by the policy, and nothing is lost."""
        app = telling(retry=FixedDelay(50, 0.2))
        receipt = await coded.enqueue(Tell())
        async with Worker(app, other):
            async with asyncio.timeout(LIMIT):
                async for task in other.watch(receipt.task_id):
                    if len(task.errors) >= 2:
                        break
        done = await run(app, coded, receipt.task_id)
        assert (done.status, done.result) == (TaskStatus.DONE_COMPLETED, [SECRET])
        assert {error.type for error in done.errors} == {"InvalidPayload"}

    async def test_the_error_names_the_reason(self, coded: Client, other: Client) -> None:
        """It says whether there was no codec, or what the codec said."""
        receipt = await coded.enqueue(Tell())
        task = await run(telling(), other, receipt.task_id)
        reason = task.errors[0].message.removeprefix("data of kind 'tell' is coded: ")
        assert reason in {
            "no codec was given (connect(codec=…) or ONCETASK_CODEC)",
            "the codec (Scrambled) refused it: ValueError: another key",
        }
        with pytest.raises(InvalidPayload, match="is coded"):
            task.payload(Tell)

    async def test_a_schedule_hands_its_data_on(self, coded: Client, other: Client) -> None:
        """Occurrences that such a worker spawns can be run by one that has the key."""
        recurrence = Recurrence.every(timedelta(hours=1), start=(await coded.store.now()).latest - timedelta(hours=3))
        await coded.enqueue(Tell(), task_id="g", recurrence=recurrence)
        made = await coded.get_task("g")
        due = made.evolve(wait_until=made.wait_until - timedelta(hours=1))
        await coded.store.apply(
            [lifecycle.Transition("moved", made, due, dict.fromkeys(("wait_until", "due_at"), due.wait_until))]
        )
        await tick(telling(), other, budget=5)
        (occurrence,) = [task async for task in coded.iter_tasks(parent="g")]
        assert occurrence.data == {"secret": SECRET}


async def test_watchers_see_plain_values(coded: Client) -> None:
    """Every value of a watch is decoded, the last one too."""
    receipt = await coded.enqueue(Tell())
    seen: list[Task] = []

    async def watch() -> None:
        async for task in coded.watch(receipt.task_id):
            seen.append(task)  # noqa: PERF401  # what was seen until then is of interest

    async with Worker(telling(), coded):
        await asyncio.wait_for(watch(), LIMIT)
    assert {task.data["secret"] for task in seen} == {SECRET}
    assert seen[-1].result == [SECRET]


async def test_an_equal_declaration_is_no_change(coded: Client, place: Place) -> None:
    """Coded values differ each time, so what a schedule's declaration is compared with is what they mean."""
    app = telling(name="shop")
    app.schedule("nightly", Tell(), Recurrence.cron("0 2 * * *"))
    await tick(app, coded, budget=5)
    generator = await coded.get_task("shop:nightly")
    assert generator.data == {"secret": SECRET}
    (schedule,) = app.schedules()
    assert lifecycle.redeclare(generator, schedule.generator(await coded.store.now())) is None
    assert SECRET not in await stored_in(place)


class TestWritingAnew:
    """`recode_tasks`."""

    async def test_it_codes_what_is_plain_and_what_has_an_old_key(self, place: Place, connect_with: Connect) -> None:
        """Afterwards the new key reads everything, whatever its state, and no plain text is left in a document."""
        old, new = Scrambled(b"old"), Scrambled(b"new")

        class Either:
            """The new key writes, both read."""

            encode = staticmethod(new.encode)

            def decode(self, coded: bytes) -> bytes:
                try:
                    return new.decode(coded)
                except ValueError:
                    return old.decode(coded)

        plain, before, between, after = map(connect_with, (None, old, Either(), new))
        await plain.enqueue(Tell(), task_id="plain")
        await before.enqueue(Tell(), task_id="old")
        await before.enqueue(Tell(), task_id="done")
        await run(telling(), before, "done")
        await before.enqueue(Tell(), task_id="generator", recurrence=Recurrence.cron("0 2 * * *"))
        assert await between.recode_tasks() == 4
        if isinstance(place, FirestorePlace):  # SQLite's file may hold remnants of what was plain
            assert SECRET not in await stored_in(place)
        tasks = {task.id: task async for task in after.iter_tasks()}
        assert {task.data.get("secret") for task in tasks.values()} == {SECRET}
        assert tasks["done"].result == [SECRET]
        assert tasks["done"].status is TaskStatus.DONE_COMPLETED
        assert all(isinstance(task.data, SealedMap) for task in [await before.get_task(i) for i in tasks])

    async def test_it_leaves_alone_what_it_cannot_read(self, connect_with: Connect) -> None:
        """A task of another key is not counted, and stays readable with that key."""
        theirs = connect_with(Scrambled(b"another"))
        await theirs.enqueue(Tell(), task_id="t")
        version = (await theirs.get_task("t")).version
        assert await connect_with(Scrambled()).recode_tasks() == 0
        task = await theirs.get_task("t")
        assert (task.version, task.data) == (version, {"secret": SECRET})

    async def test_a_running_task_goes_on(self, coded: Client) -> None:
        """Its handler's worker notices that the record is a newer one, and completes it all the same."""
        begun, go_on = asyncio.Event(), asyncio.Event()
        app = App()

        @app.handler(Tell)
        async def tell(_: Context, payload: Tell) -> str:
            begun.set()
            await go_on.wait()
            return payload.secret

        receipt = await coded.enqueue(Tell())
        async with Worker(app, coded):
            await asyncio.wait_for(begun.wait(), LIMIT)
            assert await coded.recode_tasks() == 1
            go_on.set()
            task = await coded.wait(receipt.task_id, LIMIT)
        assert (task.status, task.attempts, task.result) == (TaskStatus.DONE_COMPLETED, 1, SECRET)

    async def test_one_that_changes_meanwhile_is_written_too(
        self, connect_with: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A task that somebody changes between reading and writing is read again, and its change stays."""
        old, new = Scrambled(b"old"), connect_with(Scrambled(b"new"))
        await connect_with(None).enqueue(Tell(), task_id="t")
        apply = new.store.apply

        async def late(transitions: Sequence[lifecycle.Transition]) -> list[Written]:
            monkeypatch.setattr(new.store, "apply", apply)
            assert await new.cancel_task("t")
            return await apply(transitions)

        monkeypatch.setattr(new.store, "apply", late)
        assert await new.recode_tasks() == 1
        task = await connect_with(old).get_task("t")
        assert isinstance(task.data, SealedMap)
        assert task.is_cancelled

    async def test_it_needs_a_codec(self, connected: Client) -> None:
        """Without one there is nothing to write anew."""
        with pytest.raises(Unsupported, match="no codec"):
            await connected.recode_tasks()


async def test_a_payload_that_is_too_large_coded_is_refused_at_once(coded: Client) -> None:
    """`enqueue` says so, as it does of one that is too large by itself, and nothing is stored."""
    with pytest.raises(PayloadTooLarge, match="as the codec gives it"):
        await coded.enqueue(Tell(secret="x" * 800_000), task_id="t")
    assert await coded.get_tasks_by_ids(["t"]) == []


async def test_a_result_that_is_too_large_coded_fails_the_task(coded: Client) -> None:
    """The task ends with the reason, and not in a loop of leases that run out."""
    app = App()

    @app.handler(Tell, retry=NoRetry())
    async def tell(_: Context, __: Tell) -> str:
        return "x" * 800_000

    task = await run(app, coded, (await coded.enqueue(Tell())).task_id)
    assert (task.status, task.errors[0].type) == (TaskStatus.DONE_FAILED, "PayloadTooLarge")


async def test_a_codec_that_fails_stores_nothing(connect_with: Connect) -> None:
    """`enqueue` raises, without a word of what was to be hidden."""
    broken = connect_with(Broken())
    with pytest.raises(OncetaskError, match="raised RuntimeError") as caught:
        await broken.enqueue(Tell(), task_id="t")
    assert SECRET not in str(caught.value)
    assert await broken.get_tasks_by_ids(["t"]) == []


async def test_a_task_fails_though_the_codec_does(connect_with: Connect, connected: Client) -> None:
    """A codec that breaks while a task runs lets it end as failed: the lease does not run out over and over."""
    await connected.enqueue(Tell(), task_id="t")
    task = await run(telling(), connect_with(Broken()), "t")
    assert (task.status, task.errors[0].type) == (TaskStatus.DONE_FAILED, "OncetaskError")


@ON_FIRESTORE
async def test_the_callers_own_commits_are_coded(coded: Client, place: FirestorePlace) -> None:
    """A task in somebody's write batch is coded like others, and `cancel_in` works on it."""
    batch = place.native.batch()
    task_id = coded.enqueue_in(batch, Tell())
    await batch.commit()
    assert SECRET not in await stored_in(place)
    task = await coded.get_task(task_id)
    assert task.data == {"secret": SECRET}
    batch = place.native.batch()
    assert coded.cancel_in(batch, task)
    await batch.commit()
    assert (await coded.get_task(task_id)).is_cancelled
    with pytest.raises(PayloadTooLarge):
        coded.enqueue_in(place.native.batch(), Tell(secret="x" * 800_000))


async def test_staged_tasks_are_coded(coded: Client, place: Place) -> None:
    """What a handler enqueues with its completion is coded too."""
    app = App()

    @app.handler(Tell)
    async def tell(ctx: Context, payload: Tell) -> None:
        if ctx.task_id == "first":
            ctx.enqueue(payload, task_id="second")

    await coded.enqueue(Tell(), task_id="first")
    async with Worker(app, coded):
        await coded.wait("first", LIMIT)
        second = await coded.wait("second", LIMIT)
    assert second.data == {"secret": SECRET}
    assert SECRET not in await stored_in(place)


async def test_blocking_clients_take_a_codec(place: Place, coded: Client) -> None:
    """`connect_sync(codec=…)` writes and reads as `connect` does."""

    def work() -> tuple[str, object, int]:
        with connect_sync(place.url, codec=Scrambled()) as client:
            task_id = client.enqueue(Tell()).task_id
            return task_id, client.get_task(task_id).data, client.recode_tasks()

    task_id, data, number = await asyncio.to_thread(work)
    assert (data, number) == ({"secret": SECRET}, 1)
    assert (await coded.get_task(task_id)).data == {"secret": SECRET}
    assert SECRET not in await stored_in(place)


@ON_SQLITE
def test_the_command_line_takes_it_from_the_environment(opened_place: Place, tmp_path: Path) -> None:
    """ONCETASK_CODEC names a codec in the current folder: `enqueue`, `tick` and `show` code and decode with it."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "keys.py").write_text(
        "class Backwards:\n"
        "    def encode(self, plain): return plain[::-1]\n"
        "    def decode(self, coded): return coded[::-1]\n"
        "codec = Backwards()\n"
    )
    (folder / "jobs.py").write_text(
        "from oncetask import App, Payload\n"
        "class Tell(Payload, kind='tell'):\n    secret: str\n"
        "app = App()\n"
        "@app.handler(Tell)\nasync def tell(ctx, payload): return payload.secret\n"
    )
    environment = {**os.environ, **opened_place.environment, "ONCETASK_CODEC": "keys:codec"}
    start = "import sys; sys.path.remove(''); from oncetask.cli import main; main()"  # as the installed script starts

    def oncetask(*arguments: str) -> str:
        command = [sys.executable, "-c", start, *arguments]
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return ran.stdout

    oncetask("enqueue", "tell", f'{{"secret": "{SECRET}"}}', "--task-id", "t")
    assert SECRET in oncetask("show", "t")
    oncetask("tick", "jobs:app")
    assert f'"{SECRET}"' in oncetask("show", "t", "--json")
    with connect_sync(opened_place.url) as client:
        task = client.get_task("t")
        assert task.status is TaskStatus.DONE_COMPLETED
        assert SECRET not in repr(task)


async def test_logs_say_nothing_of_data_and_results(coded: Client, caplog: pytest.LogCaptureFixture) -> None:
    """At every level, oncetask logs neither payload nor result nor progress of a task that goes well."""
    caplog.set_level(logging.DEBUG)
    await run(telling(), coded, (await coded.enqueue(Tell())).task_id)
    assert any("completed" in record.getMessage() for record in caplog.records)
    assert not [record for record in caplog.records if SECRET in record.getMessage()]
