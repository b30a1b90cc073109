"""What a store has while it is open: a connection, and what works on it, on one event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from oncetask.errors import Unsupported
from oncetask.store.firestore.batchwrite import BatchWriter
from oncetask.store.firestore.codec import Names, read_document
from oncetask.store.firestore.faults import Retrier, unavailable
from oncetask.store.firestore.groupcommit import GroupCommit
from oncetask.store.firestore.listen import Listener
from oncetask.store.firestore.rpc import Rpc
from oncetask.store.firestore.writes import Write, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from oncetask.clock import StoreClock
    from oncetask.store import Written
    from oncetask.store.firestore.connection import Connection
    from oncetask.store.firestore.rpc import RpcCounter
    from oncetask.task import Task

__all__ = ["Session"]


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
        self.client = connection.client
        self.rpc = Rpc(connection, clock=clock, counters=counters, timeout=rpc_timeout)
        self.names = Names(connection.database, env)
        where = connection.where
        self.retrier = Retrier(patience=patience, where=where)
        sender = BatchWriter(self.rpc, retrier=self.retrier, clock=clock, where=where, read=self.read)
        self._commits = GroupCommit(sender.send)
        self.listener = Listener(self.rpc.listen, explain=partial(unavailable, doing="listening", where=where))

    async def learn_time(self) -> None:
        """Read something, so that the clock is known, and with it whether the database can be used at all."""
        settings = [self.names.settings]
        await self.retrier.run("opening the store", partial(self.rpc.batch_get, settings))

    def check_loop(self) -> None:
        """Raise Unsupported on another loop than the one that this session was opened on."""
        if asyncio.get_running_loop() is not self._loop:
            msg = (
                "this client was opened on another event loop, and its connection belongs to that one: close it "
                "there, or make a client for each loop (connect_sync() serves code without a loop of its own)"
            )
            raise Unsupported(msg)

    async def read(self, names: Sequence[str]) -> dict[str, Task]:
        """Read the tasks that exist, by the names of their documents. Raises RpcFailed."""
        return {
            answer.found.name: read_document(self.names, answer.found, read_time=answer.read_time)
            for answer in await self.rpc.batch_get(names)
            if answer.HasField("found")
        }

    async def write(self, builders: Iterable[Callable[[], Write]]) -> list[Written | BaseException]:
        """Send writes through the group commit; those whose fate is not known give their exception."""
        writes = [tried(build) for build in builders]
        pending = [write for write in writes if isinstance(write, Write)]
        self._commits.submit(pending)
        outcomes = iter(await asyncio.gather(*(write.done for write in pending), return_exceptions=True))
        return [next(outcomes) if isinstance(write, Write) else write for write in writes]

    async def aclose(self) -> None:
        """Wait for writes in flight, end the listener, close the connection if it is ours."""
        await self._commits.aclose()
        await self.listener.aclose()
        await self._connection.aclose()
