"""Ids, keys and kinds: any text names a task by which it is found again, or is refused by its name."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncetask import Client, Payload, connect
from oncetask.payload import derive_task_id
from tests.fuzz.effort import examples
from tests.fuzz.refusals import may_refuse
from tests.fuzz.strategies import ODD_TEXTS, anything, texts

long_texts = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=10), st.integers(20, 200))
names = texts | long_texts | anything


class Job(Payload, kind="job"):
    """A task that says its own names."""

    key: str | None = None

    def idempotency_key(self) -> str | None:
        """Say what the test says."""
        return self.key


@pytest.fixture(params=["memory", pytest.param("firestore", marks=pytest.mark.emulator)])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of each family, which have rules of their own on names."""
    if request.param == "memory":
        return "memory://"
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", request.getfixturevalue("emulator_host"))
    return f"firestore://{request.getfixturevalue('project_id')}"


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    """A client of that store, open."""
    async with connect(url) as client:
        yield client


async def refused(client: Client, name: str, value: Any) -> bool:
    """Enqueue a task with this option; tells whether it was refused by its name. Else it is found again by it."""
    options: Any = {name: value}
    with may_refuse(f"{name} must ", f"{name} may ") as refusal:
        receipt = await client.enqueue(Job(), **options)
    if refusal:
        return True
    task = await client.get_task(receipt.task_id)
    found = {"task_id": task.id, "resource_key": task.resource_key, "owner": task.owner}
    assert found[name] == value
    assert task.problems == ()
    return False


@examples(60)
@given(names)
@example("__x__")
@example("é" * 750)
@example("é" * 751)
async def test_any_id_is_taken_or_refused(client: Client, task_id: Any) -> None:
    """A task has the id that it was given, letter by letter, and every verb takes it, or each of them refuses it."""
    if await refused(client, "task_id", task_id):
        for verb in (client.get_task, client.cancel_task, client.reset_task, client.delete_task, client.wait):
            with pytest.raises((ValueError, TypeError), match=r"^task_id "):
                await verb(task_id)
        return
    assert [task.id for task in await client.get_tasks_by_ids([task_id])] == [task_id]
    assert await client.delete_task(task_id)


@examples(60)
@given(names)
async def test_any_resource_key_is_taken_or_refused(client: Client, key: Any) -> None:
    """A task is found by its resource key, and by no other."""
    if key is not None and not await refused(client, "resource_key", key):
        assert {task.resource_key for task in await client.get_tasks_by_resource_key(Job, key)} == {key}
        assert await client.pending_count(resource_key=key) >= await client.cancel_tasks_by_resource_key(None, key) > 0


@examples(60)
@given(names)
async def test_any_owner_is_taken_or_refused(client: Client, owner: Any) -> None:
    """A task is found by its owner, and by no other."""
    if owner is not None and not await refused(client, "owner", owner):
        assert {task.owner for task in (await client.list_tasks(owner=owner, limit=5)).tasks} == {owner}


@examples(60)
@given(texts | long_texts)
async def test_any_idempotency_key_is_taken_or_refused(client: Client, key: str) -> None:
    """The same key is the same task, whose id begins with its kind; or it is refused by its name."""
    payload = Job.model_construct(key=key)
    with may_refuse("idempotency_key must ", "payload of kind 'job' cannot be read back") as refusal:
        first = await client.enqueue(payload)
    if refusal:
        return
    again = await client.enqueue(payload)
    assert (again.created, again.task_id) == (False, first.task_id)
    assert (await client.get_task(first.task_id)).data == {"key": key}
    assert first.task_id.startswith("job:")


keys = st.text(min_size=1, max_size=5) | long_texts | st.sampled_from(ODD_TEXTS).filter(bool)
related = keys.flatmap(
    lambda key: st.sampled_from(
        [
            key + "/",
            key + ":",
            key.strip() or "x",
            key.upper(),
            key[:-1] or "x",
        ]
    ).map(lambda other: (key, other))
)
kinds = st.sampled_from(["a", "a-b", "a.b", "a_b"])


@examples(400)
@given(kinds, kinds, st.tuples(keys, keys) | related)
@example("a", "a", ("x" * 300, hashlib.sha256(b"x" * 300).hexdigest().upper()))
def test_two_keys_are_two_tasks(one: str, other: str, pair: tuple[str, str]) -> None:
    """Different kinds, or different keys, never lead to the same id, but where one is the SHA-256 of a long one."""
    with may_refuse("idempotency_key must ") as refusal:
        ids = {derive_task_id(one, pair[0]), derive_task_id(other, pair[1])}
    assert refusal or len(ids) == len({(one, pair[0]), (other, pair[1])})


@examples(150)
@given(texts | st.from_regex(r"[a-zA-Z0-9._-]{1,3}", fullmatch=True) | anything)
async def test_any_kind_is_taken_or_refused(kind: Any) -> None:
    """A class takes a kind, or refuses it by its name."""
    if kind is None:
        return
    with may_refuse("kind must be ") as refusal:
        made: type[Payload] = type("Made", (Payload,), {"__module__": __name__}, kind=kind)
    if refusal:
        return
    async with connect("memory://") as client:
        await client.enqueue(made())
        assert [task.kind for task in (await client.list_tasks(kind=kind)).tasks] == [kind]
