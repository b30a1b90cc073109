"""What is known so far: the documents as they are, who holds which lease and for how long, and what runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.simulation.apps import Rule
from tests.simulation.sight import Change, Fields, Run, Scene, Who, Write

__all__ = ["LONGEST_LEASE", "NOBODY", "SLACK", "Book", "Grant", "Law", "place"]

_ON_THE_WIRE_SECONDS = 1.3

NOBODY = "taken-over"
"""The owner of the lease on a task whose holder was shut out."""

LONGEST_LEASE = timedelta(seconds=60)
"""Nobody holds anything for longer without writing it anew."""

SLACK = timedelta(milliseconds=60)
"""More than a clock that runs too fast or too slowly is wrong by in the life of a world."""


@dataclass(frozen=True)
class Grant:
    """How long a lease on a task lasts, as its holder wrote last."""

    until: datetime
    written_at: int
    """Microseconds."""


class Book:
    """Keeps what was seen."""

    def __init__(
        self, rules: Mapping[str, Rule], *, began: datetime, distance: float = 0.0, prompt: Collection[str] = ()
    ) -> None:
        """`distance`: seconds that a message takes at least. `prompt`: kinds for which there is room all the time."""
        self.is_near = not distance
        self.on_the_wire = _ON_THE_WIRE_SECONDS + 4 * distance
        """Seconds: more than two messages, and a question with its answer, take where nothing is wrong."""
        self.rules, self.began, self.prompt = rules, began, prompt
        self.seen: Counter[str] = Counter()
        self.tasks: dict[str, Fields] = {}
        self.locks: dict[str, Fields] = {}
        self.settings: Fields = {}
        self.ids: list[str] = []
        """Of all tasks that ever were, in the order of their creation."""
        self.generators: list[str] = []
        self.open: set[str] = set()
        """The tasks that are there, and not done."""
        self.foreign: set[str] = set()
        """The tasks that somebody wrote by hand."""
        self.revived: set[str] = set()
        """The tasks that have had another life."""
        self.created: Counter[str] = Counter()
        """How often each id was created: once more after each time that it was deleted."""
        self.holders: dict[str, Who] = {}
        """Of each lease."""
        self.grants: dict[tuple[str, str], Grant] = {}
        """By task and lease."""
        self.claims: dict[tuple[str, str, bool], int] = {}
        """In which order they were stored, by task, lease, and whether it was for a cleanup."""
        self.unsure: dict[tuple[str, str, bool], timedelta] = {}
        """By how much those who claimed may have been wrong about the time."""
        self.runs: list[Run] = []
        self._claims = 0

    def holder(self, task: Fields) -> Who | None:
        """Give who holds, or held last, the lease on a task."""
        return self.holders.get(task.get("leaseOwner") or "")

    def is_held_by(self, task: Fields, who: Who) -> bool:
        """Tell whether the lease on a task is, or was, that of a machine."""
        return self.holder(task) is who

    def is_legitimate(self, run: Run, now: datetime) -> bool:
        """Tell whether the leases under which something runs last."""
        return all(
            (grant := self.grants.get((part.task_id, part.lease))) is not None and grant.until > now
            for part in run.parts
        )

    def is_excused(self, run: Run) -> bool:
        """Tell whether a run that goes on too long could not know."""
        grants = [self.grants.get((part.task_id, part.lease)) for part in run.parts]
        granted = min((grant.written_at for grant in grants if grant is not None), default=0)
        return not run.obeys or run.machine.disturbed_at >= granted

    def take(self, write: Write, micros: int) -> None:
        """Keep what a write has changed."""
        for change in write.tasks:
            self._take_task(change, write, micros)
        for change in write.locks:
            if change.after is None:
                self.locks.pop(change.id, None)
            else:
                self.locks[change.id] = change.after
                self.holders.setdefault(change.after["leaseOwner"], write.writer)
        if write.settings is not None:
            self.settings = write.settings.after or {}

    def _take_task(self, change: Change, write: Write, micros: int) -> None:
        after = change.after
        if after is None:
            del self.tasks[change.id]
            self.open.discard(change.id)
            return
        self.tasks[change.id] = after
        if change.before is None:
            self.created[change.id] += 1
            if self.created[change.id] == 1:
                self.ids.append(change.id)
                self.foreign |= {change.id} if write.writer.role == "hand" else set()
                self.generators += [change.id] if after.get("recurrence") else []
        elif change.before.get("outcome") is not None and after.get("outcome") is None:
            self.revived.add(change.id)
        (self.open.add if after.get("outcome") is None else self.open.discard)(change.id)
        lease = after.get("leaseOwner")
        if lease in {None, NOBODY}:
            return
        holder = self.holders.setdefault(lease, write.writer)
        if holder is write.writer:
            before = change.before or {}
            known = self.grants.get((change.id, lease))
            until = after.get("leasedUntil")
            if until is not None and (known is None or until > known.until):
                self.grants[change.id, lease] = Grant(until, micros)
            cleans = after.get("cancelAttempts", 0) > before.get("cancelAttempts", 0)
            if cleans or after.get("attempts", 0) > before.get("attempts", 0):
                self._claims += 1
                self.claims[change.id, lease, cleans] = self._claims
                self.unsure[change.id, lease, cleans] = write.unsure


class Law:
    """One thing that has to hold; its docstring says what."""

    def __init__(self, scene: Scene, book: Book) -> None:
        self.scene, self.book = scene, book

    def deny(self, wrong: object, what: str) -> None:
        """Complain, if something is wrong."""
        if wrong:
            self.scene.fail(f"{type(self).__name__}: {what}")


def place(task_id: str, task: Fields) -> tuple[datetime, datetime, str]:
    """Give what the tasks of a resource key are ordered by."""
    return task["waitUntil"], task["createdAt"], task_id
