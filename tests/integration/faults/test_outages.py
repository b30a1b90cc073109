"""Firestore goes away under load, for a while and in several ways: workers wait, and everything is done once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oncetask import App, Client, Context, FixedDelay, Payload, StoreUnavailable, TaskStatus, Worker, connect
from oncetask.store.firestore import connection
from tests.emulator import Startable, locate
from tests.emulator_plugin import pass_over
from tests.integration.faults.emulators import Emulator
from tests.integration.faults.network import Network
from tests.integration.faults.processes import LIMIT, eventually

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(120)]

_NUMBER = 100
_PART = 10
_SECONDS_AWAY = 3.0
_LONGEST_LEASE_MS = 60_000
_KEEP_ALIVE = {"grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"}


class Job(Payload, kind="job"):
    """Takes a moment."""

    n: int


class Follow(Payload, kind="follow"):
    """Is staged by each job."""


class Load:
    """A worker and a client on one network, and what the worker's handlers did."""

    def __init__(self, worker: Client, client: Client) -> None:
        """Take two clients."""
        self.client = client
        self.runs: Counter[str] = Counter()
        self._some_ran = asyncio.Event()
        app = App(retry=FixedDelay(20, 0.05))

        @app.handler(Job)
        async def job(ctx: Context, _: Job) -> None:
            self.runs[ctx.task_id] += 1
            if len(self.runs) > _NUMBER // 4:
                self._some_ran.set()
            ctx.enqueue(Follow(), task_id=f"follows-{ctx.task_id}")
            await asyncio.sleep(0.02)

        @app.handler(Follow)
        async def follow(ctx: Context, _: Follow) -> None:
            self.runs[ctx.task_id] += 1

        self.worker = Worker(app, worker, concurrency=4, poll=600)

    async def enqueue(self, *, first: int = 0, last: int = _NUMBER) -> None:
        """Enqueue tasks, one part after the other, each until the store says that it has it."""
        for start in range(first, last, _PART):
            numbers = range(start, start + _PART)
            while True:
                try:
                    await self.client.enqueue_many([Job(n=n) for n in numbers], task_ids=[f"job-{n}" for n in numbers])
                except StoreUnavailable:
                    continue
                break

    @asynccontextmanager
    async def interrupted(self) -> AsyncIterator[None]:
        """Run the block while tasks run and others are enqueued; then wait until all of them are done, and look on."""
        await self.enqueue(last=_NUMBER // 2)
        async with self.worker:
            await asyncio.wait_for(self._some_ran.wait(), LIMIT)
            enqueueing = asyncio.create_task(self.enqueue(first=_NUMBER // 2))
            yield
            await asyncio.wait_for(enqueueing, LIMIT)
            await self.nothing_pending()
            await self.all_done()
            await self.hears_again()

    async def nothing_pending(self) -> None:
        """Wait until nothing is left to do."""

        async def is_so() -> bool:
            return await self.client.pending_count() == 0

        await eventually(is_so, seconds=60)

    async def all_done(self) -> None:
        """Look at everything that was enqueued or staged: each is there once, and completed."""
        wanted = {f"job-{n}" for n in range(_NUMBER)} | {f"follows-job-{n}" for n in range(_NUMBER)}
        tasks = {task.id: task async for task in self.client.iter_tasks()}
        assert set(tasks) == wanted
        assert {task.outcome for task in tasks.values()} == {"completed"}
        assert {error.type for task in tasks.values() for error in task.errors} <= {"LeaseLost"}
        again = {task_id for task_id, times in self.runs.items() if times > 1}
        assert again <= {task.id for task in tasks.values() if task.attempts > 1}
        assert set(self.runs) == wanted

    async def hears_again(self) -> None:
        """Enqueue something that nobody but the doorbell tells the worker of, which polls every ten minutes."""
        receipt = await self.client.enqueue(Follow(), task_id="last")
        assert (await self.client.wait(receipt.task_id, LIMIT)).status is TaskStatus.DONE_COMPLETED


@pytest.fixture
async def network(emulator_host: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    """The way to the emulator."""
    async with Network(emulator_host) as network:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", network.host)
        yield network


@asynccontextmanager
async def _connected(project: str) -> AsyncIterator[Load]:
    """Give a worker and a client, each with a connection of its own."""
    async with connect(f"firestore://{project}") as worker, connect(f"firestore://{project}") as client:
        yield Load(worker, client)


@pytest.fixture
async def load(network: Network, project_id: str) -> AsyncIterator[Load]:
    """A worker and a client on the network."""
    async with _connected(project_id) as load:
        yield load


async def test_it_is_cut_off(load: Load, network: Network) -> None:
    """All connections break, and none can be made for some seconds: then the rest is done, and the doorbell rings."""
    async with load.interrupted():
        network.cut()
        await asyncio.sleep(_SECONDS_AWAY)
        network.mend()


async def test_a_slow_network_that_breaks_again_and_again(load: Load, network: Network) -> None:
    """With latency each way, and connections reset in the middle of what they carry, everything is done once."""
    network.delay, network.reset_after = 0.005, 50_000
    async with load.interrupted():
        await load.nothing_pending()
        assert network.resets > 0
        network.reset_after = None  # a list of all tasks would never come through


async def test_connections_that_fall_silent(network: Network, project_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that swallow everything are noticed by keep-alive, and new ones are made, for the doorbell too."""
    options = dict(connection._OPTIONS)
    assert options["grpc.keepalive_time_ms"] + options["grpc.http2.ping_timeout_ms"] < _LONGEST_LEASE_MS
    quick = {name: value // 15 for name, value in options.items() if name in _KEEP_ALIVE}
    monkeypatch.setattr(connection, "_OPTIONS", tuple({**options, **quick}.items()))
    async with _connected(project_id) as load, load.interrupted():
        network.fall_silent()
        await load.nothing_pending()
        network.fall_silent()


async def test_the_emulator_restarts(
    tmp_path: Path, project_id: str, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """It is killed under load and comes up with an export, in which every document has another version: all is done."""
    environment = {name: value for name, value in os.environ.items() if name != "FIRESTORE_EMULATOR_HOST"}
    location = await asyncio.to_thread(locate, environment)
    if not isinstance(location, Startable):
        pass_over(pytestconfig, "needs an emulator that it can start itself")
    async with Emulator(location, tmp_path) as emulator, Network(emulator.host) as network:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", network.host)
        async with _connected(project_id) as load, load.interrupted():
            network.cut()  # nobody writes between the export and the end
            export = await emulator.export(project_id)
            await emulator.kill()
            await emulator.start(export)
            network.target = emulator.host
            network.mend()
