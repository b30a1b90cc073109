"""The emulator behind a relay that keeps a record, and a wire for each process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AsyncExitStack

from oncetask import Client, connect
from tests.chaos.ledger import Change
from tests.chaos.network import Wire
from tests.chaos.relay import Relay

__all__ = ["EmulatorGround"]

_HOST = "FIRESTORE_EMULATOR_HOST"
_OURS = "ours"


class EmulatorGround:
    """A project of its own; each process has its own way there."""

    backlog: int | None = 1_000  # each of its queries reads everything that is stored

    def __init__(self, host: str, project: str) -> None:
        """`host`: host:port of the emulator."""
        self._relay = Relay(host)
        self._project = project
        self._stack = AsyncExitStack()
        self.wires: dict[str, Wire] = {}
        """By name of the process; there is one for this process, too."""

    async def open(self, *processes: str) -> Client:
        """Lay a wire for each of these, and give a client of this process."""
        await self._stack.enter_async_context(self._relay)
        for process in (_OURS, *processes):
            self.wires[process] = await self._stack.enter_async_context(Wire(self._relay.host))
        client = connect(f"firestore://{self._project}")
        before = os.environ.get(_HOST)
        os.environ[_HOST] = self.wires[_OURS].host  # read when the store is opened, and not again
        try:
            await client.store.open()
        finally:
            os.environ.pop(_HOST)
            if before is not None:
                os.environ[_HOST] = before
        return client

    def environment(self, process: str) -> dict[str, str]:
        """Give the environment of a process that is to work here."""
        return {**os.environ, "ONCETASK_STORE": f"firestore://{self._project}", _HOST: self.wires[process].host}

    def changes(self) -> Iterator[Change]:
        """Give every write, in order."""
        return self._relay.changes()

    async def aclose(self) -> None:
        """End wires and relay; what the clients of other processes still want is broken off."""
        await self._stack.aclose()
