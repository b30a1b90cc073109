"""What a listener's stream leaves behind, on a server of gRPC's own that ends it as Firestore may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.cloud.firestore_v1.types import firestore as messages

from oncetask.clock import StoreClock, SystemClock
from oncetask.store.firestore.rpc import ListenCall, Rpc, RpcCounter, RpcFailed
from tests.integration.worker.support import LIMIT

_ANSWER = messages.ListenResponse.pb(messages.ListenResponse(target_change={"target_ids": [1]})).SerializeToString()


@pytest.fixture
async def listening() -> AsyncIterator[tuple[Rpc, asyncio.Event]]:
    """Serve `Listen`: it answers a few times and ends the stream, whatever it is asked; and the way to it."""
    ended = asyncio.Event()

    async def listen(_: AsyncIterator[bytes], context: Any) -> None:
        for _number in range(5):
            await context.write(_ANSWER)
        ended.set()
        await context.abort(grpc.StatusCode.ABORTED, "no more")

    server = grpc.aio.server()
    handlers = {"Listen": grpc.stream_stream_rpc_method_handler(listen)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("google.firestore.v1.Firestore", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        connection: Any = SimpleNamespace(channel=channel, metadata=(), database="projects/p/databases/d")
        yield Rpc(connection, clock=StoreClock(SystemClock()), counters=RpcCounter(), timeout=LIMIT), ended
    await server.stop(None)


def _of_calls() -> list[asyncio.Task[Any]]:
    """Give what grpc runs for calls of clients."""
    return [task for task in asyncio.all_tasks() if "_AioCall" in repr(task)]


async def _send_until_it_fails(call: ListenCall) -> None:
    while True:
        await call.send(remove_target=1)


async def test_a_stream_that_ends_while_something_is_sent_leaves_nothing(listening: tuple[Rpc, asyncio.Event]) -> None:
    """What grpc takes for ended would wait for its status for ever, behind what nobody has read."""
    rpc, ended = listening
    with rpc.listen() as call:
        await asyncio.wait_for(ended.wait(), LIMIT)
        assert _of_calls() != []
        with pytest.raises(RpcFailed, match="INTERNAL"):
            await _send_until_it_fails(call)
    if tasks := _of_calls():
        await asyncio.wait(tasks, timeout=LIMIT)
    assert _of_calls() == []
