"""Enqueueing: once per id, durable, in order, and repeatable after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from oncetask import Client, InvalidPayload, Payload, PayloadTooLarge, StoreUnavailable, TaskStatus
from oncetask.store import TaskStore, Written
from oncetask.task import Task
from tests.integration.client.support import Greet, Note
from tests.integration.places import Place
from tests.integration.stores import EVERYWHERE, ON_SQLITE


@EVERYWHERE
async def test_a_task_is_enqueued(connected: Client) -> None:
    """A new task is pending at once, with the payload's data and nothing of a run."""
    receipt = await connected.enqueue(Note(n=3))
    task = await connected.get_task(receipt.task_id)
    assert receipt.created
    assert (task.kind, task.data, task.status, task.attempts) == ("note", {"n": 3}, TaskStatus.PENDING, 0)
    assert task.payload(Note) == Note(n=3)
    assert task.wait_until == task.created_at <= task.read_at


@EVERYWHERE
async def test_options_are_stored(connected: Client) -> None:
    """Each option is found in the record."""
    wait_until = datetime(2100, 1, 1, 12, tzinfo=UTC)
    await connected.enqueue(
        Note(), task_id="the-one", resource_key="key", wait_until=wait_until, timeout=timedelta(minutes=1), owner="me"
    )
    task = await connected.get_task("the-one")
    assert (task.resource_key, task.wait_until, task.timeout, task.owner) == ("key", wait_until, 60.0, "me")
    assert task.status is TaskStatus.WAITING
    await connected.enqueue(Note(), task_id="later", delay=60, resource_key=None, owner=None)
    later = await connected.get_task("later")
    assert later.wait_until - later.created_at == timedelta(seconds=60)
    assert (later.resource_key, later.owner, later.timeout) == (None, None, None)


async def test_a_payload_says_where_it_stands(connected: Client) -> None:
    """A payload's own key and time are taken, and an option comes before them."""

    class Own(Payload, kind="own"):
        def resource_key(self) -> str:
            return "mine"

        def wait_until(self) -> datetime:
            return datetime(2100, 1, 1, tzinfo=UTC)

    task = await connected.get_task((await connected.enqueue(Own())).task_id)
    assert (task.resource_key, task.wait_until.year) == ("mine", 2100)
    other = await connected.get_task((await connected.enqueue(Own(), resource_key=None, delay=0)).task_id)
    assert (other.resource_key, other.status) == (None, TaskStatus.PENDING)


@EVERYWHERE
async def test_the_same_key_is_the_same_task(connected: Client) -> None:
    """A second enqueue of an idempotency key changes nothing and says so, also once the task is leased."""
    first = await connected.enqueue(Greet(name="Ada"), owner="first")
    second = await connected.enqueue(Greet(name="Ada"), owner="second", delay=60)
    assert (first.task_id, first.created, second.created) == ("greet:Ada", True, False)
    assert second.task_id == first.task_id
    assert (await connected.get_task("greet:Ada")).owner == "first"


async def test_many_at_once_create_one(connected: Client, place: Place) -> None:
    """Of twenty concurrent enqueues of one key, from two clients, one creates the task."""
    other = place.connect()
    clients = [connected, other] * 10
    receipts = await asyncio.gather(*(client.enqueue(Greet(name="Ada")) for client in clients))
    assert sum(receipt.created for receipt in receipts) == 1
    assert {receipt.task_id for receipt in receipts} == {"greet:Ada"}


async def test_an_id_of_another_kind_is_refused(connected: Client) -> None:
    """A literal id that a task of another kind has raises, and names both kinds."""
    await connected.enqueue(Note(), task_id="taken")
    with pytest.raises(ValueError, match=r"'taken' belongs to a task of kind 'note'.*'greet'"):
        await connected.enqueue(Greet(name="Ada"), task_id="taken")
    assert not (await connected.enqueue(Note(n=2), task_id="taken")).created


async def test_a_payload_that_would_come_back_different_is_refused(connected: Client) -> None:
    """A masked secret, or a document over 1 MiB, is refused before anything is stored, and the message says why."""

    class Login(Payload, kind="login"):
        password: SecretStr

    class Large(Payload, kind="large"):
        text: str

    with pytest.raises(InvalidPayload, match="password"):
        await connected.enqueue(Login(password=SecretStr("hidden")))
    with pytest.raises(PayloadTooLarge, match="data takes"):
        await connected.enqueue(Large(text="ü" * 600_000))
    with pytest.raises(PayloadTooLarge):
        await connected.enqueue_many([Note(), Large(text="x" * 2**21)])
    assert await connected.pending_count() == 0


