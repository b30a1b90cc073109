"""Batch handlers: due tasks of one resource key in one call; each member keeps its own record."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar, Unpack

import pytest
from google.cloud.firestore import Increment

from oncetask import (
    App,
    Client,
    Context,
    Discard,
    EnqueueOptions,
    ExponentialBackoff,
    FixedDelay,
    NoRetry,
    Payload,
    RetryAfter,
    Snooze,
    Task,
    TaskStatus,
    Worker,
    lifecycle,
)
from oncetask.task import NO_WAIT
from tests.integration.places import FirestorePlace, Place
from tests.integration.stores import ON_FIRESTORE, ON_SQLITE
from tests.integration.worker.support import LIMIT, SOON, Job, Other, done

T = TypeVar("T")


class Sync(Payload, kind="sync"):
    """What is done for one user; without a user there is no resource key."""

    n: int
    user: str | None = "ada"

    def resource_key(self) -> str | None:
        """Give the user."""
        return self.user


BatchHandler = Callable[[Context, list[Sync]], Any]


def batching(handler: BatchHandler, **options: Any) -> App:
    """Give an App in which this function handles `Sync`; a failing call has three attempts without a wait."""
    app = App()
    app.batch_handler(Sync, **{"retry": SOON, **options})(handler)
    return app


class Calls:
    """A batch handler that notes what it was called with."""

    def __init__(self, *errors: BaseException | None) -> None:
        """Raise these errors in turn; None, and every call after them: return."""
        self._errors = list(errors)
        self.numbers: list[list[int]] = []
        self.contexts: list[Context] = []

    async def __call__(self, ctx: Context, syncs: list[Sync]) -> str:
        """Note the call."""
        self.numbers.append([sync.n for sync in syncs])
        self.contexts.append(ctx)
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error
        return "synced"


class Held:
    """A batch handler that runs until it is let go, or told to stop."""

    def __init__(self) -> None:
        self.calls = 0
        self.reasons: list[str | None] = []
        self.started, self.go_on, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, ctx: Context, _: list[Sync]) -> object:
        """Wait."""
        self.calls += 1
        self.started.set()
        try:
            await self.go_on.wait()
        finally:
            self.reasons.append(ctx.abort_reason)
            self.stopped.set()
        return "synced"


class Cleaned:
    """A cancellation handler that notes what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[str]]] = []
        self.running = self.most = 0

    async def __call__(self, ctx: Context, sync: Sync) -> None:
        """Note the call."""
        self.running += 1
        self.most = max(self.most, self.running)
        self.calls.append((sync.n, [task.id for task in ctx.tasks]))
        await asyncio.sleep(0)
        self.running -= 1


async def soon(what: Awaitable[T]) -> T:
    """Wait for something that comes; fails loudly."""
    return await asyncio.wait_for(what, LIMIT)


async def enqueue_syncs(
    client: Client, *numbers: int, user: str | None = "ada", **options: Unpack[EnqueueOptions]
) -> list[str]:
    """Enqueue syncs of one user, in this order, and give their ids."""
    receipts = await client.enqueue_many([Sync(n=n, user=user) for n in numbers], **options)
    return [receipt.task_id for receipt in receipts]


async def records(client: Client, *task_ids: str) -> list[Task]:
    """Read tasks that exist."""
    tasks = await client.get_tasks_by_ids(task_ids)
    assert len(tasks) == len(task_ids)
    return tasks


async def freed(client: Client, *task_ids: str) -> list[Task]:
    """Wait until these tasks were run once, and nobody holds them."""

    async def one(task_id: str) -> Task:
        async for task in client.watch(task_id):
            if task.started_at is not None and task.lease_owner is None:
                return task
        raise AssertionError("it is done")

    return list(await soon(asyncio.gather(*map(one, task_ids))))


async def renewed(client: Client, task_id: str, times: int) -> None:
    """Wait until the lease of a running task was renewed so often from now on."""
    seen: set[object] = set()

    async def look() -> None:
        async for task in client.watch(task_id):
            seen.add(task.leased_until)
            if len(seen) > times:
                return

    await soon(look())


