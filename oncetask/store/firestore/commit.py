"""Transitions, locks, new tasks and the user's own writes: all of them are applied, or none.

Those of one call share an atomic `Commit`, which may carry those of other calls as well (`jointcommit.py`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
from google.cloud.firestore_v1.base_batch import BaseWriteBatch

from oncetask.clock import from_micros
from oncetask.errors import OncetaskError
from oncetask.store import Written
from oncetask.store.firestore.faults import REFUSALS, TRANSIENT, impossible, too_large
from oncetask.store.firestore.jointcommit import Group
from oncetask.store.firestore.locks import LockWrite, lock_write, read_locks, takes
from oncetask.store.firestore.rpc import RpcFailed
from oncetask.store.firestore.writes import Write, change, creation, tried

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncetask.lifecycle import Transition
    from oncetask.lock import Lock, LockChange
    from oncetask.store.firestore.jointcommit import Committed
    from oncetask.store.firestore.session import Session
    from oncetask.task import Task

__all__ = ["commit"]

_EXPECTED = frozenset({*REFUSALS, grpc.StatusCode.INVALID_ARGUMENT})


async def commit(
    session: Session,
    transitions: Sequence[Transition],
    creates: Sequence[Task],
    batch: object | None,
    locks: Sequence[LockChange],
) -> list[Written]:
    """Commit, or say why not, with an answer for each transition and each lock. Raises StoreUnavailable."""
    names = session.names
    changes = [tried(partial(change, names, transition)) for transition in transitions]
    lock_writes = [tried(partial(lock_write, names, lock)) for lock in locks]
    creations = [tried(partial(creation, names, task)) for task in creates]
    for write in (*changes, *lock_writes, *creations):
        if isinstance(write, Written):
            return [write] * (len(transitions) + len(locks))
    others = _writes_of(batch)
    atomic = _AtomicCommit(
        session,
        changes=[write for write in changes if isinstance(write, Write)],
        locks=[write for write in lock_writes if isinstance(write, LockWrite)],
        creations=[write for write in creations if isinstance(write, Write)],
        others=others,
    )
    # What is likely to be refused, or to exist already, goes by itself: it would hold up everybody else.
    if creations or others or any(map(takes, locks)):
        return await atomic.run()
    group = atomic.group()
    return await session.joint.run(group, partial(atomic.run, group))


class _AtomicCommit:
    """One commit on its way. Its parts share one fate, so a transition's document tells that of all."""

    def __init__(
        self,
        session: Session,
        *,
        changes: Sequence[Write],
        locks: Sequence[LockWrite],
        creations: Sequence[Write],
        others: Sequence[Any],
    ) -> None:
        """`others`: the user's writes."""
        self._session = session
        self._changes = changes
        self._locks = locks
        self._creations = list(creations)
        self._others = list(others)
        self._doubtful = False
        self._group: Group | None = None

    def group(self) -> Group:
        """Give what of it can travel with others: everything, where there are no new tasks and no user's writes."""
        names = [*(write.name for write in self._changes), *(write.name for write in self._locks)]
        return Group(self._writes(), names)

    async def run(self, group: Group | None = None) -> list[Written]:
        """Commit until it is settled. `group`: the first try, which is under way already."""
        self._group = group
        while True:
            try:
                return await self._session.retrier.run("committing tasks", self._once, expected=_EXPECTED)
            except RpcFailed as error:
                if error.code not in REFUSALS:
                    largest = max(pb.ByteSize() for pb in self._writes())
                    return self._all(Written(error=impossible(error, size=largest)))
                refused = error
            existing, locks = await self._look()
            found = [existing.get(write.name) for write in self._changes]
            if self._doubtful and self._was_applied(found, locks):
                # All were applied. One that is gone since gets a version that no write can build on.
                judged = [write.judge(task) for write, task in zip(self._changes, found, strict=True)]
                judged += [write.judge(lock) for write, lock in zip(self._locks, locks, strict=True)]
                return [one if one.applied else Written(0) for one in judged]
            if any(
                task is None or task.version != write.base for write, task in zip(self._changes, found, strict=True)
            ) or any(write.is_stale(lock) for write, lock in zip(self._locks, locks, strict=True)):
                return self._all(Written())
            # A task that existed may be gone again by now; then only the user's own writes can be what was refused.
            left_out = self._leave_out(existing)
            if refused.code is not grpc.StatusCode.ALREADY_EXISTS or (self._others and not left_out):
                fault = OncetaskError(f"a write of the handler's batch was refused: {refused.details}")
                return self._all(Written(error=fault))

    async def _once(self) -> list[Written]:
        try:
            versions, asked = await self._sent()
        except RpcFailed as error:
            if error.code in TRANSIENT and not too_large(error):
                self._doubtful = True
            raise
        bases = [*(write.base for write in self._changes), *(write.base for write in self._locks)]
        versions = versions[: len(bases)]
        newest, base = max(zip(versions, bases, strict=True), default=(0, 0))
        if newest > base:
            self._session.clock.observe(from_micros(newest), asked=asked)
        return [Written(version) for version in versions]

    async def _sent(self) -> Committed:
        """Send all of it, the first time in company."""
        group, self._group = self._group, None
        committed = None if group is None else await group.done
        return await self._session.commit(self._writes()) if committed is None else committed

    def _was_applied(self, tasks: Sequence[Task | None], locks: Sequence[Lock | None]) -> bool:
        """Tell, from what is stored now, whether an earlier try was applied whose answer got lost."""
        if any(write.judge(task).applied for write, task in zip(self._changes, tasks, strict=True)):
            return True
        if any(write.base and not write.is_stale(lock) for write, lock in zip(self._locks, locks, strict=True)):
            return False
        # No task tells: it was not applied, or all were written since. Of the locks, one that is gone says little where
        # there are tasks, since others remove locks as well.
        return any(
            write.judge(lock).applied and (lock is not None or not self._changes)
            for write, lock in zip(self._locks, locks, strict=True)
        )

    def _all(self, written: Written) -> list[Written]:
        return [written] * (len(self._changes) + len(self._locks))

    def _writes(self) -> list[Any]:
        ours: list[Write | LockWrite] = [*self._changes, *self._locks, *self._creations]
        return [*(write.pb for write in ours), *self._others]

    async def _look(self) -> tuple[Mapping[str, Task], Sequence[Lock | None]]:
        """Read what is there of tasks, old and new, by name, and of the locks in their order."""
        session = self._session
        names = [write.name for write in (*self._changes, *self._creations)]
        tasks = await session.retrier.run("reading tasks", partial(session.read, names)) if names else {}
        return tasks, await read_locks(session, [write.change.resource_key for write in self._locks])

    def _leave_out(self, existing: Mapping[str, Task]) -> bool:
        """Drop the creations of tasks that exist already; False where there are none."""
        left = [write for write in self._creations if write.name not in existing]
        fewer = len(left) < len(self._creations)
        self._creations = left
        return fewer


def _writes_of(batch: object | None) -> list[Any]:
    """Give the user's own writes as raw protobuf messages."""
    if not isinstance(batch, BaseWriteBatch):
        return []
    return [type(write).pb(write) for write in batch._write_pbs]  # noqa: SLF001  # has no public name
