"""Writing tasks anew through the codec as it is now: after a key was rotated, or once there is a codec at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncetask.codec import SealedMap
from oncetask.errors import OncetaskError
from oncetask.lifecycle import rewrite
from oncetask.store import TaskFilter
from oncetask.store.coding.tasks import coded_fields
from oncetask.task import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncetask.store import TaskStore
    from oncetask.task import Task

__all__ = ["recode_all"]

_PAGE = 100


async def recode_all(store: TaskStore) -> int:
    """Write what is coded of every task that can be read; counts them. Raises the first error after all others.

    What a task says is the same before and after, so this follows from any state, and no state follows from it.
    """
    number, after, is_last, errors = 0, None, False, list[OncetaskError]()
    while not is_last:
        found = await store.find(TaskFilter(), limit=_PAGE, after=after)
        is_last, after = len(found) < _PAGE, found[-1].id if found else None
        left: Sequence[Task] = found
        while left:
            steps = [rewrite(task, coded_fields(task)) for task in left if _is_readable(task)]
            written = await store.apply(steps)
            number += sum(one.applied for one in written)
            errors += [one.error for one in written if one.error is not None]
            refused = [
                step.before.id
                for step, one in zip(steps, written, strict=True)
                if not one.applied and one.error is None
            ]
            left = [task for task in await store.get(refused) if task is not None]
    if errors:
        errors[0].add_note(f"{number} tasks were written; {len(errors)} cannot be")
        raise errors[0]
    return number


def _is_readable(task: Task) -> bool:
    """Tell whether writing a task keeps all that it holds."""
    return task.schema <= SCHEMA and not task.problems and not isinstance(task.data, SealedMap)
