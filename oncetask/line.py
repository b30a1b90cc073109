"""Where a worker's next tasks come from: the due line, read ahead, and a doorbell while there is nothing to do."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from oncetask.errors import StoreUnavailable
from oncetask.lifecycle import Step, is_generator, present_for, triage
from oncetask.store import Cursor, Feed
from oncetask.task import NO_WAIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oncetask.clock import Now
    from oncetask.handlers import Handler
    from oncetask.slots import Room
    from oncetask.store import TaskStore
    from oncetask.task import Task

__all__ = ["DueLine", "batch_of"]

_DOORBELL_WIDTH = 3
_BEFORE_SECONDS = 2.0
_MOST_REMEMBERED = 10_000


class DueLine:
    """Gives candidates for claims, each version of a task once.

    A query that came back short says that the line is dry; from then on the doorbell's first few documents are all
    there is to know, and no query is sent but the slow poll.
    """

    def __init__(self, store: TaskStore, handlers: Mapping[str, Handler], *, ahead: int, poll: float) -> None:
        """`ahead`: how many tasks a query reads. `poll`: seconds between looks when nothing rings."""
        self._store = store
        self._handlers = handlers
        self._ahead = ahead
        self._poll = poll
        self._loop = asyncio.get_running_loop()
        self._poll_at = self._loop.time()
        self._buffer: deque[Task] = deque()
        self._before: asyncio.Future[list[Task]] | None = None
        self._before_at = self._poll_at
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._dry_kinds: frozenset[str] = frozenset()
        self._beyond: Cursor | None = None
        self._bell: Feed[list[Task]] | None = None
        self._bell_place: tuple[frozenset[str], Cursor | None] = (frozenset(), None)
        self._left_alone: list[Task] = []
        self._bell_open = AsyncExitStack()
        self._ring: asyncio.Task[list[Task]] | None = None
        self._front: list[Task] = []

    async def take(self, room: Room, changed: asyncio.Event) -> list[Task]:
        """Give due tasks for which there is room: for each run a task, or those of a batch.

        Waits for them, or until `changed` is set.
        """
        kinds = room.kinds
        while True:
            self._look_before(kinds)
            if tasks := self._pick(room.copy()):
                return tasks
            if self._dry_kinds >= kinds and self._beyond is None:
                if not await self._listen(kinds, changed):
                    return []
            else:
                await self._query(kinds)

    def note(self, task_id: str, version: int) -> None:
        """Remember that this worker wrote `version`, so that an older record, read before, is known as old."""
        self._remember(task_id, version - 1)

    def forget(self, tasks: Iterable[Task]) -> None:
        """Take back candidates that nothing became of: the store did not answer."""
        for task in tasks:
            self._seen.pop(task.id, None)
        self._dry_kinds = frozenset()

    def scatter(self) -> None:
        """Go on at another place of what was read ahead: other workers are at this one."""
        if self._buffer:
            self._buffer.rotate(-random.randrange(len(self._buffer)))  # noqa: S311  # spreading, not hiding

    async def rest(self) -> None:
        """Stop listening, because no slot is free: whatever rings now could not be answered."""
        self._dry_kinds = frozenset()
        await self._close_bell()

    async def aclose(self) -> None:
        """Stop whatever looks for tasks."""
        if self._before is not None:
            self._before.cancel()
            await asyncio.wait({self._before})
            if not self._before.cancelled():
                self._before.exception()  # retrieved: whoever stops does not ask any more
            self._before = None
        await self.rest()

    def _look_before(self, kinds: frozenset[str]) -> None:
        """Look now and then, beside everything else, for what goes before all others: cancelled tasks.

        While there is something read ahead, or the doorbell hangs behind tasks that nobody takes, nothing else would.
        """
        if self._before is not None and self._before.done():
            before, self._before = self._before, None
            now = self._store.clock.now()
            self._buffer.extendleft(task for task in reversed(before.result()) if triage(task, now) is not Step.LEAVE)
        if (self._buffer or self._hangs_behind) and self._before is None and self._loop.time() >= self._before_at:
            self._before_at = self._loop.time() + _BEFORE_SECONDS
            self._before = asyncio.ensure_future(self._store.due(kinds, now=NO_WAIT, limit=self._ahead))

    @property
    def _hangs_behind(self) -> bool:
        return self._bell is not None and self._bell_place[1] is not None

    def _remember(self, task_id: str, version: int) -> None:
        self._seen[task_id] = max(version, self._seen.pop(task_id, 0))
        if len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)

    def _pick(self, left: Room) -> list[Task]:
        kinds, batches = left.kinds, dict[object, int]()
        picked: list[Task] = []
        passed: list[Task] = []
        while self._buffer and (batches or not left.is_full):
            task = self._buffer.popleft()
            if task.kind not in kinds or not self._is_unseen(task):
                continue
            if is_generator(task):  # takes no slot
                self._remember(task.id, task.version)
                picked.append(task)
                continue
            handler = self._handlers[task.kind]
            batch = batch_of(task, handler)
            if batch in batches and batches[batch] < (handler.max_batch or 1):
                batches[batch] += 1
            elif batch not in batches and left.has(task.kind):
                left.take(task.kind)
                if batch is not None:
                    batches[batch] = 1
            else:
                passed.append(task)
                continue
            self._remember(task.id, task.version)
            picked.append(task)
        self._buffer.extendleft(reversed(passed))
        return picked

    async def _query(self, kinds: frozenset[str]) -> None:
        asked_at = (await self._store.now()).latest
        self._poll_at = self._loop.time() + self._poll
        self._before_at = self._loop.time() + _BEFORE_SECONDS
        found = await self._store.due(kinds, now=asked_at, limit=self._ahead, after=self._beyond)
        full = len(found) == self._ahead
        now = self._store.clock.now()
        left = [task for task in found if triage(task, now) is Step.LEAVE]
        left_ids = {task.id for task in left}
        self._buffer = deque(task for task in found if task.id not in left_ids and self._is_unseen(task))
        # Due, and yet not for this worker, now or later: a newer version's, say.
        for_nobody = [task for task in left if _wait(task, now) is None]
        self._left_alone = [*(self._left_alone if self._beyond else ()), *for_nobody]
        # A whole page of nothing new (poison, or held under a clock that is behind) must not hide what stands after it.
        self._beyond = _behind(found[-1]) if full and not self._buffer else None
        self._dry_kinds = frozenset() if full else kinds

    def _is_unseen(self, task: Task) -> bool:
        return self._seen.get(task.id, -1) < task.version

    async def _listen(self, kinds: frozenset[str], changed: asyncio.Event) -> bool:
        """Wait for the doorbell, the next due time or the slow poll. False: `changed` was set instead."""
        await self._open_bell(kinds)
        interrupted = asyncio.ensure_future(changed.wait())
        assert self._ring is not None  # noqa: S101  # opened just above
        heard = {self._ring, interrupted, *(() if self._before is None else (self._before,))}
        try:
            await asyncio.wait(heard, timeout=self._next_look(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
        if self._ring.done():
            self._front = await self._rung(self._ring)
            self._ring = asyncio.ensure_future(self._bell.get()) if self._bell is not None else None
        elif changed.is_set():
            return False
        elif self._loop.time() >= self._poll_at:
            self._dry_kinds = frozenset()
            return True
        self._look_at_front()
        return True

    async def _rung(self, ring: asyncio.Task[list[Task]]) -> list[Task]:
        """Give what the doorbell said. Raises what broke it; it is opened anew at the next look."""
        try:
            return ring.result()
        except StoreUnavailable:
            await self.rest()
            raise

    def _look_at_front(self) -> None:
        due = self._due_in_front()
        self._buffer = deque(due)
        if len(due) == _DOORBELL_WIDTH:
            self._dry_kinds = frozenset()  # there may be more behind these
        if any(batch_of(task, self._handlers[task.kind]) is not None for task in due):
            self._dry_kinds, self._buffer = frozenset(), deque()  # there may be more that belongs with them

    def _due_in_front(self) -> list[Task]:
        now = self._store.clock.now()
        return [task for task in self._front if self._is_unseen(task) and triage(task, now) is not Step.LEAVE]

    def _next_look(self) -> float:
        """Give the seconds until one of the tasks in front becomes due, at most the slow poll's."""
        now = self._store.clock.now()
        waits = (_wait(task, now) for task in self._front if self._is_unseen(task))
        looks = [self._poll_at, *([self._before_at] if self._hangs_behind and self._before is None else [])]
        return max(0.0, min([min(looks) - self._loop.time(), *(wait for wait in waits if wait is not None)]))

    async def _open_bell(self, kinds: frozenset[str]) -> None:
        # So many at the head of the line would be all that the doorbell ever shows; then it hangs behind them.
        after = _behind(self._left_alone[-1]) if len(self._left_alone) >= _DOORBELL_WIDTH else None
        if self._bell is not None and self._bell_place == (kinds, after):
            return
        await self._close_bell()
        self._bell_place = (kinds, after)
        watch = self._store.watch_due(kinds, limit=_DOORBELL_WIDTH, after=after)
        self._bell = await self._bell_open.enter_async_context(watch)
        self._ring = asyncio.ensure_future(self._bell.get())

    async def _close_bell(self) -> None:
        self._bell, self._front = None, []
        if self._ring is not None:
            self._ring.cancel()
            self._ring = None
        await self._bell_open.aclose()


def batch_of(task: Task, handler: Handler) -> object | None:
    """Name the batch that a task may be run in; None: it is run by itself."""
    alone = handler.max_batch is None or task.resource_key is None or task.is_cancelled
    return None if alone else (task.kind, task.resource_key)


def _behind(task: Task) -> Cursor | None:
    return None if task.due_at is None else Cursor(task.due_at, task.id)


def _wait(task: Task, now: Now) -> float | None:
    """Give the seconds until `triage` would not leave this task alone; None: time does not change its mind."""
    if task.due_at is None:
        return None
    wait = (task.due_at - present_for(task, now)).total_seconds()
    return wait if wait > 0 else None
