"""Processes on the store of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.faults.processes import Programs
from tests.integration.places import Place


@pytest.fixture
async def programs(place: Place) -> AsyncIterator[Programs]:
    """Processes that work on this test's store and end with it."""
    started = Programs(place.environment)
    yield started
    await started.aclose()
