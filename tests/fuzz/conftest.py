"""As many examples as were asked for, and the time for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.effort import TIMES

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test of this folder so much more time as it has more examples."""
    if TIMES > 1:
        limit = float(config.getini("timeout")) * TIMES
        for item in items:
            if item.path.is_relative_to(_HERE):
                item.add_marker(pytest.mark.timeout(limit))
