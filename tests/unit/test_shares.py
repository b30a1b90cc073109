"""Who is next among several that compete."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncetask.shares import Shares


def given_out(shares: Shares, names: list[str], number: int) -> list[str]:
    """Give out so much among these, and tell who got each."""
    got = []
    for _ in range(number):
        got.append(shares.first(names))
        shares.took(got[-1])
    return got


def test_equal_weights_take_turns() -> None:
    """Without priorities everybody gets the same, one after the other."""
    assert given_out(Shares({"a": 1, "b": 1, "c": 1}), ["a", "b", "c"], 6) == ["a", "b", "c"] * 2


def test_weights_are_shares() -> None:
    """Three times the weight gets three times as much, and the others get theirs in between."""
    got = given_out(Shares({"a": 3, "b": 1}), ["a", "b"], 400)
    assert Counter(got) == {"a": 300, "b": 100}
    assert all("b" in got[start : start + 5] for start in range(395))


def test_nothing_is_saved_up() -> None:
    """Who wanted nothing for long gets its share from now on, and not what it left to others."""
    shares = Shares({"a": 1, "b": 1})
    given_out(shares, ["a"], 100)
    assert Counter(given_out(shares, ["a", "b"], 10)) == {"a": 5, "b": 5}


def test_there_has_to_be_somebody() -> None:
    """Among nobody nobody is first."""
    with pytest.raises(ValueError, match="empty"):
        Shares({"a": 1}).first([])


@given(weights=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 100), min_size=1))
def test_nobody_starves(weights: dict[str, int]) -> None:
    """Whatever the weights, everybody gets what it is due within a round, one more or less."""
    shares, total = Shares(weights), sum(weights.values())
    got = Counter(given_out(shares, list(weights), 2 * total))
    assert all(abs(got[name] - 2 * weight) <= 1 + len(weights) for name, weight in weights.items())
    assert set(got) == set(weights)
