"""Processes that are killed right before, within or right after a write: a fresh worker brings all to its end, once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from oncetask import Client, Recurrence, Task, TaskNotFound, TaskStatus, Worker
from oncetask.task import occurrence_id
from tests.integration.faults.dying import MANY, Fate, Keyed, Plain, Staging, When, an_app, as_line, enqueue_many
from tests.integration.faults.processes import LIMIT
from tests.integration.places import Place
from tests.support import Shift

_ROOT = Path(__file__).parents[3]
_FOR_THE_LEASE_SECONDS = 120
_DIED = -signal.SIGKILL

_EVERY_TIME = pytest.mark.parametrize(
    ("opened_place", "when"),
    [
        *(("sqlite", when) for when in ("before", "within", "after")),
        *(pytest.param("firestore", when, marks=pytest.mark.emulator) for when in ("before", "after")),
    ],
    indirect=["opened_place"],
)
"""Only SQLite's transactions can be looked into."""


class Nursery:
    """The process from which those who die are forked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ends(self, fate: Fate, environment: dict[str, str]) -> int:
        """Let a process meet its fate; gives what `Popen.returncode` would be."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.integration.faults.dying"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, cwd=_ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(as_line(fate))
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=LIMIT)
            self._process.kill()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """One for all tests of this module: importing takes longer than dying."""
    made = Nursery()
    yield made
    made.close()


class Ward:
    """A store on which somebody dies, and what is found there afterwards."""

    def __init__(self, client: Client, place: Place, nursery: Nursery, witness: Path) -> None:
        self.client = client
        self._place = place
        self._nursery = nursery
        self._witness = witness

    async def dies(self, point: str, when: When) -> None:
        """Let a process die there; fails if it ends in another way."""
        emulator = self._place.environment.get("FIRESTORE_EMULATOR_HOST", "")
        fate = Fate(point, when, str(self._witness), self._place.url, emulator)
        assert await asyncio.to_thread(self._nursery.ends, fate, self._place.environment) == _DIED

    async def brought_to_its_end(self, *task_ids: str) -> dict[str, Task]:
        """Let a fresh worker, for whom all leases have ended, run what there is; gives it once these are done."""
        client, late = self._place.connect(), Shift()
        await client.store.open()
        late.of(client.store)
        late.advance(_FOR_THE_LEASE_SECONDS)
        async with Worker(an_app(self._witness), client):
            await _all_done(self.client, task_ids)
        assert await client.store.locks(["key"]) == [None]
        return {task.id: task async for task in self.client.iter_tasks()}

    def runs(self) -> Counter[str]:
        """Count the runs of each task's handler."""
        return Counter(self._witness.read_text().split() if self._witness.exists() else ())


