"""Handlers in other processes: for work that keeps a CPU busy, which nothing but a kill can stop in time.

Each process is an executor of the standard library with a single worker. Those of a larger one share their queues'
locks, so that a process which dies at the wrong moment takes the others along, and killing one may hit a neighbour's
work. They are spawned, since gRPC does not survive a fork. Beside its executor each has a line to the worker, for what
an executor does not know: whether and until when a handler may run, how far it is, and what it logs.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from oncetask.errors import OncetaskError, ProcessDied
from oncetask.processes import inside
from oncetask.processes.inside import Answer, Job
from oncetask.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    from oncetask.context import TimeLimit
    from oncetask.task import Progress

__all__ = ["Answer", "Job", "Processes", "check_main", "check_sendable"]

_ON_THE_WAY_SECONDS = 5.0
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

    content: bytes
    """Function and job."""
    begin: Callable[[], TimeLimit | None]
    tell: Callable[[Progress], None]
    answer: asyncio.Future[bytes]
    has_begun: bool = False


class Processes:
    """Starts a process when a handler needs one and none is idle; as many as run at the same time stay."""

    def __init__(self) -> None:
        """Start none yet."""
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._starter: ThreadPoolExecutor | None = None

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
        ProcessDied where the process dies, OncetaskError where none can be started.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        call = _Call(pickle.dumps((function, job)), begin, tell, answer)
        while self._idle:
            with suppress(BrokenProcessPool):  # it had died while it was idle
                return await self._run_in(self._idle.pop(), call)
        try:
            return await self._run_in(await self._new(), call)
        except BrokenProcessPool as broken:
            msg = "no process can be started for the handler; what keeps it from starting is on stderr"
            raise OncetaskError(msg) from broken

    async def _run_in(self, process: _Process, call: _Call) -> Answer:
        try:
            return await process.run(call)
        finally:
            process.when_free(self._take_back)

    async def aclose(self) -> None:
        """Kill what runs, and leave no process and no thread behind."""
        if self._starter is not None:
            await in_thread(self._starter.shutdown)  # waits for what it is about to start
            self._starter = None
        processes, self._all, self._idle = self._all, set(), []
        await asyncio.gather(*(process.aclose() for process in processes))

    async def _new(self) -> _Process:
        if self._starter is None:
            # One thread starts them all: where it is possible, they end together with it.
            self._starter = ThreadPoolExecutor(1, "oncetask-processes")
        loop = asyncio.get_running_loop()
        making = loop.run_in_executor(self._starter, _Process, loop, self._starter)
        making.add_done_callback(self._keep)  # also where this is cancelled meanwhile
        return await asyncio.shield(making)

    def _keep(self, made: asyncio.Future[_Process]) -> None:
        if made.exception() is None:
            self._all.add(made.result())

    def _take_back(self, process: _Process) -> None:
        if process in self._all:
            if process.has_died:
                self._all.discard(process)
            else:
                self._idle.append(process)


class _Process:
    """One process, in which one handler runs after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, starter: ThreadPoolExecutor) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._loop, self._starter = loop, starter
        self._line, self._other_end = spawning.Pipe()
        self._executor = ProcessPoolExecutor(
            1, spawning, initializer=inside.prepare, initargs=(self._other_end, os.getpid(), _levels())
        )
        self._tokens = itertools.count()
        self._token = -1
        self._call: _Call | None = None
        self._done: asyncio.Future[None] = loop.create_future()
        self._done.set_result(None)
        self._child: BaseProcess | None = None
        self._leads_group = False
        self._listener = threading.Thread(target=self._listen, name="oncetask-line", daemon=True)
        self.has_died = False

    async def run(self, call: _Call) -> Answer:
        """Run one handler. Raises BrokenProcessPool where the process has died before the handler began."""
        self._token, self._call = next(self._tokens), call
        try:
            await self._submit()
            await asyncio.wait({self._done})
            if self._done.exception() is None:  # then its answer is on the way
                await asyncio.wait({call.answer}, timeout=_ON_THE_WAY_SECONDS)
        except asyncio.CancelledError:
            if call.has_begun and not call.answer.done():
                await self.aclose()
            raise
        finally:
            if self._done.done() and self._done.exception() is not None:
                await self.aclose()  # after which all that it has said has been heard
            self._call = None
        if call.answer.done():
            return _opened(call.answer.result())
        if not call.has_begun:
            self._done.result()  # raises
        msg = f"the handler's process died: {_how(self._child.exitcode if self._child else None)}"
        raise ProcessDied(msg)

    def when_free(self, take: Callable[[_Process], None]) -> None:
        """Have it taken back when nothing of the last handler runs in it any more."""
        if self._done.done():
            take(self)
        else:  # cancelled before it began: it will learn that it may not begin
            self._done.add_done_callback(lambda _: take(self))

    async def aclose(self) -> None:
        """Kill it, with whatever it has started itself, and wait for its end."""
        if not self.has_died:
            self.has_died = True
            self._kill()
        await in_thread(self._executor.shutdown)
        self._other_end.close()
        if self._listener.ident is not None:
            await in_thread(self._listener.join)
        self._line.close()

    def _kill(self) -> None:
        if self._child is not None and self._child.pid is not None:
            with suppress(ProcessLookupError):
                if self._leads_group:
                    os.killpg(self._child.pid, signal.SIGKILL)
                else:
                    self._child.kill()

    async def _submit(self) -> None:
        submitting = self._loop.run_in_executor(self._starter, self._submitted)
        try:
            self._done = asyncio.wrap_future(await asyncio.shield(submitting))
        except asyncio.CancelledError:
            await asyncio.wait({submitting})  # a moment; then it can be killed
            if submitting.exception() is None:
                self._done = asyncio.wrap_future(submitting.result())
            raise
        except BrokenProcessPool:
            await self.aclose()
            raise

    def _submitted(self) -> Future[None]:
        # Only this little goes through the executor's own pipes: those of a process that dies in the middle of a
        # message would never be closed. On the line it ends with the process.
        before = multiprocessing.active_children()
        done = self._executor.submit(inside.work, self._token)  # starts the process, the first time
        if self._listener.ident is None:
            self._child = next((child for child in multiprocessing.active_children() if child not in before), None)
            self._other_end.close()
            self._listener.start()
        return done

    def _listen(self) -> None:
        """Hear what the process says, in a thread, until it ends."""
        while True:
            try:
                message = self._line.recv()
            except (EOFError, OSError):
                return
            except Exception:  # noqa: BLE001  # told; the next message is whole again
                _log.exception("a handler's process says what cannot be understood")
                continue
            token, verb, value = message
            try:
                if verb == "begin":
                    answer: SimpleQueue[tuple[TimeLimit, bytes] | None] = SimpleQueue()
                    self._loop.call_soon_threadsafe(self._begin, token, answer.put)
                    self._line.send(answer.get())
                else:
                    self._loop.call_soon_threadsafe(self._hear, token, verb, value)
            except (RuntimeError, OSError):  # the loop is closed, or the process has died
                return

    def _begin(self, token: int, answer: Callable[[tuple[TimeLimit, bytes] | None], None]) -> None:
        call = self._call if token == self._token else None
        limit = None if call is None else call.begin()
        if call is None or limit is None:
            answer(None)
        else:
            call.has_begun = True
            answer((limit, call.content))

    def _hear(self, token: int, verb: str, value: Any) -> None:
        call = self._call if token == self._token else None
        match verb:
            case "log":
                logger = logging.getLogger(value.name)
                if logger.isEnabledFor(value.levelno):
                    logger.handle(value)
            case "here":
                self._leads_group = True
            case "progress" if call is not None:
                call.tell(value)
            case "end" if call is not None:
                call.answer.set_result(value)


def _opened(answer: bytes) -> Answer:
    """Give what a process has sent, or raise it."""
    content = pickle.loads(answer)  # noqa: S301  # from our own child
    if isinstance(content, Exception):
        raise content
    return Answer(*content)


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _levels() -> dict[str, int]:
    """Give the levels that are set in this process, so that the others do not send what nobody wants."""
    levels = {"": logging.root.level}
    for name, logger in tuple(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET:
            levels[name] = logger.level
    return levels
