"""How hard is tried."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["TIMES", "examples"]

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
"""How many times as many examples as `make test` tries."""

_SHARE = 3
"""`make test` tries one in so many of what a test asks for."""


def examples(number: int) -> settings:
    """Try some of so many examples, or a multiple: new ones in each run, with what to repeat a failure by printed.

    Fixtures of one test serve all of its examples, which is what a server has to bear as well.
    """
    return settings(
        max_examples=max(number // _SHARE, 10) * TIMES,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
