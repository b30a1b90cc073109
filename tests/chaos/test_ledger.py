"""What the ledger holds against a store, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.gaps import without_gaps
from tests.chaos.ledger import Change, Ledger, Violations

CREATED = Change(
    10, "a", {"kind": "keyed", "createId": "c", "resourceKey": "key", "waitUntil": 1, "createdAt": 1, "data": {}}, 0
)
CLAIMED = Change(20, "a", {"leaseOwner": "one", "leasedUntil": 100, "attempts": 1}, 10)
FREE: dict[str, Any] = {"leaseOwner": None, "leasedUntil": None}
COMPLETED = Change(30, "a", {**FREE, "outcome": "completed", "result": {"token": 20}}, 20)
FAILED = {**FREE, "errors": [{"message": "its worker died or stood still", "type": "LeaseLost"}]}
OTHER_CLAIM = {"leaseOwner": "two", "leasedUntil": 300, "attempts": 2}


def found(*changes: Change) -> set[str]:
    """Give what a ledger has against these changes."""
    bad = Violations()
    ledger = Ledger(bad)
    for change in changes:
        ledger.take(change)
    ledger.close()
    return set(bad.counts)


def test_a_life_as_it_should_be() -> None:
    """Claimed, rescued after its lease, claimed again, completed, reset, completed: there is nothing against it."""
    assert not found(
        CREATED,
        CLAIMED,
        Change(101, "a", FAILED, 20),
        Change(110, "a", OTHER_CLAIM, 101),
        Change(120, "a", {**FREE, "outcome": "completed", "result": {"token": 110}}, 110),
        Change(130, "a", {"outcome": None, "result": None, "attempts": 0, "errors": []}, 120),
        Change(140, "a", CLAIMED.fields, 130),
        Change(150, "a", {**FREE, "outcome": "completed", "result": {"token": 140}}, 140),
    )


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ([COMPLETED, Change(40, "a", {"outcome": "completed", "result": {"token": 21}})], "completed twice"),
        ([COMPLETED, Change(40, "a", {"progress": {"data": {"token": 20}}})], "a done task was changed"),
        ([Change(99, "a", FAILED)], "a lease was taken while it held"),
        ([Change(99, "a", OTHER_CLAIM)], "a lease was taken while it held"),
        (
            [
                Change(101, "a", OTHER_CLAIM),
                Change(110, "a", {**FREE, "outcome": "completed", "result": '{"token": 20}'}),
            ],
            "a write with an older fencing token",
        ),
        (
            [Change(101, "a", OTHER_CLAIM), Change(110, "a", {"errors": '[{"message": "bad: {\'token\': 20}"}]'})],
            "a write with an older fencing token",
        ),
        (
            [Change(25, "a", {"isCancelled": True}), Change(30, "a", COMPLETED.fields)],
            "completed though it was cancelled before",
        ),
        (
            [Change(25, "a", {"isCancelled": True}), Change(101, "a", OTHER_CLAIM)],
            "a cancelled task's own handler was started",
        ),
        (
            [Change(21, "b", CREATED.fields), Change(22, "b", {"leaseOwner": "two", "leasedUntil": 90})],
            "two leases of one resource key",
        ),
        ([Change(30, "a", {"leasedUntil": 200}, 19)], "a write that is not built on the last one"),
        ([Change(30, "a", CREATED.fields, 20)], "created while it existed"),
        ([Change(30, "b", {"leasedUntil": 200})], "a write whose beginning was not seen"),
        ([Change(30, "b", None)], "deleted twice"),
        ([Change(30, "a", {**FREE, "outcome": "failed", "errors": "[]"})], "failed for good"),
    ],
)
def test_what_must_not_be(changes: list[Change], what: str) -> None:
    """Each wrong is named."""
    assert what in found(CREATED, CLAIMED, *changes)


def test_a_key_is_handed_on_in_one_commit() -> None:
    """That one task ends and the next is claimed at one version leaves no moment with two leases."""
    second = Change(21, "b", CREATED.fields)
    assert not found(CREATED, CLAIMED, second, Change(30, "b", OTHER_CLAIM), COMPLETED)


def test_a_gap_is_filled_by_what_is_built_on_it() -> None:
    """A write of which nobody knows whether it was applied has the version that the next one names, or the last."""
    doubtful = [Change(0, "a", CLAIMED.fields, 10), Change(0, "a", COMPLETED.fields, 25)]
    renewed = Change(25, "a", {"leasedUntil": 200}, 20)
    applied = without_gaps([CREATED, renewed], doubtful, {"a": 30})
    assert [change.at for change in applied] == [10, 20, 25, 30]
    assert [change.fields for change in applied] == [CREATED.fields, CLAIMED.fields, renewed.fields, COMPLETED.fields]


def test_what_left_no_version_was_not_applied() -> None:
    """A doubtful write that nothing is built upon, and that is not the last one, did not happen."""
    doubtful = [Change(0, "a", {"leaseOwner": "two"}, 10)]
    assert without_gaps([CREATED, CLAIMED], doubtful, {"a": 20}) == [CREATED, CLAIMED]


def test_a_doubtful_deletion() -> None:
    """What is gone in the end was deleted."""
    deletion = Change(21, "a", None, 20)
    assert without_gaps([CREATED, CLAIMED], [deletion], {"a": None}) == [CREATED, CLAIMED, deletion]