class TestWhatComesTogether:
    """Which tasks one call gets."""

    async def test_due_tasks_of_one_key_come_in_one_call(self, connected: Client) -> None:
        """The payloads are a list in the order of the line, and so are `ctx.tasks`; what is returned is each one's."""
        calls = Calls()
        ids = [*await enqueue_syncs(connected, 3, 1), *await enqueue_syncs(connected, 2, 5, 4)]
        async with Worker(batching(calls), connected):
            tasks = await done(connected, *ids)
        assert calls.numbers == [[3, 1, 2, 5, 4]]
        (ctx,) = calls.contexts
        assert [task.id for task in ctx.tasks] == ids
        assert (ctx.task, ctx.task_id, ctx.kind, ctx.attempt) == (ctx.tasks[0], ids[0], "sync", 1)
        assert ctx.payload == Sync(n=3)
        assert ctx.fencing_token == max(task.version for task in ctx.tasks)
        assert {task.lease_owner for task in ctx.tasks}.isdisjoint({None})
        assert {(task.status, task.result, task.attempts) for task in tasks} == {
            (TaskStatus.DONE_COMPLETED, "synced", 1)
        }

    async def test_the_line_decides_the_order(self, connected: Client) -> None:
        """Who waits longer comes first, whoever was enqueued first."""
        calls = Calls()
        now = (await connected.store.now()).earliest
        ids = [
            *await enqueue_syncs(connected, 1, wait_until=now - timedelta(seconds=5)),
            *await enqueue_syncs(connected, 2, wait_until=now - timedelta(seconds=9)),
            *await enqueue_syncs(connected, 3, wait_until=now - timedelta(seconds=7)),
        ]
        async with Worker(batching(calls), connected):
            await done(connected, *ids)
        assert calls.numbers == [[2, 3, 1]]

    async def test_what_is_not_due_is_left_where_it_is(self, connected: Client) -> None:
        """A task of the same key whose time has not come does not come along."""
        calls = Calls()
        due = await enqueue_syncs(connected, 1, 2)
        (later,) = await enqueue_syncs(connected, 3, delay=3_600)
        async with Worker(batching(calls), connected):
            await done(connected, *due)
        (task,) = await records(connected, later)
        assert calls.numbers == [[1, 2]]
        assert (task.status, task.attempts) == (TaskStatus.WAITING, 0)

    async def test_a_call_gets_at_most_so_many(self, connected: Client) -> None:
        """`max_batch` bounds a call; the rest comes in the next ones, in order."""
        calls = Calls()
        ids = await enqueue_syncs(connected, *range(7))
        async with Worker(batching(calls, max_batch=3), connected, concurrency=1):
            await done(connected, *ids)
        assert calls.numbers == [[0, 1, 2], [3, 4, 5], [6]]

    async def test_by_default_a_hundred(self, connected: Client) -> None:
        """Left out, `max_batch` is 100."""
        calls = Calls()
        ids = await enqueue_syncs(connected, *range(130))
        async with Worker(batching(calls, concurrency=1), connected):
            await done(connected, *ids)
        assert calls.numbers == [[*range(100)], [*range(100, 130)]]

    async def test_a_batch_may_be_bounded_to_one(self, connected: Client) -> None:
        """With `max_batch=1` a call still gets a list."""
        calls = Calls()
        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(calls, max_batch=1), connected):
            await done(connected, *ids)
        assert sorted(calls.numbers) == [[1], [2]]

    async def test_tasks_without_a_key_come_alone(self, connected: Client) -> None:
        """A task that belongs to nothing gets a call of its own, with a list of one."""
        calls = Calls()
        ids = await enqueue_syncs(connected, 1, 2, 3, user=None)
        async with Worker(batching(calls), connected):
            await done(connected, *ids)
        assert sorted(calls.numbers) == [[1], [2], [3]]
        assert {len(ctx.tasks) for ctx in calls.contexts} == {1}

    async def test_other_keys_are_other_batches(self, connected: Client) -> None:
        """Tasks of several keys that stand mixed in the line are sorted into a batch for each key."""
        calls = Calls()
        ids = [
            receipt.task_id
            for receipt in await connected.enqueue_many([Sync(n=n, user="xyz"[n % 3]) for n in range(9)])
        ]
        async with Worker(batching(calls), connected):
            await done(connected, *ids)
        assert sorted(calls.numbers) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]

    async def test_a_key_of_another_kind_is_another_batch(self, connected: Client) -> None:
        """Two kinds that share a key do not share calls, and neither goes before the other's: the line decides."""
        calls, others = Calls(), Calls()
        app = batching(calls)
        app.batch_handler(Other)(others)  # type: ignore[arg-type]  # it looks at the numbers only
        jobs: list[int] = []

        @app.handler(Job)
        async def job(_: Context, payload: Job) -> None:
            jobs.append(payload.n)

        line = [Sync(n=1), Sync(n=2), Other(n=1), Job(n=1), Job(n=2), Sync(n=3), Other(n=2), Other(n=3)]
        receipts = await connected.enqueue_many(line, resource_key="ada")
        async with Worker(app, connected):
            await done(connected, *(receipt.task_id for receipt in receipts))
        assert (calls.numbers, others.numbers, jobs) == ([[1, 2], [3]], [[1], [2, 3]], [1, 2])

    async def test_a_batch_takes_one_slot(self, connected: Client) -> None:
        """Two batches of three run side by side in a worker of two slots, and a task behind them has to wait."""
        together = asyncio.Barrier(2)
        running = most = 0

        async def handler(_: Context, syncs: list[Sync]) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if len(syncs) == 3:
                await together.wait()
            running -= 1

        ids = [
            *await enqueue_syncs(connected, 1, 2, 3, user="x"),
            *await enqueue_syncs(connected, 1, 2, 3, user="y"),
            *await enqueue_syncs(connected, 1, user="z"),
        ]
        async with Worker(batching(handler), connected, concurrency=2):
            await done(connected, *ids)
        assert most == 2

    async def test_a_kinds_own_limit_counts_batches(self, connected: Client) -> None:
        """`concurrency=1` lets one batch run at a time, however many members it has."""
        running = most = 0
        sizes: list[int] = []

        async def handler(_: Context, syncs: list[Sync]) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            sizes.append(len(syncs))
            await asyncio.sleep(0)
            running -= 1

        ids = [
            *await enqueue_syncs(connected, 1, 2, 3, user="x"),
            *await enqueue_syncs(connected, 1, 2, 3, user="y"),
        ]
        async with Worker(batching(handler, concurrency=1), connected):
            await done(connected, *ids)
        assert (most, sizes) == (1, [3, 3])

    async def test_a_def_handler_gets_a_list_too(self, connected: Client) -> None:
        """A plain function runs in a thread, with the whole batch."""
        seen: list[tuple[list[int], bool]] = []

        def handler(_: Context, syncs: list[Sync]) -> int:
            in_main = threading.current_thread() is threading.main_thread()
            seen.append(([sync.n for sync in syncs], in_main))
            return len(syncs)

        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(handler), connected):
            tasks = await done(connected, *ids)
        assert seen == [([1, 2], False)]
        assert [task.result for task in tasks] == [2, 2]

    async def test_every_task_runs_once_whoever_competes(self, place: Place, connected: Client) -> None:
        """Of three workers each task is in one call of one of them."""
        calls = Calls()
        app = batching(calls, max_batch=4)
        ids = [
            task_id for user in "vwxyz" for task_id in await enqueue_syncs(connected, *range(10), user=f"user {user}")
        ]
        async with (
            Worker(app, connected, concurrency=2),
            Worker(app, place.connect(), concurrency=2),
            Worker(app, place.connect(), concurrency=2),
        ):
            tasks = await done(connected, *ids)
        ran = [task.id for ctx in calls.contexts for task in ctx.tasks]
        assert sorted(ran) == sorted(ids)
        assert {(task.status, task.attempts) for task in tasks} == {(TaskStatus.DONE_COMPLETED, 1)}
        assert all(len({task.resource_key for task in ctx.tasks}) == 1 for ctx in calls.contexts)

    async def test_middlewares_and_error_handlers_are_called_once_for_all(self, connected: Client) -> None:
        """A batch is one call: one middleware around it, one report of its failure, with all of its tasks."""
        app = batching(Calls(ValueError("no")))
        steps: list[tuple[str, list[str]]] = []

        @app.middleware
        async def around(ctx: Context, call_next: Any) -> object:
            steps.append(("around", [task.id for task in ctx.tasks]))
            return await call_next()

        @app.error_handler
        async def report(ctx: Context, error: Exception) -> None:
            steps.append((str(error), [task.id for task in ctx.tasks]))

        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(app, connected):
            await done(connected, *ids)
        assert steps[:2] == [("around", ids), ("no", ids)]


