"""The processes of the run: workers and feeders, and what is known of how they ended and when they stood still."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from tests.chaos.ledger import Violations
from tests.chaos.signals import end, send
from tests.chaos.tasks import FEEDERS
from tests.chaos.witness import micros

__all__ = ["Crew", "Ground", "Settings", "Slot"]

_ROOT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 60.0
_SMALL = 1_000
_FEEDS_SECONDS = 4.0
_POLL_SECONDS = 0.05


class Ground(Protocol):
    """Where the tasks are."""

    backlog: int | None
    """How many open tasks the store is good for at a time; None: any number."""

    def environment(self, process: str, /) -> dict[str, str]:
        """Give the environment of a process that is to work here."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is like."""

    tasks: int
    workers: int
    seed: int
    lease: float
    """Seconds."""
    limit: float
    """Seconds until it is given up."""

    @property
    def chunk(self) -> int:
        """How many tasks are enqueued together."""
        return max(20, min(500, self.tasks // 20))

    @property
    def pause(self) -> float:
        """Seconds between two calls of a feeder: they have to last for the first faults."""
        return _FEEDS_SECONDS * FEEDERS * self.chunk / self.tasks

    @property
    def is_small(self) -> bool:
        """True for a run of a test."""
        return self.tasks <= _SMALL


class Slot:
    """The place of one process, in which another one follows when it ends."""

    def __init__(self, name: str) -> None:
        """No process yet."""
        self.name = name
        self.busy = False
        """Something is done to it."""
        self.process: asyncio.subprocess.Process | None = None
        self.generation = 0

    @property
    def runs(self) -> bool:
        """True as long as its process has not ended."""
        return self.process is not None and self.process.returncode is None


class Crew:
    """Starts them, and hurts them when it is told to."""

    def __init__(self, ground: Ground, folder: Path, settings: Settings, bad: Violations) -> None:
        """`folder`: where the processes say what they do."""
        self._ground, self._folder, self._settings, self._bad = ground, folder, settings, bad
        self.workers = [Slot(f"worker-{n}") for n in range(settings.workers)]
        self.feeders = [Slot(f"feeder-{n}") for n in range(FEEDERS)]
        self.ends: dict[int, int] = {}
        """When processes ended, by pid."""
        self.stops: list[tuple[int, int, int]] = []
        """Which process stood still for longer than its lease, from when until when."""
        self.terminated: dict[int, int] = {}
        """When workers were told to stop, by pid."""
        self._is_closed = False
        self._watching: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the workers, then the feeders, and wait until all are at work."""
        for slots in (self.workers, self.feeders):
            for slot in slots:
                await self.spawn(slot)
            while not all(map(self.said, slots)):  # noqa: ASYNC110  # other processes set no event
                await asyncio.sleep(_POLL_SECONDS)

    async def spawn(self, slot: Slot) -> None:
        """Start a process in a place whose last one has ended, unless all is over."""
        if self._is_closed:
            return
        settings, slot.generation = self._settings, slot.generation + 1
        if slot in self.workers:
            arguments: tuple[object, ...] = ("worker", self._folder, slot.name, settings.lease)
        else:
            number = self.feeders.index(slot)
            arguments = ("feeder", self._folder, number, settings.tasks, settings.chunk, settings.pause)
            arguments += (self._ground.backlog or 0,)
        program, *rest = map(str, (*arguments, f"{settings.seed}.{slot.generation}"))
        slot.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tests.chaos.{program}", *rest),
            cwd=_ROOT,
            env=self._ground.environment(slot.name),
        )
        watching = asyncio.create_task(self._watch(slot, slot.process))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    def free(self, lots: Random, slots: Collection[Slot] | None = None) -> Slot | None:
        """Give a place with a process that is at work, and to which nothing is done at present."""
        found = [slot for slot in slots or self.workers if not slot.busy and self.said(slot) is not None]
        return lots.choice(found) if found else None

    def said(self, slot: Slot) -> Path | None:
        """Give the file in which a running process says what it does; None: it has not said anything yet."""
        if slot.process is None or not slot.runs:
            return None
        path = self._folder / f"{slot.name}.{slot.process.pid}.said"
        return path if path.exists() and path.stat().st_size else None

    async def kill(self, slot: Slot) -> None:
        """Kill the process of a place, and start another one."""
        assert slot.process is not None
        end(slot.process)
        await slot.process.wait()
        await self.spawn(slot)

    async def stop(self, slot: Slot, seconds: float) -> None:
        """Let a process stand still for so long, which is longer than its lease."""
        process, since = slot.process, micros()
        assert process is not None
        send(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.stops.append((process.pid, since, micros()))
            send(process, signal.SIGCONT)

    async def terminate(self, slot: Slot) -> None:
        """Tell a worker to end; it has to, with 0."""
        process = slot.process
        assert process is not None
        self.terminated[process.pid] = micros()
        send(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE_SECONDS)
        except TimeoutError:
            end(process)
            await process.wait()
        if process.returncode != 0:
            self._bad.add("not stopped by SIGTERM", f"{slot.name}: exit code {process.returncode}")

    async def aclose(self) -> None:
        """Kill what is left."""
        self._is_closed = True
        for slot in (*self.workers, *self.feeders):
            slot.busy = True
            if slot.process is not None:
                end(slot.process)
                await slot.process.wait()
        if self._watching:
            await asyncio.wait(self._watching)

    async def _watch(self, slot: Slot, process: asyncio.subprocess.Process) -> None:
        """Note when a process ends; one that nobody ended, and that was not through, is reported and replaced."""
        code = await process.wait()
        self.ends[process.pid] = micros()
        if not slot.busy and not (slot in self.feeders and code == 0):
            self._bad.add("a process that ended by itself", f"{slot.name}: exit code {code}")
            await self.spawn(slot)
