"""An emulator of a test's own, which is killed and comes up again with what it had exported."""

from __future__ import annotations

import asyncio
import json
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from oncetask.cli.dev.emulator import Startable, _await_answer, _process, free_port

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
        port = free_port()
        command = [
            *(str(self._location.java), "-Xmx384m", "-cp", str(self._location.jar)),
            "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
            *("start", "--host", "127.0.0.1", "--port", str(port)),
            *(() if export is None else ("--seed_from_export", str(export))),
        ]
        log = self._running.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # closed with the emulator
        process = self._running.enter_context(_process(command, log))
        _await_answer(process, port, log)
        self.host = f"127.0.0.1:{port}"

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
