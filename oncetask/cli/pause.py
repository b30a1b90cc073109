"""`oncetask pause` and `oncetask resume`: one answer for each schedule, or each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from oncetask.cli.answers import Answers, change_each, named, report
from oncetask.cli.exits import BadInput
from oncetask.cli.options import Env, Json, Store
from oncetask.cli.output import Output
from oncetask.cli.records import how_many
from oncetask.cli.session import with_client
from oncetask.lifecycle import is_paused
from oncetask.payload import check_kind, sort_out_ids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from oncetask.client import Client
    from oncetask.task import Task

__all__ = ["pause", "resume"]

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of the schedules.", show_default=False)]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="A kind of tasks, in place of schedules; may be given several times."),
]


def pause(*, ids: Ids = None, kind: Kinds = None, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Pause schedules, which then start nothing, or kinds, whose tasks then wait, until they are resumed.

    What runs already goes on. Tasks of a paused kind can be enqueued and
    cancelled; no worker and no tick claims them from two seconds later on.

    Exit 1 if one of them was not found, is done, cancelled, or paused already,
    2 if one is no schedule; the others are paused all the same.

    With --json: {"paused": [...], "notPaused": [...], "notFound": [...]}, of ids
    or of kinds.

    [bold]Example:[/bold] oncetask pause shop:nightly-report

    [bold]A kind:[/bold] oncetask pause --kind send-email
    """
    output = Output(as_json=json_)
    if _means_kinds(ids, kind):
        _change_kinds(output, kind or [], store, env, lambda client: client.pause_kind, done="paused")
    else:
        _change(output, ids or [], store, env, lambda client: client.pause_schedule, done="paused")


def resume(*, ids: Ids = None, kind: Kinds = None, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Let paused schedules go on from now, without what they missed, or let tasks of paused kinds run again.

    Exit 1 if one of them was not found, or is not paused, 2 if one is no
    schedule; the others are resumed all the same.

    With --json: {"resumed": [...], "notResumed": [...], "notFound": [...]}, of
    ids or of kinds.

    [bold]Example:[/bold] oncetask resume shop:nightly-report

    [bold]A kind:[/bold] oncetask resume --kind send-email
    """
    output = Output(as_json=json_)
    if _means_kinds(ids, kind):
        _change_kinds(output, kind or [], store, env, lambda client: client.resume_kind, done="resumed")
    else:
        _change(output, ids or [], store, env, lambda client: client.resume_schedule, done="resumed")


def _means_kinds(ids: list[str] | None, kinds: list[str] | None) -> bool:
    if ids and kinds:
        msg = "give the ids of schedules, or --kind, not both"
        raise BadInput(msg)
    if not ids and not kinds:
        msg = "give the ids of schedules, or --kind with a kind of tasks"
        raise BadInput(msg)
    return bool(kinds)


def _change_kinds(
    output: Output,
    kinds: list[str],
    store: str | None,
    env: str | None,
    method: Callable[[Client], Callable[[str], Awaitable[bool]]],
    *,
    done: str,
) -> None:
    """Change kinds one after the other, since all stand in one record."""
    kinds = list(dict.fromkeys(map(check_kind, kinds)))

    async def work(client: Client) -> tuple[Answers, dict[str, int]]:
        changed = {kind: await method(client)(kind) for kind in kinds}
        waiting = {kind: await client.pending_count(kind) for kind in kinds}
        return Answers([k for k in kinds if changed[k]], [k for k in kinds if not changed[k]], []), waiting

    answers, waiting = with_client(store, env, work)
    for kind in [] if output.as_json else answers.changed:
        output.note(f"{kind}: {how_many(waiting[kind], 'open task')}")
    why = "paused already" if done == "paused" else "not paused"
    reasons = named(f"not {done}", [f"{kind} ({why})" for kind in answers.refused])
    report(output, answers, done=done, refused=f"not{done.capitalize()}", reasons=reasons, what="kind")


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
