"""Servers that wakers talk to: a scheduler function that records, and Cloud Tasks' CreateTask."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import uvicorn
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcAsyncIOTransport
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["LIMIT", "CloudTasks", "Scheduler", "answering", "counted", "served"]

LIMIT = 20.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""


async def counted(changed: asyncio.Condition, seen: list[Any], number: int) -> None:
    """Wait until so many have been seen; fail loudly if they do not come."""
    async with asyncio.timeout(LIMIT), changed:
        await changed.wait_for(lambda: len(seen) >= number)


class Scheduler:
    """A scheduler function that holds its answers back until it is released."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.ended: list[str] = []
        self.release = asyncio.Event()
        self.response = Response(status_code=200)
        self._changed = asyncio.Condition()

    async def __call__(self, request: Request) -> Response:
        """Record a request and answer it."""
        await self._note(self.requests, request)
        await self.release.wait()
        await self._note(self.ended, "deserted" if await request.is_disconnected() else "attended")
        return self.response

    async def received(self, number: int) -> None:
        """Wait until so many requests have arrived."""
        await counted(self._changed, self.requests, number)

    async def answered(self, number: int) -> None:
        """Wait until so many requests have been worked off."""
        await counted(self._changed, self.ended, number)

    async def _note(self, where: list[Any], what: object) -> None:
        async with self._changed:
            where.append(what)
            self._changed.notify_all()


@asynccontextmanager
async def served(app: Callable[[Request], Awaitable[Response]] | Any, **options: Any) -> AsyncIterator[str]:
    """Serve an endpoint, or an ASGI application, by uvicorn; gives where it listens, as `HOST:PORT`."""
    if isinstance(app, Scheduler):
        app = Starlette(routes=[Route("/{path:path}", app.__call__, methods=["POST"])])
    listening = socket.create_server(("127.0.0.1", 0))  # connections wait in it until the server takes them
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, **options))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, LIMIT)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Answer every request with these bytes and hang up; gives where it listens."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class CloudTasks:
    """Cloud Tasks as far as alarms need it: it refuses names that it knows, and whatever a test tells it to."""

    def __init__(self) -> None:
        self.calls: list[tasks_v2.CreateTaskRequest] = []
        self.tasks: dict[str, tasks_v2.Task] = {}
        self.faults: list[grpc.StatusCode] = []
        self.release = asyncio.Event()
        self.release.set()
        self._changed = asyncio.Condition()

    async def create_task(self, request: tasks_v2.CreateTaskRequest, context: Any) -> tasks_v2.Task:
        """Record a call and answer it."""
        async with self._changed:
            self.calls.append(request)
            self._changed.notify_all()
        await self.release.wait()
        if self.faults:
            await context.abort(self.faults.pop(0), "as the test wants it")
        if request.task.name in self.tasks:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "Requested entity already exists")
        self.tasks[request.task.name] = request.task
        return request.task

    async def called(self, number: int) -> None:
        """Wait until so many calls have arrived."""
        await counted(self._changed, self.calls, number)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Serve this by gRPC; gives where it listens."""
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(
            self.create_task,
            request_deserializer=tasks_v2.CreateTaskRequest.deserialize,
            response_serializer=tasks_v2.Task.serialize,
        )
        service = grpc.method_handlers_generic_handler("google.cloud.tasks.v2.CloudTasks", {"CreateTask": method})
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            self.release.set()
            await server.stop(None)


def tasks_client(where: str) -> tasks_v2.CloudTasksAsyncClient:
    """Make Google's client of a server without encryption."""
    transport = CloudTasksGrpcAsyncIOTransport(channel=grpc.aio.insecure_channel(where))
    return tasks_v2.CloudTasksAsyncClient(transport=transport)
