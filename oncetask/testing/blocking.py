"""The blocking client of a test: for functions in threads, on the loop on which the test itself runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from oncetask.sync import SyncClient

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from oncetask.client import Client

__all__ = ["BlockingClient"]

T = TypeVar("T")


class BlockingClient(SyncClient):
    """As `connect_sync` gives it, but that it has no thread and no store of its own; closing it does nothing."""

    def __init__(self, client: Client) -> None:
        """`client`: the one of the running loop."""
        super().__init__(lambda: client)
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Leave the store to the harness."""

    def _call(self, start: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """Wait for the loop. Raises RuntimeError on it, where that would take for ever."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return super()._call(start)
        msg = "sync_client blocks, so that it needs a thread: await asyncio.to_thread(function)"
        raise RuntimeError(msg)

    def _fresh(self) -> Client:
        return self._client
