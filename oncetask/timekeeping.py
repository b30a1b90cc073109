"""The schedules of a worker: brought about at its start, and kept while it works.

A generator that is due takes no slot: it is looked after also when all of them are taken. One atomic commit writes its
occurrences and moves it on; of several workers that try, one succeeds.
"""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import timedelta
from typing import TYPE_CHECKING

from oncetask import lifecycle
from oncetask.errors import InvalidRecurrence, OncetaskError, StoreUnavailable
from oncetask.lifecycle import Step, triage
from oncetask.recurrence import MOST_AT_ONCE, Recurrence, plan
from oncetask.schedules import reconcile
from oncetask.store import Cursor
from oncetask.store.fitting import MOST_BYTES_TOGETHER, stored_size
from oncetask.task import occurrence_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from oncetask.clock import Now
    from oncetask.lifecycle import Transition
    from oncetask.schedules import Schedule
    from oncetask.store import Settings, TaskStore
    from oncetask.task import Task
    from oncetask.telemetry import Listener

__all__ = ["Timekeeper", "is_due_generator"]

_AT_ONCE = 16
_TRIES = 5
_BYTES_AROUND = 2_000  # names, instants and ids of an occurrence
_GLANCE_SECONDS = 1.0
_PAUSE_SECONDS = 10.0
_PAGE = 100
_log = logging.getLogger("oncetask")


