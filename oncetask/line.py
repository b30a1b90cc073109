"""Where a worker's next tasks come from: the due line, read ahead, and a doorbell while there is nothing to do."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from oncetask.crowding import LOWEST_ID, Crowding
from oncetask.errors import StoreUnavailable
from oncetask.lifecycle import Step, present_for, triage
from oncetask.store import Cursor, Feed
from oncetask.task import NO_WAIT
from oncetask.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from oncetask.clock import Now
    from oncetask.handlers import Handler
    from oncetask.slots import Room
    from oncetask.store import TaskStore
    from oncetask.task import Task
    from oncetask.waiting import Picked

__all__ = ["DueLine"]

_DOORBELL_WIDTH = 3
_BEFORE_SECONDS = 2.0
_HOT_SECONDS = 0.5
_MARGIN_SECONDS = 1.0
_LATE_SECONDS = 10.0  # what a task may be due before it is there: clocks are not the same, and writes take time


class DueLine:
    """Gives candidates for claims, each version of a task once.

    A query that came back short says that the line is dry; from then on the doorbell's first few documents are all
    there is to know, and no query is sent but the slow poll.
    """

    def __init__(self, store: TaskStore, handlers: Mapping[str, Handler], *, ahead: int, poll: float) -> None:
        """`ahead`: how many tasks a query reads. `poll`: seconds between looks when nothing rings."""
        self._store = store
        self._ahead = ahead
        self._poll = poll
        self._loop = asyncio.get_running_loop()
        self._poll_at = self._loop.time()
        self._waiting = Waiting(handlers, time=self._loop.time, now=self._now)
        self._crowding = Crowding(ahead)
        self._before: asyncio.Future[list[Task]] | None = None
        self._before_at = self._poll_at
        self._next_page: asyncio.Future[tuple[list[Task], bool]] | None = None
        self._dry_kinds: frozenset[str] = frozenset()
        self._more_of: set[str] = set()
        self._stepped_back: dict[str, Task] = {}
        self._hot_until = 0.0
        self._looked_at: datetime | None = None
        self._beyond: Cursor | None = None
        self._bell: Feed[list[Task]] | None = None
        self._bell_place: tuple[frozenset[str], Cursor | None] = (frozenset(), None)
        self._left_alone: list[Task] = []
        self._keys_in_the_way = self._shows_busy_keys_only = False
        self._hangs_at: Cursor | None = None
        self._bell_open = AsyncExitStack()
        self._ring: asyncio.Task[list[Task]] | None = None
        self._front: list[Task] = []

    async def take(self, room: Room, changed: asyncio.Event, *, keys: int, waits: bool = True) -> Picked:
        """Give due tasks for which there is room, at most `keys` of which need their resource key.

        Waits for them, or until `changed` is set. Without `waits` it does not listen: there is nothing due then.
        """
        kinds = room.kinds
        while True:
            self._look_before(kinds)
            await self._let_come_back(kinds)
            await self._fill_up(kinds)
            if picked := self._waiting.pick(room.copy(), keys=keys):
                if self._waiting.number < 2 * len(picked.plain):
                    self._read_on(kinds)
                return picked
            if keys <= 0 and self._waiting.has_keys:
                await changed.wait()
                return picked
            if self._dry_kinds >= kinds and self._beyond is None:
                if not waits or not await self._listen(kinds, changed):
                    return picked
            else:
                await self._query(kinds)

    def _now(self) -> Now:
        return self._store.clock.now()

    def note(self, task_id: str, version: int) -> None:
        """Remember that this worker wrote `version`, so that an older record, read before, is known as old."""
        self._waiting.note(task_id, version)

    def forget(self, tasks: Iterable[Task]) -> None:
        """Take back candidates that nothing became of: the store did not answer."""
        self._waiting.forget(tasks)
        self._dry_kinds = frozenset()

    def is_news(self, task: Task) -> bool:
        """Tell whether a task that is due was not given so far, and is not known to be somebody else's."""
        return triage(task, self._now()) is not Step.LEAVE and self._waiting.is_news(task)

    def scatter(self) -> None:
        """Go on at another place of what was read ahead: other workers are at this one."""
        self._waiting.scatter()

    def claimed(self, *, refused: int, tried: int) -> None:
        """Take note of how many claims others were faster with; where they were with all, go on elsewhere."""
        if self._crowding.claimed(refused=refused, tried=tried) and self._waiting:
            self._waiting.clear()
            self._dry_kinds = frozenset()
        elif refused:
            self._waiting.scatter()

    def newest_of(self, resource_key: str) -> Task | None:
        """Give the newest task that was found of a key since this worker holds it; None: there was none."""
        return self._waiting.newest_of(resource_key)

    def free(self, resource_key: str, task: Task | None = None) -> None:
        """Offer a key again that this worker has let go; `task`: one of it that waits."""
        if self._waiting.is_crowd(resource_key):
            self._dry_kinds = frozenset()  # those were not looked for meanwhile
        self._waiting.free(resource_key, task)

    def step_back(self, resource_key: str, task: Task) -> None:
        """Offer a key again that has had its turn, behind whatever else is to be had; `task`: one of it that waits."""
        self._stepped_back[resource_key] = task

    def went_on(self) -> None:
        """Take note that a key went on with its next task: there is a lot being written at present."""
        self._hot_until = self._loop.time() + _HOT_SECONDS

    def found(self, tasks: Iterable[Task]) -> None:
        """Take in tasks that somebody else came upon, and that may need something."""
        now = self._store.clock.now()
        self._waiting.add(task for task in tasks if triage(task, now) is not Step.LEAVE)

    def close(self, resource_key: str, task: Task, seconds: float) -> None:
        """Look past a busy key for some time, then offer `task` of it again."""
        self._waiting.close(resource_key, task, seconds)

    async def rest(self) -> None:
        """Stop listening, because no slot is free: whatever rings now could not be answered."""
        self._dry_kinds = frozenset()
        await self._close_bell()

    async def aclose(self) -> None:
        """Stop whatever looks for tasks."""
        for asked in (self._before, self._next_page):
            if asked is not None:
                asked.cancel()
                await asyncio.wait({asked})
                if not asked.cancelled():
                    asked.exception()  # retrieved: whoever stops does not ask any more
        self._before = self._next_page = None
        await self.rest()

    def _look_before(self, kinds: frozenset[str]) -> None:
        """Look now and then, beside everything else, at what neither a query nor the doorbell would show.

        While something is read ahead that is what goes before all others: cancelled tasks. While the doorbell hangs
        behind tasks that nobody takes, it is also what came late to a place before them: all of it where only busy
        keys are in the way, which a query can look past.
        """
        if self._before is not None and self._before.done():
            before, self._before = self._before, None
            now = self._store.clock.now()
            self._waiting.add((task for task in before.result() if triage(task, now) is not Step.LEAVE), first=True)
        hidden = self._waiting or self._hangs_behind or self._shows_busy_keys_only or self._is_hot
        if hidden and self._before is None and self._loop.time() >= self._before_at:
            self._before_at = self._loop.time() + _BEFORE_SECONDS
            self._before = asyncio.ensure_future(self._before_all_others(kinds))

    async def _before_all_others(self, kinds: frozenset[str]) -> list[Task]:
        looks = [self._store.due(kinds, now=NO_WAIT, limit=self._ahead)]
        now = (await self._store.now()).latest
        if self._shows_busy_keys_only or (self._hangs_behind and self._keys_in_the_way):
            looks.append(self._beside_busy_keys(kinds, now))
        elif self._hangs_behind:
            since = Cursor(now - timedelta(seconds=_LATE_SECONDS), LOWEST_ID)
            looks.append(self._store.due(kinds, now=now, limit=self._ahead, after=since))
        return [task for found in await asyncio.gather(*looks) for task in found]

    async def _beside_busy_keys(self, kinds: frozenset[str], now: datetime) -> list[Task]:
        found = await self._store.due(kinds, now=now, limit=self._ahead, without=self._waiting.busy_keys())
        if self._shows_busy_keys_only and len(found) < self._ahead:
            self._hangs_at = Cursor(now - timedelta(seconds=_MARGIN_SECONDS), LOWEST_ID)
        return found

    @property
    def _hangs_behind(self) -> bool:
        return self._bell is not None and self._bell_place[1] is not None

    async def _query(self, kinds: frozenset[str]) -> None:
        asked_at = (await self._store.now()).latest
        self._poll_at = self._loop.time() + self._poll
        self._before_at = self._loop.time() + _BEFORE_SECONDS
        crowds, beyond = self._waiting.crowds(), self._beyond
        if beyond is None:
            self._read_on(kinds)
            if self._next_page is not None:
                await self._take_next_page(self._next_page)
                return
        page = self._crowding.page
        found = await self._store.due(kinds, now=asked_at, limit=page, after=beyond, without=crowds)
        full = len(found) == page
        self._crowding.read(found, is_full=full)
        self._waiting.clear()
        passed = self._take_in(found)
        shown = {task.kind for task in found}
        self._more_of = shown if full else set()
        if full and beyond is None and (others := kinds - shown):
            # A flood of some kinds hides what there is of the others.
            found_too = await self._store.due(others, now=asked_at, limit=self._ahead, without=crowds)
            self._take_in(found_too)
            self._more_of |= {task.kind for task in found_too} if len(found_too) == self._ahead else set()
        self._left_alone = [*(self._left_alone if beyond else ()), *passed]
        now = self._store.clock.now()
        self._keys_in_the_way = all(triage(task, now) is not Step.LEAVE for task in self._left_alone)
        self._hangs_at = self._behind_what_nobody_takes(crowds, asked_at)
        self._dry_kinds = frozenset() if full else kinds
        self._looked_at = None if full else asked_at
        self._beyond = None
        if full and not self._waiting and self._waiting.crowds() == crowds:
            # A whole page of nothing new (poison, or held under a clock that is behind) must not hide what stands
            # after it. Where busy keys filled it, the next query looks past them.
            self._beyond = _behind(found[-1])

    def _read_on(self, kinds: frozenset[str]) -> None:
        """Among others, ask for what comes next before this is used up: the way there takes as long as a claim."""
        if self._next_page is None and self._crowding.place is not None:
            self._next_page = asyncio.ensure_future(self._read_elsewhere(kinds))

    async def _read_elsewhere(self, kinds: frozenset[str]) -> tuple[list[Task], bool]:
        """Read where others are not; tells too whether there is more behind it."""
        after, page = self._crowding.place, self._crowding.page
        now = (await self._store.now()).latest
        found = await self._store.due(kinds, now=now, limit=page, after=after, without=self._waiting.crowds())
        return found, len(found) == page

    async def _take_next_page(self, next_page: asyncio.Future[tuple[list[Task], bool]]) -> None:
        """Take in what was read elsewhere; that there is nothing there says nothing about the rest of the line."""
        try:
            found, is_full = await next_page
        finally:
            self._next_page = None
        self._crowding.read(found, is_full=is_full)
        self._waiting.clear()
        self._take_in(found)

    async def _let_come_back(self, kinds: frozenset[str]) -> None:
        """Offer the keys that have stepped back, once it is known who else waits."""
        if self._stepped_back and not self._waiting:
            await self._query(kinds)
        for resource_key in list(self._stepped_back):  # who has waited longest comes first
            self.free(resource_key, self._stepped_back.pop(resource_key))

    async def _fill_up(self, kinds: frozenset[str]) -> None:
        """Read more of kinds of which nothing is left while others wait: all are to have their share."""
        out = {kind for kind in self._more_of & kinds if self._waiting.is_out_of(kind)}
        if not out or not self._waiting:
            return
        now = (await self._store.now()).latest
        found = await self._store.due(out, now=now, limit=self._ahead, without=self._waiting.crowds())
        self._take_in(found)
        none_left = len(found) < self._ahead
        self._more_of -= {kind for kind in out if none_left or self._waiting.is_out_of(kind)}

    def _behind_what_nobody_takes(self, crowds: Collection[str], asked_at: datetime) -> Cursor | None:
        """Give the place behind which the doorbell hangs; None: at the head of the line.

        So many tasks at the head as it is wide would be all that it ever shows. Where crowds wait, and were not read,
        it hangs where the last look ended.
        """
        if crowds:
            return Cursor(asked_at - timedelta(seconds=_MARGIN_SECONDS), LOWEST_ID)
        return _behind(self._left_alone[-1]) if len(self._left_alone) >= _DOORBELL_WIDTH else None

    def _take_in(self, found: list[Task]) -> list[Task]:
        """Take in what was found; gives those that are in the way of the others."""
        now = self._store.clock.now()
        left = [task for task in found if triage(task, now) is Step.LEAVE]
        left_ids = {task.id for task in left}
        busy = self._waiting.add(task for task in found if task.id not in left_ids)
        # Due, and yet not for this worker, now or later: a newer version's, say. Or its key is busy.
        in_the_way = {task.id for task in busy} | {task.id for task in left if _wait(task, now) is None}
        return [task for task in found if task.id in in_the_way]

    async def _listen(self, kinds: frozenset[str], changed: asyncio.Event) -> bool:
        """Wait for the doorbell, the next due time or the slow poll. False: `changed` was set instead."""
        if self._is_hot and self._looked_at is not None:
            return await self._wait_while_hot(kinds, self._looked_at, changed)
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

    async def _wait_while_hot(self, kinds: frozenset[str], looked_at: datetime, changed: asyncio.Event) -> bool:
        """Wait, and look for what has become due since the last look. False: `changed` was set instead.

        While keys go from task to task the head of the line changes all the time: the doorbell would ring at each,
        and be paid for, without anything being there for this worker.
        """
        await self._close_bell()
        opens_in = self._waiting.opens_in()
        with suppress(TimeoutError):
            async with asyncio.timeout(_HOT_SECONDS if opens_in is None else min(_HOT_SECONDS, opens_in)):
                await changed.wait()
                return False
        if self._loop.time() >= self._poll_at:
            self._dry_kinds = frozenset()
            return True
        now = (await self._store.now()).latest
        since = Cursor(looked_at - timedelta(seconds=_MARGIN_SECONDS), LOWEST_ID)
        found = await self._store.due(kinds, now=now, limit=self._ahead, after=since, without=self._waiting.crowds())
        self._take_in(found)
        if len(found) < self._ahead:
            self._looked_at = now
        else:
            self._dry_kinds = frozenset()
        return True

    @property
    def _is_hot(self) -> bool:
        return self._loop.time() < self._hot_until

    async def _rung(self, ring: asyncio.Task[list[Task]]) -> list[Task]:
        """Give what the doorbell said. Raises what broke it; it is opened anew at the next look."""
        try:
            return ring.result()
        except StoreUnavailable:
            await self.rest()
            raise

    def _look_at_front(self) -> None:
        now = self._store.clock.now()
        due = [task for task in self._front if self._waiting.is_unseen(task) and triage(task, now) is not Step.LEAVE]
        self._waiting.clear()
        passed = self._waiting.add(due)
        self._shows_busy_keys_only = len(passed) == _DOORBELL_WIDTH
        if self._shows_busy_keys_only:  # a query would find these again, and nothing of what comes next would ring
            self._before_at = min(self._before_at, self._loop.time() + _HOT_SECONDS)
        elif len(due) == _DOORBELL_WIDTH or self._shows_only_what_nobody_takes(now):
            self._dry_kinds = frozenset()  # there may be more behind these
        if not self._shows_busy_keys_only and not self._hangs_behind:  # the head of the line has just been seen
            self._before_at = self._loop.time() + _BEFORE_SECONDS

    def _shows_only_what_nobody_takes(self, now: Now) -> bool:
        """Tell whether the doorbell is full of tasks that are not for this version: it has to hang behind them."""
        foreign = [task for task in self._front if triage(task, now) is Step.LEAVE and _wait(task, now) is None]
        return len(foreign) == _DOORBELL_WIDTH

    def _next_look(self) -> float:
        """Give the seconds until one of the tasks in front becomes due, at most the slow poll's."""
        now = self._store.clock.now()
        waits = [self._waiting.opens_in(), *(_wait(task, now) for task in self._front if self._waiting.is_unseen(task))]
        hidden = self._hangs_behind or self._shows_busy_keys_only
        looks = [self._poll_at, *([self._before_at] if hidden and self._before is None else [])]
        return max(0.0, min([min(looks) - self._loop.time(), *(wait for wait in waits if wait is not None)]))

    async def _open_bell(self, kinds: frozenset[str]) -> None:
        after = self._hangs_at
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


def _behind(task: Task) -> Cursor | None:
    return None if task.due_at is None else Cursor(task.due_at, task.id)


def _wait(task: Task, now: Now) -> float | None:
    """Give the seconds until `triage` would not leave this task alone; None: time does not change its mind."""
    if task.due_at is None:
        return None
    wait = (task.due_at - present_for(task, now)).total_seconds()
    return wait if wait > 0 else None
