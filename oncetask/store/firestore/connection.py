"""A client of Google's library, and the channel that our RPCs take."""

from __future__ import annotations

import asyncio
import functools
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore_v1 import AsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

from oncetask.errors import StoreUnavailable, Unsupported

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

__all__ = ["Connection"]

_OPTIONS = (
    # A connection that has fallen silent is given up after 40 s, before the longest lease has ended. The second is what
    # older releases of grpc wait for an answer, the third what newer ones do: a minute, where nothing is said.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # By default a channel waits for up to two minutes before it looks whether a server has come back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@functools.cache
def _keep_grpc_polling() -> None:
    """Keep the thread that grpc polls with: it would end with each last channel, and block the loop meanwhile.

    Before a fork it is let go, since a child without that thread crashes at its first call.
    """
    grpc.aio.init_grpc_aio()
    _let_go_before_forks()


@functools.cache
def _let_go_before_forks() -> None:
    os.register_at_fork(before=_let_grpc_go)


def _let_grpc_go() -> None:
    if _keep_grpc_polling.cache_info().currsize:
        _keep_grpc_polling.cache_clear()
        grpc.aio.shutdown_grpc_aio()


class Connection:
    """Made on the loop that uses it."""

    def __init__(self, client: AsyncClient, channel: Any, *, owned: bool) -> None:
        """`owned`: client and channel are closed with this."""
        self.client = client
        self.channel = channel
        self._owned = owned
        _keep_grpc_polling()
        # The library has no public names for these.
        self.database: str = client._database_string  # noqa: SLF001
        self.metadata = tuple(client._rpc_metadata)  # noqa: SLF001  # carries the emulator's token
        self.emulator: str | None = client._emulator_host  # noqa: SLF001  # as above
        self.where = f"Firestore {self.database} at {client._target}"  # noqa: SLF001

    @classmethod
    def borrowed(cls, client: AsyncClient) -> Self:
        """Take the channel of a client that is the caller's. Raises Unsupported where it belongs to another loop."""
        channel = client._firestore_api.transport.grpc_channel  # noqa: SLF001  # has no public name
        if getattr(channel, "_loop", None) not in {None, asyncio.get_running_loop()}:
            msg = "the AsyncClient passed in was first used on another event loop: make one on the loop that uses it"
            raise Unsupported(msg)
        return cls(client, channel, owned=False)

    @classmethod
    async def own(cls, *, project: str | None, database: str | None, credentials: Credentials | None) -> Self:
        """Make a client and a channel. Raises StoreUnavailable where credentials or the project are missing."""
        make = partial(AsyncClient, project=project, database=database, credentials=credentials)
        try:
            client = await asyncio.to_thread(make)  # it reads files, and may ask a metadata server
        except (GoogleAuthError, OSError) as error:
            msg = (
                f"cannot make a Firestore client: {error}; sign in with `gcloud auth application-default login`, "
                "name the project in GOOGLE_CLOUD_PROJECT, or set FIRESTORE_EMULATOR_HOST to use an emulator"
            )
            raise StoreUnavailable(msg) from error
        target = client._target  # noqa: SLF001  # has no public name
        if client._emulator_host is None:  # noqa: SLF001  # as above
            channel = FirestoreGrpcAsyncIOTransport.create_channel(
                target,
                credentials=client._credentials,  # noqa: SLF001  # as above
                options=_OPTIONS,
            )
        else:
            channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        return cls(client, channel, owned=True)

    async def aclose(self) -> None:
        """Close what is ours: the channel, and the one that the client has opened if somebody used it directly."""
        if self._owned:
            await self.channel.close()
            if self.client._firestore_api_internal is not None:  # noqa: SLF001  # as above
                await self.client._firestore_api.transport.close()  # noqa: SLF001  # as above