class TestStaging:
    """What a batch handler stages is stored once, with the completion of the batch."""

    async def test_staged_tasks_are_stored_once(self, connected: Client) -> None:
        """`ctx.enqueue` in a batch makes one task, not one for each member, and leaves out the id of a member."""

        async def handler(ctx: Context, _: list[Sync]) -> str:
            task_id = ctx.enqueue(Other())
            ctx.enqueue(Other(), task_id=ctx.tasks[1].id)
            assert await connected.pending_count(Other) == 0
            return task_id

        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(batching(handler), connected):
            tasks = await done(connected, *ids)
        (other,) = [task async for task in connected.iter_tasks(kind=Other)]
        assert {(task.kind, task.result) for task in tasks} == {("sync", other.id)}

    async def test_a_call_that_fails_stages_nothing(self, connected: Client) -> None:
        """What a failed call staged is dropped, whether its members are done or tried again."""

        async def handler(ctx: Context, _: list[Sync]) -> None:
            ctx.enqueue(Other())
            raise RetryAfter(0 if ctx.attempt == 1 else 900)

        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(batching(handler, retry=FixedDelay(2, 0)), connected):
            tasks = await done(connected, *ids)
        assert {task.status for task in tasks} == {TaskStatus.DONE_FAILED}
        assert await connected.pending_count(Other) == 0

    async def test_staged_tasks_survive_a_cancelled_member(self, connected: Client) -> None:
        """The members that complete take along what was staged, though one of them was cancelled meanwhile."""

        async def handler(ctx: Context, _: list[Sync]) -> str:
            ctx.enqueue(Other(), task_id="staged")
            await connected.cancel_task(ctx.tasks[1].id)
            return "synced"

        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(batching(handler), connected):
            tasks = await done(connected, *ids)
        assert [(task.status, task.result) for task in tasks] == [
            (TaskStatus.DONE_COMPLETED, "synced"),
            (TaskStatus.DONE_CANCELLED, None),
            (TaskStatus.DONE_COMPLETED, "synced"),
        ]
        assert len(await connected.get_tasks_by_ids(["staged"])) == 1

    async def test_nothing_is_staged_where_all_members_are_cancelled(self, connected: Client) -> None:
        """A batch of which no member completes stores nothing of what it staged."""

        async def handler(ctx: Context, _: list[Sync]) -> str:
            ctx.enqueue(Other(), task_id="staged")
            await connected.cancel_tasks_by_ids(task.id for task in ctx.tasks)
            return "synced"

        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(handler), connected):
            tasks = await done(connected, *ids)
        assert {(task.status, task.result) for task in tasks} == {(TaskStatus.DONE_CANCELLED, None)}
        assert await connected.get_tasks_by_ids(["staged"]) == []

    @ON_SQLITE
    async def test_a_write_batch_needs_firestore(self, connected: Client) -> None:
        """On SQLite `ctx.batch` fails the call, for each of its tasks."""

        async def handler(ctx: Context, _: list[Sync]) -> None:
            _ = ctx.batch

        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(handler, retry=NoRetry()), connected):
            tasks = await done(connected, *ids)
        assert {(task.status, task.errors[0].type) for task in tasks} == {(TaskStatus.DONE_FAILED, "Unsupported")}

    @ON_FIRESTORE
    async def test_a_write_batch_is_committed_once(self, connected: Client, place: FirestorePlace) -> None:
        """The user's own writes happen once, with the completion of all members and not before."""
        reference = place.native.document("accounts", "ada")

        async def handler(ctx: Context, syncs: list[Sync]) -> None:
            ctx.batch.set(reference, {"synced": Increment(len(syncs))}, merge=True)
            assert not (await reference.get()).exists

        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(batching(handler), connected):
            tasks = await done(connected, *ids)
        assert {(task.status, task.attempts) for task in tasks} == {(TaskStatus.DONE_COMPLETED, 1)}
        assert (await reference.get()).to_dict() == {"synced": 3}

    @ON_FIRESTORE
    async def test_a_write_batch_of_a_failed_call_is_dropped(self, connected: Client, place: FirestorePlace) -> None:
        """What a call wrote into its batch before it failed is never stored."""

        async def handler(ctx: Context, _: list[Sync]) -> None:
            ctx.batch.set(place.native.document("accounts", "ada"), {"synced": True})
            raise ValueError("not yet")

        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(batching(handler, retry=NoRetry()), connected):
            await done(connected, *ids)
        assert not (await place.native.document("accounts", "ada").get()).exists

    @ON_FIRESTORE
    async def test_a_write_batch_that_cannot_be_stored_fails_all(
        self, connected: Client, place: FirestorePlace
    ) -> None:
        """Where the user's write is refused, no member completes and nothing is staged; the error says so."""

        async def handler(ctx: Context, _: list[Sync]) -> None:
            ctx.enqueue(Other(), task_id="staged")
            ctx.batch.update(place.native.document("accounts", "missing"), {"paid": True})

        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(handler, retry=NoRetry()), connected):
            tasks = await done(connected, *ids)
        assert {task.status for task in tasks} == {TaskStatus.DONE_FAILED}
        assert all("missing" in task.errors[0].message for task in tasks)
        assert await connected.get_tasks_by_ids(["staged"]) == []


