"""A relay in front of the emulator that hands on every call, and keeps a record of each write that was accepted.

It stands behind whatever is done to the network, so that it sees also what a client never learnt: once a write has come
here it is carried through and recorded, whether its client is still there or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Self

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
from google.cloud.firestore_v1.types import firestore as messages

from tests.chaos.gaps import without_gaps
from tests.chaos.ledger import Change

__all__ = ["Relay"]

_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
_GET = "/google.firestore.v1.Firestore/BatchGetDocuments"
_REFUSALS = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)
"""Codes that say that nothing was applied."""
_TASKS = "/onceTasks/"
_MICROS = 1_000_000
_OWN_HEADERS = frozenset({"user-agent", "te", "content-type"})
_WRITES: dict[str, tuple[Any, Any]] = {
    "Commit": (messages.CommitRequest.pb(), messages.CommitResponse.pb()),
    "BatchWrite": (messages.BatchWriteRequest.pb(), messages.BatchWriteResponse.pb()),
}


class Relay:
    """A gRPC server of its own; messages pass as bytes."""

    def __init__(self, target: str) -> None:
        """`target`: host:port of the emulator."""
        self._target = target
        self._record: list[Change] = []
        self._doubtful: list[Change] = []
        self._names: dict[str, str] = {}
        self._gate = asyncio.Event()
        self._gate.set()
        self._headers: list[tuple[str, str]] = []
        self._writing: set[asyncio.Task[bytes]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self.host = ""
        """Where it listens, as host:port."""

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._target, options=_OPTIONS)
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.host = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)
        if self._writing:
            await asyncio.wait(self._writing)
        await self._resolve()
        await self._channel.close()

    def changes(self) -> Iterator[Change]:
        """Give every write of a task that was accepted, in the order of the versions."""
        yield from sorted(self._record, key=lambda change: change.at)  # those of one version stay as they were

    async def write(self, method: str, request: bytes, context: Any) -> bytes:
        """Carry a write through."""
        await self._gate.wait()
        task = asyncio.ensure_future(self._carry(method, request, _headers(context)))
        self._writing.add(task)
        task.add_done_callback(self._settled)
        try:
            return await asyncio.shield(task)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())
            raise

    async def read(self, method: str, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Hand on a question and its answers."""
        call = self._channel.unary_stream(method)(request, metadata=_headers(context))
        async for answer in _answers(call, context):
            yield answer

    async def listen(self, method: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Hand on a stream both ways."""
        call = self._channel.stream_stream(method)(metadata=_headers(context))
        answers: asyncio.Queue[bytes | grpc.aio.AioRpcError | None] = asyncio.Queue()
        self._keep(_collect(call, answers))  # apart, since whoever stops reading here would break the call off
        asking = asyncio.ensure_future(_hand_on(requests, call))
        try:
            while isinstance(answer := await answers.get(), bytes):
                yield answer
            if answer is not None:
                await context.abort(answer.code(), answer.details())
        finally:
            asking.cancel()
            self._keep(_let_end(call))

    def _doubt(self, asked: Any, headers: list[tuple[str, str]]) -> None:
        """Keep in mind writes of which the emulator did not say whether it has applied them."""
        self._database, self._headers = asked.database, headers
        for write in filter(_is_of_a_task, asked.writes):
            change = _change(write, None)
            self._doubtful.append(change)
            self._names[change.task_id] = write.delete or write.update.name
        if self._gate.is_set():
            self._gate.clear()
            self._keep(self._resolve_soon())

    async def _resolve_soon(self) -> None:
        """Find out what was applied, while nothing is written."""
        while self._writing:
            await asyncio.wait(self._writing)
        await self._resolve()
        self._gate.set()

    async def _resolve(self) -> None:
        """Tell from the documents what of the doubtful was applied."""
        if not self._names:
            return
        self._record = without_gaps(self._record, self._doubtful, await self._newest())
        self._doubtful, self._names = [], {}

    async def _newest(self) -> dict[str, int | None]:
        request = messages.BatchGetDocumentsRequest.pb()(database=self._database, documents=self._names.values())
        newest: dict[str, int | None] = dict.fromkeys(self._names)
        stub = self._channel.unary_stream(
            _GET, response_deserializer=messages.BatchGetDocumentsResponse.pb().FromString
        )
        async for answer in stub(request.SerializeToString(), metadata=self._headers):
            if answer.HasField("found"):
                newest[answer.found.name.split(_TASKS, 1)[1]] = _micros(answer.found.update_time)
        return newest

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _settled(self, task: asyncio.Task[bytes]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: who asked may be gone

    async def _carry(self, method: str, request: bytes, headers: list[tuple[str, str]]) -> bytes:
        asked_type, answer_type = _WRITES[method.rsplit("/", 1)[1]]
        asked = asked_type.FromString(request)
        try:
            answer: bytes = await self._channel.unary_unary(method)(request, metadata=headers)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _REFUSALS:
                self._doubt(asked, headers)
            raise
        answered = answer_type.FromString(answer)
        codes = [status.code for status in answered.status] if hasattr(answered, "status") else [0] * len(asked.writes)
        for write, result, code in zip(asked.writes, answered.write_results, codes, strict=True):
            if code == 0 and _is_of_a_task(write):
                self._record.append(_change(write, result))
        return answer


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # as above
    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def service(self, details: Any) -> Any:
        """Say how a method is answered."""
        relay, method = self._relay, str(details.method)
        match method.rsplit("/", 1)[1]:
            case "Commit" | "BatchWrite":
                return grpc.unary_unary_rpc_method_handler(partial(relay.write, method))
            case "Listen":
                return grpc.stream_stream_rpc_method_handler(partial(relay.listen, method))
            case _:
                return grpc.unary_stream_rpc_method_handler(partial(relay.read, method))


async def _answers(call: Any, context: Any) -> AsyncIterator[bytes]:
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError as error:
        await context.abort(error.code(), error.details())


async def _collect(call: Any, answers: asyncio.Queue[bytes | grpc.aio.AioRpcError | None]) -> None:
    """Take the answers of a stream to its end; the last thing put is an error, or None."""
    try:
        async for answer in call:
            answers.put_nowait(answer)
    except grpc.aio.AioRpcError as error:
        answers.put_nowait(error)
    else:
        answers.put_nowait(None)


async def _hand_on(requests: AsyncIterator[bytes], call: Any) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        async for request in requests:
            await asyncio.shield(asyncio.ensure_future(call.write(request)))


async def _let_end(call: Any) -> None:
    """End a stream whose client is gone, politely: where a listener breaks off, the emulator fails others' writes.

    It answers them with CANCELLED or UNKNOWN, and has applied them.
    """
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.done_writing()


def _headers(context: Any) -> list[tuple[str, str]]:
    headers = [(key, value) for key, value in context.invocation_metadata() if key not in _OWN_HEADERS]
    return [(key, value) for key, value in headers if not key.startswith((":", "grpc-"))]


def _is_of_a_task(write: Any) -> bool:
    return _TASKS in (write.delete or write.update.name)


def _change(write: Any, result: Any) -> Change:
    """Read one write. `result`: what was answered; None: that it was applied is not known, nor its version."""
    task_id = (write.delete or write.update.name).split(_TASKS, 1)[1]
    has_base = write.current_document.HasField("update_time")
    base = _micros(write.current_document.update_time) if has_base else 0
    if write.delete:
        return Change(base + 1, task_id, None, base)
    fields = {name: _plain(value) for name, value in write.update.fields.items()}
    if write.HasField("update_mask"):
        fields = {path: fields.get(path) for path in write.update_mask.field_paths}
    return Change(0 if result is None else _micros(result.update_time), task_id, fields, base)


def _micros(timestamp: Any) -> int:
    number: int = timestamp.seconds * _MICROS + timestamp.nanos // 1_000
    return number


def _plain(value: Any) -> Any:
    """Give a field's value; instants as microseconds."""
    match value.WhichOneof("value_type"):
        case "null_value" | None:
            return None
        case "timestamp_value":
            return _micros(value.timestamp_value)
        case "map_value":
            return {name: _plain(part) for name, part in value.map_value.fields.items()}
        case "array_value":
            return [_plain(part) for part in value.array_value.values]
        case kind:
            return getattr(value, kind)
