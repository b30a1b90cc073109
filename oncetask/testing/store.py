"""The store of a test: in memory, and out of order when it is told to be."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from oncetask.clock import EPOCH, Duration, seconds
from oncetask.errors import StoreUnavailable
from oncetask.store.memory import Memory, MemoryStore
from oncetask.testing.virtual import ExactClock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime

    from oncetask.lifecycle import Transition
    from oncetask.lock import LockChange
    from oncetask.store import Cursor, Written
    from oncetask.task import Task
    from oncetask.testing.virtual import VirtualClock

__all__ = ["HarnessStore", "Verb"]

T = TypeVar("T")

Verb = Literal[
    "create",
    "get",
    "due",
    "line",
    "locks",
    "apply",
    "commit",
    "delete",
    "find",
    "count",
    "stats",
    "settings",
    "write_settings",
]
"""What is asked of a store: the methods of `TaskStore`. `create` stores new tasks; `apply` claims, renews and records
single tasks; `commit` writes several documents together (a resource key with its task, a completion with what it
staged, occurrences); `due` looks for tasks."""

_VERBS: tuple[str, ...] = get_args(Verb)
_MICROSECOND = timedelta(microseconds=1)
_MOST_IN_ORDER = 1_000
_WRITES = ("create", "apply", "commit", "delete", "write_settings")


@dataclass(eq=False)
class _Fault:
    verbs: frozenset[str]
    left: float
    when: Literal["before", "after"]
    error: BaseException | None
    delay: float


class HarnessStore(MemoryStore):
    """Keeps the tasks of one test. Faults that were ordered happen in the order in which they were."""

    def __init__(self, clock: VirtualClock, *, env: str) -> None:
        """Keep nothing yet. `clock`: by which time passes."""
        super().__init__(Memory(clock.wall), env=env, clock=clock)
        self.clock = ExactClock(clock)
        self._faults: tuple[_Fault, ...] = ()
        self._newest = EPOCH
        self.created = 0
        """How many tasks were to be stored."""

    def fail(
        self,
        *verbs: Verb,
        times: int | None = 1,
        when: Literal["before", "after"] = "before",
        error: BaseException | None = None,
    ) -> None:
        """Let the next calls of these verbs fail; none: of any verb.

        `times`: how many calls; None: all, until `heal`. `when`: before anything was done, or after it was done, so
        that only the answer is lost; only writes can. `error`: what is raised; left out: StoreUnavailable. Raises
        ValueError for what is no verb, and for reads that are to fail after they were done.
        """
        if when not in {"before", "after"}:
            msg = f"when must be 'before' or 'after', not {when!r}"
            raise ValueError(msg)
        if when == "after" and (reads := [verb for verb in verbs if verb in _VERBS and verb not in _WRITES]):
            msg = f"{reads[0]!r} writes nothing, so that it can fail only 'before'; these write: {', '.join(_WRITES)}"
            raise ValueError(msg)
        self._order(verbs or (_WRITES if when == "after" else _VERBS), times, when=when, error=error)

    def delay(self, *verbs: Verb, by: Duration, times: int | None = 1) -> None:
        """Let the next calls of these verbs take so long, in seconds of virtual time (or a timedelta); none: any verb.

        `times`: as for `fail`.
        """
        self._order(verbs or _VERBS, times, delay=seconds("by", by))

    def heal(self) -> None:
        """Forget all faults that were ordered."""
        self._faults = ()

    @contextmanager
    def failing(self, *verbs: Verb, error: BaseException | None = None) -> Iterator[None]:
        """Let every call of these verbs fail while the block runs; none: of any verb."""
        before = self._faults
        self.fail(*verbs, times=None, error=error)
        try:
            yield
        finally:
            self._faults = before

    def _order(
        self,
        verbs: tuple[str, ...],
        times: int | None,
        *,
        when: Literal["before", "after"] = "before",
        error: BaseException | None = None,
        delay: float = 0.0,
    ) -> None:
        for verb in verbs:
            if verb not in _VERBS:
                msg = f"{verb!r} is no verb of a store; there are: {', '.join(_VERBS)}"
                raise ValueError(msg)
        if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
            msg = f"times must be a whole number, 1 or more, or None, not {times!r}"
            raise ValueError(msg)
        left = float("inf") if times is None else times
        self._faults = (*self._faults, _Fault(frozenset(verbs), left, when, error, delay))

    async def create(self, tasks: Sequence[Task]) -> list[Written]:
        """Store new tasks, in an order that can be told though no time passes between one call and the next."""
        return await super().create([self._in_order(task) for task in tasks])

    async def commit(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task],
        batch: object | None,
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Write all of it, or nothing; new tasks as `create` does."""
        return await super().commit(transitions, [self._in_order(task) for task in creates], batch, locks)

    async def due(  # the port's
        self,
        kinds: Collection[str],
        *,
        now: datetime,
        limit: int,
        after: Cursor | None = None,
        generators: bool = False,
        without: Collection[str] = (),
    ) -> list[Task]:
        """Read the beginning of the due line; of what is due at the same instant, what was stored first comes first."""

        def look() -> list[Task]:
            options: dict[str, Any] = {"now": now, "generators": generators, "without": frozenset(without)}
            found = self.documents.due(kinds, limit=_MOST_IN_ORDER, **options)
            found.sort(key=lambda task: (task.due_at or now, task.created_at))
            places = {(task.due_at, task.id): place for place, task in enumerate(found, 1)}
            begin = 0 if after is None else places.get((after.due_at, after.task_id))
            if begin is None or len(found) == _MOST_IN_ORDER:  # as a real store does: by their ids
                return self.documents.due(kinds, limit=limit, after=after, **options)
            return found[begin : begin + limit]

        return await self._ask("due", look)

    def _in_order(self, task: Task) -> Task:
        """Let a new task be younger than those before it, as it is where time passes by itself."""
        self.created += 1
        self._newest = max(task.created_at, self._newest + _MICROSECOND)
        return task.evolve(created_at=self._newest)

    async def _ask(self, verb: str, job: Callable[[], T]) -> T:
        fault = self._next_fault(verb)
        if fault is None:
            return await super()._ask(verb, job)
        if fault.delay:
            await asyncio.sleep(fault.delay)
            return await super()._ask(verb, job)
        if fault.when == "after":
            await super()._ask(verb, job)
        raise fault.error or StoreUnavailable(f"the test let {verb} fail")

    def _next_fault(self, verb: str) -> _Fault | None:
        for fault in self._faults:
            if verb in fault.verbs:
                fault.left -= 1
                if fault.left <= 0:
                    self._faults = tuple(other for other in self._faults if other is not fault)
                return fault
        return None
