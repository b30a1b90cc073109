"""A process that is stopped while its handlers run, and goes on when others have its tasks: it writes nothing more."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from oncetask import Client, Task, TaskStatus, Worker
from oncetask.clock import EPOCH
from oncetask.lock import Lock
from tests.integration.faults.processes import LIMIT, Program, Programs
from tests.integration.faults.stopping import Ending, KeyedEnding, Probe, an_app
from tests.integration.places import Place
from tests.support import Shift

_PROGRAM = "tests.integration.faults.stopping"
_WAYS = ("returns", "fails", "discards", "snoozes", "retries later", "tells")
_LOST = {"held", "lease"}


class Scene:
    """What is stored: every task and the locks of two keys, as they were read."""

    def __init__(self, client: Client, gate: Path) -> None:
        """`gate`: a file that does not exist yet."""
        self._client = client
        self._gate = gate

    async def enqueue(self) -> None:
        """Store a task for each way in which a handler may end, some of them in lines of resource keys.

        The second line stands still behind its first task, as long as whoever runs that is not let go.
        """
        of = len(_WAYS) + 3
        plain = [Ending(how=how, of=of) for how in _WAYS]
        await self._client.enqueue_many(plain, task_ids=[payload.how for payload in plain])
        await self._client.enqueue(Ending(how="returns", of=of, gate=self._gate), task_id="held")
        for task_id, key, gate in (("keyed", "k1", None), ("locked", "k2", self._gate), ("behind", "k2", None)):
            payload = KeyedEnding(how="returns", of=of, key=key, gate=gate)
            await self._client.enqueue(payload, task_id=task_id)

    async def stored(self) -> tuple[dict[str, Task], list[Lock | None]]:
        """Read everything, versions included."""
        tasks = {task.id: replace(task, read_at=EPOCH) async for task in self._client.iter_tasks()}
        return tasks, await self._client.store.locks(["k1", "k2"])

    async def taken_over(self) -> None:
        """Wait until the second worker has done what it can, and holds the rest."""
        for task_id in (*_WAYS, "keyed"):
            task = await self._client.wait(task_id, LIMIT)
            assert (task.status, task.result) == (TaskStatus.DONE_COMPLETED, "second")
        for task_id in ("held", "locked"):
            async with asyncio.timeout(LIMIT):
                async for task in self._client.watch(task_id):
                    if task.status is TaskStatus.LEASED and task.attempts == 2:
                        break

    async def let_go(self) -> None:
        """Let the second worker end what it holds."""
        self._gate.touch()
        for task_id in ("held", "locked", "behind"):
            assert (await self._client.wait(task_id, LIMIT)).result == "second"


async def _said_to_be_lost(first: Program) -> None:
    """Wait until the log has said of each task that it is lost."""
    for task_id in (*_WAYS, "held", "keyed", "locked"):
        line = await first.logged("task", task_id)
        assert any(word in line for word in _LOST), line


async def test_a_worker_that_comes_back_writes_nothing(connected: Client, programs: Programs, tmp_path: Path) -> None:
    """After SIGCONT no result, failure, progress or staged task of a lost lease is stored; the worker goes on."""
    scene = Scene(connected, tmp_path / "gate")
    await scene.enqueue()
    first = await programs.start(_PROGRAM, "first")
    await first.stopped()
    second = await programs.start(_PROGRAM, "second")
    await scene.taken_over()
    before = await scene.stored()

    first.go_on()
    await _said_to_be_lost(first)

    assert await scene.stored() == before
    await scene.let_go()
    tasks, locks = await scene.stored()
    assert not [task_id for task_id in tasks if task_id.startswith("staged-first")]
    assert locks == [None, None]
    assert await second.terminated() == 0
    await _runs_another(connected, first.pid)
    assert await first.terminated() == 0


async def test_a_tick_that_comes_back_writes_nothing(
    connected: Client, place: Place, programs: Programs, tmp_path: Path
) -> None:
    """A tick whose leases ran out while it was stopped writes nothing either; what is due it still runs."""
    scene = Scene(connected, tmp_path / "gate")
    await scene.enqueue()
    first = await programs.start(_PROGRAM, "tick")
    await first.stopped()
    late = Shift()
    late.advance(100)
    async with _second_worker(place, late):
        await scene.taken_over()
        before = await scene.stored()

        first.go_on()
        await _said_to_be_lost(first)

        assert await scene.stored() == before
        await scene.let_go()
    report: dict[str, Any] = await first.told()
    assert await first.ended() == 0
    assert (report["completed"], report["retried"], report["failed"]) == (0, 0, 0)


def _second_worker(place: Place, late: Shift) -> Worker:
    """Make a worker for whom it is so much later already."""
    client = place.connect()
    late.of(client.store)
    return Worker(an_app("second"), client, grace=0.2)


async def _runs_another(client: Client, pid: int) -> None:
    receipt = await client.enqueue(Probe())
    assert (await client.wait(receipt.task_id, LIMIT)).result == pid
