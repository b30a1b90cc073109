"""What a process holds at a moment."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Counts", "Sample", "counts", "sample"]

_MEGABYTE = 2**20
_FILES = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")


@dataclass(frozen=True)
class Sample:
    """Memory, and what takes it."""

    rss: float
    """MB of 2**20 bytes that the process has in RAM."""
    traced: float
    """MB that Python's own allocations take, after a collection."""
    objects: int
    """Objects that the garbage collector knows."""


@dataclass(frozen=True)
class Counts:
    """What should be the same whenever there is nothing to do."""

    threads: int
    files: int
    """Open file descriptors."""
    tasks: int
    """asyncio tasks, this one included."""


def sample() -> Sample:
    """Measure memory; it takes a while, in which the event loop stands still."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    traced, _ = tracemalloc.get_traced_memory()
    return Sample(pages * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE, traced / _MEGABYTE, len(gc.get_objects()))


def counts() -> Counts:
    """Count."""
    files = len(os.listdir(_FILES)) - 1  # noqa: PTH208  # one is for looking
    return Counts(threading.active_count(), files, len(asyncio.all_tasks()))
