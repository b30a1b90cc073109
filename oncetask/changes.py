"""Changing tasks from outside: cancel, reset, delete; one or thousands, each on the version it was decided from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from oncetask import lifecycle
from oncetask.clock import Now
from oncetask.errors import OncetaskError, Unsupported
from oncetask.lifecycle import Transition
from oncetask.payload import sort_out_ids
from oncetask.task import SCHEMA, Task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oncetask.store import TaskFilter, TaskStore, Written
    from oncetask.telemetry import Telemetry

__all__ = ["Changes", "Event"]

_CHUNK = 500

_Change = Callable[[Sequence[Task]], Awaitable["_Done"]]


class Event(Protocol):
    """One of `lifecycle`'s events that come from outside; None: it does not apply to this task."""

    def __call__(self, task: Task, /, *, now: Now) -> Transition | None:
        """Make the transition."""


class Changes:
    """What a client does to tasks, and how it counts that."""

    def __init__(self, store: TaskStore, telemetry: Telemetry, wake: Callable[[datetime], Awaitable[None]]) -> None:
        """Work on an opened or unopened store. What was done is told to `telemetry`, and when it is due to `wake`."""
        self._store = store
        self._telemetry = telemetry
        self._wake = wake

    async def by_ids(self, ids: Iterable[str], event: Event) -> int:
        """Apply an event to the tasks of these ids; counts those that it changed.

        Raises ValueError for what cannot be an id, after the others.
        """
        return await self._each_by_id(ids, lambda tasks: self._change_once(tasks, event))

    async def of(self, tasks: Sequence[Task], event: Event) -> int:
        """Apply an event to tasks that were just read; counts those that it changed."""
        done = await self._change_once(tasks, event)
        await self._wake_for(done.due)
        changed = done.changed + await self.by_ids(done.again, event)
        _raise_first(done.errors, changed)
        return changed

    async def all(self, which: TaskFilter, event: Event) -> int:
        """Apply an event to all tasks that a filter finds; counts those that it changed."""
        changed, after, full, errors, due = 0, None, True, list[OncetaskError](), list[datetime]()
        while full:
            found = await self._store.find(which, limit=_CHUNK, after=after)
            done = await self._change_once(found, event)
            changed += done.changed + await self.by_ids(done.again, event)
            errors += done.errors
            due += done.due
            full, after = len(found) == _CHUNK, found[-1].id if found else None
        await self._wake_for(due)
        _raise_first(errors, changed)
        return changed

    async def delete_by_ids(self, ids: Iterable[str]) -> int:
        """Delete the tasks of these ids that nobody runs; counts them. Bad ids: as in `by_ids`."""
        return await self._each_by_id(ids, self._delete_once)

    async def _each_by_id(self, ids: Iterable[str], change: _Change) -> int:
        """Count what changes; a task that somebody else changed meanwhile is read and judged again."""
        changed, errors, due, (left, unfit) = 0, list[OncetaskError](), list[datetime](), sort_out_ids(ids)
        while left:
            chunk, left = left[:_CHUNK], left[_CHUNK:]
            done = await change([task for task in await self._store.get(chunk) if task is not None])
            changed += done.changed
            errors += done.errors
            due += done.due
            left += done.again
        await self._wake_for(due)
        if unfit:
            more = f" and {len(unfit) - 1} more" if len(unfit) > 1 else ""
            msg = f"ids: {unfit[0]}{more}; {changed} of the others were changed as asked"
            raise ValueError(msg)
        _raise_first(errors, changed)
        return changed

    async def _change_once(self, tasks: Sequence[Task], event: Event) -> _Done:
        """Apply an event to tasks as they were read."""
        now = await self._store.now()
        transitions = [made for task in tasks if (made := event(task, now=now)) is not None]
        written = await self._store.apply(transitions)
        applied = [transition for transition, one in zip(transitions, written, strict=True) if one.applied]
        for transition in applied:
            self._telemetry.changed(transition)
        due = [transition.after.due_at for transition in applied if transition.after.due_at is not None]
        return _counted([t.before for t in transitions], written, due).beside(tasks)

    async def _delete_once(self, tasks: Sequence[Task]) -> _Done:
        now = await self._store.now()
        free = [task for task in tasks if lifecycle.may_delete(task, now)]
        return _counted(free, await self._store.delete(free)).beside(tasks)

    async def _wake_for(self, due: Sequence[datetime]) -> None:
        if due:
            await self._wake(min(due))


class _Done(NamedTuple):
    """What became of some tasks."""

    changed: int
    again: list[str]
    """The ids of those that somebody else changed meanwhile: to be read again."""
    errors: list[OncetaskError]
    """Of those that cannot be written."""
    due: Sequence[datetime]
    """When somebody has to look at those that were changed."""

    def beside(self, tasks: Sequence[Task]) -> _Done:
        """Tell too of those among `tasks` that are not this version's to change."""
        return self._replace(errors=[*map(_foreign, filter(lifecycle.is_foreign, tasks)), *self.errors])


def _foreign(task: Task) -> Unsupported:
    return Unsupported(
        f"task {task.id!r} is of schema {task.schema}, this oncetask knows {SCHEMA}: use a newer oncetask for it"
    )


def _counted(tasks: Sequence[Task], written: Sequence[Written], due: Sequence[datetime] = ()) -> _Done:
    errors = [one.error for one in written if one.error is not None]
    again = [task.id for task, one in zip(tasks, written, strict=True) if not one.applied and one.error is None]
    return _Done(len(tasks) - len(again) - len(errors), again, errors, due)


def _raise_first(errors: Sequence[OncetaskError], changed: int) -> None:
    """Raise what keeps a task from being written, after the others."""
    if errors:
        errors[0].add_note(f"{changed} of the others were changed as asked; {len(errors)} cannot be written")
        raise errors[0]
