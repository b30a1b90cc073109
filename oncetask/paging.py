"""Lists of tasks, page by page. A status is not stored, so some of what is read may not be what was asked for."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from typing import TYPE_CHECKING

from oncetask.payload import check_task_id
from oncetask.task import Outcome, Task, TaskPage, TaskStatus

if TYPE_CHECKING:
    from oncetask.store import TaskFilter, TaskStore

__all__ = ["LARGEST_PAGE", "find_page"]

LARGEST_PAGE = 1_000
_SEARCHED_AT_ONCE = 200


async def find_page(
    store: TaskStore, which: TaskFilter, *, status: TaskStatus | str | None, limit: int, cursor: str | None
) -> TaskPage:
    """Read a page of the tasks that a filter finds and that have this status, in the order of their ids."""
    if not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
        msg = f"limit must be a whole number from 1 to {LARGEST_PAGE}, not {limit!r}"
        raise ValueError(msg)
    wanted = None if status is None else _status(status)
    which = _narrowed(which, wanted)
    at_once = limit if wanted is None or wanted.is_done else max(limit, _SEARCHED_AT_ONCE)
    after, tasks = _from_cursor(cursor), list[Task]()
    while True:
        found = await store.find(which, limit=at_once, after=after)
        tasks += [task for task in found if wanted in {None, task.status}]
        if len(tasks) > limit:
            return TaskPage(tasks[:limit], _to_cursor(tasks[limit - 1].id))
        if len(found) < at_once:
            return TaskPage(tasks, None)
        after = found[-1].id
        if len(tasks) == limit:
            return TaskPage(tasks, _to_cursor(after))


def _status(status: TaskStatus | str) -> TaskStatus:
    try:
        return TaskStatus(status)
    except ValueError:
        msg = f"status must be one of {', '.join(TaskStatus)}, not {status!r}"
        raise ValueError(msg) from None


def _narrowed(which: TaskFilter, status: TaskStatus | None) -> TaskFilter:
    """Ask the store for as much of a status as equality filters can say; the rest is told by the time."""
    if status is None:
        return which
    if status.is_done:
        return replace(which, outcome=Outcome(status.removeprefix("done-")))
    return replace(which, done=False)


def _to_cursor(task_id: str) -> str:
    return base64.urlsafe_b64encode(task_id.encode()).decode()


def _from_cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        return check_task_id(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode())
    except (AttributeError, ValueError, binascii.Error):
        msg = f"cursor must be the one of an earlier page, not {cursor!r}"
        raise ValueError(msg) from None
