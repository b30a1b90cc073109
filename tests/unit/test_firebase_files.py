"""What is deployed beside the code: index definitions, rules, and the file that joins them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

EXEMPT = {
    *("data", "dataJson", "result", "resultJson", "errors", "progress", "recurrence", "trace"),
    *("dueAt", "waitUntil", "leasedUntil", "createdAt", "startedAt", "doneAt", "cancelledAt", "deadline"),
    *("occurrenceTimestamp", "timeout", "attempts", "cancelAttempts", "schema", "createId", "lane", "expireAt"),
}
"""Fields without an index of their own: large ones, and times and counters that no query asks for alone."""

LOCK_FIELDS = {"resourceKey", "leaseOwner", "leasedUntil", "schema", "expireAt"}
"""Locks are read by name only, so all that they have is exempt."""


@pytest.fixture(scope="module")
def definitions() -> dict[str, Any]:
    """The index definitions as firebase-tools reads them."""
    text = (ROOT / "firestore.indexes.json").read_text()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_composite_indexes(definitions: dict[str, Any]) -> None:
    """What is due is found by kind, lease owner, being cancelled and being a generator, in the order of ``dueAt``.

    Beside these there are one for keys to look past, and one for the line of a key.
    """
    indexes = definitions["indexes"]
    assert [[tuple(field.values()) for field in index["fields"]] for index in indexes] == [
        [("kind", "ASCENDING"), ("dueAt", "ASCENDING")],
        [("leaseOwner", "ASCENDING"), ("dueAt", "ASCENDING")],
        [("isCancelled", "ASCENDING"), ("dueAt", "ASCENDING")],
        [("isGenerator", "ASCENDING"), ("dueAt", "ASCENDING")],
        [("kind", "ASCENDING"), ("dueAt", "ASCENDING"), ("lane", "ASCENDING")],
        [
            ("resourceKey", "ASCENDING"),
            ("outcome", "ASCENDING"),
            ("waitUntil", "ASCENDING"),
            ("createdAt", "ASCENDING"),
        ],
    ]
    assert {(index["collectionGroup"], index["queryScope"]) for index in indexes} == {("onceTasks", "COLLECTION")}


def test_exemptions(definitions: dict[str, Any]) -> None:
    """Exactly the named fields of tasks and locks have no single-field index; an empty list is what disables it."""
    overrides = definitions["fieldOverrides"]
    exempt = [(override["collectionGroup"], override["fieldPath"]) for override in overrides]
    assert sorted(exempt) == sorted(
        [*(("onceTasks", field) for field in EXEMPT), *(("onceLocks", field) for field in LOCK_FIELDS)]
    )
    assert all(override["indexes"] == [] for override in overrides)


def test_time_to_live(definitions: dict[str, Any]) -> None:
    """``expireAt``, and no other field, has Firestore delete the document of a task or a lock."""
    expiring = [(o["collectionGroup"], o["fieldPath"]) for o in definitions["fieldOverrides"] if "ttl" in o]
    assert expiring == [("onceTasks", "expireAt"), ("onceLocks", "expireAt")]
    assert all(o["ttl"] is True for o in definitions["fieldOverrides"] if "ttl" in o)


def test_firebase_json_names_files_that_exist() -> None:
    """``firebase deploy`` finds rules and indexes where firebase.json says."""
    firestore = json.loads((ROOT / "firebase.json").read_text())["firestore"]
    assert [(ROOT / firestore[part]).is_file() for part in ("rules", "indexes")] == [True, True]


def test_rules_refuse_everything() -> None:
    """The rules have one match for all documents, and it allows nothing."""
    rules = (ROOT / "firestore.rules").read_text()
    assert rules.startswith("rules_version = '2';\n")
    assert rules.count("allow") == 1
    assert "match /{document=**} {\n      allow read, write: if false;" in rules
