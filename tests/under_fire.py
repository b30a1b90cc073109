"""Processes that share resource keys while they are killed and stopped, and a witness; for a test and a benchmark.

The witness is a table of its own, which nothing of oncetask knows: who ran what of which key, from when until when, and
who was killed or stopped when. The clock is the machine's monotonic one, which all of its processes share.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from oncetask import App, Client, Context, FixedDelay, Payload, Worker, connect

__all__ = ["LEASE_SECONDS", "Fire", "Keyed", "Verdict", "Witness", "share_keys"]

LEASE_SECONDS = 2.0
_STOPPED_SECONDS = 1.5 * LEASE_SECONDS
_FAILS_ONE_IN = 20
_ROOT = Path(__file__).parents[1]


class Keyed(Payload, kind="keyed"):
    """The number of a task, and the key that it shares with others."""

    number: int
    key: str

    def resource_key(self) -> str:
        """Give the key."""
        return self.key


@dataclass(frozen=True)
class Run:
    """One call of a handler; `until`: when it ended, or its process was killed."""

    key: str
    number: int
    pid: int
    since: float
    until: float


@dataclass
class Verdict:
    """What the witness saw."""

    runs: int = 0
    overlaps: list[tuple[Run, Run]] = field(default_factory=list)
    """Two of one key at one moment, neither of a process that was stopped for longer than its lease."""
    out_of_order: list[tuple[Run, Run]] = field(default_factory=list)
    """First starts of one key, the later number first."""
    never: set[int] = field(default_factory=set)
    excused: int = 0
    """Overlaps with the rest of a run whose process had been stopped for longer than its lease."""


class Witness:
    """The table; a connection for each process."""

    def __init__(self, path: Path) -> None:
        self._sql = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA synchronous = OFF")  # processes die here, not machines
        self._sql.execute("CREATE TABLE IF NOT EXISTS runs (key, number, pid, since, until)")
        self._sql.execute("CREATE TABLE IF NOT EXISTS faults (pid, what, since, until)")

    def begins(self, key: str, number: int) -> int:
        """Note that a handler starts; gives the row."""
        values = (key, number, os.getpid(), time.monotonic())
        row = self._sql.execute("INSERT INTO runs VALUES (?, ?, ?, ?, NULL)", values).lastrowid
        assert row is not None
        return row

    def ends(self, row: int) -> None:
        """Note that it has ended."""
        self._sql.execute("UPDATE runs SET until = ? WHERE rowid = ?", (time.monotonic(), row))

    def fault(self, pid: int, what: str, since: float) -> None:
        """Note what was done to a process."""
        self._sql.execute("INSERT INTO faults VALUES (?, ?, ?, ?)", (pid, what, since, time.monotonic()))

    def judge(self, numbers: range) -> Verdict:
        """Say what was seen."""
        faults = self._sql.execute("SELECT pid, what, since, until FROM faults").fetchall()
        killed = {pid: until for pid, what, _, until in faults if what == "killed"}
        stopped = [(pid, since, until) for pid, what, since, until in faults if what == "stopped"]
        rows = self._sql.execute("SELECT key, number, pid, since, until FROM runs ORDER BY since").fetchall()
        now = time.monotonic()
        runs = [Run(key, n, pid, since, until or killed.get(pid, now)) for key, n, pid, since, until in rows]
        verdict = Verdict(runs=len(runs), never=set(numbers) - {run.number for run in runs})
        for key in {run.key for run in runs}:
            its = [run for run in runs if run.key == key]
            for one, other in _overlapping(its):
                if _was_stopped(one, stopped) or _was_stopped(other, stopped):
                    verdict.excused += 1
                else:
                    verdict.overlaps.append((one, other))
            firsts = list({run.number: run for run in reversed(its)}.values())
            firsts.sort(key=lambda run: run.since)
            verdict.out_of_order += [pair for pair in itertools.pairwise(firsts) if pair[0].number > pair[1].number]
        return verdict

    def close(self) -> None:
        """Let go of the file."""
        self._sql.close()


def _overlapping(runs: list[Run]) -> Iterator[tuple[Run, Run]]:
    """Give the pairs that ran at one moment; the runs are of one key, in the order of their starts."""
    for place, one in enumerate(runs):
        for other in runs[place + 1 :]:
            if other.since >= one.until:
                continue
            yield one, other


def _was_stopped(run: Run, stopped: list[tuple[int, float, float]]) -> bool:
    """Tell whether a run's process stood still for longer than its lease while it ran."""
    return any(
        pid == run.pid and since < run.until and until > run.since and until - since > LEASE_SECONDS
        for pid, since, until in stopped
    )


