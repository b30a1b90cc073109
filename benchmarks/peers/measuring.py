"""Measures task runners: how fast they enqueue and drain, and how soon a task starts whose worker is idle."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.known import PEERS, Peer
from benchmarks.peers.programs import Failed, Missing, Program, running
from benchmarks.peers.queueing import SERVER
from benchmarks.peers.starts import PIPE, Starts

__all__ = ["Result", "measure", "results"]

_ROOT = Path(__file__).parents[2]
_PROBES = 20
_PATIENCE = 60
"""Seconds for anything that takes a moment where all is well."""
_SLOWEST_PER_SECOND = 50
"""A drain that is slower than this has failed."""


@dataclass(frozen=True)
class Result:
    """What was measured of one runner."""

    name: str
    title: str
    """Its version and its server's, how it is set up, and what it promises."""
    figures: dict[str, float]


def measure(tasks: int) -> dict[str, dict[str, float]]:
    """Give the figures of each runner that is installed, by its name."""
    return {result.name: result.figures for result in results(tasks)}


def results(tasks: int, names: Iterable[str] = PEERS, tell: Callable[[str], None] = print) -> Iterator[Result]:
    """Measure one runner after the other; tell in one line why one is left out.

    One that loses a task or runs it twice ends the program with an error.
    """
    for name in names:
        peer = PEERS[name]
        try:
            title = peer.title()
            figures = _measure(peer, tasks)
        except Missing as missing:
            tell(f"{name}: {missing}")
        except Failed as failed:
            sys.exit(f"{name}: {failed}")
        else:
            yield Result(name, title, figures)


def _measure(peer: Peer, tasks: int) -> dict[str, float]:
    with ExitStack() as stack:
        # The server's folder is its own: it may belong to another user.
        own, servers = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        starts = stack.enter_context(closing(Starts(own / "pipe")))
        environment = {
            SERVER: _start(peer, servers, stack),
            PIPE: str(own / "pipe"),
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        enqueueing = (sys.executable, "-m", "benchmarks.peers.queueing", peer.module)
        queue = stack.enter_context(running(enqueueing, own / "queue.log", environment=environment, answers=True))
        figures = {"enqueue_per_second": tasks / _enqueue(queue, tasks)[1]}
        command = (sys.executable, *peer.worker)
        worker = stack.enter_context(running(command, own / "worker.log", environment=environment))
        figures["drain_per_second"] = tasks / _drain(queue, worker, starts, tasks)
        figures["idle_to_start_ms"] = 1_000 * statistics.median(_delays(queue, worker, starts))
        worker.wait_until(lambda: not _left(queue), timeout=_PATIENCE)
        if starts.count() != tasks + _PROBES:
            raise Failed(f"{tasks + _PROBES} tasks were started {starts.count()} times: the figures mean nothing")
        return figures


def _start(peer: Peer, folder: Path, stack: ExitStack) -> str:
    """Give the server's address; one that is installed and does not start counts as missing."""
    try:
        return stack.enter_context(peer.server.running(folder))
    except Failed as failed:
        raise Missing(f"its server does not start: {failed}") from failed


def _drain(queue: Program, worker: Program, starts: Starts, tasks: int) -> float:
    """Give the seconds from the first start until all is acknowledged."""
    _wait_for(worker, starts, tasks, timeout=_PATIENCE + tasks / _SLOWEST_PER_SECOND)
    worker.wait_until(lambda: not _left(queue), timeout=_PATIENCE)
    return time.monotonic() - min(starts.instants)


def _delays(queue: Program, worker: Program, starts: Starts) -> Iterator[float]:
    """Give the seconds from enqueueing to the start, again and again."""
    for probe in range(_PROBES):
        # Evenly spread and out of order (the golden ratio), so that a worker which polls meets them at any phase.
        time.sleep(0.3 + 0.7 * (probe * 0.618034 % 1))
        seen = starts.count()
        began, _ = _enqueue(queue, 1)
        _wait_for(worker, starts, seen + 1, timeout=_PATIENCE)
        yield starts.instants[seen] - began


def _wait_for(worker: Program, starts: Starts, tasks: int, *, timeout: float) -> None:
    worker.wait_until(lambda: starts.count() >= tasks, timeout=timeout)


def _enqueue(queue: Program, tasks: int) -> tuple[float, float]:
    """Give the instant at which enqueueing began, and the seconds that it took."""
    began, ended = json.loads(queue.ask(f"enqueue {tasks}"))
    return began, ended - began


def _left(queue: Program) -> int:
    return int(queue.ask("left"))
