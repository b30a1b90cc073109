"""Cancelling through a client: what each verb answers, and what it leaves in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from oncetask import Client, OncetaskError, Payload, TaskNotFound, TaskStatus, Unsupported, lifecycle
from oncetask.lifecycle import Transition
from oncetask.store import TaskStore, Written
from oncetask.store.firestore import FirestoreStore
from oncetask.task import NO_WAIT, Outcome, Task, TaskError
from tests.contract.backends import Backend
from tests.contract.places import FIRESTORE, SQLITE_FILE, SQLITE_MEMORY, only
from tests.support import T0, a_task, at, exactly, fetch, follow, stored

NOW = exactly(T0)
NOT_IDS: list[Any] = ["", "a/b", 7]


class Sync(Payload, kind="sync"):
    """A payload whose kind is asked for."""


@pytest.fixture
def client(store: TaskStore) -> Client:
    """A client of the store under test."""
    return Client(store)


async def leased(store: TaskStore, task: Task, lease_id: str = "l1") -> Task:
    """Claim a task as a worker would, until T0 + 60, which is in the future."""
    return await follow(store, lifecycle.claim(task, lease_id=lease_id, until=at(60), now=NOW))


async def ended(store: TaskStore, task: Task) -> Task:
    """Claim a task and complete it."""
    return await follow(store, lifecycle.complete(await leased(store, task), result="fine", now=NOW))


async def unchanged(store: TaskStore, *tasks: Task) -> bool:
    """Tell whether these are still the records that the store has."""
    found = await store.get([task.id for task in tasks])
    return [one and replace(one, read_at=T0) for one in found] == [replace(task, read_at=T0) for task in tasks]


async def cancelled_ids(store: TaskStore, tasks: Iterable[Task]) -> set[str]:
    """Give the ids of those tasks that are cancelled by now."""
    found = await store.get([task.id for task in tasks])
    return {task.id for task in found if task is not None and task.is_cancelled}


class TestOneTask:
    """`cancel_task`."""

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"wait_until": at(500), "owner": "ada", "timeout": 5.0}, id="waiting"),
            pytest.param({"wait_until": at(-(10**9))}, id="pending"),
            pytest.param({"attempts": 1, "errors": (TaskError(T0, 1, "E", "m"),)}, id="tried again"),
            pytest.param({"leased_until": at(9), "attempts": 1}, id="rescued"),
            pytest.param({"deadline": at(-9), "resource_key": "r"}, id="with a deadline"),
            pytest.param({"recurrence": {"cron": "* * * * *"}}, id="generator"),
        ],
    )
    async def test_a_free_task_is_cancelled(self, client: Client, store: TaskStore, fields: dict[str, Any]) -> None:
        """The answer is True, and the record says that it is cancelled, since when, and that it goes first."""
        (task,) = await stored(store, a_task(**fields))
        before = await store.now()

        assert await client.cancel_task(task.id) is True

        found, after = await fetch(store, task.id), await store.now()
        assert found.cancelled_at is not None
        assert before.earliest <= found.cancelled_at <= after.latest
        assert found == replace(
            task,
            is_cancelled=True,
            cancelled_at=found.cancelled_at,
            wait_until=NO_WAIT,
            leased_until=None,
            due_at=NO_WAIT,
            version=found.version,
            read_at=found.read_at,
        )
        assert found.version > task.version
        assert found.status is TaskStatus.CANCELLATION_PENDING

    async def test_the_document_says_it(self, backend: Backend, client: Client, store: TaskStore) -> None:
        """The fields that are stored are those of the design, and the spread of a rescue is gone."""
        await stored(store, a_task(leased_until=at(9)))

        await client.cancel_task("greet:1")

        fields = await backend.raw_get("greet:1")
        assert fields["isCancelled"] == True  # noqa: E712  # SQLite keeps 1
        assert fields["waitUntil"] == fields["dueAt"]
        assert "cancelledAt" in fields
        assert not {"leasedUntil", "doneAt"} & set(fields)
        assert fields.get("outcome") is None

    async def test_it_goes_first(self, client: Client, store: TaskStore) -> None:
        """A cancelled task is the first of the due line, whatever it was to wait for."""
        await stored(store, a_task("old", wait_until=at(-(10**9))), a_task("late", wait_until=at(10**6)))

        await client.cancel_task("late")

        assert [task.id for task in await store.due(["greet"], now=T0, limit=5)] == ["late", "old"]

    async def test_a_second_cancel_changes_nothing(self, client: Client, store: TaskStore) -> None:
        """The second call answers False, and the record stays the one of the first."""
        await stored(store, a_task())
        await client.cancel_task("greet:1")
        first = await fetch(store, "greet:1")

        assert await client.cancel_task("greet:1") is False
        assert await unchanged(store, first)

    @pytest.mark.parametrize("outcome", Outcome)
    async def test_a_done_task_is_left(self, client: Client, store: TaskStore, outcome: Outcome) -> None:
        """A task that has ended, however it did, answers False and stays as it is."""
        (task,) = await stored(store, a_task(outcome=outcome, done_at=T0, result={"n": 1}))

        assert await client.cancel_task(task.id) is False
        assert await unchanged(store, task)

    async def test_a_missing_task_is_not_found(self, client: Client) -> None:
        """An id that no task has raises, and the error names it."""
        with pytest.raises(TaskNotFound, match="nobody"):
            await client.cancel_task("nobody")

    @pytest.mark.parametrize("task_id", NOT_IDS)
    async def test_what_is_no_id_is_refused(self, client: Client, task_id: Any) -> None:
        """What no task could have as its id is a ValueError that names the argument and the value."""
        with pytest.raises(ValueError, match="task_id") as caught:
            await client.cancel_task(task_id)
        assert repr(task_id) in str(caught.value)

    async def test_a_leased_task_keeps_its_lease(self, client: Client, store: TaskStore) -> None:
        """Of a running task lease, `dueAt` and counts stay: its worker is told, and nobody cleans up beside it."""
        (task,) = await stored(store, a_task())
        task = await leased(store, task)

        assert await client.cancel_task(task.id) is True

        found = await fetch(store, task.id)
        assert found == replace(
            task,
            is_cancelled=True,
            cancelled_at=found.cancelled_at,
            wait_until=NO_WAIT,
            version=found.version,
            read_at=found.read_at,
        )
        assert (found.lease_owner, found.leased_until, found.due_at) == ("l1", at(60), at(60))
        assert found.status is TaskStatus.LEASED

    async def test_a_completion_that_was_first_stays(self, client: Client, store: TaskStore) -> None:
        """A task whose completion is stored is not cancelled any more."""
        (task,) = await stored(store, a_task())
        done = await ended(store, task)

        assert await client.cancel_task(task.id) is False
        assert await unchanged(store, done)
        assert done.status is TaskStatus.DONE_COMPLETED

    async def test_a_cancel_that_was_first_wins(self, client: Client, store: TaskStore) -> None:
        """Once a cancel is stored, the completion that was decided before it is refused."""
        (task,) = await stored(store, a_task())
        task = await leased(store, task)
        assert await client.cancel_task(task.id)

        (late,) = await store.apply([lifecycle.complete(task, result="fine", now=NOW)])

        assert (late.applied, late.error) == (False, None)
        found = await fetch(store, task.id)
        assert (found.outcome, found.result, found.is_cancelled) == (None, None, True)

    @pytest.mark.parametrize(
        ("has_cleanup", "status"), [(True, TaskStatus.CANCELLATION_PENDING), (False, TaskStatus.DONE_CANCELLED)]
    )
    async def test_its_handler_ends_it_as_cancelled(
        self, client: Client, store: TaskStore, has_cleanup: bool, status: TaskStatus
    ) -> None:
        """A worker that reads again after the refusal writes the end of a cancelled task, not a completion."""
        (task,) = await stored(store, a_task())
        await leased(store, task)
        await client.cancel_task(task.id)

        found = await fetch(store, task.id)
        await follow(store, lifecycle.complete(found, result="fine", now=NOW, has_cleanup=has_cleanup))

        found = await fetch(store, task.id)
        assert (found.status, found.result, found.lease_owner) == (status, None, None)

    async def test_a_cleanup_is_not_cancelled(self, client: Client, store: TaskStore) -> None:
        """A task that is being cleaned up, or was, is cancelled already."""
        (task,) = await stored(store, a_task())
        await client.cancel_task(task.id)
        running = await leased(store, await fetch(store, task.id))

        assert await client.cancel_task(task.id) is False
        assert await unchanged(store, running)

        done = await follow(store, lifecycle.complete(running, result="dropped", now=NOW, has_cleanup=True))
        assert await client.cancel_task(task.id) is False
        assert await unchanged(store, done)
        assert (done.status, done.result) == (TaskStatus.DONE_CANCELLED, None)

    async def test_a_life_after_the_cancel(self, client: Client, store: TaskStore) -> None:
        """A task that was cancelled and cleaned up may be reset, and cancelled once more."""
        (task,) = await stored(store, a_task())
        await client.cancel_task(task.id)
        await follow(store, lifecycle.end_cancelled(await fetch(store, task.id), now=NOW))

        assert await client.reset_task(task.id)
        fresh = await fetch(store, task.id)
        assert (fresh.is_cancelled, fresh.cancelled_at, fresh.status) == (False, None, TaskStatus.PENDING)
        assert await client.cancel_task(task.id) is True


class TestByIds:
    """`cancel_tasks_by_ids`, and what holds for the other verbs on many ids."""

    async def test_those_that_it_cancelled_are_counted(self, client: Client, store: TaskStore) -> None:
        """Free and leased tasks count; done, cancelled and missing ones do not, nor does an id that comes again."""
        free, running, over, gone = await stored(store, *(a_task(name) for name in ("a", "b", "c", "d")))
        await leased(store, running)
        over = await ended(store, over)
        await client.cancel_task(gone.id)
        gone = await fetch(store, gone.id)

        assert await client.cancel_tasks_by_ids(["nobody", "a", "b", "c", "d", "a", "b"]) == 2
        assert await cancelled_ids(store, [free, running, over, gone]) == {"a", "b", "d"}
        assert await unchanged(store, over, gone)
        assert (await fetch(store, "b")).due_at == at(60)

    async def test_a_second_call_counts_nothing(self, client: Client, store: TaskStore) -> None:
        """What was cancelled once is not counted again, and not written either."""
        tasks = await stored(store, *(a_task(f"t{n}") for n in range(5)))
        ids = [task.id for task in tasks]
        assert await client.cancel_tasks_by_ids(ids) == 5
        first = [await fetch(store, task_id) for task_id in ids]

        assert await client.cancel_tasks_by_ids(ids) == 0
        assert await unchanged(store, *first)

    async def test_none_and_an_iterator(self, client: Client, store: TaskStore) -> None:
        """No ids are none, and ids that can be read once only are as good as a list."""
        await stored(store, a_task("a"), a_task("b"))

        assert await client.cancel_tasks_by_ids([]) == 0
        assert await client.cancel_tasks_by_ids(name for name in "ab") == 2

    async def test_thousands_at_once(self, client: Client, store: TaskStore) -> None:
        """Of thousands of ids, many of them unknown and many repeated, each task is cancelled and counted once."""
        tasks = await stored(store, *(a_task(f"t{n:04}") for n in range(0, 3_000, 2)))
        others = await stored(store, *(a_task(f"other {n}") for n in range(3)))
        ids = [f"t{n:04}" for n in range(3_000)]

        assert await client.cancel_tasks_by_ids([*ids, *ids[:1_200]]) == 1_500

        found = await store.get([task.id for task in tasks])
        assert all(task is not None and task.is_cancelled for task in found)
        assert await unchanged(store, *others)

    @pytest.mark.parametrize("verb", ["cancel_tasks_by_ids", "reset_tasks_by_ids", "delete_tasks_by_ids"])
    async def test_bad_ids_do_not_keep_the_others(self, client: Client, store: TaskStore, verb: str) -> None:
        """What cannot be an id raises a ValueError that counts such ids, after the others have been changed."""
        done = {"outcome": Outcome.FAILED, "done_at": T0} if verb == "reset_tasks_by_ids" else {}
        before = await stored(store, *(a_task(name, **done) for name in ("a", "b", "c")))

        with pytest.raises(ValueError, match=r"ids: task_id must be .*, not '' and 2 more; 3 of the others"):
            await getattr(client, verb)(["a", "", "b", "a/b", 7, "c"])

        for task, found in zip(before, await store.get(["a", "b", "c"]), strict=True):
            if verb == "delete_tasks_by_ids":
                assert found is None
            else:
                assert found is not None
                assert found.version > task.version
                assert (found.is_cancelled, found.outcome) == (verb == "cancel_tasks_by_ids", None)

    @pytest.mark.parametrize("verb", ["cancel_tasks_by_ids", "reset_tasks_by_ids", "delete_tasks_by_ids"])
    @pytest.mark.parametrize("bad", NOT_IDS)
    async def test_a_bad_id_is_named(self, client: Client, verb: str, bad: Any) -> None:
        """The error names the value that cannot be an id, also where there is nothing else to do."""
        with pytest.raises(ValueError, match="ids: task_id m") as caught:
            await getattr(client, verb)([bad])
        assert repr(bad)[:60] in str(caught.value)

    @pytest.mark.parametrize("verb", ["cancel_tasks_by_ids", "reset_tasks_by_ids", "delete_tasks_by_ids"])
    async def test_a_single_text_is_refused(self, client: Client, store: TaskStore, verb: str) -> None:
        """A text in place of several ids is a TypeError, and its letters are not taken for ids."""
        tasks = await stored(store, a_task("a"), a_task("b"))

        with pytest.raises(TypeError, match="ids must be several ids, not the single text 'ab'"):
            await getattr(client, verb)("ab")
        assert await unchanged(store, *tasks)

    async def test_one_that_cannot_be_written_does_not_keep_the_others(
        self, client: Client, store: TaskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the store cannot take one of the changes, the others are made, and then the error is raised."""
        await stored(store, *(a_task(f"t{n:04}") for n in range(1_100)))
        apply = store.apply

        async def failing(transitions: Sequence[Transition]) -> list[Written]:
            fit = iter(await apply([one for one in transitions if one.before.id != "t0007"]))
            error = Written(error=OncetaskError("too large"))
            return [error if one.before.id == "t0007" else next(fit) for one in transitions]

        monkeypatch.setattr(store, "apply", failing)
        with pytest.raises(OncetaskError, match="too large") as caught:
            await client.cancel_tasks_by_ids(f"t{n:04}" for n in range(600))
        assert caught.value.__notes__ == ["599 of the others were changed as asked; 1 cannot be written"]
        with pytest.raises(OncetaskError, match="too large"):
            await client.cancel_tasks_by_kind("greet")
        found = await store.get([f"t{n:04}" for n in range(1_100)])
        assert [task.id for task in found if task is not None and not task.is_cancelled] == ["t0007"]

    @only(FIRESTORE)
    async def test_five_thousand_take_few_calls(self, client: Client, store: TaskStore) -> None:
        """Cancelling 5,000 waiting tasks takes three RPCs for each 500 of them: two reads and a write."""
        assert isinstance(store, FirestoreStore)
        tasks = await stored(store, *(a_task(f"t{n}") for n in range(5_000)))
        store.counters.rpcs.clear()

        assert await client.cancel_tasks_by_ids([task.id for task in tasks]) == 5_000

        assert store.counters.rpcs.total() <= 3 * 10


