"""What happens in the other process: a handler is called there, and the worker hears of it on a line of its own."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import threading
import time
import traceback
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from oncetask.context import AbortSignal, Context, running_context
from oncetask.store.fitting import result_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncetask.clock import StoreClock
    from oncetask.task import Progress, Task

__all__ = ["LENGTH", "Answer", "Job", "framed", "prepare", "work"]

LENGTH = struct.Struct(">I")
"""What stands before each message on the line: how many bytes it has."""
_PROGRESS_EVERY_SECONDS = 0.1


class Job(NamedTuple):
    """What a handler in another process is given."""

    tasks: tuple[Task, ...]
    payload: Any
    """Of its payload class; of a batch, a list."""
    fencing_token: int
    clock: StoreClock


class Answer(NamedTuple):
    """What comes back: the result in its JSON form, and the tasks that the handler has staged."""

    returned: Any
    staged: tuple[Task, ...]


def framed(content: object) -> bytes:
    """Give a message as it goes over the line."""
    body = pickle.dumps(content)
    return LENGTH.pack(len(body)) + body


class _Line:
    """The line to the worker, from the other end."""

    def __init__(self, address: str) -> None:
        self.token = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(address)
        self._file = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def say(self, verb: str, value: object = None) -> None:
        """Send something; whoever wants to be understood sends what can be pickled."""
        frame = framed((self.token, verb, value))
        with self._lock:
            self._socket.sendall(frame)

    def ask(self, verb: str, value: object) -> Any:  # whatever is answered
        """Send something, and wait for the answer."""
        self.say(verb, value)
        (length,) = LENGTH.unpack(self._file.read(LENGTH.size))
        return pickle.loads(self._file.read(length))  # noqa: S301  # from the worker


class _Teller:
    """Passes on what a handler says of its progress, though not each of a million times."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._last: Progress | None = None
        self._said_at = float("-inf")

    def __call__(self, progress: Progress) -> None:
        self._last = progress
        if time.monotonic() - self._said_at >= _PROGRESS_EVERY_SECONDS:
            self.flush()

    def flush(self) -> None:
        progress, self._last = self._last, None
        if progress is not None:
            self._said_at = time.monotonic()
            self._line.say("progress", progress)


class _ToWorker(logging.handlers.QueueHandler):
    """Has the worker log what is logged here, where nobody has set up logging."""

    def __init__(self, line: _Line) -> None:
        super().__init__(SimpleQueue())  # which is not used
        self._line = line

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record that has been made fit for that."""
        self._line.say("log", record)


_line: _Line


def prepare(address: str, levels: dict[str, int]) -> None:
    """Set up a process of the pool."""
    global _line  # noqa: PLW0603  # a process has one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which the pool kills: at once, whatever runs
    threading.Thread(target=_end_with_parent, name="oncetask-parent", daemon=True).start()
    _line = _Line(address)
    logging.root.handlers[:] = [_ToWorker(_line)]
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)


def _end_with_parent() -> None:
    """A worker that was killed leaves nobody behind who goes on for it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def work(token: str, job: bytes) -> bytes:
    """Run one handler; whatever comes of it is given back as bytes, which the pool cannot fail to send."""
    _line.token = token
    try:
        answer: object = _called(*pickle.loads(job))  # noqa: S301  # from the worker
    except BaseException as error:  # noqa: BLE001  # user code raises anything, and the worker has to know
        answer = _portable(error)
    with suppress(OSError):
        _line.say("end")
    return pickle.dumps(answer)


def _called(function: Callable[..., object], job: Job) -> tuple[Any, tuple[Task, ...]] | None:
    teller = _Teller(_line)
    limit = _line.ask("begin", os.getpid())
    if limit is None:
        return (None, ())
    first = job.payload[0] if isinstance(job.payload, list) else job.payload
    context = Context(
        tasks=job.tasks,
        payload=first,
        client=None,
        state=None,
        clock=job.clock,
        fencing_token=job.fencing_token,
        limit=limit,
        signal=AbortSignal(),
        tell=teller,
    )
    running_context.set(context)
    try:
        result = result_of(function(context, job.payload))
    finally:
        teller.flush()
    return result, context.staged[0]


def _portable(error: BaseException) -> Exception:
    """Give an error as one that the worker can read, with the traceback that it has here as a note."""
    trace = "".join(traceback.format_exception(error))
    if not isinstance(error, Exception):  # SystemExit and the like
        error = RuntimeError(f"the handler tried to end its process: {error!r}")
    try:
        error.add_note(f"in the handler's process:\n{trace}")
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception:  # noqa: BLE001  # __reduce__ and __init__ are user code
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return error
