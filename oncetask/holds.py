"""A resource key that this worker holds: the newest record of its lock, and what is written about it."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from oncetask import lifecycle
from oncetask.errors import StoreUnavailable
from oncetask.store.fitting import MOST_BYTES_TOGETHER, stored_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from oncetask.clock import Now
    from oncetask.lifecycle import Transition
    from oncetask.lock import Lock, LockChange
    from oncetask.store import TaskStore, Written
    from oncetask.task import Task

__all__ = ["Along", "HandOver", "Hold", "Prolonged"]

_ENOUGH = 2 / 3
_log = logging.getLogger("oncetask")


class Hold:
    """One tenure of a key: from the commit that took it to the one that lets it go, or until somebody takes it over."""

    def __init__(self, store: TaskStore, lock: Lock) -> None:
        """`lock`: as it was stored."""
        self._store = store
        self._lock: Lock | None = lock
        self.resource_key, self.lease_id = lock.resource_key, lock.owner

    @property
    def is_kept(self) -> bool:
        """True as long as the key was neither let go nor lost."""
        return self._lock is not None

    def outlasting(self, instant: datetime) -> list[LockChange]:
        """Give what has to be written so that the lock outlasts a lease that ends then."""
        if self._lock is None or instant <= self._lock.leased_until:
            return []
        return [lifecycle.lock(self.resource_key, self._lock, owner=self.lease_id, until=instant)]

    def lease_from(self, now: Now, seconds: float) -> datetime:
        """Give the end of a lease of about so many seconds: where it can be, one that the lock outlasts as it is."""
        wanted = now.latest + timedelta(seconds=seconds)
        enough = now.latest + timedelta(seconds=_ENOUGH * seconds)
        return (
            wanted if self._lock is None or self._lock.leased_until < enough else min(wanted, self._lock.leased_until)
        )

    def released(self) -> list[LockChange]:
        """Give what lets the key go."""
        return [] if self._lock is None else [lifecycle.unlock(self._lock)]

    def wrote(self, changes: Sequence[LockChange], written: Sequence[Written]) -> None:
        """Take in what became of changes."""
        for change, one in zip(changes, written, strict=True):
            if one.version is not None:
                self._lock = None if change.after is None else replace(change.after, version=one.version)

    async def release(self) -> None:
        """Let the key go, by itself; if that cannot be written now, its lease will run out."""
        if changes := self.released():
            try:
                self.wrote(changes, await self._store.commit([], (), None, changes))
            except StoreUnavailable as error:
                _log.warning("resource key %r is not released: %s", self.resource_key, error)

    async def look(self) -> None:
        """Read the lock after a refusal. What is not ours any more is not written again."""
        (found,) = await self._store.locks([self.resource_key])
        ours = found is not None and found.owner == self.lease_id
        if not ours and self._lock is not None:
            _log.warning("resource key %r is not held by this worker any more", self.resource_key)
        self._lock = found if ours else None


class Along:
    """What is written together with tasks for the sake of their resource key: nothing, where they have none."""

    def writes(
        self,
        now: Now,  # noqa: ARG002  # for those that claim
        tasks: Sequence[Transition],  # noqa: ARG002  # for those that follow them
    ) -> tuple[list[Transition], list[LockChange]]:
        """Give what goes into the commit with these changes of tasks: further claims, and changes of the lock."""
        return [], []

    def wrote(self, claims: Sequence[Transition], locks: Sequence[LockChange], written: Sequence[Written]) -> None:
        """Take in what became of that."""

    async def refused(self) -> None:
        """Take note that somebody else has changed something of it. Raises StoreUnavailable."""

    def shrinks(self) -> bool:
        """Go on with less, because all of it cannot be written; False: there is nothing left to drop."""
        return False

    async def finish(self) -> None:
        """Write what has to follow."""


class Prolonged(Along):
    """What goes along where the end of a lease moves: the lock, which no lease may outlast."""

    def __init__(self, hold: Hold) -> None:
        """`hold`: the key of the tasks."""
        self._hold = hold

    def writes(self, now: Now, tasks: Sequence[Transition]) -> tuple[list[Transition], list[LockChange]]:  # noqa: ARG002
        """Give the lock, prolonged where that is needed."""
        ends = [one.after.leased_until for one in tasks if one.after.leased_until is not None]
        return [], self._hold.outlasting(max(ends)) if ends else []

    def wrote(self, claims: Sequence[Transition], locks: Sequence[LockChange], written: Sequence[Written]) -> None:  # noqa: ARG002
        """Keep the newest record of the lock."""
        self._hold.wrote(locks, written)

    async def refused(self) -> None:
        """Read whether the lock is still there."""
        await self._hold.look()


class HandOver(Along):
    """What goes along with the end of tasks: the claims of those that come next, or the release of the key.

    The end itself matters most: whatever of this is refused, or does not fit, is dropped.
    """

    def __init__(
        self,
        hold: Hold,
        *,
        following: Sequence[Task],
        seconds: float,
        may_claim: Callable[[], bool],
        releases: bool,
    ) -> None:
        """`seconds`: the lease of the `following`. `may_claim`: whether these may still be begun, when it is written.

        `releases`: lets the key go where there are none.
        """
        self._hold = hold
        self._following = following
        self._seconds = seconds
        self._may_claim = may_claim
        self._releases = releases
        self._is_apart = False
        self.claimed: list[Transition] = []
        """The claims that were stored."""

    def writes(self, now: Now, tasks: Sequence[Transition]) -> tuple[list[Transition], list[LockChange]]:
        """Give the claims, or the release."""
        self._is_apart = self._is_apart or _is_too_large(tasks)
        if self._is_apart:
            return [], []
        if not self._following or not self._hold.is_kept or not self._may_claim():
            return [], self._hold.released() if self._releases else []
        until, lease_id = self._hold.lease_from(now, self._seconds), self._hold.lease_id
        claims = [lifecycle.claim(task, lease_id=lease_id, until=until, now=now) for task in self._following]
        return claims, self._hold.outlasting(until)

    def wrote(self, claims: Sequence[Transition], locks: Sequence[LockChange], written: Sequence[Written]) -> None:
        """Keep the claims, and the newest record of the lock."""
        for claim, one in zip(claims, written, strict=False):
            if one.version is not None:
                self.claimed.append(claim.stored(one.version))
        self._hold.wrote(locks, written[len(claims) :])

    async def refused(self) -> None:
        """Go on without the others, who may be why, and read whether the lock is still there."""
        self._following = ()
        await self._hold.look()

    def shrinks(self) -> bool:
        """Drop the others first, then let each task be written by itself, and the release afterwards."""
        if self._is_apart:
            return False
        self._is_apart, self._following = not self._following, ()
        return True

    async def finish(self) -> None:
        """Release the key where that could not go along."""
        if self._is_apart and self._releases:
            await self._hold.release()


def _is_too_large(tasks: Sequence[Transition]) -> bool:
    """Tell whether the ends of a batch, each with the same result, are more than one commit should hold."""
    result = tasks[0].changes.get("result") if tasks else None
    return result is not None and len(tasks) > 1 and len(tasks) * stored_size(result) > MOST_BYTES_TOGETHER
