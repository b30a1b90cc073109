"""`oncetask pause` and `oncetask resume`: one answer for each id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from oncetask.cli.answers import change_each, named, report
from oncetask.cli.exits import BadInput
from oncetask.cli.options import Env, Json, Store
from oncetask.cli.output import Output
from oncetask.cli.session import with_client
from oncetask.lifecycle import is_paused
from oncetask.payload import sort_out_ids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from oncetask.cli.answers import Answers
    from oncetask.client import Client
    from oncetask.task import Task

__all__ = ["pause", "resume"]

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The ids of the schedules.", show_default=False)]


def pause(*, ids: Ids, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Pause schedules: they start nothing until they are resumed.

    What they started before runs on. Exit 1 if one of them was not found, is
    done, cancelled, or paused already, 2 if one is no schedule; the others are
    paused all the same.

    With --json: {"paused": [ID...], "notPaused": [ID...], "notFound": [ID...]}.

    [bold]Example:[/bold] oncetask pause shop:nightly-report
    """
    _change(Output(as_json=json_), ids, store, env, lambda client: client.pause_schedule, done="paused")


def resume(*, ids: Ids, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Let paused schedules go on from now; what they missed is not caught up with.

    Exit 1 if one of them was not found, or is not paused, 2 if one is no
    schedule; the others are resumed all the same.

    With --json: {"resumed": [ID...], "notResumed": [ID...], "notFound": [ID...]}.

    [bold]Example:[/bold] oncetask resume shop:nightly-report
    """
    _change(Output(as_json=json_), ids, store, env, lambda client: client.resume_schedule, done="resumed")


def _change(
    output: Output,
    ids: list[str],
    store: str | None,
    env: str | None,
    method: Callable[[Client], Callable[[str], Awaitable[bool]]],
    *,
    done: str,
) -> None:
    fit, unfit = sort_out_ids(ids)
    if not fit:
        raise BadInput("; ".join(unfit))
    others: dict[str, str] = {}

    async def work(client: Client) -> tuple[Answers, list[Task]]:
        async def one(task_id: str) -> bool:
            try:
                return await method(client)(task_id)
            except ValueError as error:  # it is no schedule
                others[task_id] = str(error)
                return False

        answers = await change_each(fit, one)
        return answers, await client.get_tasks_by_ids(task_id for task_id in answers.refused if task_id not in others)

    answers, refused = with_client(store, env, work)
    report(
        output,
        answers,
        done=done,
        refused=f"not{done.capitalize()}",
        reasons=named(f"not {done}", [f"{task.id} ({_why(task)})" for task in refused]),
        unfit=[*unfit, *others.values()],
        what="schedule",
    )


def _why(task: Task) -> str:
    """Say how a schedule stands that was not changed."""
    if task.outcome is not None:
        return task.status
    return "cancelled" if task.is_cancelled else "paused already" if is_paused(task) else "not paused"
