"""The lock of a resource key that is busy: who runs its tasks, and until when nobody else may."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # part of the public types

__all__ = ["Lock", "LockChange"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """One busy resource key; a key that nobody holds has no lock."""

    resource_key: str
    owner: str
    """The lease id that is also on every task that runs under this lock."""
    leased_until: datetime
    """After this anybody may take the key over; no lease of a task under it is longer."""
    version: int = 0
    """The store's version of this record; every write depends on it."""


@dataclass(frozen=True, slots=True)
class LockChange:
    """A change of one key's lock that holds only if `before` is still what is stored; None: there is no lock."""

    resource_key: str
    before: Lock | None
    after: Lock | None
