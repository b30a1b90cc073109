"""What all of these tests use: services that do nothing but remember, and a harness with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import pytest
from shop import Services, make_app  # type: ignore[import-not-found]  # the file beside this one

from oncetask.testing import Harness

START = datetime(2030, 3, 10, tzinfo=UTC)


@dataclass
class FakeBank:
    """Fails as it is told to, and remembers who was charged."""

    fails_with: list[Exception] = field(default_factory=list)
    charged: dict[str, int] = field(default_factory=dict)

    async def charge(self, order: str, cents: int) -> str:
        """Charge, unless an error is left."""
        if self.fails_with:
            raise self.fails_with.pop(0)
        self.charged[order] = cents
        return f"ref-{order}"


@dataclass
class FakeWarehouse:
    """Remembers what is kept."""

    reserved: set[str] = field(default_factory=set)

    def reserve(self, order: str) -> None:
        """Keep it."""
        self.reserved.add(order)

    def release(self, order: str) -> None:
        """Give it back."""
        self.reserved.discard(order)


@pytest.fixture
def bank() -> FakeBank:
    """A bank of the test's own."""
    return FakeBank()


@pytest.fixture
def warehouse() -> FakeWarehouse:
    """A warehouse of the test's own."""
    return FakeWarehouse()


@pytest.fixture
def statements() -> list[date]:
    """The days of which a statement was written."""
    return []


@pytest.fixture
async def h(
    oncetask_harness: Callable[..., Harness], bank: FakeBank, warehouse: FakeWarehouse, statements: list[date]
) -> AsyncIterator[Harness]:
    """The shop at work, on a Sunday in March 2030, at midnight in UTC."""
    services = Services(bank, warehouse, statements.append)
    async with oncetask_harness(make_app(services), start=START) as harness:
        yield harness
