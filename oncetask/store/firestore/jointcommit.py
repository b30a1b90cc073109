"""Atomic commits that wait at the same time travel together.

What belongs together is a group: all of its writes are applied, or none. While enough calls are in flight, further
groups wait; the next `Commit` takes as many as fit. That one is atomic as well, so a group that cannot be applied keeps
the others from it: then each goes on by itself, as if it had never met them. Nothing waits for company: a call leaves
in the next iteration of the loop, with everything that was submitted in the same one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

from oncetask.store.firestore.faults import REFUSALS, too_large
from oncetask.store.firestore.queueing import Queue
from oncetask.store.firestore.rpc import Pb, RpcFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

__all__ = ["Committed", "Group", "JointCommit"]

T = TypeVar("T")

_MOST_WRITES = 200
_MOST_BYTES = 3_145_728  # 3 MiB: the emulator takes 4, production 10
_NOTHING_WRITTEN = frozenset({*REFUSALS, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED})


class Committed(NamedTuple):
    """What a commit that was applied brought."""

    versions: Sequence[int]
    """One for each write."""
    asked: float
    """The local reading of the clock when it was sent."""


@dataclass(slots=True, eq=False)
class Group:
    """Writes that are applied together or not at all, on their way for the first time."""

    writes: Sequence[Pb]
    names: Sequence[str]
    """The documents that they write."""
    done: asyncio.Future[Committed | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future(), init=False
    )
    """What the call brought that they left with; RpcFailed where it failed; None: they have to go by themselves."""
    departed: bool = field(default=False, init=False)

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(write.ByteSize() for write in self.writes)

    def settle(self, committed: Committed | None) -> None:
        """Tell whoever waits."""
        if not self.done.done():
            self.done.set_result(committed)

    def fail(self, error: BaseException) -> None:
        """Tell that it is not known, or cannot be."""
        if not self.done.done():
            self.done.set_exception(error)

    def give_up(self) -> None:
        """Wait no longer for a call to leave with: those before it get no answer."""
        if not self.departed:
            reason = "the calls before it were not answered in time"
            self.fail(RpcFailed("Commit", grpc.StatusCode.DEADLINE_EXCEEDED, reason))


class JointCommit:
    """Sends groups in calls of at most 200 writes and 3 MiB, a document at most once at a time.

    Groups that share a document go in the order of their submission, each after the one before is settled.
    """

    def __init__(
        self, send: Callable[[Sequence[Pb]], Awaitable[Committed]], *, patience: float, calls: int = 8
    ) -> None:
        """`send` applies all writes or none, or raises RpcFailed.

        `patience`: seconds that a group may wait; `calls`: how many may be in flight.
        """
        self._send = send
        self._patience = patience
        self._calls = calls
        self._queue: Queue[Group] = Queue(most_writes=_MOST_WRITES, most_bytes=_MOST_BYTES)
        self._flights: set[asyncio.Task[None]] = set()
        self._runs: set[asyncio.Task[Any]] = set()
        self._scheduled = False

    async def run(self, group: Group, settle: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Send a group, and give what `settle` makes of it, which waits for `group.done` and goes on from there.

        A caller who goes before the group has left takes it with him; later on it is settled without him.
        """
        loop = asyncio.get_running_loop()
        self._queue.put(group)
        self._schedule()
        run = loop.create_task(settle(), name="oncetask-commit")
        self._runs.add(run)
        run.add_done_callback(partial(self._settled, group, loop.call_later(self._patience, group.give_up)))
        try:
            await asyncio.wait({run})
        except asyncio.CancelledError:
            if not group.departed:
                group.done.cancel()
            raise
        return run.result()

    async def aclose(self) -> None:
        """Wait until every group is settled."""
        while under_way := self._runs | self._flights:
            await asyncio.wait(under_way)

    def _schedule(self) -> None:
        if self._queue and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._depart)

    def _depart(self) -> None:
        self._scheduled = False
        while len(self._flights) < self._calls and (groups := self._queue.take()):
            for group in groups:
                group.departed = True
            flight = asyncio.get_running_loop().create_task(self._fly(groups), name="oncetask-joint-commit")
            self._flights.add(flight)
            flight.add_done_callback(self._arrived)

    async def _fly(self, groups: Sequence[Group]) -> None:
        try:
            versions, asked = await self._send([write for group in groups for write in group.writes])
        except RpcFailed as error:
            alone = len(groups) > 1 and (error.code in _NOTHING_WRITTEN or too_large(error))
            for group in groups:
                if alone:
                    group.settle(None)
                else:
                    group.fail(RpcFailed(error.method, error.code, error.details))  # each raises one of its own
        except BaseException as error:
            for group in groups:
                group.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            start = 0
            for group in groups:
                end = start + len(group.writes)
                group.settle(Committed(versions[start:end], asked))
                start = end

    def _arrived(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._schedule()

    def _settled(self, group: Group, timer: asyncio.TimerHandle, run: asyncio.Task[Any]) -> None:
        """Free a group's documents: until then it may still be sent by itself."""
        timer.cancel()
        self._runs.discard(run)
        if group.departed:
            self._queue.free([group])
        self._schedule()
        if not run.cancelled():
            run.exception()  # was seen, even where its caller has gone
