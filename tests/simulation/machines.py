"""Machines with a worker, with somebody who calls `tick`, or with clients; each has clocks and a wire of its own."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from oncetask import Client, Context, StoreUnavailable, Worker, tick
from oncetask.telemetry import Telemetry
from oncetask.waking import NoWaker
from tests.simulation.apps import Deployment, build
from tests.simulation.hosts import Host
from tests.simulation.timeline import SECOND
from tests.simulation.wire import Wire
from tests.support import T0

if TYPE_CHECKING:
    from tests.simulation.world import World

_BEFORE_THE_FIRST_ANSWER = 1_000_000.0

__all__ = ["Machine", "TickingMachine", "WorkerMachine"]


class _Clocks:
    """A machine's: one that is wrong by minutes, and one that runs at about the right speed."""

    def __init__(self, world: World, *, wrong: float, begins: float, speed: float) -> None:
        self._world, self._wrong, self._begins, self._speed = world, wrong, begins, speed

    def wall(self) -> datetime:
        """Give the time of day, as this machine believes it."""
        return T0 + timedelta(seconds=self._wrong + self._world.micros / SECOND * self._speed)

    def monotonic(self) -> float:
        """Give the reading that its event loop has too."""
        return self._begins + self._world.micros / SECOND * self._speed


class Machine(Host):
    """One that talks to the store."""

    role = "client"

    def __init__(self, world: World, name: str) -> None:
        lots, profile = world.lots, world.profile
        begins = float(lots.randrange(100_000))
        speed = 1.0 + lots.choice((0, 1)) * lots.uniform(-profile.drift, profile.drift)
        super().__init__(world, name, begins=begins, speed=speed)
        self.world = world
        self.clock = _Clocks(world, wrong=lots.uniform(-profile.wrong, profile.wrong), begins=begins, speed=speed)
        self.unsure = _BEFORE_THE_FIRST_ANSWER
        """The most seconds by which it may think that it is later than it is."""
        self._was_unsure: list[tuple[int, float]] = []
        self._keeps_time = speed == 1.0
        self.client = Client(Wire(self), telemetry=_telemetry(), waker=NoWaker())

    def heard_the_time(self, round_trip: int) -> None:
        """Take note of an answer that carried the store's time, so many microseconds after it was asked for."""
        # Where a clock drifts, what was known contradicts the newest answer now and then, which is believed then.
        better = self.unsure == _BEFORE_THE_FIRST_ANSWER or (round_trip / SECOND < self.unsure) is self._keeps_time
        if better:
            if self.unsure < _BEFORE_THE_FIRST_ANSWER:
                self._was_unsure.append((self.world.micros, self.unsure))
            self.unsure = round_trip / SECOND

    def unsure_since(self, micros: int) -> float:
        """Give the most seconds by which it may have thought so at some time since then."""
        return max([self.unsure, *(unsure for until, unsure in self._was_unsure if until >= micros)])

    @property
    def is_well(self) -> bool:
        """Tell whether nothing keeps it, or what it hears, at present."""
        return not self.is_gone and self.disturbed_at < self.world.micros


class _Running(Machine):
    """One that runs tasks."""

    def __init__(self, world: World, name: str, deployment: Deployment) -> None:
        super().__init__(world, name)
        self.deployment = deployment
        self.app = build(deployment, self)

    async def perform(self, ctx: Context) -> object:
        """Do what a handler does."""
        return await self.world.scripts.perform(self, ctx)

    async def hear(self, ctx: Context, error: Exception) -> None:
        """Do what an error handler does."""
        await self.world.scripts.hear(self, ctx, error)


class WorkerMachine(_Running):
    """A worker, and a supervisor who starts it again where the store was not there."""

    role = "worker"

    def __init__(self, world: World, name: str, deployment: Deployment) -> None:
        super().__init__(world, name, deployment)
        lots = world.lots
        self.worker = Worker(
            self.app,
            self.client,
            concurrency=world.profile.concurrency or lots.choice((1, 2, 4, 8)),
            lease=lots.choice(world.profile.leases),
            poll=lots.choice((5, 30)),
            grace=lots.choice((0, 2, 8)),
            abort_grace=1,
        )
        self.has_ended = False
        self._is_stopping = False
        self.spawn(self._run())

    def stop(self) -> None:
        """Let the worker stop as SIGTERM would."""
        self._is_stopping = True
        self.world.oracle.stopping(self)
        self.spawn(self.worker.stop())

    async def _run(self) -> None:
        while True:
            try:
                await self.worker.run()
                break
            except StoreUnavailable as error:
                self.world.note(self.name, "does not begin:", error)
                await asyncio.sleep(1)
            if self._is_stopping:
                break
        self.has_ended = True


class TickingMachine(_Running):
    """Somebody who calls `tick` every few seconds."""

    role = "tick"

    def __init__(self, world: World, name: str, deployment: Deployment) -> None:
        super().__init__(world, name, deployment)
        self.spawn(self._run())

    async def _run(self) -> None:
        lots = self.world.lots
        while not self.world.is_over:
            await asyncio.sleep(lots.uniform(0.2, 6))
            budget, linger = lots.choice((2, 5, 12)), lots.choice((0, 0, 3))
            began = self.world.micros
            try:
                report = await tick(self.app, self.client, budget=budget, linger=linger, abort_grace=1)
            except StoreUnavailable as error:
                self.world.note(self.name, "ticks in vain:", error)
            else:
                self.world.oracle.ticked(self, report, began=began, budget=budget)


@cache
def _telemetry() -> Telemetry:
    return Telemetry()
