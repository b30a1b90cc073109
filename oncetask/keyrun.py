"""The run of a resource key: take it, run the tasks of its line one after the other, let it go.

Whose turn it is says `turns`; the lock and the line are read and taken in `keys`; what is written with the end of each
task makes `holds.HandOver`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from oncetask.attempts import Completed, Ended, Expired, Failed, Interrupted, Snoozed
from oncetask.claims import comes_too_late
from oncetask.errors import OncetaskError, StoreUnavailable
from oncetask.holds import HandOver
from oncetask.keys import MOST_WRITES, Key
from oncetask.running import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from oncetask.handlers import Handler
    from oncetask.keyreading import KeyReader
    from oncetask.lifecycle import Transition
    from oncetask.running import Surroundings
    from oncetask.slots import Slot
    from oncetask.task import Task

__all__ = ["KeyRun", "Line"]

_LOOK_PAST_SECONDS = 2.0
_AFTER_ERROR_SECONDS = 30.0
_LONGEST_RUN = 20
_log = logging.getLogger("oncetask")


class Line(Protocol):
    """What the worker's due line is told about keys."""

    def newest_of(self, resource_key: str) -> Task | None:
        """Give the newest task that was found of a key since it was taken."""

    def free(self, resource_key: str, task: Task | None = None) -> None:
        """Offer a key again, behind the others; `task`: one of it that waits."""

    def step_back(self, resource_key: str, task: Task) -> None:
        """Offer a key again that has had its turn, behind whatever else is to be had; `task`: one of it that waits."""

    def found(self, tasks: Iterable[Task]) -> None:
        """Take in tasks that may need something, but not their key."""

    def went_on(self) -> None:
        """Take note that a key went on with its next task."""

    def close(self, resource_key: str, task: Task, seconds: float) -> None:
        """Look past a key for some time, then offer `task` of it again."""


class KeyRun(Run):
    """Occupies one slot with the tasks of one key."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        task: Task,
        *,
        slot: Slot,
        surroundings: Surroundings,
        line: Line,
        reader: KeyReader,
        may_go_on: Callable[[], bool],
        is_crowded: Callable[[], bool],
    ) -> None:
        """`task`: one that was found due, and waits for its key. `line`: is told what became of the key.

        `may_go_on`: the worker claims tasks at present. `is_crowded`: others wait for a slot.
        """
        self.begun = asyncio.get_running_loop().create_future()
        """Done when it is known whether this worker has the key."""
        super().__init__(handlers[task.kind], task, slot=slot, surroundings=surroundings)
        assert task.resource_key is not None  # noqa: S101  # that is what it waits for
        self._handlers = handlers
        self._line = line
        self._may_go_on = may_go_on
        self._is_crowded = is_crowded
        self._key = Key(reader, task.resource_key, handlers, longest_lease=surroundings.longest_lease, found=line.found)
        self._following: tuple[Task, ...] = ()
        self._ran, self._has_had_its_turn = 0, False
        self._closed_for = _LOOK_PAST_SECONDS
        """Seconds for which nobody needs to look at the key, as long as nothing else is known."""

    async def process(self) -> None:
        """Run tasks of the key as long as they are next, and this worker may; whatever happens ends here."""
        try:
            await super().process()
        finally:
            self._tell_begun()
            waiting = self._key.first_waiting
            if self._has_had_its_turn and waiting is not None:
                self._line.step_back(self._key.resource_key, waiting)
            elif self._closed_for:
                self._line.close(self._key.resource_key, waiting or self._first, self._closed_for)
            else:
                self._line.free(self._key.resource_key, waiting)

    async def _start(self) -> bool:
        """Take the key; False: somebody has it, or it is not the turn of any task that this worker can run."""
        try:
            taken = await self._key.take(self._first, has_room=self._slot.pass_on)
        except StoreUnavailable as error:
            _log.error("resource key %r cannot be taken at present: %s", self._key.resource_key, error)  # told
            return False
        except OncetaskError:
            _log.exception("resource key %r cannot be taken", self._key.resource_key)
            self._closed_for = _AFTER_ERROR_SECONDS
            return False
        if taken is None:
            self._closed_for = min(self._key.closed_for, _LOOK_PAST_SECONDS)
            return False
        for step in (*taken.fenced, *taken.claimed):
            self._around.stored(step)
        self._hold = taken.hold
        self._tell_begun()
        return self._begin_claimed(taken.claimed)

    def _tell_begun(self) -> None:
        if not self.begun.done():
            self.begun.set_result(self._hold is not None)

    async def _make_room(self, ended: Ended) -> None:
        """Keep the slot for the next task of the key; free it where there is none."""
        self._following = await self._next_after(ended)
        if not self._following:
            self._free_slot()

    async def _next_after(self, ended: Ended) -> tuple[Task, ...]:
        if self._hold is None or not self._hold.is_kept or not self._may_follow():
            return ()
        if not self._leaves_the_line(ended):
            return ()
        self._has_had_its_turn = self._ran >= _LONGEST_RUN and self._is_crowded()
        if self._has_had_its_turn:
            return ()
        try:
            tasks = await self._key.next(self._line.newest_of(self._key.resource_key))
        except OncetaskError as error:
            _log.warning("what comes next of resource key %r is not known: %s", self._key.resource_key, error)
            return ()
        fits = len(self._lease.tasks) + len(tasks) <= MOST_WRITES
        if tasks and not (fits and self._slot.pass_on(tasks[0].kind)):
            self._key.put_back(tasks)
            return ()
        return tasks

    def _may_follow(self) -> bool:
        """Tell whether another task may begin here; the last one's end may wait long for the store, and this change."""
        return self._told is None and self._may_go_on()

    def _leaves_the_line(self, ended: Ended) -> bool:
        """Tell whether others may start now: nothing that ends in this way keeps its place before them."""
        match ended:
            case Completed():
                return True
            case Failed(ended=True) | Snoozed():
                return not self._handler.strict_order
            case Interrupted("cancelled", ended=True):
                return True
            case _:
                return False

    async def _record(self, ended: Ended) -> bool:
        """Write the end together with the claim of what follows, or the release of the key."""
        assert self._hold is not None  # noqa: S101  # taken at the start
        following, self._following = self._following, ()
        has_stopped = not isinstance(ended, Failed | Expired | Interrupted) or ended.ended
        seconds = self._key.lease_seconds(following) if following else 0.0
        hand_over = HandOver(
            self._hold, following=following, seconds=seconds, may_claim=self._may_follow, releases=has_stopped
        )
        try:
            stored = await self._write(ended, hand_over)
        finally:
            if not hand_over.claimed:
                self._key.put_back(following)
        self._key.put_back([one.after for one in stored])
        for claim in hand_over.claimed:
            self._around.stored(claim)
        if hand_over.claimed:
            self._line.went_on()
            return self._begin_claimed(hand_over.claimed)
        if has_stopped:
            self._closed_for = min(self._key.closed_for, _LOOK_PAST_SECONDS)
        return False

    def _begin_claimed(self, claims: Sequence[Transition]) -> bool:
        """Begin what was claimed, unless it took so long that somebody else may hold it by now."""
        tasks = [claim.after for claim in claims]
        if comes_too_late(tasks, self._around.client.store.clock.now()):
            return False
        self._ran += 1
        self._handler = self._handlers[tasks[0].kind]
        self._begin(tasks)
        return True
