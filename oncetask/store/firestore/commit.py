"""Transitions, new tasks and the user's own writes in one atomic `Commit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

from oncetask.clock import from_micros
from oncetask.errors import OncetaskError
from oncetask.store import Written
from oncetask.store.firestore.codec import micros
from oncetask.store.firestore.faults import REFUSALS, TRANSIENT, Retrier, impossible, too_large
from oncetask.store.firestore.rpc import Rpc, RpcFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from oncetask.clock import StoreClock
    from oncetask.store.firestore.writes import Write
    from oncetask.task import Task

__all__ = ["AtomicCommit"]

_EXPECTED = frozenset({*REFUSALS, grpc.StatusCode.INVALID_ARGUMENT})


class AtomicCommit:
    """One commit on its way. Its parts share one fate, so a transition's document tells that of all."""

    def __init__(
        self,
        rpc: Rpc,
        *,
        clock: StoreClock,
        read: Callable[[Sequence[str]], Awaitable[dict[str, Task]]],
        changes: Sequence[Write],
        creations: Sequence[Write],
        others: Sequence[Any],
    ) -> None:
        """`others`: the user's writes. `read` gives the tasks that exist, by the names of their documents."""
        self._rpc = rpc
        self._clock = clock
        self._read = read
        self._changes = changes
        self._creations = list(creations)
        self._others = list(others)
        self._doubtful = False

    async def run(self, retrier: Retrier) -> list[Written]:
        """Commit, or say why not, with an answer for each change. Raises StoreUnavailable."""
        while True:
            try:
                return await retrier.run("committing tasks", self._once, expected=_EXPECTED)
            except RpcFailed as error:
                if error.code not in REFUSALS:
                    largest = max(pb.ByteSize() for pb in self._writes())
                    return self._all(Written(error=impossible(error, size=largest)))
                refused = error
            existing = await retrier.run("reading tasks", self._look)
            found = [existing.get(change.name) for change in self._changes]
            if self._doubtful:
                judged = [change.judge(task) for change, task in zip(self._changes, found, strict=True)]
                if any(one.applied for one in judged):
                    # All were applied. One that is gone since gets a version that no write can build on.
                    return [one if one.applied else Written(0) for one in judged]
            if any(
                task is None or task.version != change.base for change, task in zip(self._changes, found, strict=True)
            ):
                return self._all(Written())
            # A task that existed may be gone again by now; then only the user's own writes can be what was refused.
            left_out = self._leave_out(existing)
            if refused.code is not grpc.StatusCode.ALREADY_EXISTS or (self._others and not left_out):
                fault = OncetaskError(f"a write of the handler's batch was refused: {refused.details}")
                return self._all(Written(error=fault))

    async def _once(self) -> list[Written]:
        asked = self._clock.monotonic()
        try:
            answer = await self._rpc.commit(self._writes())
        except RpcFailed as error:
            if error.code in TRANSIENT and not too_large(error):
                self._doubtful = True
            raise
        results = answer.write_results[: len(self._changes)]
        versions = [micros(result.update_time) for result in results]
        newest, base = max(zip(versions, (change.base for change in self._changes), strict=True))
        if newest > base:
            self._clock.observe(from_micros(newest), asked=asked)
        return [Written(version) for version in versions]

    def _all(self, written: Written) -> list[Written]:
        return [written] * len(self._changes)

    def _writes(self) -> list[Any]:
        return [*(change.pb for change in self._changes), *(creation.pb for creation in self._creations), *self._others]

    async def _look(self) -> dict[str, Task]:
        return await self._read([write.name for write in (*self._changes, *self._creations)])

    def _leave_out(self, existing: dict[str, Task]) -> bool:
        """Drop the creations of tasks that exist already; False where there are none."""
        left = [creation for creation in self._creations if creation.name not in existing]
        fewer = len(left) < len(self._creations)
        self._creations = left
        return fewer
