"""Several workers at the same generators, and workers that die between two writes: every instant once, none missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from oncetask import App, Client, Recurrence, Worker
from oncetask.errors import StoreUnavailable
from oncetask.schedules import reconcile
from oncetask.store import TaskStore
from tests.integration.places import Place
from tests.integration.worker.support import LIMIT, Job
from tests.racing import Witness, an_app, race
from tests.support import Shift

LASTING: Any = {"poll": 0.05, "lease": timedelta(days=1)}
"""Options of workers that notice soon when a test has moved the time, and whose leases outlast that."""


@pytest.fixture
async def shift() -> Shift:
    """Moves the time of all stores of a test together."""
    return Shift()


@pytest.fixture
def connect(place: Place, shift: Shift) -> Callable[[], Awaitable[Client]]:
    """Give further clients under the same moved time."""

    async def connect() -> Client:
        client = place.connect()
        await client.store.open()
        shift.of(client.store)
        return client

    return connect


async def first_instant(client: Client) -> datetime:
    """Give a moment a minute from now, in whole seconds."""
    return (await client.store.now()).latest.replace(microsecond=0) + timedelta(minutes=1)


@pytest.mark.timeout(120)
async def test_two_workers_and_one_that_comes_and_goes(
    place: Place, connect: Callable[[], Awaitable[Client]], shift: Shift
) -> None:
    """Fifty generators for a hundred minutes, with workers of which one drains, ends and begins anew all the time.

    On the emulator it is fewer minutes: its listeners read every document that was ever written. `python -m benchmarks`
    has the rest.
    """
    runs = 6 if "firestore" in place.url else 100
    witness, expected = await race([await connect() for _ in range(3)], shift, generators=50, runs=runs)
    assert witness.runs.keys() == expected
    assert set(witness.runs.values()) == {1}


class Crash:
    """Lets a store die at its n-th write: before it, or after it but before its answer. What is dead writes nothing."""

    def __init__(self, at: int, *, before: bool) -> None:
        self.left = at
        self._before = before
        self.died = asyncio.Event()

    def of(self, store: TaskStore) -> None:
        """Put a store under this."""
        for verb in ("create", "apply", "commit", "write_settings"):
            setattr(store, verb, self._deadly(getattr(store, verb)))

    def _deadly(self, write: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def written(*args: Any) -> Any:
            if self.died.is_set():
                raise StoreUnavailable("dead")
            self.left -= 1
            if self.left > 0:
                return await write(*args)
            self.died.set()
            if not self._before:
                await write(*args)
            raise StoreUnavailable("dead")

        return written


async def work_until_dead(
    app: App, client: Client, crash: Crash, live: Callable[[], Coroutine[Any, Any, None]]
) -> asyncio.Task[None]:
    """Let a worker work until it dies, or is done with what `live` waits for; gives it, on its way out."""
    crash.of(client.store)
    worker = asyncio.create_task(Worker(app, client, grace=0, **LASTING).run())
    living, died = asyncio.create_task(live()), asyncio.create_task(crash.died.wait())
    await asyncio.wait({living, died, worker}, return_when=asyncio.FIRST_COMPLETED)
    for task in (worker, living, died):
        task.cancel()
    await asyncio.wait({living, died})
    return worker


@asynccontextmanager
async def hurrying(shift: Shift) -> AsyncIterator[None]:
    """Let time run a thousand times as fast."""

    async def hurry() -> None:
        while True:
            shift.advance(20)
            await asyncio.sleep(0.02)

    hurrying = asyncio.create_task(hurry())
    yield
    hurrying.cancel()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("overlap", ["allow", "cancel-previous"])
@pytest.mark.timeout(120)
async def test_killed_between_any_two_writes(
    connect: Callable[[], Awaitable[Client]], shift: Shift, overlap: Any, before: bool
) -> None:
    """A worker that dies at any write leaves nothing half done: another one finds what is left, and every instant."""
    outside = await connect()
    at, died, dead = 0, True, set[asyncio.Task[None]]()
    while died:
        at += 1
        start, witness = await first_instant(outside), Witness()
        rule = Recurrence("FREQ=MINUTELY;COUNT=3", start, catch_up="all", overlap=overlap)
        generator = f"g{at}"
        app = an_app(witness)
        app.schedule(f"d{at}", Job(n=-1), Recurrence("FREQ=YEARLY", start + timedelta(days=999)))
        await outside.enqueue(Job(n=at), task_id=generator, recurrence=rule)

        async def live(start: datetime = start, witness: Witness = witness, generator: str = generator) -> None:
            for run in range(3):
                shift.advance(60)
                await witness.has(run + 1)
            await outside.wait(generator, LIMIT)

        crash = Crash(at, before=before)
        dead.add(await work_until_dead(app, await connect(), crash, live))
        died = crash.died.is_set()
        shift.advance(timedelta(days=1).total_seconds())  # leases of the dead run out
        async with hurrying(shift), Worker(app, await connect(), **LASTING):
            ended = await outside.wait(generator, LIMIT)
            spawned = [task async for task in outside.iter_tasks(parent=generator)]
            for task in spawned:
                await outside.wait(task.id, LIMIT)
            declared = await outside.get_task(f"default:d{at}")

        instants = {task.occurrence_timestamp for task in spawned}
        assert ended.outcome == "completed"
        assert declared.wait_until == start + timedelta(days=999)
        if overlap == "allow":
            assert instants == {start + timedelta(minutes=m) for m in range(3)}, at
            assert {instant for _, instant in witness.runs} == instants, at
        else:
            assert max(filter(None, instants)) == start + timedelta(minutes=2), at
    assert at > 5  # there were that many writes to die at
    await asyncio.wait(dead)


@pytest.mark.timeout(120)
async def test_reconciling_is_killed_between_any_two_writes(connect: Callable[[], Awaitable[Client]]) -> None:
    """Whoever starts next brings the rest about, and what was there already is not written again."""
    outside = await connect()
    for before in (True, False):
        for at in range(1, 5):
            name = f"shop-{before}-{at}"
            app = App(name)
            for n in range(2):
                app.schedule(f"n{n}", Job(n=n), Recurrence.cron("0 2 * * *"))
            client, crash = await connect(), Crash(at, before=before)
            crash.of(client.store)
            try:
                await reconcile(client.store, {name}, app.schedules(), client.telemetry)
            except StoreUnavailable:
                assert crash.died.is_set()
            await reconcile(outside.store, {name}, app.schedules(), outside.telemetry)
            tasks = await outside.get_tasks_by_ids([f"{name}:n0", f"{name}:n1"])
            assert [task.data for task in tasks] == [{"n": 0}, {"n": 1}]
            known = (await outside.store.settings()).fields["schedules"][name]
            assert known.keys() == {"n0", "n1"}
