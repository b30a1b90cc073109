"""What is stored while the rules are asked: documents by path, most of which say that Ada is their owner."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ADAS", "DOCUMENTS", "ELSEWHERE", "OTHERS"]

ADAS: Mapping[str, Mapping[str, object]] = {
    "oncetask/prod/onceTasks/ada-1": {"owner": "ada", "kind": "greet", "outcome": None},
    "oncetask/prod/onceTasks/ada-2": {"owner": "ada", "kind": "part", "outcome": "failed"},
    "oncetask/test/onceTasks/ada-3": {"owner": "ada", "kind": "greet", "outcome": None},
}
"""Tasks that belong to Ada."""

OTHERS: Mapping[str, Mapping[str, object]] = {
    "oncetask/prod/onceTasks/bob-1": {"owner": "bob", "kind": "greet", "outcome": None},
    "oncetask/prod/onceTasks/free": {"kind": "greet", "outcome": None},
    "oncetask/prod/onceTasks/null": {"owner": None, "kind": "greet", "outcome": None},
    "oncetask/prod/onceTasks/list": {"owner": ["ada"], "kind": "greet", "outcome": None},
}
"""Tasks that belong to Bob, or to nobody."""

ELSEWHERE: Mapping[str, Mapping[str, object]] = {
    "oncetask/prod": {"owner": "ada", "pausedKinds": ["greet"]},
    "oncetask/prod/onceTasks/ada-1/notes/1": {"owner": "ada"},
    "oncetask/prod/onceLocks/0": {"owner": "ada", "leaseOwner": "ada"},
    "onceTasks/ada-4": {"owner": "ada"},
    "users/ada": {"owner": "ada"},
    "users/ada/onceTasks/ada-5": {"owner": "ada"},
}
"""Settings, a lock, what is below a task, and documents that oncetask knows nothing of."""

DOCUMENTS = {**ADAS, **OTHERS, **ELSEWHERE}
