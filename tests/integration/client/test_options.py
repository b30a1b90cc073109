"""Bad options are refused where they are given, by a message that names the option and the value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from oncetask import Client, ExponentialBackoff, FixedDelay, Payload, Worker
from oncetask.app import App
from tests.integration.client.support import Note
from tests.integration.stores import ON_SQLITE

pytestmark = ON_SQLITE  # nothing here reaches a store

_NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001  # what is refused
_AT = datetime(2030, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"task_id": ""}, ValueError, "task_id .*''"),
        ({"task_id": None}, ValueError, "task_id .*None"),
        ({"task_id": 7}, ValueError, "task_id .*7"),
        ({"task_id": "a/b"}, ValueError, "task_id .*slash.*'a/b'"),
        ({"task_id": "a\nb"}, ValueError, r"task_id .*'a\\nb'"),
        ({"task_id": ".."}, ValueError, r"task_id .*'\.\.'"),
        ({"task_id": "__x__"}, ValueError, "task_id .*'__x__'"),
        ({"task_id": "x" * 1_501}, ValueError, "task_id .*1500 bytes.*'xxx"),
        ({"task_id": "\ud800"}, ValueError, "task_id .*ud800"),
        ({"resource_key": ""}, ValueError, "resource_key .*''"),
        ({"resource_key": 5}, ValueError, "resource_key .*5"),
        ({"resource_key": "ü" * 501}, ValueError, "resource_key .*1000 bytes.*'üüü"),
        ({"resource_key": "\udfff"}, ValueError, "resource_key .*udfff"),
        ({"wait_until": _NAIVE}, ValueError, "wait_until .*naive datetime.datetime"),
        ({"wait_until": "tomorrow"}, TypeError, "wait_until .*'tomorrow'"),
        ({"wait_until": 1_900_000_000}, TypeError, "wait_until .*1900000000"),
        ({"delay": -1}, ValueError, "delay .*-1"),
        ({"delay": float("nan")}, ValueError, "delay .*nan"),
        ({"delay": float("inf")}, ValueError, "delay .*inf"),
        ({"delay": 10**400}, ValueError, "delay .*1000"),
        ({"delay": timedelta(seconds=-1)}, ValueError, "delay .*timedelta"),
        ({"delay": "60"}, TypeError, "delay .*'60'"),
        ({"delay": None}, TypeError, "delay .*None"),
        ({"delay": True}, TypeError, "delay .*True"),
        ({"delay": 1, "wait_until": datetime(2030, 1, 1, tzinfo=UTC)}, ValueError, "wait_until and delay .*2030"),
        ({"timeout": 0}, ValueError, "timeout .*0"),
        ({"timeout": -0.5}, ValueError, "timeout .*-0.5"),
        ({"timeout": "long"}, TypeError, "timeout .*'long'"),
        ({"timeout": None}, TypeError, "timeout .*None"),
        ({"timeout": True}, TypeError, "timeout .*True"),
        ({"timeout": float("nan")}, ValueError, "timeout .*nan"),
        ({"timeout": float("inf")}, ValueError, "timeout .*inf"),
        ({"timeout": 10**400}, ValueError, "timeout .*1000"),
        ({"timeout": timedelta(0)}, ValueError, r"timeout .*timedelta\(0\)"),
        ({"deadline": _NAIVE}, ValueError, "deadline .*naive datetime.datetime"),
        ({"deadline": "tomorrow"}, TypeError, "deadline .*'tomorrow'"),
        ({"deadline": 1_900_000_000}, TypeError, "deadline .*1900000000"),
        ({"deadline": timedelta(hours=1)}, TypeError, "deadline .*timedelta"),
        ({"deadline": None}, TypeError, "deadline .*None"),
        ({"deadline": _AT, "wait_until": _AT}, ValueError, "deadline .*later than wait_until, 2030.*not datetime"),
        ({"deadline": _AT, "wait_until": _AT + _MICRO}, ValueError, "deadline .*later than wait_until, 2030.*not date"),
        ({"deadline": _AT.replace(year=2020), "delay": 0}, ValueError, r"deadline .*later than wait_until.*\(2020"),
        ({"owner": ""}, ValueError, "owner .*''"),
        ({"owner": 5}, ValueError, "owner .*5"),
        ({"owner": "x" * 1_001}, ValueError, "owner .*1000 bytes.*'xxx"),
        ({"owner": "\ud800"}, ValueError, "owner .*ud800"),
        ({"priority": 5}, TypeError, "'priority'.*there are: .*task_id"),
    ],
)
async def test_a_bad_option_is_named(
    connected: Client, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    """`enqueue`, `enqueue_many` and `enqueue_in` refuse it alike, and nothing is stored."""
    with pytest.raises(error, match=told):
        await connected.enqueue(Note(), **options)
    with pytest.raises(error, match=told):
        await connected.enqueue_many([Note()], **options)
    with pytest.raises(error, match=told):
        connected.enqueue_in(None, Note(), **options)
    assert (await connected.list_tasks()).tasks == []


async def test_a_deadline_before_the_end_of_the_delay_is_refused(connected: Client) -> None:
    """A task that could never run is refused, by `delay` as by `wait_until`; one that could is not."""
    soon = (await connected.store.now()).latest + timedelta(minutes=1)
    with pytest.raises(ValueError, match="deadline must be later than wait_until"):
        await connected.enqueue(Note(), delay=3_600, deadline=soon)
    receipt = await connected.enqueue(Note(), delay=3_600, deadline=soon + timedelta(hours=2))
    task = await connected.get_task(receipt.task_id)
    assert task.deadline == soon + timedelta(hours=2)


async def test_a_deadline_before_the_payloads_own_time_is_refused(connected: Client) -> None:
    """When the payload says when it is to run, that counts like `wait_until`; one microsecond later is late enough."""

    class Later(Payload, kind="later"):
        def wait_until(self) -> datetime:
            return _AT

    with pytest.raises(ValueError, match="deadline must be later than wait_until"):
        await connected.enqueue(Later(), deadline=_AT)
    receipt = await connected.enqueue(Later(), deadline=_AT + _MICRO)
    task = await connected.get_task(receipt.task_id)
    assert (task.wait_until, task.deadline) == (_AT, _AT + _MICRO)


@pytest.mark.parametrize("payload", [None, {"n": 1}, Note, "note"])
async def test_what_is_no_payload_is_refused(connected: Client, payload: Any) -> None:
    """Only instances of payload classes are enqueued."""
    with pytest.raises(TypeError, match="payload must be an instance of a Payload class"):
        await connected.enqueue(payload)


@pytest.mark.parametrize(("key", "told"), [("", "''"), (7, "7"), ("\ud800", "ud800")])
async def test_a_bad_idempotency_key_is_named(connected: Client, key: Any, told: str) -> None:
    """A key that no id can be made of is refused."""

    class Keyed(Payload, kind="keyed"):
        def idempotency_key(self) -> str:
            return cast("str", key)

    with pytest.raises(ValueError, match=f"idempotency_key .*{told}"):
        await connected.enqueue(Keyed())


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"limit": 0}, "limit .*0"),
        ({"limit": 1_001}, "limit .*1001"),
        ({"limit": "5"}, "limit .*'5'"),
        ({"cursor": "?"}, r"cursor .*'\?'"),
        ({"cursor": "YS9i"}, "cursor .*'YS9i'"),
        ({"cursor": 7}, "cursor .*7"),
        ({"cursor": ""}, "cursor .*''"),
        ({"status": "sleeping"}, "status .*waiting, pending.*'sleeping'"),
        ({"kind": "No Kind"}, "kind .*'No Kind'"),
        ({"resource_key": ""}, "resource_key .*''"),
        ({"owner": 7}, "owner .*7"),
    ],
)
async def test_a_bad_filter_is_named(connected: Client, filters: dict[str, Any], told: str) -> None:
    """A filter, limit or cursor that is none is refused."""
    with pytest.raises(ValueError, match=told):
        await connected.list_tasks(**filters)


@pytest.mark.parametrize("task_id", ["", "a/b", "__x__", None])
async def test_a_malformed_id_is_named(connected: Client, task_id: Any) -> None:
    """Every verb that takes an id refuses one that no task can have."""
    verbs = (connected.get_task, connected.reset_task, connected.delete_task, connected.wait)
    for verb in verbs:
        with pytest.raises(ValueError, match="task_id"):
            await verb(task_id)
    with pytest.raises(TypeError, match="several ids, not the single text 'abc'"):
        await connected.reset_tasks_by_ids("abc")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda client: Worker(App(), client, concurrency=0), "concurrency .*0"),
        (lambda client: Worker(App(), client, concurrency=cast("int", 2.5)), "concurrency .*2.5"),
        (lambda client: Worker(App(), client, grace=-1), "grace .*-1"),
        (lambda client: Worker(App(), client, poll=0), "poll .*0"),
        (lambda client: Worker(App(), client, lease=0), "lease .*0"),
        (lambda client: Worker(App(), client, abort_grace=float("nan")), "abort_grace .*nan"),
        (lambda _: App(timeout=0), "timeout .*0"),
        (lambda _: App().handler(Note, concurrency=-2), "concurrency .*-2"),
        (lambda _: FixedDelay(0, 1), "max_attempts .*0"),
        (lambda _: ExponentialBackoff(jitter=2), "jitter .*2"),
    ],
)
async def test_a_bad_setting_is_named(connected: Client, make: Any, told: str) -> None:
    """Worker, app, handler and policy check what they are given when they are made."""
    with pytest.raises(ValueError, match=told):
        make(connected)