@pytest.fixture
async def mixed(store: TaskStore) -> list[Task]:
    """Store tasks of two kinds and two keys, a generator, one that is done and one that is cancelled."""
    return await stored(
        store,
        a_task("a", kind="sync", resource_key="user:1"),
        a_task("b", kind="sync", resource_key="user:1", wait_until=at(10**6)),
        a_task("c", kind="sync", resource_key="user:1", lease_owner="l1", leased_until=at(60)),
        a_task("d", kind="sync", resource_key="user:1", recurrence={"cron": "* * * * *"}),
        a_task("e", kind="sync", resource_key="user:1", outcome=Outcome.COMPLETED),
        a_task("f", kind="sync", resource_key="user:1", outcome=Outcome.FAILED),
        a_task("g", kind="sync", resource_key="user:10"),
        a_task("h", kind="sync"),
        a_task("i", kind="sync-all", resource_key="user:1"),
        a_task("j", resource_key="user:1"),
        a_task("k", resource_key="user:10"),
    )


class TestByKey:
    """`cancel_tasks_by_resource_key`."""

    @pytest.mark.parametrize("kind", [Sync, "sync"], ids=["class", "name"])
    async def test_only_this_kind_and_key(
        self, client: Client, store: TaskStore, mixed: list[Task], kind: type[Payload] | str
    ) -> None:
        """Free, leased and recurring tasks of the kind with this very key are cancelled, done and other ones stay."""
        assert await client.cancel_tasks_by_resource_key(kind, "user:1") == 4
        assert await cancelled_ids(store, mixed) == {*"abcd"}
        assert await unchanged(store, *(task for task in mixed if task.id > "d"))

    async def test_of_all_kinds(self, client: Client, store: TaskStore, mixed: list[Task]) -> None:
        """Without a kind the tasks of every kind that have the key are cancelled."""
        assert await client.cancel_tasks_by_resource_key(None, "user:1") == 6
        assert await cancelled_ids(store, mixed) == {*"abcdij"}

    async def test_a_second_call_counts_nothing(self, client: Client, store: TaskStore, mixed: list[Task]) -> None:
        """What a call for one kind has cancelled, a second one does not count, nor one for all kinds."""
        await client.cancel_tasks_by_resource_key(Sync, "user:1")
        first = [await fetch(store, task.id) for task in mixed]

        assert await client.cancel_tasks_by_resource_key(Sync, "user:1") == 0
        assert await unchanged(store, *first)
        assert await client.cancel_tasks_by_resource_key(None, "user:1") == 2

    async def test_a_lease_is_kept(self, client: Client, store: TaskStore, mixed: list[Task]) -> None:
        """A running task that is reached by its key keeps lease and `dueAt`."""
        await client.cancel_tasks_by_resource_key(None, "user:1")

        found = await fetch(store, "c")
        assert (found.lease_owner, found.leased_until, found.due_at) == ("l1", at(60), at(60))

    @pytest.mark.parametrize(("kind", "key"), [("sync", "user:2"), ("unknown", "user:1"), (None, "user")])
    async def test_nobody_has_it(
        self, client: Client, store: TaskStore, mixed: list[Task], kind: str | None, key: str
    ) -> None:
        """A key or kind that no task has, though one begins like it, cancels nothing."""
        assert await client.cancel_tasks_by_resource_key(kind, key) == 0
        assert await unchanged(store, *mixed)

    @pytest.mark.parametrize("kind", ["Not A Kind", "", "a/b"])
    async def test_a_malformed_kind_is_refused(self, client: Client, kind: str) -> None:
        """A text that no kind can be is a ValueError that names it, by key as well as by kind."""
        with pytest.raises(ValueError, match="kind must be") as caught:
            await client.cancel_tasks_by_resource_key(kind, "user:1")
        assert repr(kind) in str(caught.value)
        with pytest.raises(ValueError, match="kind must be"):
            await client.cancel_tasks_by_kind(kind)

    @pytest.mark.parametrize("key", ["", "k" * 1_001, 7, None])
    @pytest.mark.parametrize("kind", ["sync", None])
    async def test_a_malformed_key_is_refused(
        self, client: Client, store: TaskStore, mixed: list[Task], key: Any, kind: str | None
    ) -> None:
        """What no resource key can be is refused by name; above all None does not mean every task there is."""
        with pytest.raises((TypeError, ValueError), match="key"):
            await client.cancel_tasks_by_resource_key(kind, key)
        assert await unchanged(store, *mixed)

    async def test_more_than_a_page(self, client: Client, store: TaskStore) -> None:
        """Of a key with more tasks than one query gives, each is cancelled and counted once."""
        await stored(store, *(a_task(f"t{n:04}", resource_key="r") for n in range(1_100)))

        assert await client.cancel_tasks_by_resource_key("greet", "r") == 1_100
        assert await client.cancel_tasks_by_resource_key("greet", "r") == 0


