"""`oncetask reset` and `oncetask delete`: one answer for each id."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import typer

from oncetask.cli.exits import BadInput, NotDone
from oncetask.cli.options import Env, Ids, Json, Store, Yes
from oncetask.cli.output import Output
from oncetask.cli.session import with_client
from oncetask.errors import TaskNotFound
from oncetask.payload import check_task_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


__all__ = ["delete", "reset"]

_AT_ONCE = 100


def reset(*, ids: Ids, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Run done tasks again, from the first attempt.

    Exit 1 if one of them was not found, or is not done; the others are reset
    all the same.

    With --json: {"reset": [ID...], "notDone": [ID...], "notFound": [ID...]}.

    [bold]Example:[/bold] oncetask reset send-email:42 send-email:43
    """
    output = Output(as_json=json_)
    answers = with_client(store, env, lambda client: _each(ids, client.reset_task))
    _report(output, answers, done="reset", refused="notDone", because="not done, so they were not reset")


def delete(*, ids: Ids, yes: Yes = False, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Delete tasks for good.

    Asks before, unless --yes is given. Exit 1 if one of them was not found, or
    is running; the others are deleted all the same.

    With --json: {"deleted": [ID...], "running": [ID...], "notFound": [ID...]}.

    [bold]Example:[/bold] oncetask delete send-email:42 --yes
    """
    output = Output(as_json=json_)
    unique = _checked(ids)
    if not yes:
        if json_ or not has_somebody_to_ask():
            raise BadInput("delete asks before it deletes, and nobody is here to answer: give --yes")
        if not typer.confirm(f"Delete {_tasks(len(unique))} for good?", err=True):
            raise NotDone("nothing was deleted")
    answers = with_client(store, env, lambda client: _each(unique, client.delete_task))
    _report(output, answers, done="deleted", refused="running", because="running, so they were not deleted")


def has_somebody_to_ask() -> bool:
    """Tell whether a person can answer."""
    return sys.stdin.isatty()


def _checked(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(check_task_id(task_id) for task_id in ids))


async def _each(ids: list[str], change: Callable[[str], Awaitable[bool]]) -> dict[str, bool | None]:
    """Change every task by itself, many at a time, which the store groups; None: there is no such task."""

    async def one(task_id: str) -> bool | None:
        try:
            return await change(task_id)
        except TaskNotFound:
            return None

    answers: dict[str, bool | None] = {}
    unique = _checked(ids)
    for start in range(0, len(unique), _AT_ONCE):
        chunk = unique[start : start + _AT_ONCE]
        answers |= zip(chunk, await asyncio.gather(*map(one, chunk)), strict=True)
    return answers


def _report(output: Output, answers: dict[str, bool | None], *, done: str, refused: str, because: str) -> None:
    by_answer = {answer: [i for i, a in answers.items() if a is answer] for answer in (True, False, None)}
    if output.as_json:
        output.document({done: by_answer[True], refused: by_answer[False], "notFound": by_answer[None]})
    else:
        output.text(f"{done} {_tasks(len(by_answer[True]))}")
    problems = [f"not found: {', '.join(by_answer[None])}"] if by_answer[None] else []
    problems += [f"{because}: {', '.join(by_answer[False])}"] if by_answer[False] else []
    if problems:
        raise NotDone("; ".join(problems))


def _tasks(number: int) -> str:
    return "1 task" if number == 1 else f"{number} tasks"
