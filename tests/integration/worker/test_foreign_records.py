"""Records that somebody else wrote: they end with a reason, or are mended, and never stop the queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import field_validator

from oncetask import App, Client, Context, NoRetry, Payload, TaskStatus, Worker
from oncetask.enqueueing import new_task
from oncetask.store.document import encode
from tests.integration.places import FilePlace, FirestorePlace, Place
from tests.integration.stores import ON_FIRESTORE, ON_SQLITE
from tests.integration.worker.support import LIMIT, Job, app_of, done, enqueue, raising


async def _document(client: Client, **changed: Any) -> dict[str, Any]:
    return {**encode(new_task(Job(), {}, await client.store.now())), **changed}


async def _run_good(client: Client) -> None:
    """A task that is behind everything else runs."""
    good, *_ = await done(client, *await enqueue(client, 1))
    assert good.status is TaskStatus.DONE_COMPLETED


_POISON: Mapping[str, Mapping[str, Any]] = {
    "data missing": {"data": None},
    "data no map": {"data": [1]},
    "data no JSON": {"data": None, "dataJson": "{oops"},
    "data null in JSON": {"data": None, "dataJson": "null"},
    "waitUntil missing": {"waitUntil": None},
    "waitUntil text": {"waitUntil": "tomorrow"},
    "createdAt missing": {"createdAt": None},
    "createdAt text": {"createdAt": "yesterday"},
    "attempts text": {"attempts": "many"},
    "attempts negative": {"attempts": -1},
    "errors text": {"errors": "none"},
    "errors of something else": {"errors": [{"message": "?"}]},
    "outcome unknown": {"outcome": "finished"},
    "leaseOwner number": {"leaseOwner": 5},
    "leasedUntil text": {"leasedUntil": "later"},
    "startedAt text": {"startedAt": "once"},
    "timeout text": {"timeout": "long"},
    "isCancelled text": {"isCancelled": "maybe"},
    "resourceKey number": {"resourceKey": 7},
    "deadline text": {"deadline": "never"},
    "progress text": {"progress": "half"},
    "schema text": {"schema": "new"},
}


async def test_unreadable_records_end_with_the_reason(connected: Client, place: Place) -> None:
    """Whatever field is missing or of another type, the record ends done-failed, and the reason names the field."""
    await place.put({name: await _document(connected, **fields) for name, fields in _POISON.items()})
    async with Worker(app_of(raising()), connected):
        tasks = await done(connected, *_POISON)
        await _run_good(connected)
    for (name, fields), task in zip(_POISON.items(), tasks, strict=True):
        assert task.status is TaskStatus.DONE_FAILED, name
        assert task.errors[-1].type == "UnreadableTask", name
        assert next(iter(fields)) in task.errors[-1].message, name
        assert (task.due_at, task.attempts in {0, 1}) == (None, True)


async def test_a_record_that_no_query_finds_stops_nobody(connected: Client, place: Place) -> None:
    """Without a readable `dueAt` or kind a record stays as it is, and the others run."""
    odd: dict[str, dict[str, Any]] = {
        "a": {"dueAt": "soon"},
        "b": {"dueAt": None},
        "c": {"kind": None},
        "d": {"kind": "another"},
    }
    await place.put({name: await _document(connected, **fields) for name, fields in odd.items()})
    async with Worker(app_of(raising()), connected):
        await _run_good(connected)
    left = await connected.get_tasks_by_ids(odd)
    assert [task.id for task in left] == list(odd)
    assert {task.outcome for task in left} == {None}


async def test_many_unreadable_records_hide_nobody(connected: Client, place: Place) -> None:
    """A task behind six hundred unreadable records runs, and all of these end."""
    poison = await _document(connected, attempts="many")
    await place.put({f"poison-{n:03}": poison for n in range(600)})
    async with Worker(app_of(raising()), connected):
        await _run_good(connected)
        await done(connected, "poison-599")
    stats = await connected.stats()
    assert stats.counts["job"] == {TaskStatus.DONE_FAILED: 600, TaskStatus.DONE_COMPLETED: 1}


async def test_records_of_a_newer_version_hide_nobody(connected: Client, place: Place) -> None:
    """Six hundred records that only a newer library may touch stay as they are, and hide no others."""
    newer = await _document(connected, schema=99)
    await place.put({f"newer-{n:03}": newer for n in range(600)})
    async with Worker(app_of(raising()), connected, poll=3600):
        for _ in range(2):
            (task_id,) = await enqueue(connected, 1)
            await connected.wait(task_id, 3)
    task = await connected.get_task("newer-000")
    assert (task.outcome, task.attempts, task.schema) == (None, 0, 99)


async def test_a_cancel_goes_before_what_nobody_takes(connected: Client, place: Place) -> None:
    """An idle worker notices a cancelled task also where the head of the line is full of others' records."""
    newer = await _document(connected, schema=99)
    await place.put({f"newer-{n}": newer for n in range(3)})
    waiting = await connected.enqueue(Job(), delay=3600)
    async with Worker(app_of(raising()), connected, poll=3600):
        await _run_good(connected)
        assert await connected.cancel_task(waiting.task_id)
        (task,) = await done(connected, waiting.task_id)
    assert task.status is TaskStatus.DONE_CANCELLED


