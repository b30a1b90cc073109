"""A document edited by hand into nonsense, one field at a time, while a worker runs: the queue goes on."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from oncetask import App, Client, Context, NoRetry, Recurrence, TaskStatus, Worker, lifecycle
from oncetask.clock import to_micros
from oncetask.enqueueing import new_task
from oncetask.errors import Unsupported
from oncetask.representation import as_json, plain
from oncetask.store.document import ABSENT, FIELDS, encode
from oncetask.task import SCHEMA
from tests.integration.places import FilePlace, FirestorePlace, Place
from tests.integration.worker.support import LIMIT, SOON, Job, Other, done, enqueue

LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
FAR = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
PAST = datetime(2020, 1, 1, tzinfo=UTC)
RUBBISH: dict[str, Any] = {
    "absent": ABSENT,
    "null": None,
    "empty": "",
    "text": "nonsense",
    "negative": -1,
    "half": 0.5,
    "huge": 2**62,
    "nan": math.nan,
    "infinite": -math.inf,
    "true": True,
    "list": [1, None, {"x": []}],
    "map": {"x": {"y": [1]}, "at": "x"},
    "long ago": LONG_AGO,
    "far": FAR,
}
MOST_TELLING = {"absent", "text", "negative", "true", "map", "long ago", "far", "newer"}
"""What is tried in another state, too."""
OURS = {*FIELDS.values(), "dataJson", "resultJson"}
ON_FIRESTORE_ONLY = {"trace", "lane"}
"""Fields for which SQLite has no column."""


def an_app() -> App:
    """Give an App whose handlers succeed."""
    app = App()

    @app.handler(Job, retry=SOON)
    async def work(ctx: Context, job: Job) -> str:
        return "done"

    @app.cancellation_handler(Job, retry=NoRetry())
    async def undo(ctx: Context, job: Job) -> None:
        """Clean up."""

    @app.handler(Other, retry=SOON)
    async def other(ctx: Context, job: Other) -> str:
        return "done"

    return app


async def documents(client: Client) -> dict[str, dict[str, Any]]:
    """Give sound documents of tasks that are due, in the states that a worker finds them in."""
    now = await client.store.now()
    task = new_task(Job(), {}, now).evolve(wait_until=PAST, created_at=PAST)
    rule = Recurrence.every(3600, start=now.earliest - timedelta(minutes=90))
    states = {
        "plain": task,
        "keyed": task.evolve(resource_key="to be replaced"),
        "leased": task.evolve(lease_owner="somebody dead", leased_until=PAST, attempts=1, started_at=PAST),
        "cancelled": task.evolve(is_cancelled=True, cancelled_at=PAST),
        "generator": task.evolve(recurrence=rule.to_fields()),
    }
    return {name: encode(one.evolve(due_at=lifecycle.due_at(one))) for name, one in states.items()}


@dataclass(frozen=True)
class Odd:
    """A document with nonsense in one field."""

    state: str
    field: str
    value: str
    document: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Say what it is."""
        return f"{self.state}, {self.field} {self.value}"

    @property
    def key(self) -> str:
        """Give the resource key that it had before."""
        return f"key of {self.id}"

    @property
    def is_hidden(self) -> bool:
        """Tell whether Firestore does not find it in the line of its key: queries for what is open ask for a null."""
        return (self.state, self.field, self.value) == ("keyed", "outcome", "absent")

    @property
    def may_stay(self) -> bool:
        """Tell whether nobody may touch it, and so nobody may go before it in the line of its key."""
        waits = self.field in {"waitUntil", "leasedUntil"} and self.value == "far"
        return waits or self.field in {"kind", "dueAt"} or (self.field, self.value) == ("schema", "newer")


async def nonsense(client: Client, place: Place) -> list[Odd]:
    """Give each field and value as a plain task, and in one of the other states."""
    sound = await documents(client)
    plain_one, *others = sound
    fields = sorted(OURS | (ON_FIRESTORE_ONLY if isinstance(place, FirestorePlace) else set()))
    values = [*RUBBISH.items(), ("newer", 99)]
    if isinstance(place, FirestorePlace):  # whose emulator reads the whole collection for every query
        values = [(name, value) for name, value in values if name in MOST_TELLING]
    found = list[Odd]()
    for number, (field, (name, value)) in enumerate(itertools.product(fields, values)):
        for state in (plain_one, *([others[number % len(others)]] if name in MOST_TELLING else [])):
            odd = Odd(state, field, name, {**sound[state], field: value})
            if state == "keyed" and field != "resourceKey":
                odd = replace(odd, document={**odd.document, "resourceKey": odd.key})
            found.append(odd)
    return found


