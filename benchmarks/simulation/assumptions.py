"""Every number that the simulation relies on, with its unit and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

__all__ = ["Assumptions", "Settings", "Source", "told"]


class Source(StrEnum):
    """How a number is known."""

    CODE = "oncetask's code"
    READ = "read in Firestore's documentation"
    ISSUE = "given with the question"
    GUESSED = "guessed"


def _known(value: float, unit: str, source: Source, what: str) -> Any:
    return field(default=value, metadata={"unit": unit, "source": source, "what": what})


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """How Firestore and oncetask behave. None of these was measured on production Firestore."""

    range_writes: float = _known(500, "writes/s", Source.READ, "on one ever-growing range of an index; more waits")
    range_burst: float = _known(1, "s", Source.GUESSED, "of that rate are taken at once after a pause")
    document_writes: float = _known(1, "writes/s", Source.READ, "on one document, sustained")
    ramp_start: float = _known(500, "writes/s", Source.READ, "that a cold collection takes at first")
    ramp_growth: float = _known(1.5, "times", Source.READ, "as many after each step of the ramp-up")
    ramp_step: float = _known(300, "s", Source.READ, "between two steps of the ramp-up")
    rpc_shortest: float = _known(0.010, "s", Source.ISSUE, "a call takes at least, beside waiting for its range")
    rpc_longest: float = _known(0.050, "s", Source.ISSUE, "a call takes at most (drawn evenly between the two)")
    snapshot_every: float = _known(0.050, "s", Source.GUESSED, "between two states that a listener is told")
    removed_entry: float = _known(2e-6, "s", Source.GUESSED, "a query takes longer for each removed entry it passes")
    removed_kept: float = _known(3600, "s", Source.GUESSED, "until a removed entry is passed no longer")
    watermark_lag: float = _known(10, "s", Source.GUESSED, "that a watermark would stay behind the head of the line")
    refused_reads: float = _known(1, "reads", Source.GUESSED, "billed for a claim that was refused, and no write")
    empty_query_reads: float = _known(1, "reads", Source.READ, "billed for a query that finds nothing")
    read_price: float = _known(0.06, "US$/100,000", Source.READ, "list price in many regions; check yours")
    write_price: float = _known(0.18, "US$/100,000", Source.READ, "list price in many regions; check yours")
    delete_price: float = _known(0.02, "US$/100,000", Source.READ, "list price in many regions; check yours")
    deletes: float = _known(1, "deletes/task", Source.GUESSED, "by a TTL policy or `purge`: done tasks do not stay")
    least_ahead: int = _known(50, "tasks", Source.CODE, "a worker reads ahead at least")
    most_ahead: int = _known(500, "tasks", Source.CODE, "a worker reads ahead at most")
    ahead_for_a_slot: int = _known(16, "tasks", Source.CODE, "a worker reads ahead for each slot, between these two")
    page_part: int = _known(8, "times", Source.CODE, "less a worker reads at first, and while it is refused claims")
    longest_leap: float = _known(8, "pages", Source.CODE, "further on a worker reads at most that was refused claims")
    forgets: float = _known(0.5, "of 1", Source.CODE, "of what it noted of refusals counts less with each claim call")
    alone: float = _known(0.02, "of 1", Source.CODE, "of its claims may be refused to a worker that thinks it is alone")
    call_writes: int = _known(500, "writes", Source.CODE, "travel in one call at most")
    full_calls: int = _known(4, "calls", Source.CODE, "that are full a process has in flight")
    bell_width: int = _known(3, "documents", Source.CODE, "each query target of the doorbell shows")
    disjunctions: int = _known(30, "values", Source.READ, "that one query can ask for: kinds times shards")
    poll: float = _known(30, "s", Source.CODE, "between the looks of a worker at which nothing rings")
    look_before: float = _known(2, "s", Source.CODE, "between looks for cancelled tasks while something is read ahead")

    def money(self, *, reads: float, writes: float) -> float:
        """Give the US$ of a million tasks that cost so many reads and writes each."""
        return 10 * (reads * self.read_price + writes * self.write_price + self.deletes * self.delete_price)


def told(assumptions: Assumptions) -> Iterator[tuple[str, float, str, str, str]]:
    """Give name, value, unit, source and meaning of each number."""
    for one in fields(assumptions):
        about = one.metadata
        yield one.name, getattr(assumptions, one.name), about["unit"], about["source"].value, about["what"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What somebody who runs oncetask can choose."""

    workers: int = 200
    concurrency: int = 32
    handler: float = 0.0
    """Seconds that each handler takes."""
    shards: int = 1
    """Parts of the due line; more than one is not implemented yet."""
    kinds: int = 1
    """Kinds with the same number of tasks each."""
    ahead: int | None = None
    """How many tasks a query reads at most; None: as oncetask chooses from the concurrency."""
    claim: int | None = None
    """How many tasks are claimed by one call at most; None: as many as slots are free, which is what oncetask does."""
    instant: bool = False
    """All tasks are due at one instant: who was refused claims reads on anywhere in the line, by a random id."""
    watermark: bool = False
    """Queries start where the line was a moment ago; not implemented yet."""
    warm: bool = True
    """Firestore has seen such traffic for long enough; else it ramps up from 500 writes a second."""
    waiting: bool = False
    """The tasks are there before the workers begin."""
    enqueuers: int = 4
    """Processes that enqueue at the same time."""

    def __post_init__(self) -> None:
        """Check them. Raises ValueError."""
        for name in ("workers", "concurrency", "shards", "kinds", "enqueuers", "ahead", "claim"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name} must be 1 or more, not {value}"
                raise ValueError(msg)
        if self.handler < 0:
            msg = f"handler must be 0 or more, not {self.handler}"
            raise ValueError(msg)

    def read_ahead(self, known: Assumptions) -> int:
        """Give how many tasks a query reads at most."""
        wanted = known.ahead_for_a_slot * self.concurrency
        return self.ahead or min(max(wanted, known.least_ahead), known.most_ahead)
