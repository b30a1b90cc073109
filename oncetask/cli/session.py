"""A client for the length of one command."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from oncetask.client import Client, connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["place", "program", "with_client"]

T = TypeVar("T")


def with_client(store: str | None, env: str | None, use: Callable[[Client], Awaitable[T]]) -> T:
    """Connect, run `use` on a loop of its own, close; gives what `use` gives."""
    client = connect(store, env=env)

    async def work() -> T:
        async with client:
            return await use(client)

    return asyncio.run(work())


def program() -> str:
    """Give what the user has to type to run this command line."""
    if shutil.which("oncetask"):
        return "oncetask"
    started = Path(sys.argv[0])
    return os.path.relpath(started) if started.name == "oncetask" else "python -m oncetask"


def place(client: Client) -> str:
    """Name the store and the environment that a client works on."""
    emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
    host = f" (emulator at {emulator})" if emulator and client.store.url.startswith("firestore:") else ""
    return f"{client.store.url}{host}, environment {client.store.env}"
