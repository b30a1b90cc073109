"""An emulator of a test's own, which is killed and comes up again with what it had exported."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.emulator import Startable, running_emulator

__all__ = ["Emulator"]


class Emulator:
    """The emulator, and a folder for its exports."""

    def __init__(self, location: Startable, folder: Path) -> None:
        """Start nothing yet."""
        self._location = location
        self._folder = folder
        self._running = ExitStack()
        self._exports = 0
        self.host = ""
        """`host:port` at present."""

    async def start(self, export: Path | None = None) -> None:
        """Start it, empty or with an export; returns when it answers."""
        await asyncio.to_thread(self._start, export)

    async def kill(self) -> None:
        """Kill it; what it had is lost."""
        await asyncio.to_thread(self._running.close)

    async def export(self, project: str) -> Path:
        """Write what it has of a project into a folder; gives the file that names it."""
        return await asyncio.to_thread(self._export, project)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    def _start(self, export: Path | None) -> None:
        self.host = self._running.enter_context(running_emulator(self._location, export=export, heap_megabytes=384))

    def _export(self, project: str) -> Path:
        self._exports += 1
        name = f"export-{self._exports}"
        wanted = {
            "database": f"projects/{project}/databases/(default)",
            "export_directory": str(self._folder),
            "export_name": name,
        }
        request = urllib.request.Request(  # our own emulator
            f"http://{self.host}/emulator/v1/projects/{project}:export",
            data=json.dumps(wanted).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # as above
            answer.read()
        return self._folder / name / f"{name}.overall_export_metadata"
