"""The store of a test: in memory, and out of order when it is told to be."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from oncetask.clock import Duration, seconds
from oncetask.errors import StoreUnavailable
from oncetask.store.memory import Memory, MemoryStore
from oncetask.testing.virtual import ExactClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        ValueError for what is no verb.
        """
        if when not in {"before", "after"}:
            msg = f"when must be 'before' or 'after', not {when!r}"
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
