"""Examples that serve until they are told to stop, in processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

__all__ = ["LIMIT", "Program"]

LIMIT = 30.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""

_EXAMPLES = Path(__file__).parents[3] / "examples"


class Program:
    """`python -m MODULE …`, started in an example's folder; it ends with the `with` block at the latest."""

    def __init__(self, example: str, *command: str, environment: Mapping[str, str]) -> None:
        """Start it; `told` gathers what it prints and logs."""
        self.told = ""
        self._process = subprocess.Popen(
            (sys.executable, "-m", *command),
            cwd=_EXAMPLES / example,
            env=environment,
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def until(self, pattern: str) -> str:
        """Read on to a line that matches; gives the first group, or all of the match."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told += line
            if found := re.search(pattern, line):
                return found[found.re.groups and 1]
        pytest.fail(f"it ended without saying {pattern!r}:\n{self.told}")

    def terminate(self) -> int:
        """Send SIGTERM, wait for the end, and give the exit code as Popen has it."""
        self._process.terminate()
        self.told += self._process.communicate(timeout=LIMIT)[0]
        return self._process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs, its forks too."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
