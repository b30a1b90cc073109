"""A transition, new tasks and the user's own writes in one atomic `Commit`."""

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
    """One commit on its way. Its parts share one fate, so the transition's document tells that of all."""

    def __init__(
        self,
        rpc: Rpc,
        *,
        clock: StoreClock,
        read: Callable[[Sequence[str]], Awaitable[dict[str, Task]]],
        change: Write,
        creations: Sequence[Write],
        others: Sequence[Any],
    ) -> None:
        """`others`: the user's writes. `read` gives the tasks that exist, by the names of their documents."""
        self._rpc = rpc
        self._clock = clock
        self._read = read
        self._change = change
        self._creations = list(creations)
        self._others = list(others)
        self._doubtful = False

    async def run(self, retrier: Retrier) -> Written:
        """Commit, or say why not. Raises StoreUnavailable."""
        while True:
            try:
                return await retrier.run("committing a task", self._once, expected=_EXPECTED)
            except RpcFailed as error:
                if error.code not in REFUSALS:
                    largest = max(pb.ByteSize() for pb in self._writes())
                    return Written(error=impossible(error, size=largest))
                refused = error
            existing = await retrier.run("reading tasks", self._look)
            change = existing.get(self._change.name)
            if self._doubtful and (judged := self._change.judge(change)).applied:
                return judged
            if change is None or change.version != self._change.base:
                return Written()
            if refused.code is not grpc.StatusCode.ALREADY_EXISTS or not self._leave_out(existing):
                fault = OncetaskError(f"a write of the handler's batch was refused: {refused.details}")
                return Written(error=fault)

    async def _once(self) -> Written:
        asked = self._clock.monotonic()
        try:
            answer = await self._rpc.commit(self._writes())
        except RpcFailed as error:
            if error.code in TRANSIENT and not too_large(error):
                self._doubtful = True
            raise
        version = micros(answer.write_results[0].update_time)
        if version > self._change.base:
            self._clock.observe(from_micros(version), asked=asked)
        return Written(version)

    def _writes(self) -> list[Any]:
        return [self._change.pb, *(creation.pb for creation in self._creations), *self._others]

    async def _look(self) -> dict[str, Task]:
        return await self._read([self._change.name, *(creation.name for creation in self._creations)])

    def _leave_out(self, existing: dict[str, Task]) -> bool:
        """Drop the creations of tasks that exist already; False where there are none."""
        left = [creation for creation in self._creations if creation.name not in existing]
        fewer = len(left) < len(self._creations)
        self._creations = left
        return fewer
