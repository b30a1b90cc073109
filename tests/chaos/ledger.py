"""Every write that the store accepted, in order, held against what may follow what.

It shares no code with `oncetask.lifecycle`: it knows fields and versions only. A version is the store's time of the
write in microseconds, so that it can be compared with the end of a lease.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Change", "Ledger", "Record", "Violations"]

_FENCED = "taken-over"
_TOKEN = re.compile(r"token\W+(\d+)")
_RESCUED = "its worker died"
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Change:
    """One write of one task's document, as it was accepted."""

    at: int
    """The version that it got."""
    task_id: str
    fields: Mapping[str, Any] | None
    """What was set; None: the document was deleted."""
    base: int | None = None
    """The version that it had to be written upon; 0: none; None: not known."""


class Violations:
    """What should not have happened: how often, and the first examples of each."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, what: str, example: str) -> None:
        """Take down one more."""
        self.counts[what] += 1
        shown = self.examples.setdefault(what, [])
        if len(shown) < _SHOWN:
            shown.append(example)


@dataclass(slots=True)
class Record:
    """One task's document, and its history."""

    now: dict[str, Any]
    version: int
    place: tuple[int, int, str]
    """Its place in the line of its key, in its first life."""
    created_at: int
    """The version of its first creation."""
    claims: list[int] = field(default_factory=list)
    """The versions of the writes from which on a run could begin."""
    completions: list[tuple[int, int]] = field(default_factory=list)
    """Version, and the fencing token of the run that completed it."""
    cancelled_lives: int = 0
    """How often it ended cancelled."""
    creates: int = 1
    resets: int = 0
    cancels: int = 0
    deletes: int = 0
    first_life_until: int | None = None
    """The version of the write that deleted or reset it first."""
    gone: bool = False

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.now["kind"])

    def claim_of(self, token: int) -> int | None:
        """Give the number of the claim to which a fencing token belongs; None: to none."""
        place = bisect_right(self.claims, token) - 1
        return None if place < 0 else place


