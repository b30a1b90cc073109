"""Signals to processes that asyncio waits for: its own ways to send them may take the exit code from whoever waits."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

__all__ = ["end", "send"]


def send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to a process, if it is still there."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def end(process: asyncio.subprocess.Process) -> None:
    """Kill a process, if it is still there."""
    send(process, signal.SIGKILL)
