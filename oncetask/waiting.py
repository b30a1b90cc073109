"""What was read ahead of the due line: which of it is claimed next.

Kinds get slots in their shares. Of a resource key only one task is offered at a time, since whoever takes the key reads
its line anyway; and none while the key is known to be busy.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import datetime  # part of a record
from typing import TYPE_CHECKING

from oncetask.lifecycle import is_generator
from oncetask.shares import Shares
from oncetask.turns import needs_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from oncetask.clock import Now
    from oncetask.handlers import Handler
    from oncetask.slots import Room
    from oncetask.task import Task

__all__ = ["Picked", "Waiting"]

_MOST_REMEMBERED = 10_000
_CROWD = 10
_LARGEST_CROWD = 1_000
_MOST_CROWDS = 100
_ANY = 2**31


@dataclass(frozen=True, slots=True)
class Picked:
    """What is claimed now."""

    plain: list[Task]
    """Claimed, or whatever else they need, by themselves."""
    keyed: list[Task]
    """Each stands for its resource key, which has to be taken first, and counts as held from now on."""

    def __bool__(self) -> bool:
        return bool(self.plain or self.keyed)


@dataclass(slots=True)
class _Key:
    """A resource key that is not simply free: a task of it is offered, or this worker has it, or it is closed."""

    task: Task | None = None
    """One that waits for it."""
    is_held: bool = False
    """This worker runs its tasks."""
    closed_until: float = 0.0
    """When to look at it again, in loop time; 0: it is not closed."""

    @property
    def is_busy(self) -> bool:
        return self.is_held or self.closed_until > 0


class Waiting:
    """Candidates for claims: each version of a task once, of each resource key one."""

    def __init__(self, handlers: Mapping[str, Handler], *, time: Callable[[], float], now: Callable[[], Now]) -> None:
        """`time`: the loop's; `now`: the store's."""
        self._handlers = handlers
        self._time = time
        self._now = now
        self._shares = Shares({kind: handler.priority for kind, handler in handlers.items()})
        self._lines: dict[str, deque[Task]] = {kind: deque() for kind in handlers}
        self._keys: dict[str, _Key] = {}
        self._closed: list[tuple[float, str]] = []
        self._late: list[tuple[datetime, str]] = []
        self._ends: dict[str, Task] = {}
        self._passed: dict[str, set[str]] = {}
        self._seen: OrderedDict[str, int] = OrderedDict()

    def __bool__(self) -> bool:
        return any(self._lines.values())

    @property
    def number(self) -> int:
        """How many tasks are there."""
        return sum(map(len, self._lines.values()))

    # -- what is found ------------------------------------------------------------------------------------------------

    def add(self, tasks: Iterable[Task], *, first: bool = False) -> list[Task]:
        """Take in what is due, in its order; `first`: before what is there. Gives what waits for a busy key."""
        new: dict[str, list[Task]] = {}
        passed: list[Task] = []
        for task in tasks:
            if not self.is_unseen(task):
                continue
            if self._needs_key(task) and not self._offers(task):
                passed.append(task)
                continue
            new.setdefault(task.kind, []).append(task)
        for kind, found in new.items():
            self._lines[kind].extendleft(reversed(found)) if first else self._lines[kind].extend(found)
        return passed

    def clear(self) -> None:
        """Forget what is there for its own sake: it will be found again. What stands for a key may not be."""
        for kind, line in self._lines.items():
            self._lines[kind] = deque(task for task in line if self._stands_for(task) is not None)

    def is_out_of(self, kind: str) -> bool:
        """Tell whether nothing of a kind is there."""
        return not self._lines[kind]

    def scatter(self) -> None:
        """Go on at another place: other workers are at this one."""
        for line in self._lines.values():
            if line:
                line.rotate(-random.randrange(len(line)))  # noqa: S311  # spreading, not hiding

    def note(self, task_id: str, version: int) -> None:
        """Remember that this worker wrote `version`, so that an older record, read before, is known as old."""
        self._remember(task_id, version - 1)

    def forget(self, tasks: Iterable[Task]) -> None:
        """Take back candidates that nothing became of."""
        for task in tasks:
            self._seen.pop(task.id, None)

    def is_unseen(self, task: Task) -> bool:
        """Tell whether this version of a task was neither given nor written."""
        return self._seen.get(task.id, -1) < task.version

    def is_news(self, task: Task) -> bool:
        """Tell whether a task was not given so far, and does not wait for a key that is busy."""
        key = None if task.resource_key is None else self._keys.get(task.resource_key)
        return self.is_unseen(task) and (key is None or not key.is_busy or not self._needs_key(task))

    # -- resource keys ------------------------------------------------------------------------------------------------

    def newest_of(self, resource_key: str) -> Task | None:
        """Give the newest task of a key that was found since this worker took it; None: there was none."""
        key = self._keys.get(resource_key)
        return None if key is None else key.task

    def free(self, resource_key: str, task: Task | None = None) -> None:
        """Offer a key again, behind the others, where something waits for it: `task`, or what was found meanwhile."""
        self._passed.pop(resource_key, None)
        self._offer_again(resource_key, task)

    def _offer_again(self, resource_key: str, task: Task | None) -> None:
        key = self._keys.pop(resource_key, None)
        found = key.task if key is not None and key.task is not None and self.is_unseen(key.task) else None
        waiting = task or found
        if waiting is not None:
            self._keys[resource_key] = _Key(waiting)
            self._lines[waiting.kind].append(waiting)

    def close(self, resource_key: str, task: Task, seconds: float) -> None:
        """Look past a key for some time, then offer `task` of it again."""
        until = self._time() + seconds
        self._keys[resource_key] = _Key(task, closed_until=until)
        heapq.heappush(self._closed, (until, resource_key))
        while len(self._closed) > _MOST_REMEMBERED:
            self._open_next()

    def busy_keys(self) -> list[str]:
        """Give the keys for which more waits than the one task that stands for them, the largest crowds first."""
        return heapq.nlargest(_MOST_CROWDS, self._passed, key=lambda key: len(self._passed[key]))

    def crowds(self) -> list[str]:
        """Give those of them for which so many wait that they are better not read again."""
        return [key for key in self.busy_keys() if self.is_crowd(key)]

    def is_crowd(self, resource_key: str) -> bool:
        """Tell whether so many wait for a key."""
        return len(self._passed.get(resource_key, ())) >= _CROWD

    def opens_in(self) -> float | None:
        """Give the seconds until a closed key is looked at again, or a task behind one is too late; None: never."""
        while self._closed and not self._still_closed(*self._closed[0]):
            heapq.heappop(self._closed)
        waits = [self._closed[0][0] - self._time()] if self._closed else []
        waits += [(self._late[0][0] - self._now().latest).total_seconds()] if self._late else []
        return max(0.0, min(waits)) if waits else None

    # -- what is next -------------------------------------------------------------------------------------------------

    @property
    def has_keys(self) -> bool:
        """Tell whether a task is offered that stands for its key."""
        return any(self._stands_for(task) for line in self._lines.values() for task in line)

    def pick(self, left: Room, *, keys: int = _ANY) -> Picked:
        """Give what there is room for, and take it out: by kinds in their shares, of each kind in its order.

        `keys`: at most so many that stand for their key; where one more would be next of its kind, that kind waits.
        """
        while self._closed and self._closed[0][0] <= self._time():
            self._open_next()
        while self._late and self._late[0][0] <= self._now().latest:
            self.add([self._ends.pop(heapq.heappop(self._late)[1])])
        picked = Picked([], [])
        kinds = [kind for kind, line in self._lines.items() if line]
        while able := [kind for kind in kinds if self._has_candidate(kind, left, keys - len(picked.keyed))]:
            kind = self._shares.first(able)
            task = self._lines[kind].popleft()
            if not is_generator(task):  # takes no slot
                left.take(kind)
                self._shares.took(kind)
            key = self._stands_for(task)
            if key is not None and self._needs_key(task):
                key.task, key.is_held = None, True
                picked.keyed.append(task)
                continue
            self._withdraw(task)  # by now it may be cancelled, or too late: then it needs no key
            if self.is_unseen(task):
                self._remember(task.id, task.version)
                picked.plain.append(task)
        return picked

    def _has_candidate(self, kind: str, left: Room, keys: int) -> bool:
        """Tell whether the first of a kind may be picked, after dropping what is known to be old."""
        line = self._lines[kind]
        while line and not self.is_unseen(line[0]) and self._stands_for(line[0]) is None:
            line.popleft()
        return bool(line) and left.has(kind) and (keys > 0 or self._stands_for(line[0]) is None)

    def _offers(self, task: Task) -> bool:
        """Take in a task that needs its key; False: it is not offered, since another one is, or the key is busy."""
        resource_key = task.resource_key or ""
        key = self._keys.get(resource_key)
        if key is None:
            self._keys[resource_key] = _Key(task)
            return True
        if key.is_busy and (key.task is None or key.task.version < task.version):
            key.task = task
        self._remember_deadline(task)
        crowd = self._passed.setdefault(resource_key, set())
        if len(crowd) < _LARGEST_CROWD:
            crowd.add(task.id)
        return False

    def _remember_deadline(self, task: Task) -> None:
        """See to it that a task that waits for its key ends at its deadline, even if it is not found again."""
        deadline = self._handlers[task.kind].deadline_of(task)
        if deadline is not None and task.id not in self._ends and len(self._ends) < _MOST_REMEMBERED:
            self._ends[task.id] = task
            heapq.heappush(self._late, (deadline, task.id))

    def _stands_for(self, task: Task) -> _Key | None:
        """Give the key for which a task is offered; None: it is there for its own sake."""
        key = None if task.resource_key is None else self._keys.get(task.resource_key)
        return key if key is not None and not key.is_busy and key.task is task else None

    def _needs_key(self, task: Task) -> bool:
        return task.resource_key is not None and needs_key(task, self._handlers[task.kind], self._now())

    def _withdraw(self, task: Task) -> None:
        """Stop offering a task: if it stood for its key, the next one that is found will."""
        if self._stands_for(task) is not None and task.resource_key is not None:
            del self._keys[task.resource_key]
            self._passed.pop(task.resource_key, None)  # so that it is looked for

    def _open_next(self) -> None:
        """Offer the task of the key that was closed first."""
        until, name = heapq.heappop(self._closed)
        if self._still_closed(until, name):
            self._offer_again(name, self._keys[name].task)  # one that is old by now stands for others

    def _still_closed(self, until: float, resource_key: str) -> bool:
        key = self._keys.get(resource_key)
        return key is not None and key.closed_until == until

    def _remember(self, task_id: str, version: int) -> None:
        self._seen[task_id] = max(version, self._seen.pop(task_id, 0))
        if len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)
