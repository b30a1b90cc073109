"""The Firestore emulator for tests and benchmarks: found and started as `oncetask dev` does it."""

from __future__ import annotations

from oncetask.cli.dev.emulator import (
    EmulatorError,
    Location,
    Missing,
    Running,
    Startable,
    locate,
    running_emulator,
)

__all__ = ["EmulatorError", "Location", "Missing", "Running", "Startable", "locate", "running_emulator"]
