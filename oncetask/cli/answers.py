"""Changing tasks by their ids: an answer for each, and how the answers are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncetask.cli.exits import BadInput, NotDone
from oncetask.cli.records import how_many
from oncetask.errors import TaskNotFound
from oncetask.payload import check_task_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from oncetask.cli.output import Output

__all__ = ["Answers", "change_each", "checked", "named", "report"]

_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of each id."""

    changed: list[str]
    refused: list[str]
    missing: list[str]


def checked(ids: Iterable[str]) -> list[str]:
    """Give the ids, each once. Raises ValueError for what cannot be one."""
    return list(dict.fromkeys(map(check_task_id, ids)))


async def change_each(ids: Sequence[str], change: Callable[[str], Awaitable[bool]]) -> Answers:
    """Change every task by itself, many at a time, which the store groups."""

    async def one(task_id: str) -> bool | None:
        try:
            return await change(task_id)
        except TaskNotFound:
            return None

    answers: dict[str, bool | None] = {}
    for start in range(0, len(ids), _AT_ONCE):
        chunk = ids[start : start + _AT_ONCE]
        answers |= zip(chunk, await asyncio.gather(*map(one, chunk)), strict=True)
    changed, refused, missing = ([i for i, a in answers.items() if a is answer] for answer in (True, False, None))
    return Answers(changed, refused, missing)


def named(text: str, ids: Sequence[str]) -> list[str]:
    """Give what is to be said of these ids: nothing where there is none."""
    return [f"{text}: {', '.join(ids)}"] if ids else []


def report(
    output: Output,
    answers: Answers,
    *,
    done: str,
    refused: str,
    reasons: Sequence[str],
    unfit: Sequence[str] = (),
    what: str = "task",
) -> None:
    """Tell what became of each id.

    `done`, `refused`: what the two answers are called in JSON, and the first in texts; `reasons`: why tasks were
    refused; `unfit`: what is wrong with ids that cannot be meant; `what`: what is changed. Raises BadInput for the
    unfit, else NotDone where not everything was changed.
    """
    if output.as_json:
        output.document({done: answers.changed, refused: answers.refused, "notFound": answers.missing})
    else:
        output.text(f"{done} {how_many(len(answers.changed), what)}")
    problems = [*unfit, *named("not found", answers.missing), *reasons]
    if unfit:
        number = len(answers.changed)
        others = "1 other was" if number == 1 else f"{number} others were"
        raise BadInput("; ".join([*problems, *([f"{others} {done} all the same"] if number else [])]))
    if problems:
        raise NotDone("; ".join(problems))
