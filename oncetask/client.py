"""The SDK: enqueue, look, cancel, reset, delete, wait. Nothing here runs tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, Unpack

from oncetask import lifecycle, pausing
from oncetask.changes import Changes
from oncetask.clock import Duration, check_instant, seconds
from oncetask.codec import Codec
from oncetask.enqueueing import EnqueueOptions, new_task
from oncetask.errors import StoreUnavailable, TaskNotFound
from oncetask.paging import find_page
from oncetask.payload import Payload, check_indexed, check_resource_key, check_several, check_task_id, kind_of
from oncetask.store import TaskFilter, TaskStore
from oncetask.store.coding import recode, with_codec
from oncetask.store.url import open_store
from oncetask.task import Receipt, Stats, Task, TaskPage, TaskStatus
from oncetask.telemetry import Telemetry
from oncetask.waking import Waker, waker_from_environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from datetime import datetime

__all__ = ["Client", "connect"]

_CHUNK = 500


def connect(
    url: str | None = None,
    *,
    env: str | None = None,
    firestore: Any = None,  # google.cloud.firestore.AsyncClient, whose import takes a second
    credentials: Any = None,  # google.auth.credentials.Credentials
    waker: Waker | None = None,
    codec: Codec | None = None,
) -> Client:
    """Make a client; no I/O happens before its first use, which also binds it to the running event loop.

    `url`: `firestore://PROJECT[/DATABASE]`, `sqlite:///file.db` or `memory://`. Left out: ONCETASK_STORE, else
    Firestore where a Google project is known, else SQLite in ./oncetask.db (refused where the disk will not last).
    `env`: the environment, whose tasks no other one sees; left out: ONCETASK_ENV, else "default". `firestore`: an own
    `AsyncClient` to use. `waker`: sees to it that a tick runs soon after an enqueue, where no worker does; left out:
    what ONCETASK_WAKE says, else nobody. `codec`: what payloads, results and errors pass through on their way into the
    store, to be encrypted, say; left out: what ONCETASK_CODEC names, else none. Raises ValueError for a malformed url
    or env, and for wrong settings of waker or codec; StoreUnavailable where no store can be chosen.
    """
    store = open_store(url, env=env, firestore=firestore, credentials=credentials)
    return Client(with_codec(store, codec), waker=waker)


class Client:
    """Everything that callers do with tasks. Made by `connect`; `async with` or `aclose` closes it."""

    def __init__(self, store: TaskStore, *, telemetry: Telemetry | None = None, waker: Waker | None = None) -> None:
        """Work on an opened or unopened store. `telemetry`: who is told what happens; left out: a new one.

        `waker`: as for `connect`.
        """
        self.store = store
        self.telemetry = telemetry or Telemetry()
        self._waker = waker_from_environment() if waker is None else waker
        self._changes = Changes(store, self.telemetry, self.wake)

    async def __aenter__(self) -> Self:
        """Open the store, so that a wrong address shows here."""
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the store."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the store; the next use opens it again."""
        await self._waker.aclose()
        await self.store.aclose()

    async def wake(self, at: datetime | None = None) -> None:
        """Let the waker see to it that a tick runs at an instant (aware); left out: now.

        Everything here that makes a task due does so by itself. It is for what this client cannot see: the commit of a
        transaction with `enqueue_in`, say. Never raises for what goes wrong with that; that is logged.
        """
        now = self.store.clock.now()  # which opens nothing: what is due is stored, and that must not fail any more
        await self._waker.wake(now.latest if at is None else check_instant("at", at), env=self.store.env, now=now)

    async def enqueue(self, payload: Payload, **options: Unpack[EnqueueOptions]) -> Receipt:
        """Store a task, once per id; returns when it is durable.

        Raises TypeError and ValueError for bad options (a `task_id` that belongs to another kind among them),
        InvalidPayload, PayloadTooLarge, StoreUnavailable.
        """
        task = new_task(payload, options, await self.store.now())
        (written,) = await self.store.create([task])
        if written.error is not None:
            raise written.error
        if written.applied:
            await self._wake_for([task])
        elif "task_id" in options:
            await self._refuse_other_kind(task)
        return Receipt(task.id, written.applied)

    async def enqueue_many(
        self,
        payloads: Iterable[Payload],
        *,
        task_ids: Sequence[str] | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> list[Receipt]:
        """Store many tasks, each once per id; the receipts are in the order of the payloads.

        All payloads are checked before the first is stored. Not atomic: on a failure midway
        `StoreUnavailable.receipts` has one receipt per payload (`created` only where that is certain), and the whole
        call may be repeated with `task_ids=[r.task_id for r in error.receipts]`: what exists already is skipped.
        """
        listed = list(payloads)
        if "task_id" in options and len(listed) != 1:
            msg = f"task_id is for one task, not for {len(listed)}: give enqueue_many one id each in task_ids"
            raise ValueError(msg)
        if task_ids is not None and len(task_ids) != len(listed):
            msg = f"task_ids must have one id for each of the {len(listed)} payloads, not {len(task_ids)}"
            raise ValueError(msg)
        tasks = await self._new_tasks(listed, task_ids, options)
        try:
            written = await self.store.create(tasks)
        except StoreUnavailable as error:
            known = error.receipts or [None] * len(tasks)
            receipts = [Receipt(t.id, getattr(w, "applied", False)) for t, w in zip(tasks, known, strict=True)]
            await self._wake_for([task for task, receipt in zip(tasks, receipts, strict=True) if receipt.created])
            raise StoreUnavailable(str(error), receipts=receipts) from error
        await self._wake_for([task for task, one in zip(tasks, written, strict=True) if one.applied])
        for one in written:
            if one.error is not None:
                raise one.error
        return [Receipt(task.id, one.applied) for task, one in zip(tasks, written, strict=True)]

    def enqueue_in(
        self, transaction_or_batch: Any, payload: Payload, **options: Unpack[EnqueueOptions]
    ) -> str:  # any of Firestore's four kinds
        """Add a task to the caller's own Firestore transaction or write batch, and give its id.

        It is created by the caller's commit, which fails as a whole where the id exists already. Sends nothing
        itself. Raises Unsupported on SQLite.
        """
        task = new_task(payload, options, self.store.clock.now())
        self.store.create_in(transaction_or_batch, task)
        return task.id

    def cancel_in(self, transaction_or_batch: Any, task: Task) -> bool:  # as above
        """Add the cancellation of a task to the caller's own Firestore transaction or write batch.

        Tells whether there was anything to cancel: nothing is added for a task that is done or cancelled already.
        `task`: as it was read; the caller's commit fails as a whole where the task has changed since. Sends nothing
        itself. Raises Unsupported on SQLite.
        """
        transition = lifecycle.cancel(task, now=self.store.clock.now())
        self.store.change_in(transaction_or_batch, [] if transition is None else [transition])
        return transition is not None

    async def get_task(self, task_id: str) -> Task:
        """Read one task. Raises TaskNotFound."""
        (task,) = await self.store.get([check_task_id(task_id)])
        if task is None:
            raise TaskNotFound(task_id)
        return task

    async def get_tasks_by_ids(self, ids: Iterable[str]) -> list[Task]:
        """Read the tasks of these ids that exist, in the order of the ids."""
        check_several(ids)
        found = await self.store.get([check_task_id(task_id) for task_id in ids])
        return [task for task in found if task is not None]

    async def get_tasks_by_resource_key(self, kind: str | type[Payload] | None, key: str) -> list[Task]:
        """Read all tasks of a resource key; `kind` None: of all kinds."""
        return [task async for task in self.iter_tasks(kind=kind, resource_key=key)]

    async def list_tasks(
        self,
        *,
        kind: str | type[Payload] | None = None,
        status: TaskStatus | str | None = None,
        resource_key: str | None = None,
        owner: str | None = None,
        parent: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> TaskPage:
        """Read a page of tasks in the order of their ids; all filters that are given hold.

        `limit`: 1 to 1,000. `cursor`: the last page's. Raises ValueError for a bad filter, limit or cursor.
        """
        return await find_page(
            self.store,
            TaskFilter(
                kind=None if kind is None else kind_of(kind),
                resource_key=check_resource_key(resource_key),
                owner=check_indexed("owner", owner),
                parent=None if parent is None else check_task_id(parent),
            ),
            status=status,
            limit=limit,
            cursor=cursor,
        )

    async def iter_tasks(
        self,
        *,
        kind: str | type[Payload] | None = None,
        status: TaskStatus | str | None = None,
        resource_key: str | None = None,
        owner: str | None = None,
        parent: str | None = None,
    ) -> AsyncIterator[Task]:
        """Read all tasks that fit, page by page."""
        cursor: str | None = None
        while True:
            page = await self.list_tasks(
                kind=kind,
                status=status,
                resource_key=resource_key,
                owner=owner,
                parent=parent,
                limit=_CHUNK,
                cursor=cursor,
            )
            for task in page.tasks:
                yield task
            if (cursor := page.cursor) is None:
                return

    async def pending_count(self, kind: str | type[Payload] | None = None, resource_key: str | None = None) -> int:
        """Count the tasks that are not done, generators of recurrences excluded."""
        return await self.store.count(_open_tasks(kind=kind, resource_key=resource_key))

    async def stats(self) -> Stats:
        """Count tasks by kind and status."""
        return Stats(await self.store.stats())

    async def wait(self, task_id: str, timeout: Duration | None = None) -> Task:  # the contract's name
        """Wait until a task is done, and give it. Raises TimeoutError after `timeout` seconds, TaskNotFound."""
        limit = None if timeout is None else seconds("timeout", timeout, zero=True)
        async with asyncio.timeout(limit):
            async for task in self.watch(task_id):
                if task.status.is_done:
                    return task
        raise TaskNotFound(task_id)

    async def watch(self, task_id: str) -> AsyncIterator[Task]:
        """Give the task now and after every change, until it is done. Raises TaskNotFound, also when it is deleted."""
        async with self.store.watch_tasks([check_task_id(task_id)]) as feed:
            while True:
                (task,) = await feed.get()
                if task is None:
                    raise TaskNotFound(task_id)
                yield task
                if task.status.is_done:
                    return

    async def cancel_task(self, task_id: str) -> bool:
        """Cancel a task that is not done: it goes first in the line, and a running handler is told to stop.

        Tells whether this call cancelled it. False: it is done, or was cancelled before. Whichever is stored first
        wins: after True no handler completes this task any more. Raises TaskNotFound.
        """
        return await self._changes.of([await self.get_task(task_id)], lifecycle.cancel) == 1

    async def cancel_tasks_by_resource_key(self, kind: str | type[Payload] | None, key: str) -> int:
        """Cancel all tasks of a resource key that are not done; counts those that this call cancelled.

        `kind`: its name or payload class; None: all kinds. What is enqueued while this runs may escape it.
        """
        if key is None:  # which would ask nothing, and so mean every task there is
            msg = "resource_key must be a text: None would cancel the tasks of every key"
            raise TypeError(msg)
        return await self._changes.all(_open_tasks(kind=kind, resource_key=key), lifecycle.cancel)

    async def cancel_tasks_by_kind(self, kind: str | type[Payload]) -> int:
        """Cancel all tasks of a kind that are not done; counts those that this call cancelled."""
        return await self._changes.all(_open_tasks(kind=kind_of(kind)), lifecycle.cancel)

    async def cancel_tasks_by_ids(self, ids: Iterable[str]) -> int:
        """Cancel the tasks of these ids that exist and are not done; counts those that this call cancelled.

        Raises ValueError for what cannot be an id, after the others have been cancelled.
        """
        return await self._changes.by_ids(ids, lifecycle.cancel)

    async def reset_task(self, task_id: str) -> bool:
        """Run a done task again, from the first attempt; a generator goes on from now.

        False: it is not done, or a generator that has no instant left. Raises TaskNotFound.
        """
        return await self._changes.of([await self.get_task(task_id)], lifecycle.reset) == 1

    async def reset_tasks_by_ids(self, ids: Iterable[str]) -> int:
        """Run done tasks again; counts those that this call reset. Bad ids: as in `cancel_tasks_by_ids`."""
        return await self._changes.by_ids(ids, lifecycle.reset)

    async def delete_task(self, task_id: str) -> bool:
        """Delete a task. False: somebody runs it, so cancel it first. Raises TaskNotFound."""
        await self.get_task(task_id)
        return await self.delete_tasks_by_ids([task_id]) == 1

    async def delete_tasks_by_ids(self, ids: Iterable[str]) -> int:
        """Delete tasks that nobody runs; counts those that this call deleted. Bad ids: as in `cancel_tasks_by_ids`."""
        return await self._changes.delete_by_ids(ids)

    async def recode_tasks(self) -> int:
        """Write anew, through the codec as it is now, what it codes of every task; counts the tasks that it wrote.

        For after a key was rotated, and for tasks from before there was a codec. It reads every task of the environment
        and writes most of them; what runs goes on. Left alone are those that cannot be decoded. It may be repeated.
        Raises Unsupported without a codec, and the error of a task that cannot be written after the others.
        """
        return await recode(self.store)

    async def pause_kind(self, kind: str | type[Payload]) -> bool:
        """Let no worker and no tick claim tasks of a kind until it is resumed; they respect it within two seconds.

        What runs goes on, and what is enqueued or cancelled meanwhile waits. False: it is paused already.
        """
        return await pausing.pause(self.store, kind_of(kind))

    async def resume_kind(self, kind: str | type[Payload]) -> bool:
        """Let tasks of a paused kind be claimed again. False: it is not paused."""
        is_resumed = await pausing.resume(self.store, kind_of(kind))
        if is_resumed:
            await self.wake()
        return is_resumed

    async def paused_kinds(self) -> list[str]:
        """Read the names of the kinds that are paused, in alphabetical order."""
        return sorted(pausing.paused_kinds(await self.store.settings()))

    async def pause_schedule(self, task_id: str) -> bool:
        """Let a generator spawn nothing until it is resumed; its occurrences run on.

        False: it is paused, cancelled or done. Raises TaskNotFound, ValueError for a task that is no generator.
        """
        return await self._changes.of([await self._generator(task_id)], lifecycle.pause) == 1

    async def resume_schedule(self, task_id: str) -> bool:
        """Let a paused generator go on from now; what it missed meanwhile is not caught up with.

        One whose rule has ended meanwhile is completed. False: it is not paused. Raises as `pause_schedule`.
        """
        return await self._changes.of([await self._generator(task_id)], lifecycle.resume) == 1

    async def _wake_for(self, tasks: Sequence[Task]) -> None:
        """Wake for the first of these that is due; the tick that it wakes for it sees to the next."""
        if due := [task.due_at for task in tasks if task.due_at is not None]:
            await self.wake(min(due))

    async def _generator(self, task_id: str) -> Task:
        task = await self.get_task(task_id)
        if not lifecycle.is_generator(task):
            msg = f"task {task_id!r} is no schedule: it has no recurrence, so it can only be cancelled"
            raise ValueError(msg)
        return task

    async def _new_tasks(
        self, payloads: list[Payload], task_ids: Sequence[str] | None, options: EnqueueOptions
    ) -> list[Task]:
        now, tasks = await self.store.now(), list[Task]()
        for place, payload in enumerate(payloads):
            own = options if task_ids is None else EnqueueOptions(**{**options, "task_id": task_ids[place]})
            tasks.append(new_task(payload, own, now, place=place))
            if place % _CHUNK == _CHUNK - 1:
                await asyncio.sleep(0)  # 20,000 payloads take a second; others on this loop get their turn
        return tasks

    async def _refuse_other_kind(self, task: Task) -> None:
        (found,) = await self.store.get([task.id])
        if found is not None and found.kind != task.kind:
            msg = f"task_id {task.id!r} belongs to a task of kind {found.kind!r}, so it cannot be one of {task.kind!r}"
            raise ValueError(msg)


def _open_tasks(*, kind: str | type[Payload] | None, resource_key: str | None = None) -> TaskFilter:
    name = None if kind is None else kind_of(kind)
    return TaskFilter(kind=name, resource_key=check_resource_key(resource_key), done=False)
