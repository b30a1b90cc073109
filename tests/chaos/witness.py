"""What processes say of themselves: a file of lines for each, which nothing of oncetask knows.

Lines are appended with one system call each, so that no process waits for another one's, stopped or dead, and that
what was said before a kill -9 is there; a last line that a kill tore is not counted. The time is the machine's, in
microseconds since 1970, as the store's versions are.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oncetask import Context

__all__ = ["Pair", "Run", "Testimony", "Witness", "micros"]


def micros() -> int:
    """Give the machine's time in microseconds since 1970."""
    return time.time_ns() // 1_000


@dataclass(slots=True)
class Run:
    """One call of a handler. `until`: when it ended, None where its process did not live to say so."""

    task_id: str
    key: str | None
    token: int
    """The fencing token of its context."""
    is_cleanup: bool
    pid: int
    since: int
    until: int | None = None


Pair = tuple[Run, Run]


@dataclass(slots=True)
class Testimony:
    """What all processes said."""

    runs: list[Run] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    """Ids whose enqueue was answered, once for each answer."""
    created: Counter[str] = field(default_factory=Counter)
    """How often an answer said of an id that this call had created it."""
    cancelled: Counter[str] = field(default_factory=Counter)
    reset: Counter[str] = field(default_factory=Counter)
    deleted: Counter[str] = field(default_factory=Counter)
    stopped: dict[int, int] = field(default_factory=dict)
    """When workers were through with stopping, by pid."""
    repeated: int = 0
    """Ids that were enqueued once more on purpose."""
    counts: Counter[str] = field(default_factory=Counter)
    """Whatever else was noted."""

    @classmethod
    def read(cls, folder: Path) -> Testimony:
        """Read what every process said."""
        testimony = cls()
        for path in sorted(folder.glob("*.said")):
            runs: dict[int, Run] = {}
            for what, at, pid, *values in _lines_of(path):
                testimony._take(runs, what, at, pid, values)
            testimony.runs += runs.values()
        testimony.runs.sort(key=lambda run: run.since)
        return testimony

    def _take(self, runs: dict[int, Run], what: str, at: int, pid: int, values: list[Any]) -> None:
        match what:
            case "begins":
                number, task_id, key, token, is_cleanup = values
                runs[number] = Run(task_id, key, token, is_cleanup, pid, at)
            case "ends":
                runs[values[0]].until = at
            case "stored":
                _, ids, created = values
                self.acknowledged += ids
                self.created.update(created)
                self.counts[what] += 1
            case "repeated":
                ids, created = values
                self.acknowledged += ids
                self.created.update(created)
                self.repeated += len(ids)
            case "stopped":
                self.stopped[pid] = at
            case "cancelled" | "reset" | "deleted":
                counter: Counter[str] = getattr(self, what)
                counter.update(values)
            case _:
                self.counts[what] += 1


class Witness:
    """One process's file."""

    def __init__(self, folder: Path, name: str) -> None:
        """`name`: of the process, which others had before it where they were killed."""
        self._pid = os.getpid()
        self._folder, self._name = folder, name
        self._file = os.open(folder / f"{name}.{self._pid}.said", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._numbers = itertools.count()

    def note(self, what: str, *values: object) -> None:
        """Say something; it stays, whatever becomes of this process."""
        os.write(self._file, (json.dumps([what, micros(), self._pid, *values]) + "\n").encode())

    @contextmanager
    def run(self, ctx: Context, *, is_cleanup: bool = False) -> Iterator[None]:
        """Say that a handler runs as long as the block does."""
        number = next(self._numbers)
        self.note("begins", number, ctx.task_id, ctx.task.resource_key, ctx.fencing_token, is_cleanup)
        try:
            yield
        finally:
            self.note("ends", number)

    def stored(self) -> set[int]:
        """Give the numbers of what processes of this name have noted as stored."""
        lines = itertools.chain.from_iterable(map(_lines_of, self._folder.glob(f"{self._name}.*.said")))
        return {values[0] for what, _, _, *values in lines if what == "stored"}

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def _lines_of(path: Path) -> Iterator[list[Any]]:
    """Read what was said in one file."""
    with path.open() as said:
        for line in said:
            if line.endswith("\n"):
                yield json.loads(line)
