"""Processes that end with the test that started them, and what they have witnessed."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.places import Place

_ROOT = Path(__file__).parents[3]


class Crew:
    """Worker processes on one store, and the file in which their handlers' runs leave a line each."""

    def __init__(self, place: Place, witness: Path) -> None:
        """`witness`: a file that does not exist yet."""
        self._place = place
        self._witness = witness
        self._workers: list[asyncio.subprocess.Process] = []

    async def start(self, program: str = "program") -> asyncio.subprocess.Process:
        """Start one more worker, or another program of this folder."""
        command = (sys.executable, "-m", f"tests.integration.processes.{program}", str(self._witness))
        worker = await asyncio.create_subprocess_exec(*command, cwd=_ROOT, env=self._place.environment)
        self._workers.append(worker)
        return worker

    def runs(self) -> Counter[str]:
        """Count how often each line was left."""
        return Counter(self._witness.read_text().split()) if self._witness.exists() else Counter()

    async def aclose(self) -> None:
        """Kill what is left."""
        for worker in self._workers:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()


@pytest.fixture
async def crew(place: Place, tmp_path: Path) -> AsyncIterator[Crew]:
    """Worker processes that end with the test."""
    started = Crew(place, tmp_path / "witness")
    yield started
    await started.aclose()
