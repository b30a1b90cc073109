"""How a command ends: exit codes that scripts can trust, and which error means which."""

from __future__ import annotations

import traceback
from typing import Protocol, runtime_checkable

from oncetask.errors import OncetaskError, StoreUnavailable, UnknownKind, Unsupported

__all__ = ["DONE", "FAILED", "INTERRUPTED", "UNAVAILABLE", "USAGE", "BadInput", "NotDone", "code_of", "message_of"]

DONE = 0
"""What was asked for has been done."""
FAILED = 1
"""It failed, or was not found."""
USAGE = 2
"""The command or its input is wrong."""
UNAVAILABLE = 3
"""The store cannot be reached, or refused."""
INTERRUPTED = 130
"""Ctrl-C, as shells count it."""


class NotDone(OncetaskError):
    """What was asked for failed, or was not found."""


class BadInput(OncetaskError, ValueError):
    """An argument or an input of the command is wrong."""


@runtime_checkable
class _UsageProblem(Protocol):
    """What click raises for a wrong command line; typer carries a copy of click, or uses it, as its version goes."""

    exit_code: int

    def format_message(self) -> str: ...


def code_of(error: Exception) -> int | None:
    """Give the exit code that a foreseeable error means; None: it is a bug, ours or of the user's code."""
    match error:
        case StoreUnavailable():
            return UNAVAILABLE
        case UnknownKind() | Unsupported():
            return USAGE
        case ValueError() | TypeError():
            return USAGE if isinstance(error, OncetaskError) or _raised_by_us(error) else None
        case OncetaskError():
            return FAILED
        case _UsageProblem():
            return error.exit_code
    return None


def message_of(error: Exception) -> str:
    """Say what went wrong, and where a wrong command line is explained."""
    if not isinstance(error, _UsageProblem):
        return str(error)
    message = error.format_message().rstrip(".")
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    return f"{message} (see {path} --help)" if path else message


def _raised_by_us(error: Exception) -> bool:
    """Tell a complaint of ours about an argument from an error in the user's own code, which needs its traceback."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__")).partition(".")[0] == "oncetask"
