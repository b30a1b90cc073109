"""Which stores a test module runs on, where it is not both of the durable ones: for its `pytestmark`."""

from __future__ import annotations

import pytest

__all__ = ["EVERYWHERE", "ON_FIRESTORE", "ON_SQLITE"]

_FIRESTORE = pytest.param("firestore", marks=pytest.mark.emulator)

EVERYWHERE = pytest.mark.parametrize("opened_place", ["memory", "sqlite", _FIRESTORE], indirect=True)
ON_FIRESTORE = pytest.mark.parametrize("opened_place", [_FIRESTORE], indirect=True)
ON_SQLITE = pytest.mark.parametrize("opened_place", ["sqlite"], indirect=True)
