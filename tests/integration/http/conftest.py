"""What tests of the HTTP edge work with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from oncetask import Client, connect


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of a store in memory, for tests that do not ask where the tasks are."""
    async with connect("memory://") as client:
        yield client
