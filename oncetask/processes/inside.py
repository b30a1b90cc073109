"""What happens in the other process: a handler is called there, and the worker hears of it on a line of its own."""

from __future__ import annotations

import contextvars
import ctypes
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from oncetask.context import AbortSignal, Context, running_context
from oncetask.store.fitting import result_of

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from oncetask.clock import StoreClock
    from oncetask.context import TimeLimit
    from oncetask.task import Progress, Task

__all__ = ["Answer", "Job", "prepare", "work"]

_PROGRESS_EVERY_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


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


class _Line:
    """The line to the worker, from the other end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, token: int, verb: str, value: object = None) -> None:
        """Send something for the handler of this token; what cannot be pickled raises, and nothing is sent."""
        with self._lock:
            self._connection.send((token, verb, value))

    def ask(self, token: int, verb: str) -> Any:  # whatever is answered
        """Send something, and wait for the answer."""
        self.say(token, verb)
        return self._connection.recv()


class _Teller:
    """Passes on what a handler says of its progress, though not each of a million times."""

    def __init__(self, line: _Line, token: int) -> None:
        self._line = line
        self._token = token
        self._last: Progress | None = None
        self._said_at = float("-inf")
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        """Send it, or have it sent soon if nothing newer comes."""
        with self._lock:
            self._last = progress
            if self._timer is None:
                wait = self._said_at + _PROGRESS_EVERY_SECONDS - time.monotonic()
                if wait <= 0:
                    self._send()
                else:
                    self._timer = threading.Timer(wait, self.flush)
                    self._timer.daemon = True
                    self._timer.start()

    def flush(self) -> None:
        """Send what has not been sent."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._send()

    def _send(self) -> None:
        progress, self._last = self._last, None
        if progress is not None:
            self._said_at = time.monotonic()
            with suppress(OSError):  # the worker is gone, and this process will be
                self._line.say(self._token, "progress", progress)


class _ToWorker(logging.handlers.QueueHandler):
    """Has the worker log what is logged here, where nobody has set up logging."""

    def __init__(self, line: _Line) -> None:
        super().__init__(SimpleQueue())  # which is not used
        self._line = line

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Make a record fit for the way; of what cannot go there its text goes."""
        fit: logging.LogRecord = super().prepare(record)
        try:
            pickle.loads(pickle.dumps(fit))  # noqa: S301  # our own bytes
        except Exception:  # noqa: BLE001  # what was given as `extra` may raise anything
            for name, value in vars(fit).items():
                if not isinstance(value, str | int | float | None):
                    setattr(fit, name, repr(value))
        return fit

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record that has been made fit for that."""
        self._line.say(_NOBODY, "log", record)


_NOBODY = -1
"""The token of what is said for no handler in particular."""
_line: _Line


def prepare(connection: Connection, parent: int, levels: dict[str, int]) -> None:
    """Set up the process. `parent`: the worker's process."""
    global _line  # noqa: PLW0603  # a process has one
    os.setsid()  # a group of its own: Ctrl-C is the worker's, and a kill takes along what a handler has started
    signal.signal(signal.SIGTERM, lambda *_: None)  # meant for the worker, which lets handlers end, or kills them
    _end_with(parent)
    _line = _Line(connection)
    logging.root.handlers[:] = [_ToWorker(_line)]
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
    _line.say(_NOBODY, "here")


def _end_with(parent: int) -> None:
    """See to it that a worker which was killed leaves nobody behind who goes on for it."""
    if sys.platform == "linux":  # at once, also while C code keeps all threads of Python from running
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was too late for that
        os._exit(1)
    threading.Thread(target=_wait_for_end, name="oncetask-parent", daemon=True).start()


def _wait_for_end() -> None:
    process = multiprocessing.parent_process()
    if process is not None:
        process.join()
    os._exit(1)


def work(token: int) -> None:
    """Run the handler of this token, as far as the worker says that it may begin, and say what came of it."""
    reply = _line.ask(token, "begin")
    if reply is None:
        return
    try:
        answer: object = contextvars.copy_context().run(_called, token, *reply)
    except BaseException as error:  # noqa: BLE001  # user code raises anything, and the worker has to know
        answer = _portable(error)
    _line.say(token, "end", pickle.dumps(answer))


def _called(token: int, limit: TimeLimit, content: bytes) -> tuple[Any, tuple[Task, ...]]:
    function, job = pickle.loads(content)  # noqa: S301  # from the worker
    teller = _Teller(_line, token)
    context = Context(
        tasks=job.tasks,
        payload=job.payload[0] if isinstance(job.payload, list) else job.payload,
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
