"""The lease on running tasks: their newest records, their renewal, and the only road for writes to them.

The writes of one lease go one after the other, each on the version that the last one returned. A refused one is
answered by reading the task again: still ours (somebody else, a cancel say, wrote in between), or lost.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from oncetask import lifecycle
from oncetask.errors import LeaseLost, OncetaskError, StoreUnavailable
from oncetask.holds import Along, Prolonged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
    from typing import Any

    from oncetask.clock import Now
    from oncetask.context import AbortReason
    from oncetask.holds import HandOver, Hold
    from oncetask.lifecycle import Transition
    from oncetask.lock import LockChange
    from oncetask.store import TaskStore, Written
    from oncetask.task import Progress, Task

__all__ = ["Lease"]

T = TypeVar("T")

_NOTHING = Along()

_RENEWED_AT = 1 / 3
_WATCHED_AFTER_SECONDS = 0.2
_TOLD_AFTER_SECONDS = 0.1
_TOLD_EVERY_SECONDS = 1.0
_TIMERS_ARE_EARLY_SECONDS = 0.01
_BREATH_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_log = logging.getLogger("oncetask")


class Lease:
    """What a worker holds while it runs a task, or the members of a batch."""

    def __init__(
        self,
        store: TaskStore,
        tasks: Sequence[Task],
        *,
        duration: float,
        stored: Callable[[Transition], None],
        hold: Hold | None = None,
    ) -> None:
        """`tasks`: as claimed. `duration`: seconds that each renewal adds. `stored`: is told of every write, once.

        `hold`: the resource key under which they run, which is renewed with them.
        """
        self._hold = hold
        self._held = {task.id: task for task in tasks}
        self._ids = {task.id: task.lease_owner or "" for task in tasks}
        self._store = store
        self._duration = timedelta(seconds=duration)
        self._stored = stored
        self._writing = asyncio.Lock()
        self._is_lost = False
        self._stop: Callable[[AbortReason], None] = _ignore
        self._keepers: set[asyncio.Task[None]] = set()
        self._progress: Progress | None = None
        self._progress_timer: asyncio.TimerHandle | None = None
        self._progress_at = float("-inf")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The newest records of what is still held."""
        return tuple(self._held.values())

    @asynccontextmanager
    async def kept(self, stop: Callable[[AbortReason], None]) -> AsyncIterator[None]:
        """Renew the lease as long as the block runs, and call `stop` once it is lost for good, or all is cancelled.

        What runs for longer than a moment is watched for cancels. Shorter ones learn of it when they write.
        """
        loop = asyncio.get_running_loop()

        def start() -> None:
            self._keep(self._renew(renewed - first))
            self._keep(self._end_in_time())
            if not any(map(lifecycle.is_cleanup, self.tasks)):  # a cleanup is not stopped by a cancel any more
                self._keep(self._watch())

        renewed = self._duration.total_seconds() * _RENEWED_AT
        first = min(_WATCHED_AFTER_SECONDS, renewed)
        timer = loop.call_later(first, start)
        self._stop = stop
        try:
            yield
            if self._writing.locked():  # a renewal on its way has to arrive before the next write
                async with self._writing:
                    pass
        finally:
            self._stop = _ignore
            timer.cancel()
            if self._progress_timer is not None:
                self._progress_timer.cancel()
            for keeper in self._keepers:
                keeper.cancel()
            if self._keepers:
                await asyncio.wait(self._keepers)

    def tell(self, progress: Progress) -> None:
        """Keep what the running handler says of how far it is: it goes along with the next write.

        One is sent for it soon, but none sooner than a second after the last one, so that the newest of a quick
        sequence gets stored and those between are left out.
        """
        self._progress = progress
        self._plan_progress()

    async def write(
        self,
        event: Callable[[Task, Now], Transition],
        staged: Sequence[Task] = (),
        batch: Any = None,  # the store's own
        hand_over: HandOver | None = None,
    ) -> list[Transition]:
        """Write what `event` makes of the newest records; with it new tasks and the user's writes, or nothing of it.

        All members of a batch see the same time, so that they are due together again. `hand_over`: goes along where
        it can.

        Gives what was stored; members of a batch that were lost are left out. Raises LeaseLost where that is all of
        them, or the error of a write that is impossible, after the others have been written.
        """
        async with self._writing:
            return await self._write(event, staged, batch, hand_over or _NOTHING)

    async def prolong(self, event: Callable[[Task, Now], Transition]) -> list[Transition]:
        """Write what moves the end of the lease, and with it that of the lock, which no lease may outlast."""
        async with self._writing:
            return await self._write(event, along=_NOTHING if self._hold is None else Prolonged(self._hold))

    async def _write(
        self,
        event: Callable[[Task, Now], Transition],
        staged: Sequence[Task] = (),
        batch: Any = None,
        along: Along = _NOTHING,
    ) -> list[Transition]:
        stored: list[Transition] = []
        progress: Progress | None = None
        dropped: Progress | None = None
        impossible: OncetaskError | None = None
        left = list(self._held)
        while left:
            now = self._store.clock.now()
            if not stored and not dropped:  # all members get the same
                progress = self._progress or progress
            plain = [event(self._held[task_id], now) for task_id in left]
            transitions = [_with(one, progress) for one in plain]
            claims, locks = along.writes(now, transitions)
            try:
                written, others = await self._send(transitions, staged, batch, claims, locks)
            except StoreUnavailable as error:
                await self._while_it_lasts(error)
                continue
            stored += self._applied(transitions, written)
            along.wrote(claims, locks, others)
            self._progress_sent(progress)
            errors, refused = _not_written(transitions, written)
            try:
                left = await self._still_mine(refused)
            except LeaseLost as lost:
                if not stored:
                    raise
                _log.warning("%s", lost)
                break
            if left:
                await self._patiently(along.refused)
            if errors and progress is not None:  # how far it is must not keep it from getting there
                dropped, progress = progress, None
                left += [one.before.id for one in plain if one.before.id in errors and one.changes]
                _log.error("the progress of task %s is dropped: it may be what could not be stored", ", ".join(errors))
            elif errors and not along.shrinks():
                impossible = impossible or next(iter(errors.values()))
            else:
                left += errors
        if impossible is not None:
            self._progress = self._progress or dropped  # that was not the reason
            raise impossible
        await along.finish()
        return stored

    async def _send(
        self,
        transitions: list[Transition],
        staged: Sequence[Task],
        batch: Any,
        claims: list[Transition],
        locks: list[LockChange],
    ) -> tuple[list[Written], list[Written]]:
        """Send in one commit what belongs together; what stands for itself travels with others'.

        With the success goes what was staged, with everything what concerns the resource key. Gives what became of
        the transitions, and of the rest.
        """
        if not any(map(lifecycle.takes_staged, transitions)):
            staged, batch = (), None
        if staged or batch is not None or claims or locks:
            written = await self._store.commit([*transitions, *claims], staged, batch, locks)
            return written[: len(transitions)], written[len(transitions) :]
        return await self._store.apply(transitions), []

    def _applied(self, transitions: list[Transition], written: list[Written]) -> list[Transition]:
        """Keep the newest records of what is still held; gives what was stored."""
        stored: list[Transition] = []
        for transition, one in zip(transitions, written, strict=True):
            if one.version is not None:
                stored.append(transition.stored(one.version))
                self._stored(stored[-1])
                after = stored[-1].after
                if not lifecycle.holds(after, self._ids[after.id]):
                    del self._held[after.id]
                elif after.version > self._held[after.id].version:  # the watch may have told of a newer one meanwhile
                    self._held[after.id] = after
        return stored

    async def _still_mine(self, ids: list[str]) -> list[str]:
        """Read tasks that may have been lost; gives those still held. Raises LeaseLost where that is none of all."""
        lost: list[str] = []
        for task_id, found in zip(ids, await self._read(ids), strict=True):
            if found is not None and lifecycle.holds(found, self._ids[task_id]):
                self._held[task_id] = found
            elif task_id in self._held:
                del self._held[task_id]
                now = "deleted" if found is None else found.status
                lost.append(f"task {task_id!r} is not held by this worker any more (it is {now})")
        if lost and not self._held:
            msg = f"{'; '.join(lost)}: nothing is written for it"
            raise LeaseLost(msg)
        for message in lost:
            _log.warning("%s", message)
        self._stop_if_cancelled()
        return [task_id for task_id in ids if task_id in self._held]

    async def _read(self, ids: list[str]) -> list[Task | None]:
        return await self._patiently(lambda: self._store.get(ids)) if ids else []

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the store something until it answers, as long as the lease lasts."""
        while True:
            try:
                return await ask()
            except StoreUnavailable as error:
                await self._while_it_lasts(error)

    async def _while_it_lasts(self, error: StoreUnavailable) -> None:
        """Go on trying as long as the lease lasts for certain; after that somebody else may hold the task."""
        names = ", ".join(self._held)
        if self._has_ended():
            msg = f"the lease of task {names} ended while the store was unavailable: {error}"
            raise LeaseLost(msg) from error
        _log.warning("the store is unavailable, the lease of task %s lasts: %s", names, error)
        await asyncio.sleep(_BREATH_SECONDS)

    def _has_ended(self) -> bool:
        """Tell whether somebody else may hold one of the tasks by now."""
        now = self._store.clock.now()
        return any(lifecycle.may_have_ended(task, now) for task in self.tasks)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Start something that ends with the block at the latest."""
        keeper = asyncio.get_running_loop().create_task(work)
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    async def _renew(self, pause: float) -> None:
        """Renew for ever, the first time after `pause` seconds."""
        while True:
            await asyncio.sleep(pause)
            pause = self._duration.total_seconds() * _RENEWED_AT
            try:
                await self.prolong(lambda task, now: lifecycle.renew(task, until=now.latest + self._duration))
            except OncetaskError as lost:
                self._lose(f"it could not be renewed: {lost}")
                return
            except Exception:  # noqa: BLE001  # told; as long as the lease lasts there is another try
                _log.exception("renewing the lease of task %s failed", ", ".join(self._ids))
                if self._has_ended():
                    self._lose("it could not be renewed")
                    return
                pause = min(pause, _BREATH_SECONDS)

    async def _end_in_time(self) -> None:
        """Stop the handler at the end of its lease, even while a renewal still waits for the store's answer."""
        while (left := self._left_seconds()) > 0:  # noqa: ASYNC110  # it is time that it waits for
            await asyncio.sleep(left)
        self._lose("it ended before it could be renewed")

    def _left_seconds(self) -> float:
        """Give the seconds until somebody else may hold one of the tasks."""
        now = self._store.clock.now().latest
        ends = [task.leased_until for task in self.tasks]
        return min(((end - now).total_seconds() if end is not None else 0.0 for end in ends), default=0.0)

    def _plan_progress(self) -> None:
        """See to it that what was told gets written, if nothing is on its way to that."""
        if self._progress is not None and self._progress_timer is None and self._stop is not _ignore:
            loop = asyncio.get_running_loop()
            wait = max(_TOLD_AFTER_SECONDS, self._progress_at + _TOLD_EVERY_SECONDS - loop.time())
            self._progress_timer = loop.call_later(wait, lambda: self._keep(self._write_progress()))

    async def _write_progress(self) -> None:
        """Write what the handler has said last, if no other write has taken it along, or has just done that."""
        try:
            async with self._writing:
                early = self._progress_at + _TOLD_EVERY_SECONDS - asyncio.get_running_loop().time()
                if self._progress is not None and early < _TIMERS_ARE_EARLY_SECONDS:
                    await self._write(lambda task, _: lifecycle.progressed(task))
        except LeaseLost as lost:
            self._lose(str(lost))
            return
        except Exception:  # noqa: BLE001  # told; the handler goes on
            _log.exception("the progress of task %s could not be stored", ", ".join(self._ids))
            self._progress_at = asyncio.get_running_loop().time()  # not more often for that
        self._progress_timer = None
        self._plan_progress()

    def _progress_sent(self, progress: Progress | None) -> None:
        if progress is not None:
            self._progress_at = asyncio.get_running_loop().time()
            if self._progress is progress:
                self._progress = None

    def _lose(self, why: str) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        _log.warning("the lease of task %s is lost: %s", ", ".join(self._ids), why)
        self._stop("lease-lost")

    async def _watch(self) -> None:
        """Look at the tasks whenever one of them changes, whoever changed it."""
        pause = _BREATH_SECONDS
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._follow(list(self._held))
            except LeaseLost as lost:
                self._lose(str(lost))
                return
            except Exception as error:  # noqa: BLE001  # told; a renewal notices a cancel too, but late
                if asyncio.get_running_loop().time() - began > _LONGEST_PAUSE_SECONDS:
                    pause = _BREATH_SECONDS  # it did well for some time
                names = ", ".join(self._held)
                _log.warning("task %s is not watched for cancels, again in %s s: %r", names, pause, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _follow(self, ids: list[str]) -> None:
        async with self._store.watch_tasks(ids) as feed:
            while True:
                found = dict(zip(ids, await feed.get(), strict=True))
                if foreign := [i for i in self._held if not self._see(i, found[i])]:
                    async with self._writing:
                        await self._still_mine(foreign)
                self._stop_if_cancelled()

    def _see(self, task_id: str, found: Task | None) -> bool:
        """Take in a record that came from somewhere; False: it looks as if the task were lost."""
        if found is None or not lifecycle.holds(found, self._ids[task_id]):
            return False
        if found.version > self._held[task_id].version:
            self._held[task_id] = found
        return True

    def _stop_if_cancelled(self) -> None:
        if self._held and all(map(lifecycle.is_overtaken, self.tasks)):
            self._stop("cancelled")


def _not_written(
    transitions: Sequence[Transition], written: Sequence[Written]
) -> tuple[dict[str, OncetaskError], list[str]]:
    """Give the ids of what is impossible, with the errors, and of what was refused."""
    left = [(one.before.id, w.error) for one, w in zip(transitions, written, strict=True) if not w.applied]
    return {i: error for i, error in left if error is not None}, [i for i, error in left if error is None]


def _ignore(_: AbortReason) -> None:
    """Nothing runs that could be stopped."""


def _with(transition: Transition, progress: Progress | None) -> Transition:
    return transition if progress is None else lifecycle.with_progress(transition, progress)