class TestByKind:
    """`cancel_tasks_by_kind`."""

    @pytest.mark.parametrize("kind", [Sync, "sync"], ids=["class", "name"])
    async def test_every_task_of_the_kind(
        self, client: Client, store: TaskStore, mixed: list[Task], kind: type[Payload] | str
    ) -> None:
        """All tasks of the kind that are not done are cancelled, whatever their keys; a second call counts none."""
        assert await client.cancel_tasks_by_kind(kind) == 6
        assert await cancelled_ids(store, mixed) == {*"abcdgh"}
        assert await client.cancel_tasks_by_kind(kind) == 0

    async def test_an_unknown_kind_has_none(self, client: Client, store: TaskStore, mixed: list[Task]) -> None:
        """A kind that no task has cancels nothing."""
        assert await client.cancel_tasks_by_kind("unknown") == 0
        assert await unchanged(store, *mixed)

    @pytest.mark.parametrize("kind", [None, 7, str, Payload])
    async def test_what_is_no_kind_is_refused(
        self, client: Client, store: TaskStore, mixed: list[Task], kind: Any
    ) -> None:
        """What is neither a name nor a payload class of a kind is a TypeError; above all None means no task at all."""
        with pytest.raises(TypeError, match="kind"):
            await client.cancel_tasks_by_kind(kind)
        assert await unchanged(store, *mixed)


