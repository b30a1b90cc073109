"""The documents of an environment, as Firestore would hold them; every method is one moment, and waits for nothing.

Documents are kept in their stored form, so that what a test puts there by hand is read as it is elsewhere.
"""

from __future__ import annotations

import bisect
import json
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from oncetask.clock import EPOCH, to_micros
from oncetask.store import Settings, Written
from oncetask.store.document import UNFIT, decode
from oncetask.store.memory.forms import (
    changed_fields,
    copy_of,
    fits,
    impossible,
    lock_fields,
    lock_of,
    new_fields,
    place_of,
)
from oncetask.task import Task, TaskStatus, place_in_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from oncetask.lifecycle import Transition
    from oncetask.lock import Lock, LockChange
    from oncetask.store import Cursor, TaskFilter

__all__ = ["Documents", "Edit", "Memory"]


@dataclass(frozen=True, slots=True)
class Edit:
    """One document before and after a write; None: it is not there."""

    name: str
    """`tasks/ID`, `locks/KEY` or `settings`."""
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(slots=True)
class _Document:
    fields: dict[str, Any]
    task: Task


class Memory:
    """The environments of one place."""

    def __init__(self, present: Callable[[], datetime]) -> None:
        """`present`: gives the time that is true here, of which versions are made."""
        self.present = present
        self._environments: dict[str, Documents] = {}

    def documents(self, env: str) -> Documents:
        """Give the documents of an environment."""
        return self._environments.setdefault(env, Documents(self.present))


