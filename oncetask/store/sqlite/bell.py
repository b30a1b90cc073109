"""Change detection between processes: after each commit the writer touches a small file beside the database.

On Linux the kernel tells the readers (inotify), so that an idle process does nothing at all. Where there is no
inotify the file's time is looked at ten times a second; no query is sent for that either.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bell", "FileBell"]

_IN_MODIFY = 0x2
_IN_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_LOOK_SECONDS = 0.1
_log = logging.getLogger("oncetask")


class Bell:
    """Rings within this process: enough for a database in memory."""

    def __init__(self) -> None:
        """Remember the loop, since rings come from the connection's thread."""
        self._loop = asyncio.get_running_loop()
        self._ears: set[Callable[[], None]] = set()

    def ring(self) -> None:
        """Say that something was committed; from any thread."""
        if self._ears and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.heard)

    def heard(self) -> None:
        """Tell everybody who listens; on the loop."""
        for ear in tuple(self._ears):
            ear()

    def listen(self, ear: Callable[[], None]) -> None:
        """Call `ear` on the loop after each commit from now on."""
        self._ears.add(ear)

    def ignore(self, ear: Callable[[], None]) -> None:
        """Stop calling `ear`."""
        self._ears.discard(ear)

    def close(self) -> None:
        """Let go of files, once nothing rings any more; from any thread."""


class FileBell(Bell):
    """Rings in every process that has the same database open."""

    def __init__(self, path: str) -> None:
        """`path`: of the database; the bell's file is `<path>-bell`."""
        super().__init__()
        self._path = f"{path}-bell"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        self._stop: Callable[[], None] | None = None

    def ring(self) -> None:
        """Write one byte in place: the file keeps its size, and everybody who watches it is told."""
        try:
            os.pwrite(self._file, b"!", 0)
            if sys.platform != "linux":
                os.utime(self._file)
        except OSError as error:  # what was committed stays committed; those who wait look again by themselves
            _log.warning("cannot ring %s, others will notice the commit late: %s", self._path, error)

    def listen(self, ear: Callable[[], None]) -> None:
        """Call `ear` after each commit of any process; the file is watched only while somebody listens."""
        super().listen(ear)
        if self._stop is None:
            self._stop = self._watch()

    def ignore(self, ear: Callable[[], None]) -> None:
        """Stop calling `ear`, and stop watching after the last one."""
        super().ignore(ear)
        if not self._ears and self._stop is not None:
            self._stop()
            self._stop = None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _watch(self) -> Callable[[], None]:
        if sys.platform == "linux":
            try:
                return self._watch_inotify()
            except OSError as error:  # e.g. the user's limit of inotify instances
                _log.warning("inotify is not available (%s); looking at %s instead", error, self._path)
        return self._watch_time()

    def _watch_inotify(self) -> Callable[[], None]:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(_IN_FLAGS)
        if descriptor < 0 or libc.inotify_add_watch(descriptor, os.fsencode(self._path), _IN_MODIFY) < 0:
            code = ctypes.get_errno()
            if descriptor >= 0:
                os.close(descriptor)
            raise OSError(code, os.strerror(code))

        def rung() -> None:
            try:
                os.read(descriptor, 65_536)
            except BlockingIOError:
                return
            self.heard()

        def stop() -> None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

        self._loop.add_reader(descriptor, rung)
        return stop

    def _watch_time(self) -> Callable[[], None]:
        seen = Path(self._path).stat().st_mtime_ns
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal seen, timer
            now = Path(self._path).stat().st_mtime_ns
            if now != seen:
                seen = now
                self.heard()
            timer = self._loop.call_later(_LOOK_SECONDS, look)

        timer = self._loop.call_later(_LOOK_SECONDS, look)
        return lambda: timer.cancel()  # noqa: PLW0108  # the timer of then, not of now