async def behind(client: Client, odd: Sequence[Odd]) -> dict[str, dict[str, Any]]:
    """Give a sound document behind each that has a resource key."""
    sound = (await documents(client))["keyed"]
    later = {"waitUntil": PAST + timedelta(days=1), "dueAt": PAST + timedelta(days=1)}
    return {f"behind {one.id}": {**sound, **later, "resourceKey": one.key} for one in odd if one.state == "keyed"}


def _parts(given: Mapping[str, Any]) -> Iterator[list[tuple[str, Any]]]:
    pairs = list(given.items())
    return (pairs[start : start + 400] for start in range(0, len(pairs), 400))


async def put(place: Place, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Write documents as they are, their nulls too."""
    given = {task_id: {k: v for k, v in one.items() if v is not ABSENT} for task_id, one in documents.items()}
    if not isinstance(place, FirestorePlace):
        await place.put(given)
        return
    for part in _parts(given):
        batch = place.native.batch()
        for task_id, fields in part:
            batch.set(place.document(task_id), fields)
        await batch.commit()


async def all_done(client: Client, *task_ids: str) -> None:
    """Wait until tasks are done, one after the other: most are, by the time that they are asked for."""
    for task in await client.get_tasks_by_ids(task_ids):
        if task.outcome is None:
            assert (await client.wait(task.id, LIMIT)).outcome is not None, task.id


async def test_no_field_of_a_task_stops_the_queue(connected: Client, place: Place) -> None:
    """Each task with nonsense in a field runs, or ends with the reason, or is one that nobody may touch.

    Those behind it in the line of its resource key run, unless it is theirs to wait for; all others do in any case.
    """
    odd = await nonsense(connected, place)
    others = await behind(connected, odd)
    await put(place, {one.id: one.document for one in odd} | others)
    async with Worker(an_app(), connected, poll=1):
        await done(connected, *await enqueue(connected, 1), (await connected.enqueue(Other())).task_id)
        waits = {f"behind {one.id}" for one in odd if one.may_stay}
        await all_done(connected, *(others.keys() - waits))
        await all_done(connected, *(o.id for o in odd if not (o.may_stay or o.is_hidden or o.state == "generator")))
    tasks = {task.id: task async for task in connected.iter_tasks()}
    for one in odd:
        task = tasks[one.id]
        if task.outcome is None and not (one.may_stay or one.is_hidden):
            assert (one.state, task.status, task.problems) == ("generator", TaskStatus.WAITING, ()), one.id
        if task.status is TaskStatus.DONE_FAILED and one.field != "outcome":
            assert task.errors, one.id


async def test_every_verb_answers_about_every_field(connected: Client, place: Place) -> None:
    """Lists, counts and single tasks are read, cancelled, reset and deleted, whatever stands in one of them."""
    odd = [one for one in await nonsense(connected, place) if one.state in {"plain", "generator"}]
    await put(place, {one.id: one.document for one in odd})
    ids = [one.id for one in odd]
    listed = [task async for task in connected.iter_tasks()]
    assert sorted(task.id for task in listed) == sorted(ids)
    assert (await connected.stats()).counts["job"]  # a kind that is none is not counted everywhere
    for status in TaskStatus:
        assert {task.status async for task in connected.iter_tasks(status=status)} <= {status}
    for task in listed:
        json.dumps(plain(as_json(task)), allow_nan=False)
    newer = {task.id for task in listed if task.schema > SCHEMA}
    ours = [task_id for task_id in ids if task_id not in newer]
    for verb in (connected.get_task, connected.cancel_task, connected.reset_task):
        for task_id in ours:
            await verb(task_id)
    for bulk in (connected.reset_tasks_by_ids, connected.cancel_tasks_by_ids):
        with pytest.raises(Unsupported, match="schema"):  # told after all the others were dealt with
            await bulk(ids)
    deleted = sum([await connected.delete_task(task_id) for task_id in ours])
    assert deleted == len(ours)
    assert {task.id async for task in connected.iter_tasks()} == newer


LOCKS: dict[str, tuple[Any, Any]] = {
    "owner is bytes": (b"me", FAR),
    "owner is empty": ("", PAST),
    "end is a text": ("me", "later"),
    "end is negative": ("me", -1),
    "end is a huge number": ("me", 2**62),
    "end is half a number": ("me", 0.5),
    "end is long ago": ("me", LONG_AGO),
    "both are maps": ({"x": 1}, {"x": 1}),
}
"""Owner and end."""


async def put_lock(place: Place, key: str, owner: Any, until: Any) -> None:
    """Write a lock past oncetask."""
    if isinstance(place, FirestorePlace):
        name = hashlib.sha256(key.encode()).hexdigest()
        await place.native.document("oncetask", "default", "onceLocks", name).set(
            {"leaseOwner": owner, "leasedUntil": until}
        )
        return
    assert isinstance(place, FilePlace)

    def write(path: Path) -> None:
        with closing(sqlite3.connect(path, timeout=20)) as sql, sql:
            row = ("default", key, *(to_sqlite(value) for value in (owner, until)), 1)
            sql.execute("INSERT INTO locks VALUES (?, ?, ?, ?, ?)", row)

    await asyncio.to_thread(write, place.path)


def to_sqlite(value: Any) -> Any:
    """Give what a column holds of a value."""
    if isinstance(value, datetime):
        return to_micros(value)
    return json.dumps(value) if isinstance(value, dict) else value


async def test_no_lock_stops_the_queue(connected: Client, place: Place) -> None:
    """A lock that makes no sense is nobody's; one that holds for ever holds up its own key only."""
    for name, (owner, until) in LOCKS.items():
        await put_lock(place, name, owner, until)
    await put_lock(place, "held for ever", "somebody", FAR)
    ids = [(await connected.enqueue(Job(), resource_key=name)).task_id for name in (*LOCKS, "held for ever")]
    async with Worker(an_app(), connected, poll=1):
        await all_done(connected, *ids[:-1], *await enqueue(connected, 1))
    assert (await connected.get_task(ids[-1])).status is TaskStatus.PENDING


PAUSED: dict[str, Any] = {
    "text": "job",
    "number": 5,
    "map": {"job": True},
    "list of anything": [None, 1, ["job"], {"job": 1}, "Job ", ""],
    "absent": None,
}


@pytest.mark.parametrize("paused", PAUSED.values(), ids=PAUSED)
async def test_no_setting_stops_the_queue(connected: Client, place: Place, paused: Any) -> None:
    """Settings of which no kind can be read pause nothing, also while a worker follows them; they can be set anew."""
    (first,) = await enqueue(connected, 1)
    async with Worker(an_app(), connected, poll=1):
        await done(connected, first)
        await put_settings(place, {"pausedKinds": paused, "shards": paused, "": paused} if paused else {})
        await done(connected, *await enqueue(connected, 2))
        assert await connected.paused_kinds() in ([], ["", "Job "])
        assert await connected.pause_kind("job")
        assert await connected.resume_kind("job")
        await done(connected, *await enqueue(connected, 3))


async def put_settings(place: Place, fields: dict[str, Any]) -> None:
    """Write the settings past oncetask."""
    if isinstance(place, FirestorePlace):
        given = {name: value for name, value in fields.items() if name}
        if given.get("pausedKinds") and isinstance(given["pausedKinds"], list):
            given = {name: [one for one in value if not isinstance(one, list)] for name, value in given.items()}
        await place.native.document("oncetask", "default").set(given)
        return
    assert isinstance(place, FilePlace)

    def write(path: Path) -> None:
        with closing(sqlite3.connect(path, timeout=20)) as sql, sql:
            sql.execute("INSERT OR REPLACE INTO settings VALUES ('default', 7, ?)", (json.dumps(fields),))
        Path(f"{path}-bell").write_bytes(b"!")

    await asyncio.to_thread(write, place.path)
