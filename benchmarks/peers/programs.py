"""Programs that a measurement starts and stops: servers, workers, and the process that enqueues."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Failed", "Missing", "Program", "free_port", "running"]

_SECONDS_TO_STOP = 20


class Missing(Exception):
    """A program or a library is not installed, or cannot run here; the message says which, and why."""


class Failed(Exception):
    """A program did not do what it was started for; the message has what it wrote last."""


@dataclass(frozen=True)
class Program:
    """A program that runs."""

    process: subprocess.Popen[str]
    log: Path

    def wait_until(self, happened: Callable[[], bool], *, timeout: float) -> None:
        """Return once something has happened; raise `Failed` if that takes longer, or if the program ends before."""
        ends = time.monotonic() + timeout
        while not happened():
            if self.process.poll() is not None:
                raise self.failed(f"ended with status {self.process.returncode}")
            if time.monotonic() > ends:
                raise self.failed(f"had not done after {timeout:g} s what it was started for")
            time.sleep(0.01)

    def wait_until_done(self, *, timeout: float) -> None:
        """Return once the program has ended well; raise `Failed` if it ends otherwise, or takes longer."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failed(f"still ran after {timeout:g} s") from None
        if status:
            raise self.failed(f"ended with status {status}")

    def ask(self, request: str) -> str:
        """Send a line to a program that answers requests; gives the line that it answers."""
        if self.process.stdin is None or self.process.stdout is None:
            raise ValueError("ask: the program must have been started with answers=True")
        try:
            self.process.stdin.write(f"{request}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise self.failed(f"did not answer {request!r}")
        return answer

    def failed(self, how: str) -> Failed:
        """Make the error that tells how the program failed."""
        last = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        return Failed(f"{self.process.args!r} {how}; its last words:\n{last}")


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    stop_with: signal.Signals = signal.SIGTERM,
    answers: bool = False,
    user: int | None = None,
    group: int | None = None,
) -> Iterator[Program]:
    """Run a program in the folder of its log, and stop it, with its children, in the end.

    It gets a session of its own, so that Ctrl-C at the terminal reaches only the benchmark, which stops one program
    after the other: a worker before its server.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if answers else subprocess.DEVNULL,
            stdout=subprocess.PIPE if answers else output,
            stderr=output,
            text=True,
            env={**os.environ, **(environment or {})},
            cwd=log.parent,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )
    try:
        yield Program(process, log)
    finally:
        process.send_signal(stop_with)
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def free_port() -> int:
    """Find a port of the loopback interface that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
