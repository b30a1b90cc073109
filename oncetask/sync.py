"""The SDK for blocking code: the same methods, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import threading
import weakref
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from oncetask.client import Client, connect
from oncetask.codec import Codec
from oncetask.enqueueing import EnqueueOptions
from oncetask.errors import StoreUnavailable
from oncetask.waking import Waker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from datetime import datetime

    from oncetask.clock import Duration
    from oncetask.payload import Payload
    from oncetask.task import Receipt, Stats, Task, TaskPage, TaskStatus

__all__ = ["SyncClient", "connect_sync"]

T = TypeVar("T")


def connect_sync(
    url: str | None = None,
    *,
    env: str | None = None,
    credentials: Any = None,  # google.auth.credentials.Credentials
    waker: Waker | None = None,
    codec: Codec | None = None,
) -> SyncClient:
    """Make a blocking, thread-safe client; arguments and errors are those of `connect`.

    It closes itself before a fork of the process; parent and child open connections of their own at their next call.
    """
    return SyncClient(lambda: connect(url, env=env, credentials=credentials, waker=waker, codec=codec))


class SyncClient:
    """The methods of `Client`, blocking; what they do, give and raise is said there. Made by `connect_sync`."""

    def __init__(self, make: Callable[[], Client]) -> None:
        """`make`: gives a fresh client; called here, so that a bad url shows at once, and again after a fork."""
        self._make = make
        self._opening = threading.Lock()
        self._client = make()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()

    def __enter__(self) -> Self:
        """Open the store, so that a wrong address shows here."""
        self._call(lambda client: client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the store and end the thread; the next use opens both again.

        What other threads wait for ends with StoreUnavailable.
        """
        with self._opening:
            loop, self._loop = self._loop, None
            if loop is None or self._process != os.getpid():
                return
            asyncio.run_coroutine_threadsafe(self._wind_up(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    def enqueue(self, payload: Payload, **options: Unpack[EnqueueOptions]) -> Receipt:
        """See `Client.enqueue`."""
        return self._call(lambda client: client.enqueue(payload, **options))

    def enqueue_many(
        self,
        payloads: Iterable[Payload],
        *,
        task_ids: Sequence[str] | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> list[Receipt]:
        """See `Client.enqueue_many`."""
        listed = list(payloads)
        return self._call(lambda client: client.enqueue_many(listed, task_ids=task_ids, **options))

    def enqueue_in(
        self, transaction_or_batch: Any, payload: Payload, **options: Unpack[EnqueueOptions]
    ) -> str:  # any of Firestore's four kinds
        """See `Client.enqueue_in`."""
        return self._fresh().enqueue_in(transaction_or_batch, payload, **options)

    def cancel_in(self, transaction_or_batch: Any, task: Task) -> bool:  # any of Firestore's four kinds
        """See `Client.cancel_in`."""
        return self._fresh().cancel_in(transaction_or_batch, task)

    def get_task(self, task_id: str) -> Task:
        """See `Client.get_task`."""
        return self._call(lambda client: client.get_task(task_id))

    def get_tasks_by_ids(self, ids: Iterable[str]) -> list[Task]:
        """See `Client.get_tasks_by_ids`."""
        return self._call(lambda client: client.get_tasks_by_ids(ids))

    def get_tasks_by_resource_key(self, kind: str | type[Payload] | None, key: str) -> list[Task]:
        """See `Client.get_tasks_by_resource_key`."""
        return self._call(lambda client: client.get_tasks_by_resource_key(kind, key))

    def list_tasks(  # the filters of Client.list_tasks
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
        """See `Client.list_tasks`."""
        return self._call(
            lambda client: client.list_tasks(
                kind=kind,
                status=status,
                resource_key=resource_key,
                owner=owner,
                parent=parent,
                limit=limit,
                cursor=cursor,
            )
        )

    def iter_tasks(
        self,
        *,
        kind: str | type[Payload] | None = None,
        status: TaskStatus | str | None = None,
        resource_key: str | None = None,
        owner: str | None = None,
        parent: str | None = None,
    ) -> Iterator[Task]:
        """See `Client.iter_tasks`."""
        cursor: str | None = None
        while True:
            page = self.list_tasks(
                kind=kind,
                status=status,
                resource_key=resource_key,
                owner=owner,
                parent=parent,
                limit=500,
                cursor=cursor,
            )
            yield from page.tasks
            if (cursor := page.cursor) is None:
                return

    def pending_count(self, kind: str | type[Payload] | None = None, resource_key: str | None = None) -> int:
        """See `Client.pending_count`."""
        return self._call(lambda client: client.pending_count(kind, resource_key))

    def stats(self) -> Stats:
        """See `Client.stats`."""
        return self._call(lambda client: client.stats())

    def wait(self, task_id: str, timeout: Duration | None = None) -> Task:
        """See `Client.wait`."""
        return self._call(lambda client: client.wait(task_id, timeout))

    def watch(self, task_id: str) -> Iterator[Task]:
        """See `Client.watch`."""
        changes = self._fresh().watch(task_id)
        try:
            while (task := self._call(lambda _: anext(changes, None))) is not None:
                yield task
        finally:
            self._call(lambda _: changes.aclose())  # type: ignore[attr-defined]  # an async generator, typed by its use

    def cancel_task(self, task_id: str) -> bool:
        """See `Client.cancel_task`."""
        return self._call(lambda client: client.cancel_task(task_id))

    def cancel_tasks_by_resource_key(self, kind: str | type[Payload] | None, key: str) -> int:
        """See `Client.cancel_tasks_by_resource_key`."""
        return self._call(lambda client: client.cancel_tasks_by_resource_key(kind, key))

    def cancel_tasks_by_kind(self, kind: str | type[Payload]) -> int:
        """See `Client.cancel_tasks_by_kind`."""
        return self._call(lambda client: client.cancel_tasks_by_kind(kind))

    def cancel_tasks_by_ids(self, ids: Iterable[str]) -> int:
        """See `Client.cancel_tasks_by_ids`."""
        return self._call(lambda client: client.cancel_tasks_by_ids(ids))

    def reset_task(self, task_id: str) -> bool:
        """See `Client.reset_task`."""
        return self._call(lambda client: client.reset_task(task_id))

    def reset_tasks_by_ids(self, ids: Iterable[str]) -> int:
        """See `Client.reset_tasks_by_ids`."""
        return self._call(lambda client: client.reset_tasks_by_ids(ids))

    def wake(self, at: datetime | None = None) -> None:
        """See `Client.wake`."""
        self._call(lambda client: client.wake(at))

    def recode_tasks(self) -> int:
        """See `Client.recode_tasks`."""
        return self._call(lambda client: client.recode_tasks())

    def pause_kind(self, kind: str | type[Payload]) -> bool:
        """See `Client.pause_kind`."""
        return self._call(lambda client: client.pause_kind(kind))

    def resume_kind(self, kind: str | type[Payload]) -> bool:
        """See `Client.resume_kind`."""
        return self._call(lambda client: client.resume_kind(kind))

    def paused_kinds(self) -> list[str]:
        """See `Client.paused_kinds`."""
        return self._call(lambda client: client.paused_kinds())

    def pause_schedule(self, task_id: str) -> bool:
        """See `Client.pause_schedule`."""
        return self._call(lambda client: client.pause_schedule(task_id))

    def resume_schedule(self, task_id: str) -> bool:
        """See `Client.resume_schedule`."""
        return self._call(lambda client: client.resume_schedule(task_id))

    def delete_task(self, task_id: str) -> bool:
        """See `Client.delete_task`."""
        return self._call(lambda client: client.delete_task(task_id))

    def delete_tasks_by_ids(self, ids: Iterable[str]) -> int:
        """See `Client.delete_tasks_by_ids`."""
        return self._call(lambda client: client.delete_tasks_by_ids(ids))

    def _call(self, start: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        client = self._fresh()
        assert self._loop is not None  # noqa: S101  # what _fresh has seen to
        waiting = asyncio.run_coroutine_threadsafe(start(client), self._loop)
        try:
            return waiting.result()
        except CancelledError as error:
            msg = "the client was closed while this call waited: by close(), or for a fork of this process"
            raise StoreUnavailable(msg) from error
        except BaseException:
            waiting.cancel()  # Ctrl-C, say: nobody waits for it any more
            raise

    async def _wind_up(self) -> None:
        """End what other threads wait for, and close the store."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()

    def _fresh(self) -> Client:
        """Give the client of this process, on a running loop."""
        with self._opening:
            if self._process != os.getpid():  # a fork that ran no hooks has left us without thread and connection
                self._client, self._loop, self._process = self._make(), None, os.getpid()
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="oncetask-client", daemon=True)
                self._thread.start()
                _close_before_fork(self)
            return self._client


_open: weakref.WeakSet[SyncClient] = weakref.WeakSet()


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(before=_close_all)


def _close_before_fork(client: SyncClient) -> None:
    """Neither threads nor connections survive a fork (grpc crashes the child): both sides open their own again."""
    _watch_forks()
    _open.add(client)


def _close_all() -> None:
    for client in tuple(_open):
        client.close()
        _open.discard(client)
    gc.collect()  # a channel lives on in cycles, and grpc's thread with it
