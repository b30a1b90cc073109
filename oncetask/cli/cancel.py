"""`oncetask cancel`: tasks by their ids, all of a resource key, or all of a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from oncetask.cli.answers import change_each, named, report
from oncetask.cli.consent import ask
from oncetask.cli.exits import BadInput
from oncetask.cli.options import Env, Json, Store, Yes
from oncetask.cli.output import Output
from oncetask.cli.records import how_many
from oncetask.cli.session import place, with_client
from oncetask.payload import check_kind, check_resource_key, sort_out_ids
from oncetask.store import TaskFilter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from oncetask.cli.answers import Answers
    from oncetask.client import Client
    from oncetask.task import Task

__all__ = ["cancel"]

_MOST_SCHEDULES = 1_000
_WAYS = (["ids"], ["--resource-key"], ["--kind", "--resource-key"], ["--all-of-kind"])


def cancel(
    *,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="The ids of the tasks.", show_default=False)
    ] = None,
    resource_key: Annotated[
        str | None,
        typer.Option("--resource-key", metavar="KEY", help="Instead of ids: all tasks of this resource key."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="With --resource-key: only of this kind.")
    ] = None,
    all_of_kind: Annotated[
        str | None, typer.Option("--all-of-kind", metavar="KIND", help="Instead of ids: all tasks of this kind.")
    ] = None,
    yes: Yes = False,
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """Cancel tasks that are not done: a running handler is told to stop.

    With ids: exit 1 if one of them was not found, is done, or was cancelled
    before, 2 if one cannot be an id; the others are cancelled all the same.
    --all-of-kind asks before, unless --yes is given.

    With --json: {"cancelled": n}, and with ids
    {"cancelled": [ID...], "notCancelled": [ID...], "notFound": [ID...]}.

    [bold]Example:[/bold] oncetask cancel send-email:42 send-email:43

    [bold]All of a key:[/bold] oncetask cancel --kind send-email --resource-key ada
    """
    _check_way(ids, kind, resource_key, all_of_kind)
    output = Output(as_json=json_)
    if ids:
        _cancel_ids(output, ids, store, env)
    elif all_of_kind is not None:
        _cancel_kind(output, check_kind(all_of_kind), store, env, yes=yes)
    elif resource_key is not None:
        _cancel_key(output, kind, resource_key, store, env)


def _check_way(ids: list[str] | None, kind: str | None, resource_key: str | None, all_of_kind: str | None) -> None:
    options = {"--kind": kind, "--resource-key": resource_key, "--all-of-kind": all_of_kind}
    given = [*(["ids"] if ids else []), *(name for name, value in options.items() if value is not None)]
    if given == ["--kind"]:
        raise BadInput(f"--kind goes with --resource-key; for all tasks of kind {kind!r} give --all-of-kind {kind}")
    if given not in _WAYS:
        which = f"only one of these, not {' and '.join(given)}" if given else "one of these"
        raise BadInput(f"cancel takes ids, or --resource-key (with or without --kind), or --all-of-kind: give {which}")


def _cancel_ids(output: Output, ids: list[str], store: str | None, env: str | None) -> None:
    fit, unfit = sort_out_ids(ids)
    if not fit:
        raise BadInput("; ".join(unfit))

    async def work(client: Client) -> tuple[Answers, list[Task]]:
        answers = await change_each(fit, client.cancel_task)
        return answers, await client.get_tasks_by_ids(answers.refused)

    answers, refused = with_client(store, env, work)
    reasons = [
        *named("cancelled already", [f"{task.id} ({task.status})" for task in refused if task.is_cancelled]),
        *named("done already", [f"{task.id} ({task.status})" for task in refused if not task.is_cancelled]),
    ]
    report(output, answers, done="cancelled", refused="notCancelled", reasons=reasons, unfit=unfit)


def _cancel_kind(output: Output, kind: str, store: str | None, env: str | None, *, yes: bool) -> None:
    def question() -> str:
        tasks, schedules, where = with_client(store, env, lambda client: _count_open(client, kind))
        many = [how_many(tasks, "open task")] if tasks or not schedules else []
        many += [how_many(schedules, "schedule")] if schedules else []
        what = " and ".join(many)
        if len(many) == 1:
            what = f"the only {what.removeprefix('1 ')}" if tasks + schedules == 1 else f"all {what}"
        return f"Cancel {what} of kind {kind} in environment {where}?"

    if not yes:
        ask(
            question,
            what="cancel --all-of-kind asks before it cancels",
            otherwise="nothing was cancelled",
            as_json=output.as_json,
        )
    _cancel_all(output, store, env, lambda client: client.cancel_tasks_by_kind(kind), which=f"of kind {kind!r}")


async def _count_open(client: Client, kind: str) -> tuple[int, int, str]:
    """Count open tasks and, by themselves, schedules (the first thousand): a cancel of a kind ends those as well."""
    open_schedules = TaskFilter(kind=kind, done=False, generators=True)
    schedules = len(await client.store.find(open_schedules, limit=_MOST_SCHEDULES))
    return await client.pending_count(kind), schedules, client.store.env


def _cancel_key(output: Output, kind: str | None, key: str, store: str | None, env: str | None) -> None:
    check_resource_key(key)
    which = f"with resource key {key!r}"
    if kind is not None:
        which = f"of kind {check_kind(kind)!r} {which}"
    _cancel_all(output, store, env, lambda client: client.cancel_tasks_by_resource_key(kind, key), which=which)


def _cancel_all(
    output: Output, store: str | None, env: str | None, change: Callable[[Client], Awaitable[int]], *, which: str
) -> None:
    async def work(client: Client) -> tuple[int, str]:
        return await change(client), place(client)

    number, where = with_client(store, env, work)
    if output.as_json:
        output.document({"cancelled": number})
        return
    output.text(f"cancelled {how_many(number)}")
    if not number:
        output.note(f"no task {which} is left to cancel: {where}")
