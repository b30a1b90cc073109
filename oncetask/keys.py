"""Taking a resource key, and knowing who is next: the lock, the line behind it, and the commit that joins both."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from oncetask import lifecycle
from oncetask.claims import lease_seconds
from oncetask.clock import to_micros
from oncetask.holds import Hold
from oncetask.ids import new_id
from oncetask.store import TaskFilter
from oncetask.task import place_in_line
from oncetask.turns import Turn, needs_key, next_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from oncetask.handlers import Handler
    from oncetask.keyreading import KeyReader, Page
    from oncetask.lifecycle import Transition
    from oncetask.lock import Lock
    from oncetask.task import Task

__all__ = ["MOST_WRITES", "Key", "Taken"]

_PAGE = 21  # a run of twenty, or what is in a batch, and whether anything comes after it
_LARGEST_PAGE = 500
MOST_WRITES = 450
"""Of one commit: claims, and what else belongs with them."""
_STALE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Taken:
    """A key that was taken, with the first tasks of its line."""

    hold: Hold
    claimed: Sequence[Transition]
    """Their claims, as stored."""
    fenced: Sequence[Transition]
    """What a former holder had left, as stored."""


class Key:
    """One resource key, and what is known of its line."""

    def __init__(
        self,
        reader: KeyReader,
        resource_key: str,
        handlers: Mapping[str, Handler],
        *,
        longest_lease: float,
        found: Callable[[list[Task]], None],
    ) -> None:
        """`longest_lease`: seconds. `found`: is given tasks of the line that need something, but not the key."""
        self._found = found
        self._reader = reader
        self._store = reader.store
        self._handlers = handlers
        self._longest = longest_lease
        self.resource_key = resource_key
        self._ahead: list[Task] = []
        self._read_at = 0.0
        self._page: Page | None = None
        self._limit = _PAGE
        self._own: frozenset[str] = frozenset()
        """The tasks that run, or are about to."""
        self.closed_for = 0.0
        """Seconds until it is worth while to look at the key again, as far as that is known."""

    async def take(self, first: Task, *, has_room: Callable[[str], bool]) -> Taken | None:
        """Take the key together with the first tasks of its line. `first`: one that was found due.

        `has_room`: tells whether a task of a kind may run. None: somebody holds the key, its line stands still, or
        nothing is due. Raises StoreUnavailable, or the error of a claim that cannot be stored.
        """
        lock = await self._reader.lock(self.resource_key)
        now = await self._store.now()
        if lock is not None and lifecycle.is_busy(lock, now):
            self.closed_for = (lock.leased_until - now.earliest).total_seconds()
            return None
        self._limit = max(_PAGE, self._most(first) + 1)
        self._page = None
        tasks = await self._turn()
        if not tasks:
            return None
        taken = None
        if has_room(tasks[0].kind) and not any(
            lifecycle.is_held(task, self._store.clock.now()) for task in self._ahead
        ):
            taken = await self._commit(lock, tasks)
        if taken is None:  # somebody else has it, or has one of its tasks, with a lock or without; or there is no slot
            self.closed_for = math.inf
        return taken

    async def next(self, newest: Task | None) -> tuple[Task, ...]:
        """Give the tasks that come next, while others run. `newest`: the last one that was found elsewhere."""
        if newest is not None and newest.is_cancelled and self._is_news(newest):
            self._page = None  # its cleanup goes before what was read ahead
        tasks = await self._turn()
        if not tasks and self._is_stale(newest):
            self._page = None
            tasks = await self._turn()
        return tasks

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Take back tasks that were given: not claimed, or due again."""
        self._ahead += filter(self._waits, tasks)

    @property
    def first_waiting(self) -> Task | None:
        """Give the first task that is known to wait for the key, of a kind that has a handler."""
        return min(filter(self._waits, self._ahead), key=place_in_line, default=None)

    def _waits(self, task: Task) -> bool:
        handler = self._handlers.get(task.kind)
        return handler is not None and needs_key(task, handler, self._store.clock.now())

    def lease_seconds(self, tasks: Sequence[Task]) -> float:
        """Give the length of the lease of tasks that run together."""
        return lease_seconds(tasks[0], self._handlers[tasks[0].kind], self._longest)

    def _is_stale(self, newest: Task | None) -> bool:
        """Tell whether there may be more by now than was read."""
        is_old = asyncio.get_running_loop().time() - self._read_at >= _STALE_SECONDS
        return is_old or (newest is not None and self._is_news(newest))

    def _is_news(self, task: Task) -> bool:
        """Tell whether a record is newer than what was read of the line."""
        return self._page is None or task.version > to_micros(self._page.now.earliest)

    async def _turn(self) -> tuple[Task, ...]:
        """Take the next tasks from what was read ahead, and read on where that is not enough to say."""
        page = self._page or await self._read()
        turn, is_anew = self._look(), False
        while turn.waits_for is None:
            if turn.tasks and _is_behind(turn.tasks[-1], page):  # it was put back, behind what is not known yet
                if is_anew:
                    break
                page, is_anew = await self._read(), True
            elif not page.is_whole and not turn.tasks:
                page = await self._read(after=page.last)  # nothing but what needs no turn: cancelled ones, say
            elif not page.is_whole and len(turn.tasks) == len(self._ahead) < self._most(turn.tasks[0]):
                page = await self._read()
            else:
                break
            turn = self._look()
        self.closed_for = self._wait_for(turn.waits_for)
        if turn.tasks:
            self._own = frozenset(task.id for task in turn.tasks)
            self._ahead = [task for task in self._ahead if task.id not in self._own]
        return turn.tasks

    def _wait_for(self, task: Task | None) -> float:
        """Give the seconds until the line may go on at a task; none: there is nothing to wait for."""
        if task is None:
            return 0.0
        due, now = lifecycle.due_at(task), self._store.clock.now()
        wait = 0.0 if due is None else (due - lifecycle.present_for(task, now)).total_seconds()
        return wait if wait > 0 else math.inf  # somebody else has to do something about it

    def _look(self) -> Turn:
        turn = next_turn(self._ahead, self._handlers, self._store.clock.now())
        self._limit = max(self._limit, *(self._most(task) + 1 for task in turn.tasks), 0)
        return turn

    def _most(self, task: Task) -> int:
        return 1 if task.is_cancelled else self._handlers[task.kind].max_batch or 1

    async def _read(self, *, after: Task | None = None) -> Page:
        """Read the line from its beginning, or behind a task; what runs already is left out."""
        self._read_at = asyncio.get_running_loop().time()
        limit = self._limit + len(self._own)
        if self._page is None:
            page = await self._reader.line(self.resource_key, limit=limit)
        else:
            page = await self._reader.line_alone(self.resource_key, limit=limit, after=after)
        self._ahead = [task for task in page.tasks if task.id not in self._own]
        self._found([task for task in self._ahead if task.kind in self._handlers and not self._waits(task)])
        self._page = page
        return page

    async def _commit(self, lock: Lock | None, tasks: Sequence[Task]) -> Taken | None:
        """Write the lock and the claims together; after a former holder also what keeps him from writing."""
        lease_id = new_id()
        left = await self._left_by(lock, {task.id for task in tasks})
        if any(map(lifecycle.is_foreign, left)):
            return None  # the former holder cannot be shut out
        tasks = tasks[: max(1, MOST_WRITES - len(left))]
        now = self._store.clock.now()
        until = now.latest + timedelta(seconds=self.lease_seconds(tasks))
        claims = [lifecycle.claim(task, lease_id=lease_id, until=until, now=now) for task in tasks]
        fences = [lifecycle.fence(task) for task in left]
        change = lifecycle.lock(self.resource_key, lock, owner=lease_id, until=until)
        *written, locked = await self._store.commit([*claims, *fences], (), None, [change])
        if locked.error is not None:
            raise locked.error
        if locked.version is None or change.after is None:
            return None
        both = zip([*claims, *fences], written, strict=True)
        stored = [step.stored(one.version) for step, one in both if one.version is not None]
        hold = Hold(self._store, replace(change.after, version=locked.version))
        return Taken(hold, stored[: len(claims)], stored[len(claims) :])

    async def _left_by(self, lock: Lock | None, claimed: set[str]) -> list[Task]:
        """Find the tasks that a former holder still has, but for those that are claimed now anyway."""
        left = {task.id: task for task in self._ahead if task.lease_owner is not None}
        if lock is not None and lock.owner:
            which = TaskFilter(resource_key=self.resource_key, lease_owner=lock.owner, done=False)
            after: str | None = None
            while True:
                page = await self._store.find(which, limit=_LARGEST_PAGE, after=after)
                left |= {task.id: task for task in page}
                if len(page) < _LARGEST_PAGE:
                    break
                after = page[-1].id
        return [task for task in left.values() if task.id not in claimed]


def _is_behind(task: Task, page: Page) -> bool:
    """Tell whether a task has its place behind what a page tells of."""
    if page.is_whole or page.last is None:
        return task.wait_until > page.now.latest
    return place_in_line(task) > place_in_line(page.last)
