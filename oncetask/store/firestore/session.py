"""What a store has while it is open: a connection, and what works on it, on one event loop."""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from oncetask.errors import StoreUnavailable, Unsupported
from oncetask.store import Written
from oncetask.store.firestore.batchwrite import BatchWriter
from oncetask.store.firestore.codec import Names, micros, read_document
from oncetask.store.firestore.faults import Retrier, unavailable
from oncetask.store.firestore.groupcommit import GroupCommit
from oncetask.store.firestore.jointcommit import Committed, JointCommit
from oncetask.store.firestore.listen import Listener
from oncetask.store.firestore.rpc import Rpc
from oncetask.store.firestore.writes import Write, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oncetask.clock import StoreClock
    from oncetask.store.firestore.connection import Connection
    from oncetask.store.firestore.rpc import RpcCounter, RpcFailed
    from oncetask.task import Task

__all__ = ["Session", "settled"]

_PART = 500
_PARTS_AT_ONCE = 8  # enough to keep the group commit busy, few enough to hold tens of thousands of writes back


class Session:
    """An open store."""

    def __init__(
        self,
        connection: Connection,
        *,
        env: str,
        clock: StoreClock,
        counters: RpcCounter,
        patience: float,
        rpc_timeout: float,
    ) -> None:
        """Use a connection on the running loop; it is closed with the session."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._under_way = 0
        self._first_settings: tuple[Any, float]
        self.forget_first_settings()
        self._idle = asyncio.Event()
        self._idle.set()
        self.clock = clock
        self.client = connection.client
        self.emulator = connection.emulator
        self.rpc = Rpc(connection, clock=clock, counters=counters, timeout=rpc_timeout)
        self.names = Names(connection.database, env)
        self._where = where = connection.where
        self.retrier = Retrier(patience=patience, where=where)
        sender = BatchWriter(self.rpc, retrier=self.retrier, clock=clock, where=where, read=self.read)
        self._commits = GroupCommit(sender.send)
        self.joint = JointCommit(self.commit, patience=patience)
        explain = partial(unavailable, doing="listening", where=where)
        self.listener = Listener(self.rpc.listen, explain=explain, on_emulator=connection.emulator is not None)

    async def learn_time(self) -> None:
        """Read something, so that the clock is known, and with it whether the database can be used at all."""
        asked = self.clock.monotonic()
        (answer,) = await self.ask_settings("opening the store")
        self._first_settings = (answer, asked)

    async def ask_settings(self, doing: str) -> Sequence[Any]:
        """Read the document of the environment. Raises StoreUnavailable."""
        return await self.retrier.run(doing, partial(self.rpc.batch_get, [self.names.settings]))

    def first_settings(self, no_older_than: float) -> Any | None:
        """Give what opening has read, if that was in the last so many seconds."""
        answer, asked = self._first_settings
        return answer if self.clock.monotonic() - asked < no_older_than else None

    def forget_first_settings(self) -> None:
        """Take note that the settings are others by now."""
        self._first_settings = (None, -math.inf)

    def check_loop(self) -> None:
        """Raise Unsupported on another loop than the one that this session was opened on."""
        if asyncio.get_running_loop() is not self._loop:
            msg = (
                "this client was opened on another event loop, and its connection belongs to that one: close it "
                "there, or make a client for each loop (connect_sync() serves code without a loop of its own)"
            )
            raise Unsupported(msg)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Mark work that closing has to wait for."""
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def read(self, names: Sequence[str]) -> dict[str, Task]:
        """Read the tasks that exist, by the names of their documents. Raises RpcFailed."""
        return {
            answer.found.name: read_document(self.names, answer.found, read_time=answer.read_time)
            for answer in await self.rpc.batch_get(names)
            if answer.HasField("found")
        }

    async def query(self, query: Any) -> list[Task]:
        """Run a query for whole documents. Raises StoreUnavailable."""
        answers = await self.answers(query)
        return [read_document(self.names, answer.document, read_time=answer.read_time) for answer in answers]

    async def answers(self, query: Any) -> list[Any]:
        """Run a query; gives the messages that hold a document. Raises StoreUnavailable."""
        answers = await self.retrier.run("querying tasks", partial(self.rpc.run_query, self.names.parent, query))
        return [answer for answer in answers if answer.HasField("document")]

    def unavailable(self, error: RpcFailed, doing: str) -> StoreUnavailable:
        """Give the error for what no further try would change."""
        return unavailable(error, doing, where=self._where)

    async def count(self, query: Any) -> int:
        """Let the server count what a query finds. Raises StoreUnavailable."""
        return await self.retrier.run("counting tasks", partial(self.rpc.count, self.names.parent, query))

    async def commit(self, writes: Sequence[Any]) -> Committed:
        """Apply all of these writes, or none, in one call. Raises RpcFailed."""
        asked = self.clock.monotonic()
        answer = await self.rpc.commit(writes)
        # A deletion has no time of its own.
        times = (one.update_time if one.HasField("update_time") else answer.commit_time for one in answer.write_results)
        return Committed([micros(time) for time in times], asked)

    async def write(self, builders: Sequence[Callable[[], Write]]) -> list[Written]:
        """Send writes through the group commit, in the order of the builders.

        Raises StoreUnavailable; its `receipts` tell what was settled before.
        """
        return settled(await self.outcomes(builders))

    async def outcomes(self, builders: Sequence[Callable[[], Write]]) -> list[Written | BaseException | None]:
        """Send writes through the group commit, and give what became of each; None: it was not begun.

        After a failure no further part is begun.
        """
        parts = [builders[start : start + _PART] for start in range(0, len(builders), _PART)]
        outcomes: dict[int, Sequence[Written | BaseException]] = {}
        upcoming = iter(range(len(parts)))

        async def work() -> None:
            for index in upcoming:
                outcomes[index] = await self._write_part(parts[index])
                if not all(isinstance(outcome, Written) for outcome in outcomes[index]):
                    break

        await asyncio.gather(*(work() for _ in range(min(_PARTS_AT_ONCE, len(parts)))))
        unknown: Sequence[None] = [None] * _PART
        return [one for index, part in enumerate(parts) for one in outcomes.get(index, unknown[: len(part)])]

    async def _write_part(self, builders: Sequence[Callable[[], Write]]) -> list[Written | BaseException]:
        writes = [tried(build) for build in builders]
        pending = [write for write in writes if isinstance(write, Write)]
        self._commits.submit(pending)
        outcomes = iter(await asyncio.gather(*(write.done for write in pending), return_exceptions=True))
        return [next(outcomes) if isinstance(write, Write) else write for write in writes]

    async def aclose(self) -> None:
        """Wait for what is under way, end the listener, close the connection if it is ours."""
        await self._idle.wait()
        await self._commits.aclose()
        await self.joint.aclose()
        await self.listener.aclose()
        await self._connection.aclose()


def settled(outcomes: Sequence[Written | BaseException | None]) -> list[Written]:
    """Give what became of all writes, or raise with what is known."""
    failure = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
    receipts = [outcome if isinstance(outcome, Written) else None for outcome in outcomes]
    if isinstance(failure, StoreUnavailable):
        raise StoreUnavailable(str(failure), receipts=receipts) from failure.__cause__
    if failure is not None:
        raise failure
    return [written for written in receipts if written is not None]
