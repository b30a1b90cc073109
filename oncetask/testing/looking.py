"""What a test sees of its tasks: a list that can be narrowed down, and what is said where it is not as expected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar, overload

from oncetask.payload import Payload, kind_of
from oncetask.task import Outcome, Receipt, Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

__all__ = ["Tasks", "check_ended", "check_error", "check_number", "check_result", "check_waiting", "id_of", "told"]

P = TypeVar("P", bound=Payload)

_MOST_CHARACTERS = 200
_ENDED = {outcome: TaskStatus(f"done-{outcome}") for outcome in Outcome}


class Tasks(Sequence[Task]):
    """Tasks in the order in which they were enqueued, as they are at this moment."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        """Keep them."""
        self._tasks = tuple(tasks)

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> Tasks: ...
    def __getitem__(self, place: int | slice) -> Task | Tasks:
        """Give one of them, or some."""
        return Tasks(self._tasks[place]) if isinstance(place, slice) else self._tasks[place]

    def __len__(self) -> int:
        """Count them."""
        return len(self._tasks)

    def __repr__(self) -> str:
        """Tell what there is, a line for each."""
        return "\n".join(map(told, self._tasks)) or "(no tasks)"

    def of(self, kind: str | type[Payload]) -> Tasks:
        """Give those of a kind, by its name or its payload class."""
        name = kind_of(kind)
        return self._those(lambda task: task.kind == name)

    def with_status(self, *statuses: TaskStatus | str) -> Tasks:
        """Give those that stand there. Raises ValueError for what is no status."""
        wanted = {TaskStatus(status) for status in statuses}
        return self._those(lambda task: task.status in wanted)

    def with_key(self, resource_key: str) -> Tasks:
        """Give those of a resource key."""
        return self._those(lambda task: task.resource_key == resource_key)

    def spawned_by(self, generator: Task | Receipt | str) -> Tasks:
        """Give the occurrences of a recurrence, by its task, its receipt or its id."""
        parent = id_of(generator)
        return self._those(lambda task: task.parent_recurrence_id == parent)

    def one(self) -> Task:
        """Give the only one. Raises AssertionError where there is none, or more than one."""
        if len(self._tasks) != 1:
            msg = f"there should be one task, not {len(self._tasks)}:\n{self!r}"
            raise AssertionError(msg)
        return self._tasks[0]

    def payloads(self, model: type[P]) -> list[P]:
        """Read the payloads of those of this kind. Raises InvalidPayload where one does not fit."""
        return [task.payload(model) for task in self.of(model)]

    def _those(self, wanted: Callable[[Task], bool]) -> Tasks:
        return Tasks(filter(wanted, self._tasks))


def id_of(task: Task | Receipt | str) -> str:
    """Give the id of what stands for a task."""
    match task:
        case Task():
            return task.id
        case Receipt():
            return task.task_id
        case _:
            return task


def told(task: Task) -> str:
    """Tell what a task is, and how it stands, in a line; its errors below."""
    what = [f"{task.kind} {task.id}: {task.status}"]
    if task.attempts:
        what.append(f"attempts {task.attempts}")
    if task.cancel_attempts:
        what.append(f"attempts at its cleanup {task.cancel_attempts}")
    if task.resource_key is not None:
        what.append(f"key {task.resource_key}")
    if task.due_at is not None:
        what.append(f"next look {task.due_at.isoformat()}")
    if task.result is not None:
        what.append(f"result {_shortened(task.result)}")
    if task.data:
        what.append(f"data {_shortened(task.data)}")
    errors = [f"\n    attempt {error.attempt}: {error.type}: {error.message}" for error in task.errors]
    return ", ".join(what) + "".join(errors)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def check_ended(task: Task, outcome: Outcome) -> None:
    """Raise AssertionError where a task has not ended so."""
    if task.outcome != outcome:
        msg = f"task {task.id} should be {_ENDED[outcome]}, but it is not:\n{told(task)}"
        raise AssertionError(msg)


def check_result(task: Task, expected: object) -> None:
    """Raise AssertionError where a task has another result."""
    if task.result != expected:
        msg = f"task {task.id} should have the result {expected!r}, not {task.result!r}"
        raise AssertionError(msg)


def check_error(task: Task, match: str | None, error: type[BaseException] | None) -> None:
    """Raise AssertionError where a task's last error is another one. `match`: searched for, as pytest.raises does."""
    if match is None and error is None:
        return
    last = task.errors[-1] if task.errors else None
    named = error is None or (last is not None and last.type == error.__name__)
    matched = match is None or (last is not None and re.search(match, last.message) is not None)
    if not named or not matched:
        wanted = "one" if error is None else error.__name__
        wanted += "" if match is None else f" with a message like {match!r}"
        msg = f"the last error of task {task.id} should be {wanted}:\n{told(task)}"
        raise AssertionError(msg)


def check_waiting(task: Task, until: datetime | None) -> None:
    """Raise AssertionError where a task does not wait, or until another instant."""
    if task.status is not TaskStatus.WAITING or (until is not None and task.due_at != until):
        msg = f"task {task.id} should wait{'' if until is None else f' until {until.isoformat()}'}:\n{told(task)}"
        raise AssertionError(msg)


def check_number(tasks: Tasks, wanted: Payload | type[Payload], expected: int | None) -> None:
    """Raise AssertionError where of this payload or kind there are more, or fewer; None: where there are none.

    `tasks`: all that were enqueued.
    """
    kind = kind_of(wanted if isinstance(wanted, type) else type(wanted))
    of_kind = tasks.of(kind)
    found = of_kind if isinstance(wanted, type) else [task for task in of_kind if task.data == wanted.to_data()]
    if len(found) == expected or (expected is None and found):
        return
    number = {None: "at least one task", 1: "1 task"}.get(expected, f"{expected} tasks")
    what = f"of kind {kind!r}" if isinstance(wanted, type) else f"with {wanted!r}"
    msg = f"there should be {number} {what}, not {len(found)}; of this kind there are:\n{of_kind!r}"
    raise AssertionError(msg)