class Documents:
    """Tasks, locks and settings with versions; a write is applied as a whole, or refused as a whole."""

    def __init__(self, present: Callable[[], datetime]) -> None:
        """`present`: as for `Memory`."""
        self.present = present
        self.listeners: list[Callable[[Sequence[Edit]], object]] = []
        """Are told of every write that was applied, in order."""
        self._tasks: dict[str, _Document] = {}
        self._locks: dict[str, tuple[dict[str, Any], int]] = {}
        self._settings = Settings({}, 0)
        self._lines: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
        self._keys: defaultdict[str, set[str]] = defaultdict(set)
        self._version = 0

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, task_ids: Iterable[str]) -> list[Task | None]:
        """Read tasks by id."""
        read_at = self.present()
        return [None if (stored := self._tasks.get(i)) is None else copy_of(stored.task, read_at) for i in task_ids]

    def due(
        self,
        kinds: Collection[str],
        *,
        now: datetime | None,
        limit: int,
        after: Cursor | None = None,
        generators: bool = False,
        without: Collection[str] = (),
    ) -> list[Task]:
        """Read the due line; no `now`: all of it, due or not."""
        start = None if after is None else (after.due_at, after.task_id)
        places: list[tuple[datetime, str]] = []
        for kind in set(kinds):
            line = self._lines.get(kind, [])
            first = 0 if start is None else bisect.bisect_right(line, start)
            taken = 0
            for index in range(first, len(line)):
                place = line[index]
                if (now is not None and place[0] > now) or taken == limit:
                    break
                if self._is_wanted(place[1], generators=generators, without=without):
                    places.append(place)
                    taken += 1
        places.sort()
        return self._copies(task_id for _, task_id in places[:limit])

    def line(self, resource_keys: Collection[str], *, now: datetime, limit: int, after: Task | None) -> list[Task]:
        """Read the line of some keys."""
        start = None if after is None else place_in_line(after)
        found: list[tuple[tuple[datetime, datetime, str], str]] = []
        for task_id in sorted({task_id for key in resource_keys for task_id in self._keys.get(key, ())}):
            fields, task = self._tasks[task_id].fields, self._tasks[task_id].task
            sound = isinstance(fields.get("waitUntil"), datetime) and isinstance(fields.get("createdAt"), datetime)
            if sound and fields.get("outcome") is None and task.wait_until <= now:
                place = place_in_line(task)
                if start is None or place > start:
                    found.append((place, task_id))
        found.sort()
        return self._copies(task_id for _, task_id in found[:limit])

    def locks(self, resource_keys: Iterable[str]) -> list[Lock | None]:
        """Read locks by key."""
        return [None if (stored := self._locks.get(key)) is None else lock_of(key, *stored) for key in resource_keys]

    def find(self, which: TaskFilter, *, limit: int, after: str | None) -> list[Task]:
        """Read tasks in the order of ids."""
        found = sorted(
            i for i, stored in self._tasks.items() if (after is None or i > after) and fits(which, stored.fields)
        )
        return self._copies(found[:limit])

    def count(self, which: TaskFilter) -> int:
        """Count tasks, generators left out."""
        return sum(
            fits(which, stored.fields) for stored in self._tasks.values() if stored.fields.get("recurrence") is None
        )

    def stats(self) -> dict[str, dict[TaskStatus, int]]:
        """Count by kind and status."""
        now, counts = self.present(), dict[str, dict[TaskStatus, int]]()
        for stored in self._tasks.values():
            by = counts.setdefault(str(stored.fields.get("kind")), {})
            status = stored.task.status_at(now)
            by[status] = by.get(status, 0) + 1
        return counts

    def settings(self) -> Settings:
        """Read the settings."""
        return Settings(deepcopy(dict(self._settings.fields)), self._settings.version)

    # -- writing ------------------------------------------------------------------------------------------------------

    def create(self, task: Task) -> Written:
        """Store a new task, unless its id exists."""
        found = self._tasks.get(task.id)
        if found is not None:
            own = task.create_id is not None and found.fields.get("createId") == task.create_id
            return Written(found.task.version) if own else Written()
        try:
            fields = new_fields(task)
        except UNFIT as error:
            return impossible(error)
        version = self._next_version()
        self._tell([self._put(task.id, fields, version)])
        return Written(version)

    def write(
        self,
        transitions: Sequence[Transition],
        creates: Sequence[Task] = (),
        locks: Sequence[LockChange] = (),
    ) -> list[Written]:
        """Apply all of these together, or none; a new task whose id exists is left out."""
        number = len(transitions) + len(locks)
        if not all(map(self._is_newest, transitions)) or not all(map(self._is_as_it_was, locks)):
            return [Written()] * number
        try:
            changed = [self._changed(transition) for transition in transitions]
            made = [(task.id, new_fields(task)) for task in creates if task.id not in self._tasks]
            held = [
                (change.resource_key, None if change.after is None else lock_fields(change.after)) for change in locks
            ]
        except UNFIT as error:
            return [impossible(error)] * number
        version = self._next_version()
        edits = [self._put(task_id, fields, version) for task_id, fields in (*changed, *made)]
        edits += [self._put_lock(key, fields, version) for key, fields in held]
        self._tell(edits)
        return [Written(version)] * number

    def delete(self, task: Task) -> Written:
        """Delete a task, if this is its newest record."""
        stored = self._tasks.get(task.id)
        if stored is None or stored.task.version != task.version:
            return Written()
        version = self._next_version()
        self._tell([self._remove(task.id)])
        return Written(version)

    def write_settings(self, before: Settings, changes: Mapping[str, Any]) -> Written:
        """Change the settings, if these are the newest."""
        if before.version != self._settings.version:
            return Written()
        try:
            fields = json.loads(json.dumps({**before.fields, **changes}))
        except UNFIT as error:
            return impossible(error)
        version, former = self._next_version(), self._settings
        self._settings = Settings(fields, version)
        self._tell([Edit("settings", former.fields if former.version else None, fields)])
        return Written(version)

    # -- as somebody would who has no oncetask ------------------------------------------------------------------------

    def put(self, task_id: str, fields: Mapping[str, Any]) -> None:
        """Store these fields as a task's document, whatever they hold."""
        self._tell([self._put(task_id, deepcopy(dict(fields)), self._next_version())])

    def put_lock(self, resource_key: str, fields: Mapping[str, Any]) -> None:
        """Store these fields as the lock of a resource key, whatever they hold."""
        self._tell([self._put_lock(resource_key, dict(fields), self._next_version())])

    def fields(self, task_id: str) -> dict[str, Any] | None:
        """Give a task's document as it is stored."""
        stored = self._tasks.get(task_id)
        return None if stored is None else deepcopy(stored.fields)

    def everything(self) -> list[Task]:
        """Give all tasks, in the order in which they were first stored."""
        return self._copies(self._tasks)

    # -- within -------------------------------------------------------------------------------------------------------

    def _copies(self, task_ids: Iterable[str]) -> list[Task]:
        read_at = self.present()
        return [copy_of(self._tasks[task_id].task, read_at) for task_id in task_ids]

    def _is_wanted(self, task_id: str, *, generators: bool, without: Collection[str]) -> bool:
        fields = self._tasks[task_id].fields
        is_generator = fields.get("recurrence") is not None
        if generators:
            return is_generator
        return is_generator or not without or fields.get("resourceKey") not in without

    def _is_newest(self, transition: Transition) -> bool:
        stored = self._tasks.get(transition.before.id)
        return stored is not None and stored.task.version == transition.before.version

    def _is_as_it_was(self, change: LockChange) -> bool:
        stored = self._locks.get(change.resource_key)
        return (0 if stored is None else stored[1]) == (0 if change.before is None else change.before.version)

    def _changed(self, transition: Transition) -> tuple[str, dict[str, Any]]:
        task_id = transition.before.id
        return task_id, changed_fields(self._tasks[task_id].fields, transition.changes)

    def _put(self, task_id: str, fields: dict[str, Any], version: int) -> Edit:
        before = self._tasks.get(task_id)
        if before is not None:
            self._leave_lines(task_id, before.fields)
        self._tasks[task_id] = _Document(fields, decode(task_id, fields, version=version, read_at=EPOCH))
        if (place := place_of(task_id, fields)) is not None:
            bisect.insort(self._lines[str(fields["kind"])], place)
        if isinstance(key := fields.get("resourceKey"), str):
            self._keys[key].add(task_id)
        return Edit(f"tasks/{task_id}", None if before is None else before.fields, fields)

    def _remove(self, task_id: str) -> Edit:
        before = self._tasks.pop(task_id).fields
        self._leave_lines(task_id, before)
        return Edit(f"tasks/{task_id}", before, None)

    def _leave_lines(self, task_id: str, fields: Mapping[str, Any]) -> None:
        if (place := place_of(task_id, fields)) is not None:
            line = self._lines[str(fields["kind"])]
            del line[bisect.bisect_left(line, place)]
        if isinstance(key := fields.get("resourceKey"), str):
            self._keys[key].discard(task_id)
            if not self._keys[key]:
                del self._keys[key]

    def _put_lock(self, key: str, fields: dict[str, Any] | None, version: int) -> Edit:
        before = self._locks.pop(key, None)
        if fields is not None:
            self._locks[key] = (fields, version)
        return Edit(f"locks/{key}", None if before is None else before[0], fields)

    def _next_version(self) -> int:
        self._version = max(self._version + 1, to_micros(self.present()))
        return self._version

    def _tell(self, edits: Sequence[Edit]) -> None:
        for listener in tuple(self.listeners):
            listener(edits)
