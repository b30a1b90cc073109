"""What pytest finds by itself where oncetask is installed: a fixture, and the tasks in the report of a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from oncetask.testing.harness import Harness

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["oncetask_harness", "pytest_runtest_makereport"]

_MADE = pytest.StashKey[list[Harness]]()


@pytest.fixture
def oncetask_harness(request: pytest.FixtureRequest) -> Callable[..., Harness]:
    """Make harnesses whose tasks are shown in the report of the test, should it fail.

    Used as `Harness` is: `async with oncetask_harness(app) as h:`. It works with pytest-asyncio, anyio's plugin (on
    asyncio) and others alike, since it is the test that enters a harness, on the loop of its own.
    """
    made = request.node.stash.setdefault(_MADE, [])

    def make(*arguments: Any, **options: Any) -> Harness:
        harness = Harness(*arguments, **options)
        made.append(harness)
        return harness

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the tasks of a test that has failed to its report."""
    report = yield
    if report.when == "call" and report.failed:
        for harness in item.stash.get(_MADE, []):
            report.sections.append(("oncetask tasks", harness.describe()))
    return report
