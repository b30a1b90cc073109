"""A world: machines, the store between them, what goes wrong; then a time in which nothing does."""

from __future__ import annotations

import random
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from oncetask import ids
from tests.simulation.apps import ALL_KINDS, DECLARED, Deployment
from tests.simulation.clients import ClientMachine, Janitor
from tests.simulation.machines import Machine, TickingMachine, WorkerMachine
from tests.simulation.network import Network
from tests.simulation.profiles import PROFILES
from tests.simulation.quiet import only_unexpected
from tests.simulation.scripts import Scripts
from tests.simulation.timeline import SECOND

__all__ = ["World"]

_SETTLING_SECONDS = 25.0
_CALM_SECONDS = 1_500.0
_MOST_STEPS = 1_500_000
_FULL = Deployment(ALL_KINDS)


class World(Network):
    """The same profile and seed give the same history, word for word."""

    def __init__(self, name: str, seed: int) -> None:
        """`name`: of one of `PROFILES`."""
        super().__init__(PROFILES[name], random.Random(f"{name} {seed}"))  # noqa: S311  # has to be repeatable
        self.machines: list[Machine] = []
        self.scripts = Scripts(self)
        self._until_fault = 0
        self._leaving: set[str] = set()
        self._dark_until = 0

    # -- what a test does with it -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through all of it; raise what ought not to be."""
        before = random.getstate()
        random.seed(self.lots.random())
        ids._pool.clear()
        with ExitStack() as made_up:
            made_up.callback(random.setstate, before)
            made_up.callback(ids._pool.clear)
            made_up.enter_context(only_unexpected(self))
            made_up.enter_context(patch("oncetask.engine.Watchdog", _Idle))  # it has a thread
            made_up.enter_context(patch("oncetask.ids.os", SimpleNamespace(urandom=self.lots.randbytes)))
            made_up.enter_context(patch("oncetask.keys._PAGE", self.lots.choice((2, 20))))
            made_up.enter_context(patch("oncetask.waiting._CROWD", self.lots.choice((1, 2, 10))))
            made_up.enter_context(patch("oncetask.timekeeping.MOST_AT_ONCE", self.lots.choice((2, 100))))
            try:
                self._begin()
                self._wear_on()
                self._calm_down()
            finally:
                self.is_over = True
                for machine in self.machines:
                    machine.loop.end()

    def _begin(self) -> None:
        profile, lots = self.profile, self.lots
        for number in range(lots.randint(*profile.workers)):
            self._boot_worker(f"w{number}")
        for number in range(profile.ticks):
            self._boot_tick(f"t{number}")
        for number in range(lots.randint(*profile.clients)):
            self._boot_client(f"c{number}", first=profile.tasks if number == 0 else 0)
        for number in range(profile.poison):
            self.after(lots.random() * profile.seconds / 2, partial(self._poison, number))
        if profile.outage:
            self.after(lots.random() * profile.seconds, self._black_out)

    def _wear_on(self) -> None:
        ends = (self.profile.seconds + self.profile.outage) * SECOND
        self._until_fault = self.profile.every
        while self.micros < ends:
            self.let_happen(self.machines)
            self._until_fault -= 1
            if self.profile.every and self._until_fault <= 0:
                self._until_fault = self.lots.randrange(2 * self.profile.every)
                self._go_wrong(self.lots.choice(self.profile.faults))

    def _calm_down(self) -> None:
        self.note("-- from here on nothing goes wrong")
        self.is_calm = True
        for machine in self.machines:
            machine.frozen_until = min(machine.frozen_until, self.micros)
            if isinstance(machine, ClientMachine):
                machine.is_tired = True
        self._boot_worker("last", _FULL)
        self._wait(_SETTLING_SECONDS)
        self.oracle.has_calmed()
        janitor = Janitor(self, "janitor")
        self.machines.append(janitor)
        ends, steps = self.micros + _CALM_SECONDS * SECOND, 0
        while self.oracle.open_tasks:
            assert self.micros < ends, f"after {_CALM_SECONDS} calm seconds these are not done: {self._left()}"
            assert (steps := steps + 1) < _MOST_STEPS, f"after {steps} calm steps these are not done: {self._left()}"
            self.let_happen(self.machines)
        self._wait(max(self.profile.leases) + 20)
        self.oracle.is_at_peace()
        self._stop_all()

    def _wait(self, seconds: float) -> None:
        ends = self.micros + int(seconds * SECOND)
        self.after(seconds, lambda: None)
        while self.micros < ends:
            self.let_happen(self.machines)

    def _stop_all(self) -> None:
        """Nothing runs, so that workers stop at once."""
        working = [one for one in self.machines if isinstance(one, WorkerMachine) and not one.is_gone]
        for machine in working:
            if not machine.has_ended:
                machine.stop()
        self._wait(12)
        left = [machine.name for machine in working if not machine.has_ended]
        assert not left, f"these do not stop, though nothing runs: {left}"

    def _left(self) -> list[Any]:
        return [self.documents.fields(task_id) for task_id in sorted(self.oracle.open_tasks)]

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    def _go_wrong(self, fault: str) -> None:
        alive = [one for one in self.machines if not one.is_gone and (fault == "freeze" or one.role != "client")]
        if not alive:
            return
        machine = self.lots.choice(alive)
        if fault == "freeze":
            seconds = self.lots.choice((0.5, 2.0, 2.5 * min(self.profile.leases))) * self.lots.random()
            self.note(machine.name, "stands still for", f"{seconds:.3f}")
            self.oracle.seen["freeze"] += 1
            machine.freeze(seconds)
        else:
            self.lose(machine, fault)

    def lose(self, machine: Machine, fault: str) -> None:
        """Let a program crash, or stop; some time later there is another one in its place."""
        if machine.is_gone or machine.name in self._leaving:
            return
        self.note(machine.name, fault)
        self.oracle.seen[fault] += 1
        if fault == "stop" and isinstance(machine, WorkerMachine):
            machine.stop()
        else:
            self._end_of(machine)
        self._leaving.add(machine.name)
        name = f"{machine.name.partition('.')[0]}.{self.next_number()}"
        self.after(3 + 8 * self.lots.random() + self._dark_for(), lambda: self._put_in_place_of(machine, name))

    def _dark_for(self) -> float:
        return max(0, self._dark_until - self.micros) / SECOND

    def _put_in_place_of(self, machine: Machine, name: str) -> None:
        self._end_of(machine)
        if isinstance(machine, TickingMachine):
            self._boot_tick(name)
        elif isinstance(machine, WorkerMachine):
            self._boot_worker(name)

    def _black_out(self) -> None:
        self._dark_until = self.micros + int(self.profile.outage * SECOND)
        self.oracle.seen["outage"] += 1
        for machine in tuple(self.machines):
            if machine.role != "client":
                self.lose(machine, self.lots.choice(("crash", "stop")))

    def _end_of(self, machine: Machine) -> None:
        if not machine.is_gone:
            machine.is_gone = True
            self.oracle.lost(machine)

    def _poison(self, number: int) -> None:
        """Write a document by hand that nobody can read."""
        field, value = self.lots.choice(
            (("attempts", "many"), ("data", 5), ("waitUntil", "soon"), ("errors", "none"), ("createdAt", None))
        )
        sound = {"kind": "plain", "data": {}, "waitUntil": self.now, "createdAt": self.now, "dueAt": self.now}
        self.oracle.seen["poison"] += 1
        self.documents.put(f"poison-{number}", {**sound, "outcome": None, "leaseOwner": None, field: value})

    # -- who is there -------------------------------------------------------------------------------------------------

    def _boot_worker(self, name: str, deployment: Deployment | None = None) -> None:
        self.machines.append(WorkerMachine(self, name, deployment or self._deployment()))

    def _boot_tick(self, name: str) -> None:
        self.machines.append(TickingMachine(self, name, self._deployment()))

    def _boot_client(self, name: str, *, first: int) -> None:
        self.machines.append(ClientMachine(self, name, first=first))

    def _deployment(self) -> Deployment:
        if not self.profile.redeploys:
            return _FULL
        self.oracle.seen["deployed"] += 1
        kinds = tuple(kind for kind in ALL_KINDS if self.lots.random() < 0.8) or ALL_KINDS
        names = ["", "1", "2"]
        beat, sweep = self.lots.choice(names), self.lots.choice(names)
        declares = tuple(f"{name}/{which}" for name, which in (("beat", beat), ("sweep", sweep)) if which)
        return Deployment(kinds, tuple(name for name in declares if name in DECLARED))


class _Idle:
    """Stands for the watchdog of the event loop."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def start(self) -> None:
        """Start nothing."""

    wake = sleep = start

    async def aclose(self) -> None:
        """Nothing is open."""