class TestFailing:
    """All members share how the call ended; each has its own attempts."""

    async def test_each_member_keeps_its_own_attempts(self, connected: Client, place: Place) -> None:
        """A call that fails counts for each member by itself; one whose last attempt comes next is run alone then."""
        calls = Calls(ValueError("all"), None, ValueError("last"))
        ids = await enqueue_syncs(connected, 1, 2, 3)
        await place.change(ids[1], attempts=1)
        async with Worker(batching(calls, retry=FixedDelay(3, 0)), connected):
            tasks = await done(connected, *ids)
        assert calls.numbers == [[1, 2, 3], [1], [2], [3]]
        assert [context.attempt for context in calls.contexts] == [2, 2, 3, 2]
        assert [(task.status, task.attempts) for task in tasks] == [
            (TaskStatus.DONE_COMPLETED, 2),
            (TaskStatus.DONE_FAILED, 3),
            (TaskStatus.DONE_COMPLETED, 2),
        ]
        assert [[(e.attempt, e.message) for e in task.errors] for task in tasks] == [
            [(1, "all")],
            [(2, "all"), (3, "last")],
            [(1, "all")],
        ]

    async def test_one_bad_member_does_not_fail_the_others(self, connected: Client) -> None:
        """The last attempt of a batch is one of each member, so that only the one that cannot succeed fails."""

        async def handler(_: Context, syncs: list[Sync]) -> None:
            if any(sync.n == 3 for sync in syncs):
                msg = "three"
                raise ValueError(msg)

        ids = await enqueue_syncs(connected, *range(6))
        async with Worker(batching(handler, retry=FixedDelay(2, 0)), connected):
            tasks = await done(connected, *ids)
        assert [task.outcome for task in tasks] == ["completed"] * 3 + ["failed"] + ["completed"] * 2
        assert [task.attempts for task in tasks] == [2] * 6

    async def test_a_single_attempt_is_not_taken_apart(self, connected: Client) -> None:
        """Where a policy allows one attempt only, tasks come together all the same, and fail together."""
        calls = Calls(ValueError("boom"))
        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(batching(calls, retry=NoRetry()), connected):
            tasks = await done(connected, *ids)
        assert calls.numbers == [[1, 2, 3]]
        assert {task.outcome for task in tasks} == {"failed"}

    async def test_one_backoff_is_drawn_for_all(self, connected: Client, place: Place) -> None:
        """All members wait equally long after a failure, though the policy draws lots and their attempts differ."""
        app = batching(Calls(ValueError("boom")), retry=ExponentialBackoff(5, 600, 86_400, jitter=1))
        ids = await enqueue_syncs(connected, *range(8))
        await place.change(ids[3], attempts=2)
        async with Worker(app, connected):
            tasks = await freed(connected, *ids)
        assert len({task.wait_until - task.errors[-1].at for task in tasks}) == 1
        assert [task.attempts for task in tasks] == [1, 1, 1, 3, 1, 1, 1, 1]

    async def test_retry_after_holds_for_all(self, connected: Client) -> None:
        """The wait that the handler asks for is every member's."""
        app = batching(Calls(RetryAfter(900, "rate limit")))
        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(app, connected):
            tasks = await freed(connected, *ids)
        assert {(task.status, task.attempts) for task in tasks} == {(TaskStatus.WAITING, 1)}
        assert {task.wait_until - task.errors[0].at for task in tasks} == {timedelta(seconds=900)}

    async def test_snooze_puts_all_back(self, connected: Client) -> None:
        """`Snooze` spends nobody's attempt, and holds for every member."""
        app = batching(Calls(Snooze(timedelta(hours=1))), retry=NoRetry())
        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(app, connected):
            tasks = await freed(connected, *ids)
        assert {(task.status, task.attempts, task.errors) for task in tasks} == {(TaskStatus.WAITING, 0, ())}
        assert all(task.wait_until - task.created_at >= timedelta(hours=1) for task in tasks)

    async def test_discard_ends_all(self, connected: Client) -> None:
        """`Discard` ends every member done-failed, whatever attempts are left."""
        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(Calls(Discard("no such user"))), connected):
            tasks = await done(connected, *ids)
        assert {(task.status, task.attempts, task.errors[0].type) for task in tasks} == {
            (TaskStatus.DONE_FAILED, 1, "Discard")
        }

    async def test_the_handlers_time_limit_holds_for_the_call(self, connected: Client) -> None:
        """A batch has its handler's timeout, however long its tasks say that they may take."""
        held = Held()
        ids = await enqueue_syncs(connected, 1, 2, timeout=900)
        async with Worker(batching(held, timeout=0.1, retry=NoRetry()), connected):
            tasks = await done(connected, *ids)
        assert held.reasons == ["timeout"]
        assert {(task.status, task.errors[0].type) for task in tasks} == {(TaskStatus.DONE_FAILED, "TaskTimeout")}
        assert all("0.1 s" in task.errors[0].message for task in tasks)

    async def test_a_tasks_own_time_limit_does_not_hold(self, connected: Client) -> None:
        """What a task says of its own timeout cuts no batch short, nor the lease of one."""
        calls = Calls()
        ids = await enqueue_syncs(connected, 1, 2, timeout=0.001)
        async with Worker(batching(calls, timeout=500), connected):
            tasks = await done(connected, *ids)
        assert {task.status for task in tasks} == {TaskStatus.DONE_COMPLETED}
        (ctx,) = calls.contexts
        assert 400 < ctx.remaining <= 500
        assert all(task.leased_until is not None for task in ctx.tasks)

    async def test_a_member_whose_payload_does_not_validate_fails_alone(self, connected: Client, place: Place) -> None:
        """The others run without it, in their order; its error handlers see it by itself."""
        calls = Calls()
        app = batching(calls, retry=NoRetry())
        seen: list[list[str]] = []

        @app.error_handler
        async def report(ctx: Context, _: Exception) -> None:
            seen.append([task.id for task in ctx.tasks])

        ids = await enqueue_syncs(connected, 1, 2, 3)
        await place.change(ids[1], data={"n": "many", "user": "ada"})
        async with Worker(app, connected):
            tasks = await done(connected, *ids)
        assert calls.numbers == [[1], [3]]
        assert [task.status for task in tasks] == [
            TaskStatus.DONE_COMPLETED,
            TaskStatus.DONE_FAILED,
            TaskStatus.DONE_COMPLETED,
        ]
        assert [(error.type, error.attempt) for error in tasks[1].errors] == [("InvalidPayload", 1)]
        assert seen == [[ids[1]]]

    async def test_an_unfit_result_fails_all_without_a_retry(self, connected: Client) -> None:
        """What cannot be stored as JSON ends every member, since the work is done and would only be repeated."""

        async def handler(_: Context, __: list[Sync]) -> object:
            return object()

        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(handler), connected):
            tasks = await done(connected, *ids)
        assert {(task.status, task.attempts, len(task.errors)) for task in tasks} == {(TaskStatus.DONE_FAILED, 1, 1)}

    async def test_the_batch_of_a_dead_worker_is_rescued(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each member of a batch that took its worker down is freed by itself and runs again."""
        monkeypatch.setattr("oncetask.retry.random.uniform", lambda low, _: low)
        ids = await enqueue_syncs(connected, 1, 2, 3)
        now = await connected.store.now()
        until = now.earliest - timedelta(seconds=60)
        dead = [
            lifecycle.claim(task, lease_id=f"dead {task.id}", until=until, now=now)
            for task in await records(connected, *ids)
        ]
        assert all(written.applied for written in await connected.store.apply(dead))
        calls = Calls()
        async with Worker(batching(calls), connected):
            tasks = await done(connected, *ids)
        assert sorted(n for numbers in calls.numbers for n in numbers) == [1, 2, 3]
        assert {(task.status, task.attempts, task.errors[0].type) for task in tasks} == {
            (TaskStatus.DONE_COMPLETED, 2, "LeaseLost")
        }


class TestStayingTogether:
    """What came together comes back together, and nothing cuts it up."""

    async def test_all_wait_for_the_same_moment(self, connected: Client) -> None:
        """All members of a batch that failed are due at the same instant, so that it comes back together."""
        app = batching(Calls(ValueError("boom")), retry=ExponentialBackoff(5, 600, 86_400, jitter=1))
        ids = await enqueue_syncs(connected, *range(8))
        async with Worker(app, connected):
            tasks = await freed(connected, *ids)
        assert len({task.wait_until for task in tasks}) == 1

    async def test_all_snooze_until_the_same_moment(self, connected: Client) -> None:
        """All members of a batch that was snoozed are due at the same instant."""
        ids = await enqueue_syncs(connected, *range(8))
        async with Worker(batching(Calls(Snooze(900))), connected):
            tasks = await freed(connected, *ids)
        assert len({task.wait_until for task in tasks}) == 1

    async def test_a_batch_that_failed_comes_back_as_one(self, connected: Client) -> None:
        """The next call after a failed one has the same members."""
        calls = Calls(ValueError("1"), ValueError("2"))
        ids = await enqueue_syncs(connected, *range(8))
        async with Worker(batching(calls, retry=FixedDelay(4, 0.5)), connected):
            tasks = await done(connected, *ids)
        assert [sorted(numbers) for numbers in calls.numbers] == [[*range(8)]] * 3
        assert {(task.status, task.attempts) for task in tasks} == {(TaskStatus.DONE_COMPLETED, 3)}

    @ON_SQLITE
    async def test_an_idle_worker_takes_a_whole_batch(self, connected: Client) -> None:
        """What is enqueued together while the worker waits at its doorbell comes in one call."""
        calls = Calls()
        async with Worker(batching(calls), connected):
            await done(connected, *await enqueue_syncs(connected, 100))
            await done(connected, *await enqueue_syncs(connected, *range(8)))
        assert calls.numbers == [[100], [*range(8)]]

    async def test_a_small_worker_fills_a_batch(self, connected: Client) -> None:
        """A worker of one slot reads far enough ahead for a whole batch."""
        calls = Calls()
        ids = await enqueue_syncs(connected, *range(100))
        async with Worker(batching(calls), connected, concurrency=1):
            await done(connected, *ids)
        assert calls.numbers == [[*range(100)]]

    @ON_FIRESTORE
    async def test_a_result_too_large_for_one_commit_is_not_computed_again(self, connected: Client) -> None:
        """A result that fits each task, but not the commit of all, runs the handler once."""
        runs = 0

        async def handler(_: Context, __: list[Sync]) -> str:
            nonlocal runs
            runs += 1
            return "x" * 300_000

        ids = await enqueue_syncs(connected, *range(40))
        async with Worker(batching(handler), connected):
            await done(connected, *ids)
        assert runs == 1


class TestStopping:
    """A worker that stops while a batch runs."""

    async def test_all_are_given_back(self, connected: Client) -> None:
        """After the grace the handler is aborted with "shutdown"; each member keeps its place and its attempts."""
        held = Held()
        ids = await enqueue_syncs(connected, 1, 2, 3)
        before = await records(connected, *ids)
        async with Worker(batching(held, retry=NoRetry()), connected, grace=0.05):
            await soon(held.started.wait())
        after = await records(connected, *ids)
        assert held.reasons == ["shutdown"]
        assert {(task.status, task.attempts, task.errors) for task in after} == {(TaskStatus.PENDING, 0, ())}
        assert [(task.wait_until, task.due_at, task.lease_owner) for task in after] == [
            (task.wait_until, task.due_at, None) for task in before
        ]

    async def test_a_thread_that_does_not_end_keeps_all_leases(self, connected: Client) -> None:
        """Of a batch that runs on only the attempts are given back, and nobody starts a member beside it."""
        started, release = threading.Event(), threading.Event()

        def handler(_: Context, __: list[Sync]) -> None:
            started.set()
            release.wait(LIMIT)

        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(handler), connected, grace=0.05):
            assert await asyncio.to_thread(started.wait, LIMIT)
        tasks = await records(connected, *ids)
        release.set()
        assert {(task.status, task.attempts) for task in tasks} == {(TaskStatus.LEASED, 0)}

    async def test_a_cancelled_member_is_not_given_back(self, connected: Client) -> None:
        """Where a member was cancelled before the shutdown, it ends, and only the others go back."""
        held = Held()
        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(held), connected, grace=0.05):
            await soon(held.started.wait())
            await connected.cancel_task(ids[0])
        tasks = await records(connected, *ids)
        assert [task.status for task in tasks] == [TaskStatus.DONE_CANCELLED, TaskStatus.PENDING]
        assert held.reasons == ["shutdown"]


class TestCancelledBefore:
    """Members that were cancelled before the batch began."""

    async def test_one_is_left_out_and_cleaned_up_by_itself(self, connected: Client) -> None:
        """The cancellation handler gets one payload and a context of one task, the batch handler the others."""
        calls, cleaned = Calls(), Cleaned()
        app = batching(calls)
        app.cancellation_handler(Sync)(cleaned)
        ids = await enqueue_syncs(connected, 1, 2, 3)
        await connected.cancel_task(ids[1])
        async with Worker(app, connected):
            tasks = await done(connected, *ids)
        assert calls.numbers == [[1, 3]]
        assert cleaned.calls == [(2, [ids[1]])]
        assert [(task.status, task.attempts, task.cancel_attempts) for task in tasks] == [
            (TaskStatus.DONE_COMPLETED, 1, 0),
            (TaskStatus.DONE_CANCELLED, 0, 1),
            (TaskStatus.DONE_COMPLETED, 1, 0),
        ]

    async def test_without_a_cleanup_it_ends(self, connected: Client) -> None:
        """Where there is nothing to clean up, it is done-cancelled, and nothing runs for it."""
        calls = Calls()
        ids = await enqueue_syncs(connected, 1, 2, 3)
        await connected.cancel_task(ids[0])
        async with Worker(batching(calls), connected):
            tasks = await done(connected, *ids)
        assert calls.numbers == [[2, 3]]
        assert (tasks[0].status, tasks[0].attempts, tasks[0].result) == (TaskStatus.DONE_CANCELLED, 0, None)

    async def test_several_are_cleaned_up_one_by_one(self, connected: Client) -> None:
        """Cancelled tasks of one key share no call; their cleanups are retried each by itself."""
        failed: list[int] = []
        cleaned: list[int] = []
        app = batching(Calls())

        @app.cancellation_handler(Sync, retry=FixedDelay(5, 0))
        async def clean_up(ctx: Context, sync: Sync) -> None:
            assert [task.id for task in ctx.tasks] == [ctx.task_id]
            if ctx.attempt < sync.n:
                failed.append(sync.n)
                raise ValueError("once more")
            cleaned.append(sync.n)

        ids = await enqueue_syncs(connected, 1, 2, 3)
        assert await connected.cancel_tasks_by_resource_key(Sync, "ada") == 3
        async with Worker(app, connected):
            tasks = await done(connected, *ids)
        assert [(task.status, task.cancel_attempts) for task in tasks] == [
            (TaskStatus.DONE_CANCELLED, attempts) for attempts in (1, 2, 3)
        ]
        assert (sorted(failed), sorted(cleaned)) == ([2, 3, 3], [1, 2, 3])


class TestCancelledMeanwhile:
    """Members that are cancelled while the batch runs."""

    @pytest.mark.parametrize("has_cleanup", [True, False], ids=["cleanup", "no cleanup"])
    async def test_one_is_dropped_and_the_others_complete(self, connected: Client, *, has_cleanup: bool) -> None:
        """The handler is not aborted, though its worker has seen the cancel; what it returns is the others' result."""
        held, cleaned = Held(), Cleaned()
        app = batching(held)
        if has_cleanup:
            app.cancellation_handler(Sync)(cleaned)
        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(app, connected, lease=1.2):
            await soon(held.started.wait())
            assert await connected.cancel_task(ids[1])
            await renewed(connected, ids[1], 2)  # a renewal builds on the record with the cancel
            held.go_on.set()
            tasks = await done(connected, *ids)
        assert (held.calls, held.reasons) == (1, [None])
        assert [(task.status, task.result) for task in tasks] == [
            (TaskStatus.DONE_COMPLETED, "synced"),
            (TaskStatus.DONE_CANCELLED, None),
            (TaskStatus.DONE_COMPLETED, "synced"),
        ]
        assert cleaned.calls == ([(2, [ids[1]])] if has_cleanup else [])
        assert tasks[1].cancel_attempts == has_cleanup

    @pytest.mark.parametrize("has_cleanup", [True, False], ids=["cleanup", "no cleanup"])
    async def test_one_that_the_worker_has_not_seen_yet(self, connected: Client, *, has_cleanup: bool) -> None:
        """A cancel in the last moment wins as well: it was stored first."""
        cleaned = Cleaned()

        async def handler(ctx: Context, _: list[Sync]) -> str:
            assert await connected.cancel_task(ctx.tasks[0].id)
            return "synced"

        app = batching(handler)
        if has_cleanup:
            app.cancellation_handler(Sync)(cleaned)
        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(app, connected):
            tasks = await done(connected, *ids)
        assert [(task.status, task.result) for task in tasks] == [
            (TaskStatus.DONE_CANCELLED, None),
            (TaskStatus.DONE_COMPLETED, "synced"),
        ]
        assert cleaned.calls == ([(1, [ids[0]])] if has_cleanup else [])

    @pytest.mark.parametrize("has_cleanup", [True, False], ids=["cleanup", "no cleanup"])
    async def test_all_of_them_stop_the_handler(self, connected: Client, *, has_cleanup: bool) -> None:
        """When nobody is left who wants the result, the handler is aborted, and each member is cleaned up by itself."""
        held, cleaned = Held(), Cleaned()
        app = batching(held)
        if has_cleanup:
            app.cancellation_handler(Sync)(cleaned)
        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(app, connected, poll=3600):
            await soon(held.started.wait())
            for task_id in ids:
                assert not held.stopped.is_set()
                assert await connected.cancel_task(task_id)
            await soon(held.stopped.wait())
            tasks = await done(connected, *ids)
        assert (held.calls, held.reasons) == (1, ["cancelled"])
        assert {(task.status, task.result, task.errors) for task in tasks} == {(TaskStatus.DONE_CANCELLED, None, ())}
        assert {(task.attempts, task.cancel_attempts) for task in tasks} == {(1, has_cleanup)}
        assert sorted(cleaned.calls) == ([(n, [ids[n - 1]]) for n in (1, 2, 3)] if has_cleanup else [])

    async def test_all_that_are_left_stop_the_handler(self, connected: Client, place: Place) -> None:
        """A member that was lost before does not keep a handler going whose other members are cancelled."""
        held = Held()
        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(held), connected, poll=3600):
            await soon(held.started.wait())
            await place.change(ids[0], leaseOwner="another")
            await connected.cancel_task(ids[1])
            await soon(held.stopped.wait())
            (task,) = await done(connected, ids[1])
        assert held.reasons == ["cancelled"]
        assert task.status is TaskStatus.DONE_CANCELLED
        assert (await connected.get_task(ids[0])).lease_owner == "another"

    async def test_a_thread_sees_the_signal(self, connected: Client) -> None:
        """A plain function that looks at its context ends when all its members are cancelled."""
        started = threading.Event()
        cleaned = Cleaned()

        def handler(ctx: Context, _: list[Sync]) -> str:
            started.set()
            assert ctx.wait_aborted_sync(LIMIT)
            return f"stopped: {ctx.abort_reason}"

        app = batching(handler)
        app.cancellation_handler(Sync)(cleaned)
        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(app, connected):
            assert await asyncio.to_thread(started.wait, LIMIT)
            assert await connected.cancel_tasks_by_ids(ids) == 2
            tasks = await done(connected, *ids)
        assert {(task.status, task.result) for task in tasks} == {(TaskStatus.DONE_CANCELLED, None)}
        assert sorted(n for n, _ in cleaned.calls) == [1, 2]

    async def test_a_cleanup_waits_for_a_handler_that_does_not_stop(self, connected: Client) -> None:
        """Members of an abandoned batch are cleaned up when their leases have ended, not before."""
        held, cleaned = Held(), Cleaned()

        async def handler(ctx: Context, syncs: list[Sync]) -> None:
            while not held.go_on.is_set():
                with suppress(asyncio.CancelledError):
                    await held(ctx, syncs)

        app = batching(handler)
        app.cancellation_handler(Sync)(cleaned)
        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(app, connected, abort_grace=0.05, lease=1):
            await soon(held.started.wait())
            assert await connected.cancel_tasks_by_ids(ids) == 2
            left = await freed(connected, *ids)
            assert cleaned.calls == []
            tasks = await done(connected, *ids)
            held.go_on.set()
        assert {task.status for task in tasks} == {TaskStatus.DONE_CANCELLED}
        assert sorted(n for n, _ in cleaned.calls) == [1, 2]
        for one, ended in zip(left, tasks, strict=True):
            assert ended.done_at is not None
            assert one.leased_until is not None
            assert ended.done_at >= one.leased_until

    async def test_a_failing_call_does_not_count_for_the_cancelled(self, connected: Client) -> None:
        """Where a call fails, the cancelled member ends without that error, and the others are tried again."""

        async def handler(ctx: Context, _: list[Sync]) -> str:
            if ctx.attempt == 1:
                await connected.cancel_task(ctx.tasks[0].id)
                raise ValueError("boom")
            return "synced"

        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(handler), connected):
            tasks = await done(connected, *ids)
        assert [(task.status, task.attempts, len(task.errors)) for task in tasks] == [
            (TaskStatus.DONE_CANCELLED, 1, 0),
            (TaskStatus.DONE_COMPLETED, 2, 1),
        ]


