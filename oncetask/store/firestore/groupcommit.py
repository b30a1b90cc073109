"""Writes that wait at the same time travel together.

While calls are in flight, further writes queue up; the next call takes as many as fit. Nothing waits for company: a
call leaves in the next iteration of the loop, with everything that was submitted in the same one.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from oncetask.store.firestore.queueing import Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from oncetask.store.firestore.writes import Write

__all__ = ["GroupCommit"]

_MOST_WRITES = 500
_MOST_BYTES = 3_670_016  # 3.5 MiB: the emulator takes 4, production 10


class GroupCommit:
    """Sends writes in calls of at most 500 writes and 3.5 MiB, a document at most once at a time.

    Writes of one document are sent in the order of their submission, each after the answer to the one before.
    """

    def __init__(
        self, send: Callable[[list[Write]], Coroutine[Any, Any, None]], *, small_calls: int = 2, calls: int = 4
    ) -> None:
        """`send` settles every write that it is given and does not raise.

        `small_calls`: how many calls may be in flight when one leaves that is not full; `calls`: when it is.
        """
        self._send = send
        self._small_calls = small_calls
        self._calls = calls
        self._queue: Queue[Write] = Queue(most_writes=_MOST_WRITES, most_bytes=_MOST_BYTES)
        self._flights: set[asyncio.Task[None]] = set()
        self._scheduled = False

    def submit(self, writes: Iterable[Write]) -> None:
        """Queue writes; their `done` tells when they are settled."""
        for write in writes:
            self._queue.put(write)
        self._schedule()

    async def aclose(self) -> None:
        """Wait until everything that was submitted is settled."""
        while self._queue or self._flights:
            await (asyncio.wait(self._flights) if self._flights else asyncio.sleep(0))

    def _schedule(self) -> None:
        if self._queue and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._depart)

    def _depart(self) -> None:
        self._scheduled = False
        while self._may_depart() and (batch := self._queue.take()):
            flight = asyncio.get_running_loop().create_task(self._send(batch), name="oncetask-batch-write")
            self._flights.add(flight)
            flight.add_done_callback(partial(self._arrived, batch))

    def _may_depart(self) -> bool:
        return len(self._flights) < (self._calls if self._queue.is_full else self._small_calls)

    def _arrived(self, batch: list[Write], flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._queue.free(batch)
        for write in batch:
            if not write.done.done():  # `send` broke its word: a caller must not wait for ever
                write.fail(flight.exception() or RuntimeError("a write was left unsettled"))
        self._schedule()
