"""What is there to be seen: documents before and after each write, and calls of user code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from oncetask.clock import EPOCH
from tests.support import T0

_LEASE = 32

__all__ = ["Change", "Fields", "Part", "Run", "Scene", "Who", "Write"]

Fields = Mapping[str, Any]
"""A document, as it is stored."""


class Who(Protocol):
    """A machine, as far as it matters what is right."""

    name: str
    role: str
    """`worker`, `tick`, `client`, or `hand`."""
    is_gone: bool
    disturbed_at: int
    """The last moment, in microseconds, at which it, or what it heard, was slower than it should be."""
    frozen_until: int


class Scene(Protocol):
    """Where it happens: the true time, and whom to tell."""

    micros: int

    @property
    def now(self) -> datetime:
        """The true time of the store."""

    def fail(self, why: str) -> None:
        """Take note of what is wrong."""

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something later."""


@dataclass(frozen=True)
class Part:
    """One task of a run, as it was claimed."""

    task_id: str
    lease: str
    attempts: int
    cleanups: int


@dataclass(eq=False)
class Run:
    """One call of a handler, or of a cleanup."""

    machine: Who
    kind: str
    key: str | None
    parts: tuple[Part, ...]
    is_cleanup: bool
    attempt: int
    token: int
    told: Callable[[], object]
    """Gives why it was told to stop; None: it was not."""
    obeys: bool = True
    """False once it goes on although it was told to stop."""
    staged: list[str] = field(default_factory=list)

    @property
    def lease(self) -> str:
        """The lease under which it runs."""
        return self.parts[0].lease

    def __str__(self) -> str:
        ids = "+".join(part.task_id[:14] for part in self.parts)
        return f"{ids} #{self.attempt} under {self.lease[:6]}"


@dataclass(frozen=True)
class Change:
    """One document before and after a write; None: it is not there."""

    id: str
    """Of a task; of a lock its key."""
    before: Fields | None
    after: Fields | None

    @property
    def changed(self) -> frozenset[str]:
        """The names of the fields that differ."""
        before, after = self.before or {}, self.after or {}
        return frozenset(name for name in {*before, *after} if before.get(name) != after.get(name))

    def __str__(self) -> str:
        if self.before is None or self.after is None:
            return "created" if self.after else "removed"
        return " ".join(f"{name}={_short((self.after or {}).get(name))}" for name in sorted(self.changed))

    def either(self) -> Fields:
        """Give what is there, or was."""
        return self.after or self.before or {}


def _short(value: object) -> str:
    if isinstance(value, datetime):
        return f"{(value - T0).total_seconds():.3f}" if value > EPOCH else "first"
    if isinstance(value, list):
        return f"{len(value)} of them"
    return str(value)[:40] if value is None or len(str(value)) != _LEASE else str(value)[:6]


@dataclass(frozen=True)
class Write:
    """One write, which was applied as a whole."""

    writer: Who
    verb: str
    tasks: Sequence[Change]
    locks: Sequence[Change]
    settings: Change | None
    at: datetime
    """The true time."""
    sent: int
    """When it left the writer, in microseconds: what he learned after that he did not know."""
    unsure: timedelta
    """By how much he may have been wrong about the time then."""
    was_unsure: timedelta
    """By how much he may have been wrong when he asked for what he writes about: what he hears since tells him more."""

    def __str__(self) -> str:
        changes = [f"{change.id[:14]} {change}" for change in (*self.tasks, *self.locks)]
        return "; ".join(changes or [str(self.settings)])
