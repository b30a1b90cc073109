"""Functions, each served in a process of its own, as Cloud Run does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.integration.examples.serving import LIMIT, Program

__all__ = ["FUNCTIONS", "caller_of", "function"]

FUNCTIONS = Path(__file__).parents[2] / "functions"


@contextmanager
def function(
    target: str, environment: Mapping[str, str], *, source: Path = FUNCTIONS / "main.py", port: int = 0
) -> Iterator[Program]:
    """Serve a function by functions-framework, on this machine only; `port` 0: a free one."""
    listens = ("--host", "127.0.0.1", "--port", str(port))
    command = ("functions_framework", "--source", source.name, "--target", target, *listens)
    log_level = {"GUNICORN_LOG_LEVEL": "info"}  # which says the port
    with Program(str(source.parent), *command, environment={**environment, **log_level}) as program:
        yield program


@contextmanager
def caller_of(program: Program) -> Iterator[httpx.Client]:
    """Give a caller of a function, which serves by now."""
    url = program.until(r"Listening at: (\S+)")
    with httpx.Client(base_url=url, timeout=LIMIT, trust_env=False) as caller:
        yield caller
