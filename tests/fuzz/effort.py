"""How hard is tried."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["TIMES", "examples"]

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
"""How many times as many examples as `make test` tries."""


def examples(number: int) -> settings:
    """Try so many examples, or a multiple: new ones in each run, with what to repeat a failure by printed.

    Fixtures of one test serve all of its examples, which is what a server has to bear as well.
    """
    return settings(
        max_examples=number * TIMES,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
