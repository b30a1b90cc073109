"""What is between machines and their store: requests, answers and notifications, and what becomes of them."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, TypeVar

from oncetask.errors import OncetaskError, StoreUnavailable
from oncetask.store.memory import Edit, Memory
from tests.simulation.apps import RULES
from tests.simulation.book import SLACK
from tests.simulation.machines import Machine
from tests.simulation.oracle import Oracle
from tests.simulation.profiles import Profile
from tests.simulation.sight import Change, Write
from tests.simulation.timeline import SECOND, Timeline

__all__ = ["Network"]

T = TypeVar("T")

_QUICK = frozenset({"apply", "commit"})
_LONGEST_DELAY = 12.0
_LONGEST_SILENCE = 10.0
_DEAF_SECONDS = 40.0  # whoever watched waits ever longer before it watches again


class _Hand:
    """Somebody who writes documents without oncetask."""

    name, role, is_gone, disturbed_at, frozen_until = "hand", "hand", False, -1, -1


class Network(Timeline):
    """The store, and the way to it; an oracle sees all that is written."""

    def __init__(self, profile: Profile, lots: random.Random) -> None:
        super().__init__(lots)
        self.profile = profile
        self.is_calm = False
        """From then on nothing goes wrong any more."""
        self.memory = Memory(lambda: self.now)
        self.documents = self.memory.documents("default")
        self.documents.listeners.append(self._wrote)
        prompt = profile.kinds if profile.is_crowded else ()
        self.oracle = Oracle(self, RULES, distance=profile.distance, prompt=prompt)
        self._writer: Any = _Hand()
        self._verb, self._knew = "put", (0, SLACK, SLACK)

    @property
    def seen(self) -> Counter[str]:
        """What has happened, and how often."""
        return self.oracle.seen

    @abstractmethod
    def lose(self, machine: Machine, fault: str) -> None:
        """Let what runs on a machine crash, or stop."""

    def carry(self, machine: Machine, verb: str, job: Callable[[], T], answer: asyncio.Future[Any]) -> None:
        """Take a request on its way, and its answer back; or only one of these, or neither."""
        distance = 0.0 if verb in _QUICK else self.profile.distance
        fate = self._fate()
        there, back = distance + self.latency(), distance + self.latency()
        if fate != "arrives":
            self.oracle.seen["slow" if fate.startswith("slow") else fate] += 1
            slow = self.lots.random() * _LONGEST_DELAY
            there, back = (there + slow, back) if fate != "slow-answer" else (there, back + slow)
            machine.disturbed(there + back + 1)
            self.note(machine.name, verb, fate, f"{there:.3f}+{back:.3f}")
        if fate in {"lost", "unsure"}:
            self.after(self.latency() + self.lots.random(), lambda: self._answer(machine, answer, None))
        if fate != "lost":
            was_unsure = machine.unsure_since(self.micros - round(_LONGEST_DELAY * SECOND))
            knew = self.micros, SLACK + timedelta(seconds=machine.unsure), SLACK + timedelta(seconds=was_unsure)
            self.after(there, lambda: self._arrive(machine, verb, job, answer, knew=knew, back=back))

    def hearing(self, machine: Machine) -> float:
        """Give the seconds that a notification takes to this machine, or a change to be noticed."""
        if not self.is_calm and self.lots.random() < self.profile.deaf:
            delay = self.lots.random() * _LONGEST_SILENCE
            machine.disturbed(delay + 1)
            self.oracle.seen["deaf"] += 1
            return delay
        return self.profile.distance / 2 + self.latency()

    def is_cut_off(self, machine: Machine) -> bool:
        """Tell whether a watch ends for good now."""
        ends = not self.is_calm and self.lots.random() < self.profile.deaf / 3
        if ends:
            machine.disturbed(_DEAF_SECONDS)
            self.note(machine.name, "hears no more")
        return ends

    def is_unfit(self, steps: Collection[Any]) -> bool:
        """Tell whether a commit is too much for the store; only where it ends a task, which may do without the rest."""
        ends = any(step.after.lease_owner is None is not step.before.lease_owner for step in steps)
        return ends and not self.is_calm and self.lots.random() < self.profile.unfit

    def unfit(self) -> OncetaskError:
        """Say that something is too much for the store."""
        self.oracle.seen["unfit"] += 1
        return OncetaskError("the simulated store cannot take so much")

    def _fate(self) -> str:
        if self.is_calm or self.lots.random() >= self.profile.trouble:
            return "arrives"
        return self.lots.choice(("slow", "slow-answer", "lost", "unsure"))

    def _arrive(
        self,
        machine: Machine,
        verb: str,
        job: Callable[[], T],
        answer: asyncio.Future[Any],
        *,
        knew: tuple[int, timedelta, timedelta],
        back: float,
    ) -> None:
        self._writer, self._verb, self._knew = machine, verb, knew
        try:
            result = job()
        finally:
            self._writer, self._verb = _Hand(), "put"
        store_time = self.now
        if not self.is_calm and machine.role != "client" and self.lots.random() < self.profile.cut:
            self.oracle.seen["cut"] += 1
            self.lose(machine, "crash")
        self.after(back, lambda: self._answer(machine, answer, (store_time, result)))

    def _answer(self, machine: Machine, answer: asyncio.Future[Any], result: object) -> None:
        if machine.is_gone or answer.done():
            return
        if result is None:
            answer.set_exception(StoreUnavailable("the simulated store's"))
        else:
            answer.set_result(result)

    def _wrote(self, edits: Collection[Edit]) -> None:
        tasks = [Change(edit.name[6:], edit.before, edit.after) for edit in edits if edit.name.startswith("tasks/")]
        locks = [Change(edit.name[6:], edit.before, edit.after) for edit in edits if edit.name.startswith("locks/")]
        settings = next((Change("settings", e.before, e.after) for e in edits if e.name == "settings"), None)
        write = Write(self._writer, self._verb, tasks, locks, settings, self.now, *self._knew)
        self.note(write.writer.name, "writes", write)
        self.oracle.wrote(write)
