"""The store port: what every adapter has to do, in the domain's verbs.

Policy is not repeated in adapters. They apply what `lifecycle` decided, conditionally on the version it was decided
from, and answer what there is. `tests/contract` holds every adapter to what is said here.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from oncetask.clock import Now, StoreClock
    from oncetask.errors import OncetaskError
    from oncetask.lifecycle import Transition
    from oncetask.lock import Lock, LockChange
    from oncetask.task import Outcome, Task, TaskStatus

__all__ = ["Cursor", "Diagnosis", "Feed", "Settings", "TaskFilter", "TaskStore", "Written"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one write: applied (`version`), refused (neither), or impossible (`error`).

    Refused means that its record was not the newest any more: somebody else was first, which is nobody's fault.
    """

    version: int | None = None
    error: OncetaskError | None = None

    @property
    def applied(self) -> bool:
        """True where the write is stored."""
        return self.version is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks `find` and `count` mean: all conditions that are given hold; None asks nothing."""

    kind: str | None = None
    resource_key: str | None = None
    owner: str | None = None
    parent: str | None = None
    done: bool | None = None
    outcome: Outcome | None = None
    lease_owner: str | None = None
    generators: bool = False
    """Only generators of recurrences."""

    @property
    def equal(self) -> dict[str, str]:
        """What fields of a document have to be, by their names; `done` and `generators` are asked beside this."""
        asked = {
            "kind": self.kind,
            "resourceKey": self.resource_key,
            "owner": self.owner,
            "parentRecurrenceId": self.parent,
            "outcome": None if self.outcome is None else self.outcome.value,
            "leaseOwner": self.lease_owner,
        }
        return {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an environment remembers beside its tasks, as it was read."""

    fields: Mapping[str, Any]
    """Names to JSON values; empty where nobody has written any."""
    version: int
    """The store's version of this record, on which the next write depends; 0: there is none yet."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the due line: after this task."""

    due_at: datetime
    task_id: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How something is set up that the records rely on."""

    about: Literal["indexes", "rules"]
    message: str
    """For people; also where it could not be found out."""
    is_wrong: bool = False


class Feed(Generic[T]):
    """The newest value of something that changes: a reader who is late sees only the last one."""

    def __init__(self) -> None:
        """Start without a value."""
        self._fresh = asyncio.Event()
        self._value: T
        self._error: BaseException | None = None

    def put(self, value: T) -> None:
        """Set the value; on the loop of the readers."""
        self._value = value
        self._fresh.set()

    def fail(self, error: BaseException) -> None:
        """End the feed: `get` raises from now on."""
        self._error = error
        self._fresh.set()

    async def get(self) -> T:
        """Wait for a value that this feed has not given yet."""
        await self._fresh.wait()
        if self._error is not None:
            raise self._error
        self._fresh.clear()
        return self._value


class TaskStore(ABC):
    """Where the records of one environment live.

    For every method:

    - The first one to be awaited opens the store, on that event loop; from then on it belongs to that loop.
    - Failures of the store are retried while they are transient, then raised as `StoreUnavailable` with the cause.
    - A write that was applied although its answer got lost is reported as applied.
    - Documents that somebody else wrote never raise: `Task.problems` says what is wrong with them.
    """

    clock: StoreClock
    """The store's time; lease decisions use nothing else."""
    url: str
    """Where the records are, as `connect` takes it; for messages."""
    env: str
    """The environment whose tasks these are."""

    @abstractmethod
    async def open(self) -> None:
        """Make the store usable and `clock` known. Idempotent."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of everything. Idempotent; a closed store opens again at the next use."""

    async def now(self) -> Now:
        """Give the bounds of the store's present."""
        await self.open()
        return self.clock.now()

    @abstractmethod
    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        """Store new tasks, each by itself, in any number and size of calls.

        - In the order of `tasks`: refused where a task of that id exists already (it is left as it is).
        - A task that exists because an earlier try of this very create stored it (same `create_id`) counts as applied.
        - Tasks of one resource key become visible in the order of `tasks`: whoever sees one sees those before it.
        - `StoreUnavailable.receipts` holds what was settled before the failure, as `Written` (None: not known).
        """

    @abstractmethod
    async def get(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Read tasks by id, in the order of the ids; None for those that do not exist."""

    @abstractmethod
    async def due(
        self,
        kinds: Collection[str],
        *,
        now: datetime,
        limit: int,
        after: Cursor | None = None,
        generators: bool = False,
        without: Collection[str] = (),
    ) -> list[Task]:
        """Read the beginning of the due line.

        - Tasks of these kinds whose stored `dueAt` is an instant not after `now`, earliest first (then by id).
        - At most `limit`; fewer means that there are no more. `after` continues behind a place.
        - `generators`: only those of recurrences.
        - `without`: none that has one of these resource keys, but generators; they are looked past, not read, as far
          as the store can, the first keys before the others. What somebody else wrote may be left out.
        - With `without`, those of one instant may come in another order than by id, and so be cut at `limit`; `after`
          the last of them goes on behind it all the same.
        """

    @abstractmethod
    async def line(
        self, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None = None
    ) -> list[Task]:
        """Read the beginning of the line of some resource keys: their open tasks of all kinds.

        - Those whose `waitUntil` is an instant not after `now`, by `waitUntil`, then `createdAt`, then id; whoever
          holds them, due or not, generators among them.
        - At most `limit`; fewer means that there are no more. `after` continues behind a task.
        - One without a `createdAt` may be left out.
        """

    @abstractmethod
    async def locks(self, resource_keys: Sequence[str]) -> list[Lock | None]:
        """Read the locks of resource keys, in the order of the keys; None for those that have none.

        - One that cannot be read, since somebody else wrote it, counts as held by nobody for ever past.
        """

    @abstractmethod
    async def apply(self, transitions: Sequence[Transition]) -> list[Written]:
        """Apply changes, each by itself, in order; refused where the record is not `transition.before` any more.

        - Calls that wait at the same time travel together.
        - Fields that the change does not name stay as they are, unknown ones too.
        - A version that is given is greater than every version of that task before it.
        - One that the store cannot take (too large, say) fails by itself, with `error`.
        """

    @abstractmethod
    async def commit(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task],
        batch: object | None,
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Apply changes of several tasks and locks together with new tasks and the user's own writes: all, or nothing.

        - Answers for each of `transitions`, then for each of `locks`; one that was removed has some version.
        - Refused, every one, where one of them is; nothing is written then. A lock is refused where another one than
          `before` is stored, one that was removed and made anew among them.
        - A new task whose id exists already is left out, as `create` would.
        - `batch` is what `new_batch` gave.
        - An impossible write makes all of it impossible; each answer says so.
        """

    @abstractmethod
    async def delete(self, tasks: Sequence[Task]) -> list[Written]:
        """Delete tasks, each by itself, if these are still their newest records."""

    @abstractmethod
    async def find(self, which: TaskFilter, *, limit: int, after: str | None = None) -> list[Task]:
        """Read tasks in the order of their ids, behind the id `after`; fewer than `limit` means no more."""

    @abstractmethod
    async def count(self, which: TaskFilter) -> int:
        """Count tasks, generators of recurrences excluded."""

    @abstractmethod
    async def stats(self) -> Mapping[str, Mapping[TaskStatus, int]]:
        """Count tasks by kind and status."""

    @abstractmethod
    async def settings(self, *, no_older_than: float = 0.0) -> Settings:
        """Read the settings of the environment.

        - `no_older_than`: seconds; what opening the store has read so recently need not be read again.
        """

    @abstractmethod
    async def write_settings(self, before: Settings, changes: Mapping[str, Any]) -> Written:
        """Set some fields of the settings to JSON values; others stay as they are.

        - Impossible, with `error`, where the store cannot take it.
        - Refused where `before` is not the newest record any more, also where it is this very write that made the
          newest one, and its answer got lost: whoever is refused reads again, and may find that it is as he wanted.
        """

    @abstractmethod
    def watch_settings(self) -> AbstractAsyncContextManager[Feed[Settings]]:
        """Watch the settings of the environment.

        - The feed gives them once at the start, then whenever they may have changed, whoever changed them.
        - Reads, breaks and the end are as for `watch_due`.
        """

    @abstractmethod
    def watch_due(
        self, kinds: Collection[str], *, limit: int, after: Cursor | None = None
    ) -> AbstractAsyncContextManager[Feed[list[Task]]]:
        """Watch the doorbell: the `limit` tasks of these kinds that have the earliest `dueAt`, due or not.

        - The feed gives them once at the start, then whenever they may have changed, whoever changed them.
        - `after` looks only at what stands behind a place in the line.
        - Nothing is read while nothing is written.
        - A break of the connection is mended; what changed meanwhile is in the next value.
        - What ends it for good, closing the store among it, is raised by the feed as `StoreUnavailable`.
        """

    @abstractmethod
    def watch_tasks(self, task_ids: Sequence[str]) -> AbstractAsyncContextManager[Feed[list[Task | None]]]:
        """Watch tasks by id: their records in the order of the ids, None for those that do not exist.

        - The feed gives them once at the start, then all of them again whenever one was created, changed or deleted.
        - An id may be given twice, and stands in the list twice then. No ids: the empty list, once.
        - It costs the store one watch, however many the ids.
        - Reads, breaks and the end are as for `watch_due`.
        """

    @abstractmethod
    def new_batch(self) -> Any:  # a write batch of the store's own library
        """Give an empty write batch of the user's own writes for `commit`, or raise `Unsupported`."""

    @abstractmethod
    def create_in(self, batch: Any, task: Task) -> None:  # the caller's transaction or batch
        """Add the creation of a task to a transaction or batch that is the caller's, or raise `Unsupported`."""

    @abstractmethod
    def change_in(self, batch: Any, transitions: Sequence[Transition]) -> None:  # as above
        """Add changes to a transaction or batch that is the caller's, or raise `Unsupported`.

        - The caller's commit fails as a whole where a record is not `transition.before` any more.
        """

    async def diagnose(self) -> Sequence[Diagnosis]:
        """Look at what the records rely on beside themselves, for a few reads.

        - What the store itself does not tell, and cannot be found out elsewhere, is said so.
        - Nothing is changed. An adapter that relies on nothing has nothing to say.
        """
        return ()
