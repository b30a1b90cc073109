"""Payloads are pydantic models with methods to override."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, assert_type

from oncetask import Payload

T = TypeVar("T")


class Sync(Payload, kind="sync"):
    """Overrides what can be overridden."""

    user: str
    full: bool = False

    def idempotency_key(self) -> str | None:
        """May be None."""
        return self.user if self.full else None

    def resource_key(self) -> str:
        """Need not be None."""
        return self.user

    def wait_until(self) -> datetime:
        """Give an instant."""
        return datetime(2030, 1, 1, tzinfo=UTC)


class Wrong(Payload):
    """Overrides with other types, and hides a method."""

    resource_key: str  # type: ignore[assignment]

    def idempotency_key(self) -> int:  # type: ignore[override]
        """Cannot be a number."""
        return 5


class Box(Payload, Generic[T]):
    """A generic payload."""

    content: T


class IntBox(Box[int], kind="int-box"):
    """One with a kind."""


def types(sync: Sync) -> None:
    """What a payload gives."""
    assert_type(Sync.kind, str)
    assert_type(sync.user, str)
    assert_type(sync.idempotency_key(), str | None)
    assert_type(sync.resource_key(), str)
    assert_type(sync.to_data(), dict[str, Any])
    assert_type(Sync.from_data({"user": "a"}), Sync)
    assert_type(IntBox(content=1).content, int)
    Sync(user=5)  # type: ignore[arg-type]
    Sync()  # type: ignore[call-arg]