@only(SQLITE_FILE, FIRESTORE)
async def test_other_environments_are_out_of_reach(backend: Backend, store: TaskStore, client: Client) -> None:
    """A task of another environment is not found, not counted and not touched, by whatever it has in common."""
    other = backend.open_store("other")
    (task,) = await stored(other, a_task(resource_key="r"))

    with pytest.raises(TaskNotFound):
        await client.cancel_task(task.id)
    assert await client.cancel_tasks_by_ids([task.id]) == 0
    assert await client.cancel_tasks_by_resource_key(None, "r") == 0
    assert await client.cancel_tasks_by_kind("greet") == 0
    assert await unchanged(other, task)


@only(SQLITE_FILE, FIRESTORE)
async def test_a_namesake_of_another_environment_stays(backend: Backend, store: TaskStore, client: Client) -> None:
    """Of two tasks with the same id the one of the client's own environment is cancelled."""
    other = backend.open_store("other")
    (task,) = await stored(other, a_task(resource_key="r"))
    await stored(store, a_task(resource_key="r"))

    assert await client.cancel_tasks_by_resource_key(None, "r") == 1
    assert (await fetch(store, task.id)).is_cancelled
    assert await unchanged(other, task)


Verb = Callable[[Client], Awaitable[int]]

VERBS: dict[str, tuple[str, Verb]] = {
    "task": ("get", lambda client: client.cancel_task("greet:1")),
    "ids": ("get", lambda client: client.cancel_tasks_by_ids(["greet:1"])),
    "key": ("find", lambda client: client.cancel_tasks_by_resource_key(None, "r")),
    "kind": ("find", lambda client: client.cancel_tasks_by_kind("greet")),
}
"""Each way to cancel the one task, and the store's verb by which that reads it first."""