@pytest.fixture
def ward(connected: Client, place: Place, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """A store of this test's own; what is rescued there waits as short as it may."""
    monkeypatch.setattr("oncetask.retry.random.uniform", lambda low, _: low)
    return Ward(connected, place, nursery, tmp_path / "witness")


async def _all_done(client: Client, ids: Sequence[str]) -> None:
    """Wait until all of these exist and are done."""
    async with asyncio.timeout(LIMIT):
        while left := set(ids) - {task.id for task in await client.get_tasks_by_ids(ids) if task.status.is_done}:
            with suppress(TaskNotFound):  # it is on its way yet
                await client.wait(min(left))
            await asyncio.sleep(0.02)


def _attempts(tasks: dict[str, Task]) -> dict[str, int]:
    """Give the attempts of what has completed; the rest, and errors that are no lost lease, fail."""
    for task in tasks.values():
        assert task.status is TaskStatus.DONE_COMPLETED
        assert [error.type for error in task.errors] == ["LeaseLost"] * max(0, task.attempts - 1)
    return {task.id: task.attempts for task in tasks.values()}


@_EVERY_TIME
async def test_an_enqueue(ward: Ward, when: When) -> None:
    """A task whose enqueue did not return is there or not; repeating the call makes it one."""
    await ward.dies("enqueue", when)
    receipt = await ward.client.enqueue(Plain(), task_id="mine")
    assert receipt.created is (when != "after")
    assert _attempts(await ward.brought_to_its_end("mine")) == {"mine": 1}
    assert ward.runs() == {"mine": 1}


async def test_the_middle_of_many_enqueues(ward: Ward) -> None:
    """Of many tasks some are stored; the same call again stores the others, and each runs once."""
    await ward.dies("midway", "after")
    stored = [task.id async for task in ward.client.iter_tasks()]
    assert 0 < len(stored) <= MANY
    assert await enqueue_many(ward.client) <= MANY - len(stored)  # fewer where the server was not yet through
    ids = [f"many-{n}" for n in range(MANY)]
    assert _attempts(await ward.brought_to_its_end(*ids)) == dict.fromkeys(ids, 1)
    assert ward.runs() == dict.fromkeys(ids, 1)


@_EVERY_TIME
async def test_a_claim(ward: Ward, when: When) -> None:
    """Three tasks that are claimed together: an attempt is spent if the claim was stored, and no handler had run."""
    ids = ["a", "b", "c"]
    await ward.client.enqueue_many([Plain(n=n) for n in range(3)], task_ids=ids)
    await ward.dies("claim", when)
    assert _attempts(await ward.brought_to_its_end(*ids)) == dict.fromkeys(ids, 2 if when == "after" else 1)
    assert ward.runs() == dict.fromkeys(ids, 1)


@_EVERY_TIME
async def test_a_completion(ward: Ward, when: When) -> None:
    """What was not recorded runs again, what was does not."""
    await ward.client.enqueue(Plain(), task_id="a")
    await ward.dies("completion", when)
    times = 1 if when == "after" else 2
    assert _attempts(await ward.brought_to_its_end("a")) == {"a": times}
    assert ward.runs() == {"a": times}


@_EVERY_TIME
async def test_a_completion_with_staged_tasks(ward: Ward, when: When) -> None:
    """Completion and staged tasks are stored together or not at all, so each of these exists, and runs, once."""
    await ward.client.enqueue(Staging(), task_id="a")
    await ward.dies("staging completion", when)
    staged = [f"staged-{n}" for n in range(3)]
    assert len(await ward.client.get_tasks_by_ids(staged)) == (3 if when == "after" else 0)
    times = 1 if when == "after" else 2
    assert _attempts(await ward.brought_to_its_end("a", *staged)) == {"a": times, **dict.fromkeys(staged, 1)}
    assert ward.runs() == {"a": times, **dict.fromkeys(staged, 1)}


@_EVERY_TIME
@pytest.mark.parametrize(
    ("point", "unwritten", "written"),
    [
        ("taking a key", ({"a": 1, "b": 1}, {"a": 1, "b": 1}), ({"a": 2, "b": 1}, {"a": 1, "b": 1})),
        ("next of a key", ({"a": 2, "b": 1}, {"a": 2, "b": 1}), ({"a": 1, "b": 2}, {"a": 1, "b": 1})),
        ("letting a key go", ({"a": 1, "b": 2}, {"a": 1, "b": 2}), ({"a": 1, "b": 1}, {"a": 1, "b": 1})),
    ],
)
async def test_the_run_of_a_resource_key(
    ward: Ward,
    when: When,
    point: str,
    unwritten: tuple[dict[str, int], dict[str, int]],
    written: tuple[dict[str, int], dict[str, int]],
) -> None:
    """Lock and tasks change together: whoever comes next finds the key free, or takes it over, and goes on in order."""
    await ward.client.enqueue_many([Keyed(n=n) for n in range(2)], task_ids=["a", "b"])
    await ward.dies(point, when)
    attempts, runs = written if when == "after" else unwritten
    assert _attempts(await ward.brought_to_its_end("a", "b")) == attempts
    assert ward.runs() == runs


@_EVERY_TIME
async def test_the_spawn_of_occurrences(ward: Ward, when: When) -> None:
    """Occurrences and the generator's place are stored together: each instant has one task, which runs once."""
    begin = (await ward.client.store.now()).latest.replace(microsecond=0) + timedelta(seconds=1)
    rule = Recurrence("FREQ=SECONDLY;COUNT=5", begin, catch_up="all")
    await ward.client.enqueue(Plain(), task_id="generator", recurrence=rule)
    await ward.dies("spawning", when)
    assert [task async for task in ward.client.iter_tasks(parent="generator")] == [] or when == "after"
    ids = [occurrence_id("generator", begin + timedelta(seconds=n)) for n in range(5)]
    tasks = await ward.brought_to_its_end("generator", *ids)
    assert _attempts(tasks) == {"generator": 0, **dict.fromkeys(ids, 1)}
    assert ward.runs() == dict.fromkeys(ids, 1)