@pytest.mark.parametrize("due", [datetime(2001, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)])
async def test_a_due_time_that_contradicts_the_record_is_mended(connected: Client, place: Place, due: datetime) -> None:
    """A record that is found too early is not run: its `dueAt` is put where its other fields say."""
    wait_until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    await place.put({"early": await _document(connected, waitUntil=wait_until, dueAt=due)})
    async with Worker(app_of(raising()), connected):
        async for task in connected.watch("early"):
            if task.due_at != due:
                break
        await _run_good(connected)
    assert (task.due_at, task.attempts, task.status) == (wait_until, 0, TaskStatus.WAITING)


async def test_a_done_record_that_is_due_is_mended(connected: Client, place: Place) -> None:
    """A `dueAt` that was left on a done task is removed, and the task does not run again."""
    (task_id,) = await enqueue(connected, 1)
    async with Worker(app_of(raising()), connected):
        (before,) = await done(connected, task_id)
        await place.change(task_id, dueAt=before.created_at)
        await _run_good(connected)
    after = await connected.get_task(task_id)
    assert (after.due_at, after.done_at, after.attempts) == (None, before.done_at, 1)


async def test_a_task_of_the_distant_past_runs(connected: Client) -> None:
    """`wait_until` may lie before 1970."""
    async with Worker(app_of(raising()), connected):
        receipt = await connected.enqueue(Job(), wait_until=datetime(1905, 6, 9, tzinfo=UTC))
        task = await connected.wait(receipt.task_id, LIMIT)
    assert task.status is TaskStatus.DONE_COMPLETED


@ON_SQLITE
@pytest.mark.parametrize(
    "fields",
    [
        {"data": "[" * 100_000},
        {"data": b"\xff\x00"},
        {"dueAt": 1.5},
        {"dueAt": -(2**62)},
        {"createdAt": 2**62},
        {"errors": '[{"at": 1e999}]'},
        {"resourceKey": "\ud800".encode("utf-8", "surrogatepass")},
    ],
    ids=["deep", "bytes", "half a microsecond", "long ago", "far away", "infinite", "half a character"],
)
async def test_what_only_sqlite_can_hold_ends_with_the_reason(
    connected: Client, place: Place, fields: dict[str, Any]
) -> None:
    """Values that Firestore could not even hold are told in the reason, too, and stop nobody."""
    await place.put({"odd": await _document(connected, **fields)})
    async with Worker(app_of(raising()), connected):
        (odd,) = await done(connected, "odd")
        await _run_good(connected)
    assert (odd.status, odd.errors[-1].type) == (TaskStatus.DONE_FAILED, "UnreadableTask")
    assert next(iter(fields)) in odd.errors[-1].message


@ON_SQLITE
async def test_text_that_is_not_utf8_stops_nobody(connected: Client, place: FilePlace) -> None:
    """A text column with bytes that are no UTF-8 keeps neither the worker nor the client from reading the others."""
    await place.put({"odd": await _document(connected)})
    with closing(sqlite3.connect(place.path)) as sql, sql:
        sql.execute("UPDATE tasks SET owner = CAST(x'ff' AS TEXT) WHERE id = 'odd'")
    async with Worker(app_of(raising()), connected):
        (odd,) = await done(connected, "odd")
        await _run_good(connected)
    assert odd.status.is_done
    assert (await connected.list_tasks()).tasks


@ON_SQLITE
async def test_a_version_is_a_number(connected: Client, place: FilePlace) -> None:
    """SQLite itself refuses a version that could be compared with no other: every write depends on it."""
    await place.put({"odd": await _document(connected)})
    with closing(sqlite3.connect(place.path)) as sql, pytest.raises(sqlite3.IntegrityError, match="version"):
        sql.execute("UPDATE tasks SET version = 'newest' WHERE id = 'odd'")


@ON_FIRESTORE
async def test_one_foreign_field_is_kept(connected: Client, place: FirestorePlace) -> None:
    """A field that somebody else added to a document stays there through claim and completion."""
    await place.put({"mine": await _document(connected, note="keep me")})

    async def handler(_: Context, __: Job) -> None:
        return

    async with Worker(app_of(handler), connected):
        await done(connected, "mine")
    document = await place.document("mine").get()
    assert document.to_dict()["note"] == "keep me"


class Brittle(Payload, kind="brittle"):
    """One whose validator raises something else than ValueError."""

    n: int = 0

    @field_validator("n")
    @classmethod
    def look_up(cls, n: int) -> int:
        """Find a number in a table that lacks one."""
        return {2: 2, 3: 3}[n]


async def test_a_validator_that_raises_holds_up_nobody(connected: Client) -> None:
    """A payload whose validator breaks fails alone, with the reason; what was claimed with it runs."""
    now = await connected.store.now()
    tasks = [new_task(Brittle(n=2), {"task_id": f"{n}"}, now).evolve(data={"n": n}) for n in (1, 2, 3)]
    await connected.store.create(tasks)
    app = App()

    @app.handler(Brittle, retry=NoRetry())
    async def handler(_: Context, __: Brittle) -> None:
        """Do nothing."""

    async with Worker(app, connected):
        bad, *good = await done(connected, "1", "2", "3")
    assert (bad.status, bad.errors[0].type) == (TaskStatus.DONE_FAILED, "InvalidPayload")
    assert "KeyError" in bad.errors[0].message
    assert [task.status for task in good] == [TaskStatus.DONE_COMPLETED] * 2
