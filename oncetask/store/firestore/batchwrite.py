"""One `BatchWrite` until every write in it is settled: tried again, halved, looked up, or given up."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

from oncetask.clock import from_micros
from oncetask.errors import StoreUnavailable
from oncetask.store import Written
from oncetask.store.firestore.codec import micros
from oncetask.store.firestore.faults import REFUSALS, TRANSIENT, Retrier, impossible, too_large, unavailable
from oncetask.store.firestore.rpc import Rpc, RpcFailed, code_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from oncetask.clock import StoreClock
    from oncetask.store.firestore.writes import Write
    from oncetask.task import Task

__all__ = ["BatchWriter"]

_INVALID = grpc.StatusCode.INVALID_ARGUMENT


class BatchWriter:
    """Sends batches; `send` is what a `GroupCommit` calls."""

    def __init__(
        self,
        rpc: Rpc,
        *,
        retrier: Retrier,
        clock: StoreClock,
        where: str,
        read: Callable[[Sequence[str]], Awaitable[dict[str, Task]]],
    ) -> None:
        """`read` gives the tasks that exist, by the names of their documents; it may raise RpcFailed."""
        self._rpc = rpc
        self._retrier = retrier
        self._clock = clock
        self._where = where
        self._read = read

    async def send(self, writes: Sequence[Write]) -> None:
        """Settle every write; never raises.

        One write that Firestore does not take refuses the whole call, which is halved until the culprit is alone.
        """
        try:
            await self._retrier.run("writing tasks", partial(self._round, writes), expected={_INVALID})
        except RpcFailed as error:
            pending = [write for write in writes if not write.done.done()]
            if len(pending) == 1:
                pending[0].settle(Written(error=impossible(error, size=pending[0].pb.ByteSize())))
            elif pending:
                half = len(pending) // 2
                await asyncio.gather(self.send(pending[:half]), self.send(pending[half:]))
        except StoreUnavailable as error:
            for write in writes:
                write.fail(error)

    async def _round(self, writes: Sequence[Write]) -> None:
        """Try once what is not settled; raises RpcFailed if something is left that may be tried again."""
        pending = [write for write in writes if not write.done.done()]
        if not pending:
            return
        asked = self._clock.monotonic()
        try:
            answer = await self._rpc.batch_write([write.pb for write in pending])
        except RpcFailed as error:
            if error.code in TRANSIENT and not too_large(error):
                for write in pending:
                    write.doubtful = True
            raise
        unclear: list[Write] = []
        again: RpcFailed | None = None
        for write, status, result in zip(pending, answer.status, answer.write_results, strict=True):
            if status.code == 0:
                self._applied(write, result, asked)
                continue
            failed = RpcFailed("BatchWrite", code_of(status), status.message)
            if failed.code in TRANSIENT:
                write.doubtful = write.doubtful or failed.code is not grpc.StatusCode.ABORTED
                again = failed
            elif failed.code in REFUSALS and write.doubtful:
                unclear.append(write)
            else:
                self._refused(write, failed)
        await self._look_up(unclear)
        if again is not None:
            raise again

    def _applied(self, write: Write, result: Any, asked: float) -> None:
        if not result.HasField("update_time"):  # a deletion
            write.settle(Written(write.base))
            return
        version = micros(result.update_time)
        if version > write.base:
            # Written by this very call, since its precondition held: a time between question and answer. A write
            # that changes nothing tells an old time.
            self._clock.observe(from_micros(version), asked=asked)
        write.settle(Written(version))

    def _refused(self, write: Write, failed: RpcFailed) -> None:
        if failed.code in REFUSALS:
            write.settle(Written())
        elif failed.code is _INVALID:
            write.settle(Written(error=impossible(failed, size=write.pb.ByteSize())))
        else:
            write.fail(unavailable(failed, "writing a task", where=self._where))

    async def _look_up(self, unclear: Sequence[Write]) -> None:
        """Refused, but an earlier try may be the reason: the document tells."""
        if unclear:
            found = await self._read([write.name for write in unclear])
            for write in unclear:
                write.settle(write.judge(found.get(write.name)))
