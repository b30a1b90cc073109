"""What is done to processes, file and network; at random, each at least once."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

from tests.chaos.ground_emulator import EmulatorGround
from tests.chaos.ground_sqlite import SqliteGround
from tests.chaos.signals import send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.crew import Crew, Slot
    from tests.chaos.network import Wire

__all__ = ["Faults"]

Fault = Callable[[], Awaitable[bool]]
"""Tells whether it happened: sometimes there is nobody to whom it could."""

_AT_ONCE = 3
_ROUNDS = 3
_PAUSE_LEASES = 0.1, 1.1
"""Between the beginnings of two faults."""
_WATCHES_SECONDS = 2.0
_FEEDERS_KILLED = "feeders killed within enqueue_many"
_LOCKED_LONG = "write lock held for longer than a lease"
_SELDOM = frozenset({_FEEDERS_KILLED, _LOCKED_LONG})


class Faults:
    """Deals them from a deck that is shuffled anew when it has been dealt."""

    def __init__(self, crew: Crew, ground: SqliteGround | EmulatorGround, lots: Random, lease: float) -> None:
        """`lease`: of the workers, in seconds."""
        self._crew, self._ground, self._lots, self._lease = crew, ground, lots, lease
        self._faults: dict[str, Fault] = {
            _FEEDERS_KILLED: self._kill_feeder,
            "workers killed": self._kill,
            "workers stopped for longer than their lease": self._stop,
            "workers told to stop (SIGTERM)": self._terminate,
        }
        match ground:
            case SqliteGround():
                self._faults |= {
                    "workers killed within a transaction": self._kill_in_transaction,
                    "write lock held for a while": self._lock,
                    _LOCKED_LONG: self._lock_long,
                    "holders of the write lock killed": self._lock_and_kill,
                }
            case EmulatorGround():
                self._faults |= {
                    "workers cut off for longer than their lease": self._cut_one_off,
                    "times when nobody reached the store": self._cut_all_off,
                    "connections reset": self._reset,
                    "times of a slow network": self._slow,
                }
        self.counts: Counter[str] = Counter(dict.fromkeys(self._faults, 0))
        self._going: set[asyncio.Task[None]] = set()

    async def deal(self, until: Callable[[], bool]) -> None:
        """Go on until each has happened and `until` says that it is enough; then wait for the last ones to be over.

        What never can happen, a transaction on a machine that does not show its locks, say, is not waited for.
        """
        deck: list[str] = []
        number = 0
        while not (until() and (all(self.counts.values()) or number > _ROUNDS)):
            if not deck:
                deck, number = self._deck(number), number + 1
            going = asyncio.create_task(self._do(deck.pop()))
            self._going.add(going)
            going.add_done_callback(self._going.discard)
            await asyncio.sleep(self._lots.uniform(*_PAUSE_LEASES) * self._lease)
            while len(self._going) >= _AT_ONCE:
                await asyncio.wait(self._going, return_when=asyncio.FIRST_COMPLETED)
        while self._going:
            await asyncio.gather(*self._going)

    def _deck(self, number: int) -> list[str]:
        """Shuffle the faults; what holds up everybody comes seldom, and feeders first, since they are soon through."""
        deck = [name for name in self._faults if name not in _SELDOM or not self.counts[name] or number % _ROUNDS == 0]
        self._lots.shuffle(deck)
        deck.sort(key=lambda name: name == _FEEDERS_KILLED)
        return deck

    async def aclose(self) -> None:
        """Break off what is going on, and mend what was cut."""
        for going in self._going:
            going.cancel()
        if self._going:
            await asyncio.wait(self._going)

    async def _do(self, name: str) -> None:
        self.counts[name] += await self._faults[name]()

    @contextmanager
    def _one(self, slots: Iterable[Slot] = ()) -> Iterator[Slot | None]:
        """Give a process to which nothing else is done meanwhile; None: there is none."""
        slot = self._crew.free(self._lots, list(slots))
        if slot is None:
            yield None
            return
        slot.busy = True
        try:
            yield slot
        finally:
            slot.busy = False

    async def _kill(self) -> bool:
        with self._one() as slot:
            if slot is not None:
                await self._crew.kill(slot)
            return slot is not None

    async def _stop(self) -> bool:
        with self._one() as slot:
            if slot is not None:
                await self._crew.stop(slot, self._lots.uniform(1.2, 1.8) * self._lease)
            return slot is not None

    async def _terminate(self) -> bool:
        with self._one() as slot:
            if slot is not None:
                await self._crew.terminate(slot)
                await self._crew.spawn(slot)
            return slot is not None

    async def _kill_feeder(self) -> bool:
        """Have a feeder die that waits for the answer to a call; one that is through asks no more."""
        with self._one(self._crew.feeders) as slot:
            if slot is None or slot.process is None:
                return False
            send(slot.process, signal.SIGUSR1)
            if await slot.process.wait() == 0:
                return False
            await self._crew.spawn(slot)
            return True

    async def _kill_in_transaction(self) -> bool:
        assert isinstance(self._ground, SqliteGround)
        slots = {slot.process.pid: slot for slot in self._crew.workers if slot.process and slot.runs and not slot.busy}
        pid = await self._ground.writer_among(set(slots), seconds=_WATCHES_SECONDS)
        if pid is None or slots[pid].busy:
            return False
        slot, slots[pid].busy = slots[pid], True
        await self._crew.kill(slot)
        slot.busy = False
        return True

    async def _lock(self) -> bool:
        return await self._locked(self._lots.uniform(0.02, 0.4))

    async def _lock_long(self) -> bool:
        return await self._locked(self._lots.uniform(1.1, 1.5))

    async def _lock_and_kill(self) -> bool:
        return await self._locked(self._lots.uniform(0.02, 0.1), kill=True)

    async def _locked(self, leases: float, *, kill: bool = False) -> bool:
        assert isinstance(self._ground, SqliteGround)
        await self._ground.lock(leases * self._lease, kill=kill)
        return True

    async def _cut_one_off(self) -> bool:
        """One worker does not reach the store, the others do; he is told so, or is left without an answer."""
        with self._one() as slot:
            if slot is not None:
                await self._cut([self._wires()[slot.name]], self._lots.uniform(1.2, 2.0) * self._lease)
            return slot is not None

    async def _cut_all_off(self) -> bool:
        await self._cut(self._wires().values(), self._lots.uniform(0.3, 1.3) * self._lease)
        return True

    async def _reset(self) -> bool:
        for wire in self._wires().values():
            if self._lots.random() < 0.5:
                wire.cut()
        return True

    async def _slow(self) -> bool:
        wires = [wire for wire in self._wires().values() if self._lots.random() < 0.7]
        for wire in wires:
            wire.delay = self._lots.uniform(0.01, 0.1)
        try:
            await asyncio.sleep(self._lots.uniform(0.5, 1.5) * self._lease)
        finally:
            for wire in wires:
                wire.delay = 0.0
        return True

    async def _cut(self, wires: Iterable[Wire], seconds: float) -> None:
        silently = self._lots.random() < 0.5
        cut = list(wires)
        for wire in cut:
            if silently:
                wire.silence()
            else:
                wire.refuses = True
                wire.cut()
        try:
            await asyncio.sleep(seconds)
        finally:
            for wire in cut:
                wire.mend()

    def _wires(self) -> dict[str, Wire]:
        assert isinstance(self._ground, EmulatorGround)
        return self._ground.wires
