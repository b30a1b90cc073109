"""What is deployed beside the code: index definitions, rules, and the file that joins them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oncetask.lock import Lock, LockChange
from oncetask.store.document import INSTANTS
from oncetask.store.firestore.codec import Names
from oncetask.store.firestore.locks import lock_write
from tests.support import T0

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def definitions() -> dict[str, Any]:
    """The index definitions as firebase-tools reads them; which are needed is tested beside the queries."""
    text = (ROOT / "firestore.indexes.json").read_text()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """What firebase-tools reads first."""
    parsed: dict[str, Any] = json.loads((ROOT / "firebase.json").read_text())
    return parsed


def exempt(definitions: dict[str, Any], collection: str) -> list[str]:
    """Give the fields of a collection that have no single-field index; an empty list is what disables it."""
    overrides = [one for one in definitions["fieldOverrides"] if one["collectionGroup"] == collection]
    return [one["fieldPath"] for one in overrides if one["indexes"] == []]


def test_every_time_is_exempt(definitions: dict[str, Any]) -> None:
    """No time of a task has an index of its own: one that keeps growing caps a collection at 500 writes a second."""
    assert set(INSTANTS.values()) <= set(exempt(definitions, "onceTasks"))


def test_what_is_large_is_exempt(definitions: dict[str, Any]) -> None:
    """Neither payloads nor what comes of them is indexed: an indexed value has a size limit, and each one costs."""
    assert {"data", "dataJson", "result", "resultJson", "errors", "progress", "recurrence"} <= set(
        exempt(definitions, "onceTasks")
    )


def test_locks_are_exempt(definitions: dict[str, Any]) -> None:
    """Locks are read by name only, so all that is written into one is exempt."""
    lock = Lock(resource_key="key", owner="me", leased_until=T0)
    write = lock_write(Names("projects/p/databases/d", "env"), LockChange("key", None, lock))
    assert sorted(exempt(definitions, "onceLocks")) == sorted(write.pb.update.fields)


def test_nothing_is_said_twice(definitions: dict[str, Any]) -> None:
    """Every exception is of a field of its own, and of a collection that is ours; no composite index comes twice."""
    exceptions = [(one["collectionGroup"], one["fieldPath"]) for one in definitions["fieldOverrides"]]
    indexes = [json.dumps(one, sort_keys=True) for one in definitions["indexes"]]
    assert len(set(exceptions)) == len(exceptions)
    assert len(set(indexes)) == len(indexes)
    assert {collection for collection, _ in exceptions} == {"onceTasks", "onceLocks"}


def test_time_to_live(definitions: dict[str, Any]) -> None:
    """``expireAt``, and no other field, has Firestore delete the document of a task or a lock."""
    expiring = {(o["collectionGroup"], o["fieldPath"]): o["ttl"] for o in definitions["fieldOverrides"] if "ttl" in o}
    assert expiring == {("onceTasks", "expireAt"): True, ("onceLocks", "expireAt"): True}


def test_firebase_json_names_files_that_exist(config: dict[str, Any]) -> None:
    """``firebase deploy`` finds rules and indexes where firebase.json says."""
    assert config["firestore"] == {"rules": "firestore.rules", "indexes": "firestore.indexes.json"}
    assert [(ROOT / file).is_file() for file in config["firestore"].values()] == [True, True]


def test_firebase_json_names_functions_that_firebase_can_load(config: dict[str, Any]) -> None:
    """firebase-tools finds functions only through firebase-functions, which the folder has to require.

    That is why `functions/`, which stands on functions-framework, is deployed with gcloud and not mentioned here.
    """
    (functions,) = config["functions"]
    folder = ROOT / functions["source"]
    required = (folder / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("firebase-functions") for line in required)
    assert (folder / "main.py").is_file()
    assert (functions["codebase"], functions["runtime"]) == ("oncetask", "python311")
    assert "venv" in functions["ignore"], "firebase-tools wants the virtual environment in the folder, but not deployed"


def test_emulators_are_for_this_machine_only(config: dict[str, Any]) -> None:
    """`firebase emulators:start` runs Firestore and the functions, and is reached from no other machine."""
    emulators = config["emulators"]
    assert {name for name in emulators if name != "ui"} == {"firestore", "functions"}
    assert {emulators[name]["host"] for name in ("firestore", "functions")} == {"127.0.0.1"}


def test_rules_are_of_the_version_that_knows_subcollections() -> None:
    """Without the line, wildcards would mean something else; what the rules allow is asked of the emulator."""
    assert (ROOT / "firestore.rules").read_text().startswith("rules_version = '2';\n")
