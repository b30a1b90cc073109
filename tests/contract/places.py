"""The backends by name, for tests that are about some of them only."""

from __future__ import annotations

import pytest

__all__ = ["CODED", "EVERYWHERE", "FIRESTORE", "MEMORY", "SQLITE_FILE", "SQLITE_MEMORY", "only"]

SQLITE_FILE = pytest.param("sqlite-file")
SQLITE_MEMORY = pytest.param("sqlite-memory")
MEMORY = pytest.param("memory")
CODED = pytest.param("coded")
FIRESTORE = pytest.param("firestore", marks=pytest.mark.emulator)
EVERYWHERE = (SQLITE_FILE, SQLITE_MEMORY, MEMORY, CODED, FIRESTORE)


def only(*places: object) -> pytest.MarkDecorator:
    """Run a test on these backends, not on every one."""
    return pytest.mark.parametrize("place", places, indirect=True)
