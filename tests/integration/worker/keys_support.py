"""What the tests of resource keys build: tasks of a key, handlers that note who ran beside whom, and dead holders."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Unpack

import pytest

from oncetask import App, Client, Context, EnqueueOptions, Payload, Task, lifecycle
from oncetask.lifecycle import Transition
from oncetask.lock import Lock, LockChange
from oncetask.store import TaskStore, Written
from tests.integration.places import Place
from tests.integration.worker.support import LIMIT, SOON
from tests.support import Shift, not_none

__all__ = [
    "Also",
    "Commits",
    "Keyed",
    "Stage",
    "enqueue_keyed",
    "held_by_hand",
    "keyed_app",
    "lock_of",
    "shifted",
    "soon",
]

KEY = "ada"


class Keyed(Payload, kind="keyed"):
    """What is done for one user; without a user there is no resource key."""

    n: int
    user: str | None = KEY

    def resource_key(self) -> str | None:
        """Give the user."""
        return self.user


class Also(Keyed, kind="also"):
    """A second kind, of the same keys."""


class Stage:
    """A handler that notes what it runs, and who of one key ran at the same moment; some numbers it holds."""

    def __init__(self, *held: int) -> None:
        """`held`: what runs until it is let go, or told to stop."""
        self.starts: list[tuple[str, int]] = []
        self.contexts: list[Context] = []
        self.overlaps: list[tuple[str, int]] = []
        self._running: Counter[str] = Counter()
        self._started: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._gates = {number: asyncio.Event() for number in held}

    async def __call__(self, ctx: Context, payload: Keyed) -> int:
        """Run a task, or the cleanup of one, which counts as another kind."""
        kind = f"undo-{ctx.kind}" if ctx.task.is_cancelled else ctx.kind
        with_key = payload.user or ctx.task_id
        self.starts.append((kind, payload.n))
        self.contexts.append(ctx)
        if self._running[with_key]:
            self.overlaps.append((kind, payload.n))
        self._running[with_key] += 1
        self._started[payload.n].set()
        try:
            if payload.n in self._gates and not ctx.task.is_cancelled:
                await self._gates[payload.n].wait()
            else:
                await asyncio.sleep(0.002)  # work: whoever may not run beside it would have the time to
        finally:
            self._running[with_key] -= 1
        return payload.n

    @property
    def numbers(self) -> list[int]:
        """What was started, in this order."""
        return [number for _, number in self.starts]

    @property
    def firsts(self) -> list[int]:
        """What was started, each once, by its first start."""
        return list(dict.fromkeys(self.numbers))

    def by_user(self) -> dict[str, list[int]]:
        """What was started of each key."""
        users: dict[str, list[int]] = {}
        for ctx in self.contexts:
            assert isinstance(ctx.payload, Keyed)
            users.setdefault(ctx.payload.user or "", []).append(ctx.payload.n)
        return users

    def let_go(self, *numbers: int) -> None:
        """Let these end."""
        for number in numbers:
            self._gates[number].set()

    async def started(self, number: int) -> None:
        """Wait until a number was started."""
        await asyncio.wait_for(self._started[number].wait(), LIMIT)


def keyed_app(handler: Callable[[Context, Any], Any], *kinds: type[Payload], **options: Any) -> App:
    """Give an App in which this function handles these kinds, `Keyed` where none is given."""
    app = App()
    for kind in kinds or (Keyed,):
        app.handler(kind, **{"retry": SOON, **options})(handler)
    return app


async def enqueue_keyed(
    client: Client, *numbers: int, user: str | None = KEY, **options: Unpack[EnqueueOptions]
) -> list[str]:
    """Enqueue tasks of one user with these numbers, in this order, and give their ids."""
    receipts = await client.enqueue_many([Keyed(n=n, user=user) for n in numbers], **options)
    return [receipt.task_id for receipt in receipts]


async def lock_of(client: Client, key: str = KEY) -> Lock | None:
    """Read the lock of a key."""
    (lock,) = await client.store.locks([key])
    return lock


async def held_by_hand(
    client: Client, task_id: str, *, seconds: float = 600, lease_id: str = "of-another"
) -> tuple[Task, Lock]:
    """Take a key together with a task as a worker would, and do nothing more; gives both as they are stored."""
    task, now = await client.get_task(task_id), await client.store.now()
    until = now.latest + timedelta(seconds=seconds)
    claim = lifecycle.claim(task, lease_id=lease_id, until=until, now=now)
    change = lifecycle.lock(not_none(task.resource_key), None, owner=lease_id, until=until)
    claimed, locked = await client.store.commit([claim], (), None, [change])
    lock = replace(not_none(change.after), version=not_none(locked.version))
    return claim.after.evolve(version=not_none(claimed.version)), lock


async def shifted(place: Place, shift: Shift) -> Client:
    """Give a fresh client, open, whose time is moved by `shift`."""
    client = place.connect()
    await client.store.open()
    shift.of(client.store)
    return client


async def soon(event: asyncio.Event) -> None:
    """Wait for something that comes; fails loudly."""
    await asyncio.wait_for(event.wait(), LIMIT)


class Commits:
    """Notes what a store commits, and lets a test meddle with it before and after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: TaskStore) -> None:
        """`store`: of one client."""
        self.sent: list[tuple[list[Transition], list[LockChange]]] = []
        self._commit = store.commit
        monkeypatch.setattr(store, "commit", self)

    async def __call__(
        self, transitions: Sequence[Transition], creates: Sequence[Task], batch: Any, locks: Sequence[LockChange] = ()
    ) -> list[Written]:
        """Commit."""
        self.sent.append((list(transitions), list(locks)))
        await self.before(transitions, locks)
        written = await self._commit(transitions, creates, batch, locks)
        await self.after(transitions, locks)
        return written

    async def before(self, transitions: Sequence[Transition], locks: Sequence[LockChange]) -> None:
        """Do something before it is sent."""

    async def after(self, transitions: Sequence[Transition], locks: Sequence[LockChange]) -> None:
        """Do something when it is stored, or refused."""

    @property
    def taken(self) -> int:
        """How often a key was taken."""
        return sum(change.before is None for _, locks in self.sent for change in locks)

    @property
    def released(self) -> int:
        """How often a key was let go."""
        return sum(change.after is None for _, locks in self.sent for change in locks)
