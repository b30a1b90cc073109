"""Handlers in other processes: for work that keeps a CPU busy, which nothing but a kill can stop in time.

The pool is pebble's. Its processes are spawned, since gRPC does not survive a fork. Beside it each of them has a line
to the worker, a Unix socket, for what a pool does not know: whether and until when a handler may run, how far it is,
and what it logs.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pebble import ProcessExpired, ProcessPool

from oncetask.errors import OncetaskError
from oncetask.processes import inside
from oncetask.processes.inside import LENGTH, Answer, Job, framed
from oncetask.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from oncetask.context import TimeLimit
    from oncetask.task import Progress

__all__ = ["Answer", "Job", "Processes", "check_main", "check_sendable"]

_LOOK_SECONDS = 0.02
_LONGEST_FOLDER = 90  # the name of a Unix socket has at most 104 bytes, on macOS
_LAST_WORDS_SECONDS = 5.0
_log = logging.getLogger("oncetask")


def check_main() -> None:
    """Raise where a new process imports its program, and that program, without a guard, starts a worker again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        msg = (
            "a handler's process imports its program, which starts a worker there too: "
            'put what the program does under `if __name__ == "__main__":`'
        )
        raise OncetaskError(msg)


def check_sendable(kind: str, *things: object) -> None:
    """Check that another process can find a kind's function and payload class by their names. Raises TypeError."""
    try:
        pickle.dumps(things)
    except Exception as error:  # pickle's own, and whatever else a __reduce__ may raise
        msg = f"kind {kind!r} with run_in='process' needs what another process can import by its name: {error}"
        raise TypeError(msg) from error


@dataclass(eq=False, slots=True)
class _Call:
    """A handler that runs in another process, as the worker sees it."""

    begin: Callable[[], TimeLimit | None]
    tell: Callable[[Progress], None]
    pid: int | None = None
    """The process, once it has begun."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Processes:
    """At most so many processes, which are started with the first handler that needs one."""

    def __init__(self, most: int) -> None:
        """`most`: how many handlers may run at the same time; more of them wait for each other."""
        self._most = most
        self._calls: dict[str, _Call] = {}
        self._opening = asyncio.Lock()
        self._pool: ProcessPool | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.StreamWriter] = set()

    async def run(
        self,
        function: Callable[..., object],
        job: Job,
        *,
        begin: Callable[[], TimeLimit | None],
        tell: Callable[[Progress], None],
    ) -> Answer:
        """Call `function(ctx, payload)` in a process, and give what comes of it, or raise what it raises.

        Where this is cancelled the process is killed, and has ended before the cancellation goes on. `begin`: is asked
        when the process is ready; None keeps the function from being called. `tell`: takes its progress. Raises
        ProcessExpired where the process dies, OncetaskError where none can be started.
        """
        token, call = uuid4().hex, _Call(begin, tell)
        self._calls[token] = call
        try:
            future = await self._schedule(token, pickle.dumps((function, job)))
            try:
                answer = _opened(await asyncio.wrap_future(future))
            except asyncio.CancelledError:
                if future.cancelled():
                    await _end_of(call)
                raise
            with suppress(TimeoutError):  # what it said on the line before comes by another way, maybe later
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await call.ended.wait()
        except ProcessExpired as died:
            msg = f"the handler's process died: {_how(died.exitcode)}"
            raise ProcessExpired(msg, code=died.exitcode, pid=died.pid) from None  # type: ignore[no-untyped-call]  # pebble leaves it out
        except BrokenProcessPool as broken:
            msg = f"no process can be started for the handler ({broken}); what keeps it from starting is on stderr"
            raise OncetaskError(msg) from broken
        finally:
            del self._calls[token]
        return answer

    async def aclose(self) -> None:
        """Kill what runs, and leave no process and no thread behind."""
        async with self._opening:
            await self._close_pool()
            if self._server is not None:
                self._server.close()
                for line in self._lines:
                    line.close()
                await self._server.wait_closed()
                self._server = None
            if self._folder is not None:
                await in_thread(self._folder.cleanup)
                self._folder = None

    async def _schedule(self, token: str, job: bytes) -> Future[bytes]:
        async with self._opening:
            for is_last in (False, True):
                pool = await self._open()
                try:
                    return pool.schedule(inside.work, args=(token, job))
                except RuntimeError as broken:  # the pool of before has broken down
                    await self._close_pool()
                    if is_last:
                        msg = f"no process can be started for the handler: {broken}"
                        raise OncetaskError(msg) from broken
        raise AssertionError

    async def _open(self) -> ProcessPool:
        if self._server is None or self._folder is None:
            self._folder = await in_thread(_new_folder)
            self._server = await asyncio.start_unix_server(self._serve, f"{self._folder.name}/line")
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self._most,
                initializer=inside.prepare,
                initargs=(f"{self._folder.name}/line", _levels()),
                context=multiprocessing.get_context("spawn"),
            )
            await in_thread(lambda pool: pool.active, self._pool)  # starts the processes, which takes a moment
        return self._pool

    async def _close_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]  # as above
            await in_thread(pool.join)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listen to one process."""
        self._lines.add(writer)
        try:
            while True:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                token, verb, value = pickle.loads(await reader.readexactly(length))  # noqa: S301  # from our own child
                self._hear(writer, self._calls.get(token), verb, value)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has ended, or was killed
        except Exception:  # noqa: BLE001  # told; the other lines go on
            _log.exception("a handler's process says what cannot be understood")
        finally:
            self._lines.discard(writer)
            writer.close()

    def _hear(self, writer: asyncio.StreamWriter, call: _Call | None, verb: str, value: Any) -> None:
        match verb:
            case "log":
                logger = logging.getLogger(value.name)
                if logger.isEnabledFor(value.levelno):
                    logger.handle(value)
            case "begin":
                limit = None if call is None else call.begin()
                if limit is not None and call is not None:
                    call.pid = value
                writer.write(framed(limit))
            case "progress" if call is not None:
                call.tell(value)
            case "end" if call is not None:
                call.ended.set()


def _opened(answer: bytes) -> Answer:
    """Give what a process has sent, or raise it."""
    content = pickle.loads(answer)  # noqa: S301  # from our own child
    if isinstance(content, Exception):
        raise content
    return Answer(*content)


async def _end_of(call: _Call) -> None:
    """Wait until the handler of a cancelled call has ended for certain: the pool kills its process soon."""
    while call.pid is not None and not call.ended.is_set():
        try:
            os.kill(call.pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _new_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder into which no other user can look, and whose name leaves room for a socket's."""
    folder = tempfile.TemporaryDirectory(prefix="oncetask-")
    if len(os.fsencode(folder.name)) > _LONGEST_FOLDER:
        folder.cleanup()
        folder = tempfile.TemporaryDirectory(prefix="oncetask-", dir="/tmp")  # made anew, and ours alone
    return folder


def _levels() -> dict[str, int]:
    """Give the levels that are set in this process, so that the others do not send what nobody wants."""
    levels = {"": logging.root.level}
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET:
            levels[name] = logger.level
    return levels
