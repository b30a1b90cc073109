"""What `oncetask doctor` tells beside what is wrong: paused kinds, who wakes, and who may call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from oncetask.cli.exits import BadInput
from oncetask.cli.extras import http_extra
from oncetask.cli.findings import Finding, Note
from oncetask.cli.records import how_many

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from oncetask.client import Client

__all__ = ["look_around"]


async def look_around(client: Client) -> AsyncIterator[Note | Finding]:
    """Tell about a store, and about the environment variables of this process.

    A pause is somebody's wish, and nothing wrong.
    """
    for diagnosis in await client.store.diagnose():
        kind = Finding if diagnosis.is_wrong else Note
        yield kind(diagnosis.about, diagnosis.message)
    paused = [
        f"{kind} ({how_many(await client.pending_count(kind), 'open task')})" for kind in await client.paused_kinds()
    ]
    yield Note("paused", ", ".join(paused) or "no kind")
    yield _waker()
    yield _auth()


def _waker() -> Note:
    """Say what ONCETASK_WAKE says; what makes no sense has been refused when the client was made."""
    choice = os.environ.get("ONCETASK_WAKE") or "none"
    if choice == "none":
        return Note(
            "waker", "nobody, so that due tasks wait for the next tick or worker (ONCETASK_WAKE is not set here)"
        )
    return Note("waker", f"{choice}, at {os.environ.get('ONCETASK_WAKE_URL')} (ONCETASK_WAKE)")


def _auth() -> Note | Finding:
    """Say what ONCETASK_AUTH says."""
    try:
        with http_extra():
            from oncetask.http.auth import auth_from_environment  # noqa: PLC0415  # not everybody has it
        auth_from_environment()
    except BadInput as error:
        return Note("callers", f"not checked: {error}")
    except ValueError as error:
        return Finding("callers", str(error))
    choice = os.environ.get("ONCETASK_AUTH")
    return Note(
        "callers", f"{choice} (ONCETASK_AUTH)" if choice else "on this machine only (ONCETASK_AUTH is not set here)"
    )