class TestLost:
    """Members that somebody else has by now, or that are gone."""

    @pytest.mark.parametrize("how", ["stolen", "deleted"])
    @pytest.mark.parametrize("noticed", ["at renewal", "at the end"])
    async def test_the_others_complete(self, connected: Client, place: Place, how: str, noticed: str) -> None:
        """A lost member gets nothing written; the handler runs on, and what it staged is stored with the others."""
        held = Held()

        async def handler(ctx: Context, syncs: list[Sync]) -> object:
            ctx.enqueue(Other(), task_id="staged")
            return await held(ctx, syncs)

        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(batching(handler), connected, lease=1.2 if noticed == "at renewal" else 60, poll=3600):
            await soon(held.started.wait())
            if how == "stolen":
                far = (await connected.get_task(ids[1])).created_at + timedelta(days=1)
                await place.change(ids[1], leaseOwner="another", leasedUntil=far, dueAt=far)
            else:
                deleted = False
                while not deleted:  # a renewal may be quicker
                    (written,) = await connected.store.delete(await records(connected, ids[1]))
                    deleted = written.applied
            if noticed == "at renewal":
                await renewed(connected, ids[0], 2)
            held.go_on.set()
            first, third = await done(connected, ids[0], ids[2])
        assert (held.calls, held.reasons) == (1, [None])
        assert {(task.status, task.result) for task in (first, third)} == {(TaskStatus.DONE_COMPLETED, "synced")}
        assert len(await connected.get_tasks_by_ids(["staged"])) == 1
        lost = await connected.get_tasks_by_ids([ids[1]])
        assert [(task.status, task.lease_owner, task.result) for task in lost] == (
            [(TaskStatus.LEASED, "another", None)] if how == "stolen" else []
        )

    @pytest.mark.parametrize("ends", ["fails", "snoozes"])
    async def test_the_others_go_back(self, connected: Client, place: Place, ends: str) -> None:
        """Where the call fails or snoozes, that is recorded for whoever is still held, and for nobody else."""

        async def handler(ctx: Context, _: list[Sync]) -> None:
            await place.change(ctx.tasks[1].id, leaseOwner="another")
            if ends == "fails":
                raise RetryAfter(900)
            raise Snooze(900)

        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(batching(handler), connected, poll=3600):
            await freed(connected, ids[0], ids[2])
        tasks = await records(connected, *ids)
        assert [(task.lease_owner, len(task.errors)) for task in tasks] == [
            (None, ends == "fails"),
            ("another", 0),
            (None, ends == "fails"),
        ]

    async def test_a_handler_without_any_member_is_stopped(self, connected: Client, place: Place) -> None:
        """When the last member is lost, the handler is aborted with "lease-lost", and nothing is written."""
        held = Held()
        ids = await enqueue_syncs(connected, 1, 2)
        async with Worker(batching(held), connected, lease=1.2, poll=3600):
            await soon(held.started.wait())
            for task_id in ids:
                assert not held.stopped.is_set()
                far = (await connected.get_task(task_id)).created_at + timedelta(days=1)
                await place.change(task_id, leaseOwner="another", leasedUntil=far, dueAt=far)
            await soon(held.stopped.wait())
        tasks = await records(connected, *ids)
        assert held.reasons == ["lease-lost"]
        assert {(task.lease_owner, task.attempts, task.errors, task.result) for task in tasks} == {
            ("another", 1, (), None)
        }

    async def test_a_completion_that_was_overtaken_is_written_again(self, connected: Client, place: Place) -> None:
        """Somebody else's write to one member does not stop the completion, which builds on the newest records."""

        async def handler(ctx: Context, _: list[Sync]) -> str:
            ctx.enqueue(Job(), task_id="staged", delay=600)
            await place.change(ctx.tasks[1].id, owner="somebody")
            return "synced"

        ids = await enqueue_syncs(connected, 1, 2, 3)
        async with Worker(batching(handler), connected):
            tasks = await done(connected, *ids)
        assert {(task.status, task.result) for task in tasks} == {(TaskStatus.DONE_COMPLETED, "synced")}
        assert [task.owner for task in tasks] == [None, "somebody", None]
        assert len(await connected.get_tasks_by_ids(["staged"])) == 1


