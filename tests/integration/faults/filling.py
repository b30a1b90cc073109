"""A backend and a worker on a disk that fills up: `python -m tests.integration.faults.filling HOW FOLDER`.

HOW is "disk", for a small file system that is filled with a file, or "limit", for a limit on the size of this process's
files. What was seen is told on stdout.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from oncetask import App, Client, Context, Payload, StoreUnavailable, Worker, connect
from oncetask.store.sqlite import SqliteStore

__all__ = ["Job", "report_of"]

_ROOM_BYTES = 250_000
_FULL_SECONDS = 2.5
_MANY = 500


class Job(Payload, kind="job"):
    """Some kilobytes, so that a disk is full soon."""

    padding: str = "x" * 2_000
    holds: bool = False


class _Disk(ABC):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def fill(self, *, room: int) -> None:
        """Leave so many bytes, more or less."""

    @abstractmethod
    def free(self) -> None:
        """Make room again."""


class _SmallDisk(_Disk):
    def fill(self, *, room: int) -> None:
        ballast = self.folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4_096))
            except OSError:
                file.truncate(max(0, file.tell() - room))

    def free(self) -> None:
        (self.folder / "ballast").unlink()


class _Limit(_Disk):
    def fill(self, *, room: int) -> None:
        largest = max(path.stat().st_size for path in self.folder.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + room, resource.RLIM_INFINITY))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def report_of(disk: _Disk) -> dict[str, Any]:
    """Fill a disk while tasks are enqueued and run, make room, and tell what happened."""
    app = App()
    begun, let_go = asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    @app.handler(Job)
    async def handle(ctx: Context, job: Job) -> None:
        runs.append(ctx.task_id)
        if job.holds:
            begun.set()
            await let_go.wait()

    async with connect(f"sqlite:///{disk.folder / 'tasks.db'}") as client:
        worker = Worker(app, client, concurrency=4)
        async with worker:
            stored = [(await client.enqueue(Job(holds=True), task_id="held")).task_id]
            await begun.wait()
            await asyncio.to_thread(disk.fill, room=_ROOM_BYTES)
            await client.pause_kind("job")  # until the disk is full, so that something waits
            refusal = await _enqueue_until_refused(client, stored)
            tries = _tries(client)
            since = time.monotonic()
            let_go.set()  # its end cannot be recorded
            await asyncio.sleep(_FULL_SECONDS)
            told = {"tries": len(tries), "seconds": time.monotonic() - since, "runs on the full disk": len(runs)}
            found = [task.id async for task in client.iter_tasks()]
            await asyncio.to_thread(disk.free)
            await _again(lambda: client.resume_kind("job"))
            tasks = [await client.wait(task_id, 30) for task_id in stored]
            later = await client.enqueue(Job())
            last = await client.wait(later.task_id, 30)
    ends = {task.id: (task.status, task.attempts) for task in (*tasks, last)}
    return {**told, "refusal": refusal, "stored": stored, "found": found, "ends": ends, "runs": runs}


async def _enqueue_until_refused(client: Client, stored: list[str]) -> str:
    for n in range(_MANY):
        try:
            stored.append((await client.enqueue(Job(), task_id=f"t{n}")).task_id)
        except StoreUnavailable as error:
            return str(error)
    return "never"


def _tries(client: Client) -> list[float]:
    """Give the moments at which transactions are tried from now on."""
    assert isinstance(client.store, SqliteStore)
    connection, tries = client.store._connection, list[float]()
    write = connection._write_all

    def counted(*arguments: Any) -> None:
        tries.append(time.monotonic())
        write(*arguments)

    connection._write_all = counted  # type: ignore[assignment,method-assign]  # counts, and passes on
    return tries


async def _again(ask: Callable[[], Awaitable[object]]) -> None:
    for _ in range(200):
        with suppress(StoreUnavailable):
            await ask()
            return
        await asyncio.sleep(0.05)
    raise AssertionError


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    made = (_SmallDisk if sys.argv[1] == "disk" else _Limit)(Path(sys.argv[2]))
    print(json.dumps(asyncio.run(report_of(made))))  # noqa: T201  # to the test
