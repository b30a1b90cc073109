"""Which task runners are measured, and how each is started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.peers.programs import Missing
from benchmarks.peers.servers import Postgresql, Redis, Server, Sqlite

__all__ = ["PEERS", "Peer"]


@dataclass(frozen=True)
class Peer:
    """A task runner: what it needs, how its worker is started, what its title says."""

    library: str
    """The name under which it is installed."""
    imports: tuple[str, ...]
    """The modules that have to be importable, the most telling first."""
    module: str
    """The module of this package with its task and its queue."""
    server: Server
    worker: tuple[str, ...]
    """Its own worker program, as arguments for Python."""
    says: str
    """How it is set up, and what it promises of a task that was enqueued."""

    def title(self) -> str:
        """Name the versions at hand; raise `Missing` where something is not there."""
        for module in self.imports:
            _check(module, "" if module == self.library else f"{module} ")
        return f"{self.library} {version(self.library)} on {self.server.version()}: {self.says}"


def _check(module: str, named: str) -> None:
    """Import a module in a process of its own, since it may be there and want a system library that is not."""
    tried = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    if tried.returncode:
        error = tried.stderr.strip().splitlines()[-1]
        absent = error == f"ModuleNotFoundError: No module named {module!r}"
        raise Missing(f"{named}not installed" if absent else f"{named}cannot be imported: {error}")


_HERE = "benchmarks.peers"
_SNAPSHOTS = "not durable, as Redis writes a snapshot every few minutes"

PEERS: Mapping[str, Peer] = {
    "arq": Peer(
        library="arq",
        imports=("arq",),
        module="on_arq",
        server=Redis(),
        worker=("-m", "arq", f"{_HERE}.on_arq.WorkerSettings", "--custom-log-dict", f"{_HERE}.on_arq.QUIET"),
        says=f"one process, 32 tasks at a time, polls every 10 ms instead of 500; {_SNAPSHOTS}",
    ),
    "celery": Peer(
        library="celery",
        imports=("celery", "redis"),
        module="on_celery",
        server=Redis(),
        worker=("-m", "celery", "--app", f"{_HERE}.on_celery", "worker", "--loglevel", "ERROR"),
        says=(
            "one process per processor, 128 tasks fetched ahead for each, no results; "
            f"acknowledges before it runs a task; {_SNAPSHOTS}"
        ),
    ),
    "procrastinate": Peer(
        library="procrastinate",
        imports=("procrastinate", "psycopg"),
        module="on_procrastinate",
        server=Postgresql(),
        worker=("-m", "procrastinate", "--log-level=warning", f"--app={_HERE}.on_procrastinate.app", "worker", "-c32"),
        says="one process, 32 tasks at a time; durable, each commit is synced to the disk",
    ),
    "huey": Peer(
        library="huey",
        imports=("huey",),
        module="on_huey",
        server=Sqlite(),
        worker=("-m", "huey.bin.huey_consumer", f"{_HERE}.on_huey.huey", "--quiet", "--workers", "32"),
        says=(
            "one process, 32 threads that poll ever less often when idle, up to every 10 s; "
            "takes a task out of the queue before it runs it; durable until then, each commit is synced to the disk"
        ),
    ),
}
