"""What counts as growth, and as a leak."""

from __future__ import annotations

import pytest

from tests.soak.gauges import Counts, Sample
from tests.soak.judging import growths, leaks


def a_sample(rss: float = 100.0, traced: float = 10.0, objects: int = 1_000) -> Sample:
    """Give a sample."""
    return Sample(rss, traced, objects)


@pytest.mark.parametrize(("last", "is_too_much"), [(104.9, False), (105.0, True), (90.0, False)])
def test_growth(last: float, is_too_much: bool) -> None:
    """Five per cent more in the last quarter than in the first are too much; what is in between does not matter."""
    rss, traced, objects = growths(
        [*[a_sample()] * 5, *[a_sample(rss=900)] * 10, *[a_sample(rss=last, objects=2_000)] * 5]
    )
    assert (rss.first, rss.last, rss.is_too_much) == (100.0, last, is_too_much)
    assert (traced.percent, traced.is_too_much) == (0.0, False)
    assert (objects.percent, objects.is_too_much) == (100.0, False)


def test_one_outlier_is_no_growth() -> None:
    """Medians are compared."""
    samples = [a_sample()] * 19 + [a_sample(rss=1_000)]
    assert not any(growth.is_too_much for growth in growths(samples))


def test_leaks() -> None:
    """What there is more of, or less, at rest is named."""
    assert leaks(Counts(3, 20, 9), Counts(3, 20, 9)) == []
    assert leaks(Counts(3, 20, 9), Counts(4, 20, 8)) == ["threads: 3 before, 4 after", "tasks: 9 before, 8 after"]