class Timekeeper:
    """Spawns the occurrences of generators that are due."""

    def __init__(
        self,
        store: TaskStore,
        apps: Collection[str],
        schedules: Sequence[Schedule],
        *,
        kinds: Collection[str],
        horizon: float,
        note: Callable[[str, int], None],
        telemetry: Listener,
    ) -> None:
        """`apps`: the names of the Apps that declare `schedules`, or have done so in an earlier version.

        `kinds`: those that the worker handles. `horizon`: seconds between looks at those that are left out. `note`:
        is told the id and version of every write, `telemetry` what it was.
        """
        self._store, self._telemetry = store, telemetry
        self._apps, self._schedules, self._kinds = apps, schedules, kinds
        self._horizon = min(horizon, _PAUSE_SECONDS)
        self._note = note
        self._is_behind = False
        self._failed: set[str] = set()
        self.try_again_at = math.inf
        """The loop's time at which schedules that could not be dealt with are tried again; infinity: there are none."""
        self._known_until: dict[str, float] = {}
        self._few = asyncio.Semaphore(_AT_ONCE)

    async def start(self, settings: Settings) -> bool:
        """Bring about what is declared; where the store does not answer, `keep` tries again.

        Tells whether there was anything to do. `settings`: as they were just read.
        """
        for schedule in self._schedules:
            if schedule.payload.kind not in self._kinds:
                text = "schedule %r is of kind %r, which this app has no handler for: no worker of it looks at it"
                _log.warning(text, schedule.task_id, schedule.payload.kind)
        return await self._bring_about(settings)

    async def _bring_about(self, settings: Settings | None = None) -> bool:
        try:
            is_new = await reconcile(self._store, self._apps, self._schedules, self._telemetry, settings)
        except StoreUnavailable as error:
            _log.error("the declared schedules are not brought about yet: %s", error)  # told
            self.fall_behind()
            return True
        self._is_behind = False
        return is_new

    def fall_behind(self) -> None:
        """See to it that `keep` brings about what is declared."""
        self._is_behind = True
        self._try_again()

    async def keep(self, left_out: Callable[[], Iterable[str]]) -> None:
        """Spawn what is due of the kinds that are `left_out` at present, for ever: the worker's line finds the others.

        It leaves out kinds whose slots are all taken; but their schedules go on. What could not spawn is tried again.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_GLANCE_SECONDS)
            kinds = [kind for kind in left_out() if self._known_until.get(kind, 0.0) <= loop.time()]
            try:
                pause = await self.look(kinds)
            except Exception as error:  # noqa: BLE001  # schedules that stood still would be missed only in the morning
                told = None if isinstance(error, StoreUnavailable) else error
                _log.error("looking at schedules failed; again in %s s: %s", _PAUSE_SECONDS, error, exc_info=told)
                pause = _PAUSE_SECONDS
                self._try_again()
            self._known_until.update(dict.fromkeys(kinds, loop.time() + pause))

    async def spawn(self, generators: Sequence[Task]) -> None:
        """Let generators that are due spawn; those that cannot are tried again by `keep`."""
        outcomes = await asyncio.gather(*map(self._spawn, generators), return_exceptions=True)
        for task, outcome in zip(generators, outcomes, strict=True):
            if outcome is not None:
                told = None if isinstance(outcome, StoreUnavailable) else outcome
                text = "schedule %s could not spawn, and is tried again in %s s: %s"
                _log.error(text, task.id, self._horizon, outcome, exc_info=told)
                self._try_again([task.id])

    async def look(self, kinds: Collection[str]) -> float:
        """Spawn what is due of these kinds, and what could not before; gives the seconds until they are due again.

        Raises StoreUnavailable.
        """
        found: dict[str, Task] = {}
        if self.try_again_at <= asyncio.get_running_loop().time():
            self.try_again_at = math.inf
            if self._is_behind:
                await self._bring_about()
            failed = tuple(self._failed)
            found = {task.id: task for task in await self._store.get(failed) if task is not None}
            self._failed.difference_update(failed)
        found |= {task.id: task for task in await self._coming(kinds)}
        now = self._store.clock.now()
        due = [task for task in found.values() if is_due_generator(task, now)]
        await self.spawn(due)
        waits = [(task.due_at - now.latest).total_seconds() for task in found.values() if task.due_at is not None]
        return min([wait for wait in waits if wait > 0] + [_GLANCE_SECONDS if due else self._horizon])

    def _try_again(self, failed: Iterable[str] = ()) -> None:
        """Remember what `keep` has to do soon."""
        self._failed.update(failed)
        self.try_again_at = min(self.try_again_at, asyncio.get_running_loop().time() + self._horizon)

    async def _coming(self, kinds: Collection[str]) -> list[Task]:
        """Find the generators of some kinds that are due before the next look."""
        found: list[Task] = []
        if not kinds:
            return found
        until = (await self._store.now()).latest + timedelta(seconds=self._horizon)
        after: Cursor | None = None
        while True:
            page = await self._store.due(kinds, now=until, limit=_PAGE, after=after, generators=True)
            found += page
            if len(page) < _PAGE or page[-1].due_at is None:
                return found
            after = Cursor(page[-1].due_at, page[-1].id)

    async def _spawn(self, task: Task) -> None:
        async with self._few:
            for _ in range(_TRIES):
                if await self._step(task):
                    return
                (newest,) = await self._store.get([task.id])
                if newest is None or newest.version != task.version:
                    return  # somebody else was faster, or has changed it
            msg = f"the last occurrence of {task.id!r} changes all the time"
            raise OncetaskError(msg)

    async def _step(self, task: Task) -> bool:
        """Write the next step of a generator; False: it was refused."""
        now = self._store.clock.now()
        try:
            recurrence = Recurrence.from_fields(task.recurrence or {})
        except InvalidRecurrence as error:
            return await self._reject(task, str(error), now)
        previous = await self._previous(task) if recurrence.overlap != "allow" else None
        is_busy = previous is not None and lifecycle.is_open(previous)
        planned = plan(
            recurrence,
            task.wait_until,
            now=max(now.latest, task.wait_until),
            until=task.deadline,
            is_busy=is_busy,
            most=_how_many(task),
        )
        replaced = previous if recurrence.overlap == "cancel-previous" else None
        steps, occurrences = lifecycle.spawn(task, planned, now=now, previous=replaced)
        written = await self._store.commit(steps, occurrences, None)
        impossible = next((one.error for one in written if one.error is not None), None)
        if impossible is not None:
            return await self._reject(task, f"its occurrences cannot be written: {impossible}", now)
        for step, one in zip(steps, written, strict=True):
            if one.version is not None:
                self._stored(step, one.version)
        if written[0].applied:
            self._telemetry.spawned(task, len(occurrences))
        return written[0].applied

    async def _previous(self, task: Task) -> Task | None:
        """Read the last occurrence."""
        if task.occurrence_timestamp is None:
            return None
        (found,) = await self._store.get([occurrence_id(task.id, task.occurrence_timestamp)])
        return found if found is not None and found.parent_recurrence_id == task.id else None

    async def _reject(self, task: Task, why: str, now: Now) -> bool:
        """End a generator of which nothing can come any more, with the reason."""
        step = lifecycle.reject(task, now=now, why=why)
        (written,) = await self._store.apply([step])
        if written.error is not None:
            raise written.error
        if written.version is not None:
            self._stored(step, written.version)
        return written.applied

    def _stored(self, step: Transition, version: int) -> None:
        self._note(step.before.id, version)
        self._telemetry.changed(step)


def is_due_generator(task: Task, now: Now) -> bool:
    """Tell whether a found task is a generator that has to spawn."""
    return lifecycle.is_generator(task) and triage(task, now) is Step.SPAWN


def _how_many(task: Task) -> int:
    """Give how many occurrences of a generator fit into one commit."""
    return max(1, min(MOST_AT_ONCE, MOST_BYTES_TOGETHER // (stored_size(task.data) + _BYTES_AROUND)))