class Ledger:
    """Takes the changes in the order of their versions."""

    def __init__(self, violations: Violations) -> None:
        """`violations`: where to take down what should not have happened."""
        self.tasks: dict[str, Record] = {}
        self.follow_ups: Counter[tuple[str, int]] = Counter()
        """How often a follow-up was created for a parent's run of that token."""
        self.occurrences: Counter[tuple[str, int]] = Counter()
        """How often an occurrence of a generator was created for that instant."""
        self.writes = 0
        self._bad = violations
        self._held: dict[str, dict[str, str]] = {}
        self._touched: set[str] = set()
        self._at = 0

    def take(self, change: Change) -> None:
        """Take the next change."""
        if change.at != self._at:
            self.close()
            self._at = change.at
        self.writes += 1
        record = self.tasks.get(change.task_id)
        if record is not None and not record.gone and change.base is not None and change.base != record.version:
            self._bad.add("a write that is not built on the last one", f"{change.task_id} at {change.at}")
        if change.fields is None:
            self._deleted(change, record)
        elif record is None or record.gone:
            self._created(change, record, change.fields)
        elif "createId" in change.fields:
            self._bad.add("created while it existed", change.task_id)
        else:
            self._changed(change, record, {**record.now, **change.fields})
            record.version = change.at
        if record is not None and (key := record.now.get("resourceKey")):
            self._hold(key, change.task_id, record)

    def close(self) -> None:
        """Look at the keys of which something was written at the last version."""
        for key in self._touched:
            if len(set(self._held[key].values())) > 1:
                self._bad.add("two leases of one resource key", f"{key} at {self._at}: {self._held[key]}")
        self._touched.clear()

    def _hold(self, key: str, task_id: str, record: Record) -> None:
        owner = None if record.gone else record.now.get("leaseOwner")
        held = self._held.setdefault(key, {})
        if owner in {None, _FENCED}:
            held.pop(task_id, None)
        else:
            held[task_id] = str(owner)
        self._touched.add(key)

    def _created(self, change: Change, former: Record | None, fields: Mapping[str, Any]) -> None:
        now = dict(fields)
        if "kind" not in now:
            self._bad.add("a write whose beginning was not seen", f"{change.task_id} at {change.at}")
            return
        data = now.pop("data", None)
        if now["kind"] == "follow":
            data = json.loads(data) if isinstance(data, str) else data
            self.follow_ups[data["parent"], data["token"]] += 1
        if now.get("parentRecurrenceId"):
            self.occurrences[now["parentRecurrenceId"], now["occurrenceTimestamp"]] += 1
        if former is None:
            place = (now["waitUntil"], now["createdAt"], change.task_id)
            self.tasks[change.task_id] = Record(now, change.at, place, change.at)
        else:
            former.now, former.version, former.gone = now, change.at, False
            former.creates += 1

    def _deleted(self, change: Change, record: Record | None) -> None:
        if record is None or record.gone:
            self._bad.add("deleted twice", change.task_id)
            return
        record.gone = True
        record.deletes += 1
        record.first_life_until = record.first_life_until or change.at

    def _changed(self, change: Change, record: Record, new: dict[str, Any]) -> None:
        old, record.now, where = record.now, new, f"{change.task_id} at {change.at}"
        if old.get("outcome") is not None:
            if new.get("outcome") is not None or new.get("leaseOwner") is not None or new.get("attempts"):
                again = any(new.get(name) != old.get(name) for name in ("doneAt", "outcome", "result"))
                what = "completed twice" if again else "a done task was changed"
                self._bad.add(what, f"{where}: {old} -> {new}")
            record.resets += 1
            record.first_life_until = record.first_life_until or change.at
            return
        self._check_stamps(record, old, new, where)
        self._check_lease(change, record, old, new)
        if new.get("isCancelled") and not old.get("isCancelled"):
            record.cancels += 1
        if (outcome := new.get("outcome")) is not None:
            self._ended(change, record, old, str(outcome))

    def _check_stamps(self, record: Record, old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> None:
        """Hold what a write carries of a run against the newest claim."""
        carried = [new.get(name) for name in ("result", "progress") if new.get(name) != old.get(name)]
        if new.get("errors") != old.get("errors") and (errors := _read(new["errors"])):
            carried.append(errors[-1]["message"])
        for value in carried:
            for token in map(int, _TOKEN.findall(str(value))):
                if not record.claims or token < record.claims[-1]:
                    self._bad.add(
                        "a write with an older fencing token", f"{where}: {token}, claimed at {record.claims[-2:]}"
                    )

    def _check_lease(self, change: Change, record: Record, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        before, after = old.get("leaseOwner"), new.get("leaseOwner")
        cleans_up = (new.get("cancelAttempts") or 0) > (old.get("cancelAttempts") or 0)
        rescued = after is None and new.get("errors") != old.get("errors") and _RESCUED in _newest(new)
        taken = after is not None and after != before
        if before is not None and (taken or rescued) and (old.get("leasedUntil") or 0) > change.at:
            example = f"{change.task_id} at {change.at}: {before} -> {after}, leased until {old.get('leasedUntil')}"
            self._bad.add("a lease was taken while it held", example)
        if after == _FENCED:
            return
        if taken and old.get("isCancelled") and not cleans_up:
            self._bad.add("a cancelled task's own handler was started", f"{change.task_id} at {change.at}")
        if taken or (cleans_up and after is not None):
            record.claims.append(change.at)

    def _ended(self, change: Change, record: Record, old: Mapping[str, Any], outcome: str) -> None:
        where = f"{change.task_id} at {change.at}"
        match outcome:
            case "completed" if record.now.get("recurrence") is None:
                if old.get("isCancelled"):
                    self._bad.add("completed though it was cancelled before", where)
                tokens = _TOKEN.findall(str(record.now.get("result")))
                record.completions.append((change.at, int(tokens[0]) if tokens else 0))
            case "cancelled":
                record.cancelled_lives += 1
            case "failed" | "expired":
                self._bad.add("failed for good", f"{where}: {_newest(record.now)}")


def _newest(fields: Mapping[str, Any]) -> str:
    errors = _read(fields.get("errors") or "[]")
    return str(errors[-1]["message"]) if errors else ""


def _read(errors: Any) -> Any:  # a list, or JSON text of one
    return json.loads(errors) if isinstance(errors, str) else errors