def meanwhile(store: TaskStore, *steps: tuple[str, Callable[[], Awaitable[object]]]) -> None:
    """Let each step happen after an answer of the store's verb, before its reader goes on."""
    (verb, step), later = steps[0], steps[1:]
    read = getattr(store, verb)

    async def answer(*args: Any, **options: Any) -> Any:
        delattr(store, verb)
        found = await read(*args, **options)
        await step()
        if later:
            meanwhile(store, *later)
        return found

    setattr(store, verb, answer)


@pytest.mark.parametrize(("verb", "cancel"), VERBS.values(), ids=VERBS)
class TestMeanwhile:
    """Somebody else writes between a client's look and its cancel."""

    async def test_a_claim_is_judged_again(
        self, store: TaskStore, open_store: Callable[[], TaskStore], verb: str, cancel: Verb
    ) -> None:
        """A task that was claimed in between is cancelled all the same, and keeps its lease."""
        other, (task,) = open_store(), await stored(store, a_task(resource_key="r"))
        meanwhile(store, (verb, lambda: leased(other, task)))

        assert await cancel(Client(store)) == 1

        found = await fetch(store, task.id)
        assert (found.is_cancelled, found.lease_owner, found.due_at) == (True, "l1", at(60))
        assert (found.attempts, found.cancel_attempts) == (1, 0)

    async def test_a_completion_in_between_wins(
        self, store: TaskStore, open_store: Callable[[], TaskStore], verb: str, cancel: Verb
    ) -> None:
        """A task that was completed in between is not cancelled, and not counted."""
        other, (task,) = open_store(), await stored(store, a_task(resource_key="r"))
        meanwhile(store, (verb, lambda: ended(other, task)))

        assert await cancel(Client(store)) == 0

        found = await fetch(store, task.id)
        assert (found.status, found.result, found.is_cancelled) == (TaskStatus.DONE_COMPLETED, "fine", False)

    async def test_a_cancel_in_between_is_counted_once(
        self, store: TaskStore, open_store: Callable[[], TaskStore], verb: str, cancel: Verb
    ) -> None:
        """Of two clients that cancel the same task, the one whose write came first has cancelled it."""
        other, (task,) = Client(open_store()), (await stored(store, a_task(resource_key="r")))
        answers = list[int]()

        async def first() -> None:
            answers.append(await other.cancel_task(task.id))
            answers.append((await fetch(store, task.id)).version)

        meanwhile(store, (verb, first))

        assert await cancel(Client(store)) == 0
        assert answers == [True, (await fetch(store, task.id)).version]

    async def test_a_deletion_in_between_wins(
        self, store: TaskStore, open_store: Callable[[], TaskStore], verb: str, cancel: Verb
    ) -> None:
        """A task that was deleted in between stays deleted, and does not count."""
        other, (task,) = open_store(), await stored(store, a_task(resource_key="r"))
        meanwhile(store, (verb, lambda: other.delete([task])))

        assert await cancel(Client(store)) == 0
        assert await store.get([task.id]) == [None]

    async def test_a_reset_in_between_makes_it_cancellable(
        self, store: TaskStore, open_store: Callable[[], TaskStore], verb: str, cancel: Verb
    ) -> None:
        """A task that changes at each look is judged anew each time: leased, done, and open again at last."""
        other, (task,) = Client(open_store()), (await stored(store, a_task(resource_key="r")))

        async def end() -> None:
            await follow(other.store, lifecycle.complete(await fetch(store, task.id), result="fine", now=NOW))
            await other.reset_task(task.id)

        meanwhile(store, (verb, lambda: leased(other.store, task)), ("get", end))

        assert await cancel(Client(store)) == 1
        found = await fetch(store, task.id)
        assert (found.is_cancelled, found.lease_owner, found.attempts) == (True, None, 0)


