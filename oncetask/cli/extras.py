"""What only some commands need, and not everybody has installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from oncetask.cli.exits import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["http_extra"]


@contextmanager
def http_extra() -> Iterator[None]:
    """Import in this block what stands on the extra `http`; raises BadInput that says what to install."""
    try:
        yield
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        msg = f'this command needs {library}, which is not installed: pip install "oncetask[http]"'
        raise BadInput(msg) from error
