"""What oncetask logs while worlds run: nothing but errors that ought not to be is heard."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tests.simulation.timeline import Timeline

__all__ = ["only_unexpected"]

_EXPECTED = ("an error handler failed",)


@contextmanager
def only_unexpected(timeline: Timeline) -> Iterator[None]:
    """Fail where an error is logged with its traceback, as one that nobody expected."""

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.exc_info and not text.startswith(_EXPECTED):
                timeline.fail(f"an error was logged: {text}: {record.exc_info[1]!r}")

    logger, heard = logging.getLogger("oncetask"), Heard()
    level, propagates, logger.propagate = logger.level, logger.propagate, False
    logger.setLevel(logging.ERROR)
    logger.addHandler(heard)
    try:
        yield
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)
        logger.propagate = propagates
