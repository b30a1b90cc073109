"""From the command line to an exit code: the one place where errors become a line on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING

import typer

from oncetask.cli.ending import leave_soon
from oncetask.cli.exits import DONE, FAILED, INTERRUPTED, code_of, message_of
from oncetask.cli.output import printable
from oncetask.cli.root import app

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "run"]


def main() -> None:
    """Run the command that this process was started with, and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without that letter still shows the rest
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    leave_soon(code)  # the interpreter would wait for handlers' threads
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command and give its exit code. Raises only what nobody foresaw."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments), prog_name="oncetask", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        foreseen = code_of(error)
        if foreseen is None:
            raise
        _tell(error, code=foreseen, as_json="--json" in arguments)
        return foreseen
    except SystemExit as end:  # the reader of a pipe has gone
        return end.code if isinstance(end.code, int) else FAILED
    return code if isinstance(code, int) else DONE


def _tell(error: Exception, *, code: int, as_json: bool) -> None:
    message = message_of(error)
    if as_json:
        line = json.dumps({"error": {"type": type(error).__name__, "message": message, "exitCode": code}})
    else:
        line = f"error: {printable(message)}"
    print(line, file=sys.stderr)
