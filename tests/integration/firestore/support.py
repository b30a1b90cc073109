"""What the tests of the Firestore adapter do to a store: lose its answers, count its calls, look at its documents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

from oncetask import lifecycle
from oncetask.lifecycle import Transition
from oncetask.store import Feed, TaskStore, Written
from oncetask.store.firestore import FirestoreStore
from oncetask.store.firestore.rpc import Rpc, RpcFailed
from oncetask.store.firestore.session import Session
from oncetask.task import Task
from tests.support import T0, a_task, at, exactly

T = TypeVar("T")


def session_of(store: FirestoreStore) -> Session:
    """Give what an open store has."""
    assert store._session is not None, "the store is not open"
    return store._session


def rpc_of(store: FirestoreStore) -> Rpc:
    """Give the RPCs of an open store."""
    return session_of(store).rpc


def failing(
    method: str = "Test", code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = "test"
) -> RpcFailed:
    """Give an error of the server."""
    return RpcFailed(method, code, details)


def firestore(store: TaskStore) -> FirestoreStore:
    """Give a store as what it is."""
    assert isinstance(store, FirestoreStore)
    return store


def fail_once(
    store: TaskStore, method: str, code: grpc.StatusCode, *, then: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Let the next call of this RPC fail before it reaches the server; `then` happens meanwhile."""
    rpc = rpc_of(firestore(store))
    call = getattr(rpc, method)

    async def fail(*_: Any) -> Any:
        setattr(rpc, method, call)
        if then is not None:
            await then()
        raise failing(method, code)

    setattr(rpc, method, fail)


def lose_answer(store: FirestoreStore, method: str, *, then: Callable[[], Awaitable[Any]] | None = None) -> None:
    """Let the next call of this RPC reach the server, and its answer get lost; `then` happens right after."""
    rpc = rpc_of(store)
    call = getattr(rpc, method)

    async def lost(*args: Any) -> Any:
        setattr(rpc, method, call)
        await call(*args)
        if then is not None:
            await then()
        raise failing(method)

    setattr(rpc, method, lost)


def refuse_all(store: FirestoreStore, method: str, error: RpcFailed) -> list[Any]:
    """Let no call of this RPC reach the server any more; gives the arguments of those that were tried."""
    tried: list[Any] = []

    async def refuse(*args: Any) -> Any:
        tried.append(args)
        raise error

    setattr(rpc_of(store), method, refuse)
    return tried


def record(store: FirestoreStore, method: str) -> list[Any]:
    """Give the first arguments of all calls of this RPC from now on."""
    rpc = rpc_of(store)
    call = getattr(rpc, method)
    calls: list[Any] = []

    async def recorded(*args: Any) -> Any:
        calls.append(args[0])
        return await call(*args)

    setattr(rpc, method, recorded)
    return calls


class HeldBack:
    """Calls of one RPC that wait before they reach the server."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[None] = asyncio.Queue()
        self._gate = asyncio.Event()

    async def asked(self) -> None:
        """Wait until one more call has come; fails loudly."""
        async with asyncio.timeout(20):
            await self._came.get()

    def let_go(self) -> None:
        """Let all calls go on, later ones too."""
        self._gate.set()

    async def wait(self) -> None:
        """What a call does."""
        self._came.put_nowait(None)
        await self._gate.wait()


def hold_back(store: FirestoreStore, method: str) -> HeldBack:
    """Hold all calls of this RPC back until they are let go."""
    rpc = rpc_of(store)
    call = getattr(rpc, method)
    held = HeldBack()

    async def wait_first(*args: Any) -> Any:
        await held.wait()
        return await call(*args)

    setattr(rpc, method, wait_first)
    return held


async def stored(store: FirestoreStore, task: Task) -> Task:
    """Create a task, and give the record with its version."""
    (written,) = await store.create([task])
    assert written.version is not None
    return replace(task, version=written.version)


async def read(store: FirestoreStore, task_id: str) -> Task:
    """Read a task that is there."""
    (task,) = await store.get([task_id])
    assert task is not None
    return task


def claimed(task: Task, lease_id: str = "lease-1") -> Transition:
    """Claim a task for a minute."""
    return lifecycle.claim(task, lease_id=lease_id, until=at(60), now=exactly(T0))


def completed(task: Task, result: object = None) -> Transition:
    """Complete a task."""
    return lifecycle.complete(task, result=result, now=exactly(at(1)))


def after(transition: Transition, written: Written) -> Task:
    """Give the record that an applied transition left."""
    assert written.version is not None
    return replace(transition.after, version=written.version)


def some_tasks(number: int, **fields: Any) -> list[Task]:
    """Give tasks that are due one second after the other."""
    return [a_task(f"t-{index:05}", wait_until=at(index), **fields) for index in range(number)]


async def soon(feed: Feed[T]) -> T:
    """Wait for the next value; fails loudly."""
    async with asyncio.timeout(20):
        return await feed.get()


async def until(feed: Feed[T], holds: Callable[[T], bool]) -> T:
    """Wait for a value of which something holds; fails loudly."""
    async with asyncio.timeout(20):
        while True:
            value = await feed.get()
            if holds(value):
                return value
