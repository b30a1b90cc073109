"""Logs of a command on stderr: coloured on a terminal, plain lines elsewhere, JSON Lines on request."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum

from rich.console import Console
from rich.logging import RichHandler

from oncetask.cli.output import printable
from oncetask.cli.records import iso

__all__ = ["LogLevel", "set_up_logging"]

_OF_A_TASK = ("task_id", "kind", "event", "attempt")


class LogLevel(StrEnum):
    """How much is told."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up_logging(level: LogLevel, *, as_json: bool = False) -> None:
    """Send the logs of this process to stderr, unless the user's own module has set logging up already."""
    handler: logging.Handler
    console = Console(stderr=True)
    if as_json:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_JsonFormatter())
    elif console.is_terminal:
        handler = RichHandler(console=console, show_path=False, markup=False, highlighter=None, log_time_format="%X")
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("oncetask").setLevel(level.upper())
    # It shows a traceback for every answer that it cannot read, as the emulator sends them; the store copes with these.
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)


class _PlainFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the standard library's name
        record.message = printable(record.message)
        return super().formatMessage(record)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": iso(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in _OF_A_TASK if hasattr(record, name)},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
