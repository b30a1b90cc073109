"""What a store has while it is open: a client, its channel, and what works on that channel, on one event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Self

from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore_v1 import AsyncClient

from oncetask.errors import StoreUnavailable, Unsupported
from oncetask.store import Written
from oncetask.store.firestore.batchwrite import BatchWriter
from oncetask.store.firestore.codec import Names, read_document
from oncetask.store.firestore.faults import Retrier, unavailable
from oncetask.store.firestore.groupcommit import GroupCommit
from oncetask.store.firestore.listen import Listener
from oncetask.store.firestore.rpc import Rpc
from oncetask.store.firestore.writes import Write, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from google.auth.credentials import Credentials

    from oncetask.clock import StoreClock
    from oncetask.store.firestore.rpc import RpcCounter
    from oncetask.task import Task

__all__ = ["Session", "client_maker"]


def client_maker(
    client: AsyncClient | None, *, project: str | None, database: str | None, credentials: Credentials | None
) -> Callable[[], AsyncClient]:
    """Give what makes the client at first use; with `client`, it is that one."""
    if client is not None:
        return lambda: client
    return partial(AsyncClient, project=project, database=database, credentials=credentials)


class Session:
    """An open store."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        env: str,
        owned: bool,
        clock: StoreClock,
        counters: RpcCounter,
        patience: float,
        rpc_timeout: float,
    ) -> None:
        """Use `client` on the running loop; `owned`: its channel is closed with the session."""
        self.client = client
        self._owned = owned
        self._loop = asyncio.get_running_loop()
        self.rpc = Rpc(client, clock=clock, counters=counters, timeout=rpc_timeout)
        if self.rpc.loop not in {None, self._loop}:
            msg = "the AsyncClient passed in was first used on another event loop: make one on the loop that uses it"
            raise Unsupported(msg)
        where = f"Firestore {self.rpc.database} at {client._target}"  # noqa: SLF001  # has no public name
        self.names = Names(self.rpc.database, env)
        self.retrier = Retrier(patience=patience, where=where)
        sender = BatchWriter(self.rpc, retrier=self.retrier, clock=clock, where=where, read=self.read)
        self._commits = GroupCommit(sender.send)
        self.listener = Listener(self.rpc.listen, explain=partial(unavailable, doing="listening", where=where))

    @classmethod
    async def open(
        cls,
        make_client: Callable[[], AsyncClient],
        *,
        env: str,
        owned: bool,
        clock: StoreClock,
        counters: RpcCounter,
        patience: float,
        rpc_timeout: float,
    ) -> Self:
        """Make the client, and learn the server's time from a read. Raises StoreUnavailable."""
        try:
            # In a thread: finding credentials reads files and may ask a metadata server.
            client = await asyncio.to_thread(make_client)
        except (GoogleAuthError, OSError) as error:
            msg = (
                f"cannot make a Firestore client: {error}; sign in with `gcloud auth application-default login`, "
                "name the project in GOOGLE_CLOUD_PROJECT, or set FIRESTORE_EMULATOR_HOST to use an emulator"
            )
            raise StoreUnavailable(msg) from error
        session = cls(
            client,
            env=env,
            owned=owned,
            clock=clock,
            counters=counters,
            patience=patience,
            rpc_timeout=rpc_timeout,
        )
        try:
            await session.retrier.run("opening the store", partial(session.rpc.batch_get, [session.names.settings]))
        except BaseException:
            await session.aclose()
            raise
        return session

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
        """Wait for writes in flight, end the listener, close the channel if it is ours."""
        await self._commits.aclose()
        await self.listener.aclose()
        if self._owned:
            await self.client._firestore_api.transport.close()  # noqa: SLF001  # has no public name