class Fire:
    """Keeps a number of worker processes alive, and kills or stops one of them at random when it is told to."""

    def __init__(self, environment: dict[str, str], witness: Path, *, processes: int, seed: int) -> None:
        """`environment`: of the processes; it says where the store is."""
        self._environment = environment
        self._path = witness
        self._number = processes
        self._random = random.Random(seed)  # noqa: S311  # a test's lots
        self._workers: list[asyncio.subprocess.Process] = []
        self.witness = Witness(witness)

    async def start(self) -> None:
        """Start them all."""
        self._workers = [await self._spawn() for _ in range(self._number)]

    async def strike(self) -> None:
        """Kill one of them and start another in its place; or stop it for longer than its lease."""
        place, since = self._random.randrange(self._number), time.monotonic()
        worker = self._workers[place]
        if self._random.random() < 0.3:
            worker.send_signal(signal.SIGSTOP)
            await asyncio.sleep(_STOPPED_SECONDS)
            self.witness.fault(worker.pid, "stopped", since)
            worker.send_signal(signal.SIGCONT)
        else:
            worker.kill()
            await worker.wait()
            self.witness.fault(worker.pid, "killed", since)
            self._workers[place] = await self._spawn()

    async def aclose(self) -> None:
        """Kill what is left."""
        for worker in self._workers:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()
        self.witness.close()

    async def _spawn(self) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "tests.under_fire", str(self._path))
        return await asyncio.create_subprocess_exec(*command, cwd=_ROOT, env=self._environment)


async def share_keys(client: Client, fire: Fire, *, tasks: int, keys: int, strikes: int) -> Verdict:
    """Enqueue tasks of some keys, let the processes run them under fire, and give what the witness saw.

    Waits until all are done; the caller's time limit is the bound.
    """
    receipts = await client.enqueue_many([Keyed(number=n, key=f"key-{n % keys}") for n in range(tasks)])
    await fire.start()
    for receipt in receipts[:: max(1, tasks // strikes)]:
        await client.wait(receipt.task_id)
        await fire.strike()
    left = [receipt.task_id for receipt in receipts]
    while left := [task.id for task in await client.get_tasks_by_ids(left) if task.outcome != "completed"]:
        await client.wait(left[0])
    return fire.witness.judge(range(tasks))


async def main(path: Path) -> None:
    """Work until killed."""
    app = App("under fire")
    with closing(Witness(path)) as witness:

        @app.handler(Keyed, timeout=10, retry=FixedDelay(1_000, 0.02))
        async def handle(_: Context, keyed: Keyed) -> None:
            row = witness.begins(keyed.key, keyed.number)
            try:
                await asyncio.sleep(0.002)  # so that there is a while in which it runs
                if random.randrange(_FAILS_ONE_IN) == 0:  # noqa: S311  # a test's lots
                    msg = "now and then it fails"
                    raise RuntimeError(msg)
            finally:
                witness.ends(row)

        async with connect() as client:
            await Worker(app, client, lease=LEASE_SECONDS, grace=0.2).run(handle_signals=True)


if __name__ == "__main__":
    import logging

    logging.getLogger("oncetask").setLevel(logging.CRITICAL)  # it fails, and loses leases, on purpose
    asyncio.run(main(Path(sys.argv[1])))
