"""Which ever-growing ranges of which index a task's life writes to, read from `firestore.indexes.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["INDEXES", "STEPS", "IndexRange", "ranges"]

INDEXES = Path(__file__).parents[2] / "firestore.indexes.json"
STEPS = ("create", "claim", "renew", "complete")
_GROWING = "dueAt"
_SPREAD = "a random text"
# What the fields of a task without a resource key hold, step by step; one that is absent is in no composite index.
_STATES: Sequence[dict[str, str]] = (
    {},
    {"kind": "its kind", "dueAt": "now", "lane": "''", "leaseOwner": "null", "isCancelled": "false", "outcome": "null"},
    {"dueAt": "the end of the lease", "leaseOwner": _SPREAD},
    {"dueAt": "the end of the renewed lease"},
    {"dueAt": "", "leaseOwner": "null", "outcome": "completed"},
)


@dataclass(frozen=True)
class IndexRange:
    """A part of an index in which new entries always come last."""

    index: str
    where: str
    """What stands before the growing field."""
    is_of_kind: bool
    """Each kind has one of its own; else all kinds of an environment share it."""
    writes: dict[str, int]
    """For each step of a task's life whether its write touches the range."""

    @property
    def short_task(self) -> int:
        """The writes of a task that is never renewed."""
        return sum(count for step, count in self.writes.items() if step != "renew")


def ranges(path: Path = INDEXES) -> list[IndexRange]:
    """Give the ranges that every task is in, those with the most writes first."""
    found = [
        one
        for index in json.loads(path.read_text())["indexes"]
        if index["collectionGroup"] == "onceTasks"
        for one in _of_index([part["fieldPath"] for part in index["fields"]])
    ]
    return sorted(found, key=lambda one: (-one.short_task, one.is_of_kind))


def _of_index(fields: Sequence[str]) -> Iterator[IndexRange]:
    """Give the growing range of an index, if it has one that is in use: those under random texts are spread."""
    if _GROWING not in fields:
        return
    before = fields[: fields.index(_GROWING)]
    entries, state = [], dict[str, str]()
    for change in _STATES:
        state = {**state, **change}
        is_in = all(state.get(field) for field in fields) and _SPREAD not in [state[field] for field in before]
        entries.append((tuple(state[field] for field in fields)) if is_in else None)
    writes = {step: int(entries[n] != entries[n + 1]) for n, step in enumerate(STEPS)}
    if any(writes.values()):
        first = next(entry for entry in entries if entry)
        where = ", ".join(f"{field} = {value}" for field, value in zip(before, first, strict=False))
        yield IndexRange(f"({', '.join(fields)})", where, "kind" in before, writes)
