"""What the demo's tasks are and do: an App as a user would write it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote_to_bytes

from oncetask.app import App
from oncetask.payload import Payload
from oncetask.retry import ExponentialBackoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncetask.context import Context

__all__ = ["MeasureFile", "demo_app", "measure"]

_CHUNK_BYTES = 1 << 20


class MeasureFile(Payload, kind="demo-measure-file"):
    """Measure one file."""

    run: str
    """Which demo this belongs to."""
    number: int
    uri: str
    """`file://…`: a path may hold bytes that no JSON text can."""
    failures: int = 0
    """How many attempts are to fail on purpose."""

    def idempotency_key(self) -> str:
        """Enqueued twice, it runs once."""
        return f"{self.run}-{self.number:05}"

    @property
    def path(self) -> Path:
        """The file."""
        return Path(os.fsdecode(unquote_to_bytes(self.uri.removeprefix("file://"))))


def demo_app() -> tuple[App, Counter[str]]:
    """Give the App, and a count of how often each task's handler has succeeded in this process."""
    app = App("demo")
    succeeded: Counter[str] = Counter()

    @app.handler(MeasureFile, retry=ExponentialBackoff(max_attempts=4, base_delay=0.1, jitter=0))
    def measure_file(ctx: Context, payload: MeasureFile) -> dict[str, Any]:  # `def`: it reads, so it runs in a thread
        if ctx.attempt <= payload.failures:
            msg = f"fails on purpose, {ctx.attempt} of {payload.failures} times"
            raise RuntimeError(msg)
        with payload.path.open("rb") as file:
            result = measure(file, between=ctx.raise_if_aborted)
        succeeded[ctx.task_id] += 1
        return result

    return app, succeeded


def measure(file: BinaryIO, *, between: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Give SHA-256, bytes, lines and words (as `wc` counts them); `between` chunks, which fit in memory."""
    digest = hashlib.sha256()
    size = lines = words = 0
    in_word = False
    while chunk := file.read(_CHUNK_BYTES):
        between()
        digest.update(chunk)
        size += len(chunk)
        lines += chunk.count(b"\n")
        words += len(chunk.split()) - (in_word and not chunk[:1].isspace())
        in_word = not chunk[-1:].isspace()
    return {"sha256": digest.hexdigest(), "bytes": size, "lines": lines, "words": words}