async def test_many_that_cancel_the_same(store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
    """Of many clients that cancel the same tasks at once, in every way, each task is counted by one."""
    tasks = await stored(store, *(a_task(f"t{n:03}", resource_key="r") for n in range(60)))
    ids = [task.id for task in tasks]
    clients = [Client(open_store()) for _ in range(8)]
    for client in clients:
        await client.store.open()

    counts = await asyncio.gather(
        *(client.cancel_tasks_by_ids(ids) for client in clients),
        *(client.cancel_tasks_by_ids(ids[::-1]) for client in clients),
        *(client.cancel_tasks_by_resource_key("greet", "r") for client in clients),
        *(client.cancel_tasks_by_kind("greet") for client in clients),
        *(client.cancel_task(task_id) for client, task_id in zip(clients, ids, strict=False)),
    )

    assert sum(counts) == len(tasks)
    assert await cancelled_ids(store, tasks) == set(ids)


async def test_many_that_cancel_what_others_complete(store: TaskStore, open_store: Callable[[], TaskStore]) -> None:
    """Where cancels and completions race for the same tasks, each task goes to one of the two."""
    tasks = await stored(store, *(a_task(f"t{n:02}") for n in range(40)))
    running = [await leased(store, task) for task in tasks]
    other = Client(open_store())
    await other.store.open()
    completed, cancelled = set[str](), set[str]()

    async def complete(task: Task) -> None:
        await fetch(store, task.id)  # as the cancel does
        (written,) = await store.apply([lifecycle.complete(task, result="fine", now=NOW)])
        completed.update([task.id] if written.applied else [])

    async def cancel(task: Task) -> None:
        cancelled.update([task.id] if await other.cancel_task(task.id) else [])

    await asyncio.gather(
        *(do(task) for n, task in enumerate(running) for do in ((complete, cancel) if n % 2 else (cancel, complete)))
    )

    assert completed | cancelled == {task.id for task in tasks}
    assert not completed & cancelled
    for task in tasks:
        found = await fetch(store, task.id)
        assert found.is_cancelled == (task.id in cancelled)
        assert found.outcome == (Outcome.COMPLETED if task.id in completed else None)


@only(SQLITE_FILE, SQLITE_MEMORY)
async def test_without_transactions_it_says_so(client: Client, store: TaskStore) -> None:
    """On SQLite `cancel_in` raises, whatever state the task is in, and says what it needs."""
    waiting, done = await stored(store, a_task("a"), a_task("b", outcome=Outcome.COMPLETED))

    for task in (waiting, done):
        with pytest.raises(Unsupported, match="Firestore"):
            client.cancel_in(object(), task)
    assert await unchanged(store, waiting, done)
