"""What a caller is told who gave something that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Refusal", "may_refuse"]

_WRITTEN_BY_US = (TypeError, ValueError)


class Refusal:
    """Whether something was refused, and how."""

    error: Exception | None = None

    def __bool__(self) -> bool:
        """Tell whether it was."""
        return self.error is not None


@contextmanager
def may_refuse(*beginnings: str) -> Iterator[Refusal]:
    """Let the block end with a TypeError or ValueError of ours whose message begins in one of these ways."""
    refusal = Refusal()
    try:
        yield refusal
    except _WRITTEN_BY_US as error:
        if isinstance(error, UnicodeError) or not str(error).startswith(beginnings):
            msg = f"{type(error).__name__} does not say which argument was wrong: {error}"
            raise AssertionError(msg) from error
        refusal.error = error