async def test_a_batch_that_outlasts_its_lease_is_renewed_as_a_whole(place: Place, connected: Client) -> None:
    """The leases of all members are renewed while the handler runs, and nobody else runs one of them meanwhile."""
    held = Held()
    app = batching(held)
    ids = await enqueue_syncs(connected, 1, 2, 3)
    async with Worker(app, connected, lease=1.2), Worker(app, place.connect(), lease=1.2):
        await soon(held.started.wait())
        await asyncio.gather(*(renewed(connected, task_id, 4) for task_id in ids))
        held.go_on.set()
        tasks = await done(connected, *ids)
    assert (held.calls, held.reasons) == (1, [None])
    assert {(task.status, task.attempts, task.errors) for task in tasks} == {(TaskStatus.DONE_COMPLETED, 1, ())}


async def test_a_cancelled_one_goes_first(connected: Client) -> None:
    """A member that is cancelled while its batch waits in the line is due at once."""
    ids = await enqueue_syncs(connected, 1, 2, delay=3_600)
    await connected.cancel_task(ids[1])
    async with Worker(batching(Calls()), connected):
        (task,) = await done(connected, ids[1])
    assert (task.status, task.wait_until) == (TaskStatus.DONE_CANCELLED, NO_WAIT)
    assert (await connected.get_task(ids[0])).status is TaskStatus.WAITING