async def test_large_and_odd_payloads_survive(connected: Client) -> None:
    """What Firestore cannot hold as a map, and half a megabyte of text, come back from either store as they went in."""

    class Odd(Payload, kind="odd"):
        rows: list[list[int]]
        fields: dict[str, object]
        text: str

    odd = Odd(rows=[[1], []], fields={"": None, "__x__": 2**80, "a.b`c": [1.5]}, text="é🙂" * 40_000)
    receipt = await connected.enqueue(odd)
    assert (await connected.get_task(receipt.task_id)).payload(Odd) == odd


async def test_many_are_enqueued_in_order(connected: Client, place: Place) -> None:
    """Thousands of tasks at once: receipts in the order of the list, times a microsecond apart."""
    number = 20_000 if place.url.startswith("sqlite") else 2_000
    receipts = await connected.enqueue_many(Note(n=n) for n in range(number))
    assert len({receipt.task_id for receipt in receipts}) == number
    assert all(receipt.created for receipt in receipts)
    picked = [receipts[index].task_id for index in (0, 1, number // 2, number - 1)]
    tasks = await connected.get_tasks_by_ids(picked)
    assert [task.data["n"] for task in tasks] == [0, 1, number // 2, number - 1]
    assert tasks[-1].wait_until - tasks[0].wait_until == timedelta(microseconds=number - 1)
    assert await connected.pending_count(Note) == number


@EVERYWHERE
async def test_many_skip_what_exists(connected: Client) -> None:
    """Of a list with tasks that exist and with one named twice, the new ones are created, each once."""
    await connected.enqueue(Greet(name="Bob"))
    receipts = await connected.enqueue_many([Greet(name=name) for name in ("Ada", "Bob", "Cy", "Ada")], owner="me")
    assert [(r.task_id, r.created) for r in receipts] == [
        ("greet:Ada", True),
        ("greet:Bob", False),
        ("greet:Cy", True),
        ("greet:Ada", False),
    ]
    assert await connected.enqueue_many([]) == []


async def test_many_take_ids_of_their_own(connected: Client) -> None:
    """`task_ids` names one id for each payload; a wrong number of them is refused."""
    receipts = await connected.enqueue_many([Note(n=1), Note(n=2)], task_ids=["b", "a"])
    assert [receipt.task_id for receipt in receipts] == ["b", "a"]
    assert [task.data["n"] for task in await connected.get_tasks_by_ids(["a", "b"])] == [2, 1]
    with pytest.raises(ValueError, match="one id for each of the 2 payloads, not 1"):
        await connected.enqueue_many([Note(), Note()], task_ids=["a"])
    with pytest.raises(ValueError, match="task_id is for one task, not for 2"):
        await connected.enqueue_many([Note(), Note()], task_id="a")


class _FailsMidway:
    """A store whose next `create` stores the first tasks, and then does not answer any more."""

    def __init__(self, store: TaskStore, *, stored: int) -> None:
        self._store = store
        self._stored: int | None = stored

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        stored, self._stored = self._stored, None
        if stored is None:
            return await self._store.create(tasks)
        written = await self._store.create(tasks[:stored])
        raise StoreUnavailable("gone", receipts=[*written[:-1], *[None] * (len(tasks) - stored + 1)])


async def test_a_failure_midway_may_be_repeated_whole(connected: Client) -> None:
    """`StoreUnavailable` has a receipt for each payload; with their ids the whole call leaves each task there once."""
    flaky = Client(_FailsMidway(connected.store, stored=700))  # type: ignore[arg-type]  # stands in for a store
    payloads = [Note(n=n) for n in range(1_000)]
    with pytest.raises(StoreUnavailable) as caught:
        await flaky.enqueue_many(payloads)
    known = caught.value.receipts
    assert [receipt.created for receipt in known] == [True] * 699 + [False] * 301  # type: ignore[attr-defined]  # of enqueue_many
    receipts = await flaky.enqueue_many(payloads, task_ids=[receipt.task_id for receipt in known])  # type: ignore[attr-defined]  # as above
    assert [receipt.created for receipt in receipts] == [False] * 700 + [True] * 300
    tasks = await connected.get_tasks_by_ids(receipt.task_id for receipt in receipts)
    assert [task.data["n"] for task in tasks] == list(range(1_000))
    assert await connected.pending_count() == 1_000


@ON_SQLITE
async def test_others_get_their_turn_meanwhile(connected: Client) -> None:
    """While thousands of tasks are enqueued, the loop goes round and another call is answered."""
    enqueueing = asyncio.create_task(connected.enqueue_many(Note(n=n) for n in range(20_000)))
    await connected.enqueue(Greet(name="quick"))
    assert not enqueueing.done()
    await enqueueing
