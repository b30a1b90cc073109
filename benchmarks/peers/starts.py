"""How a measurement learns of every start of a task: eight bytes through a named pipe, a few µs for each."""

from __future__ import annotations

import os
import struct
import time
from functools import cache
from pathlib import Path

__all__ = ["PIPE", "Starts", "mark"]

PIPE = "ONCETASK_PEERS_PIPE"
"""The environment variable that tells a worker where the pipe is."""

_INSTANT = struct.Struct("d")


@cache
def _end() -> int:
    return os.open(os.environ[PIPE], os.O_WRONLY)


def mark() -> None:
    """Tell the measurement that a task starts, and when, by the clock that all processes of a machine share.

    So few bytes go through a pipe whole, whichever processes and threads write at the same time.
    """
    os.write(_end(), _INSTANT.pack(time.monotonic()))


class Starts:
    """The reading end: the starts of tasks in all processes, in the order of their arrival."""

    def __init__(self, pipe: Path) -> None:
        os.mkfifo(pipe)
        self._reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._held = os.open(pipe, os.O_WRONLY)  # so that a pipe without a worker is empty, not at its end
        self._unread = b""
        self.instants: list[float] = []

    def close(self) -> None:
        """Close both ends."""
        os.close(self._reading)
        os.close(self._held)

    def count(self) -> int:
        """Read what has arrived; gives the number of all starts."""
        while True:
            try:
                self._unread += os.read(self._reading, 1 << 16)
            except BlockingIOError:
                break
        whole = len(self._unread) // _INSTANT.size * _INSTANT.size
        self.instants += [instant for (instant,) in _INSTANT.iter_unpack(self._unread[:whole])]
        self._unread = self._unread[whole:]
        return len(self.instants)
