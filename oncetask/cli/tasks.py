"""`oncetask list` and `oncetask show`: what is in the store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oncetask.cli.exits import BadInput
from oncetask.cli.generators import rule_lines
from oncetask.cli.options import Env, Json, Store
from oncetask.cli.output import Column, Output, printable
from oncetask.cli.records import (
    ago,
    as_json,
    error_line,
    is_of_cleanup,
    iso,
    local,
    milestone,
    plain,
    progress_line,
    standing,
)
from oncetask.cli.session import place, with_client
from oncetask.task import TaskStatus

if TYPE_CHECKING:
    from oncetask.client import Client
    from oncetask.task import Task

__all__ = ["list_tasks", "show"]

_COLUMNS = (
    Column("id", style="cyan"),
    Column("kind"),
    Column("status"),
    Column("try", number=True),
    Column("when"),
    Column("last error", style="red", may_be_cut=True),
)


def list_tasks(
    *,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only of this kind.")] = None,
    status: Annotated[
        TaskStatus | None, typer.Option("--status", metavar="STATUS", help=f"Only these: {', '.join(TaskStatus)}.")
    ] = None,
    resource_key: Annotated[
        str | None, typer.Option("--resource-key", metavar="KEY", help="Only of this resource key.")
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", metavar="NAME", help="Only of this owner.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="How many at most, 1 to 1,000.")] = 50,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where the last page ended.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All pages.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Only the ids, a line each, for xargs.")] = False,
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """List tasks in the order of their ids.

    A table on a terminal; in a pipe a heading, then a line a task, its fields
    separated by tabs, times in UTC.

    With --json: {"tasks": [...], "cursor"}; with --json --all: JSON Lines.

    [bold]Example:[/bold] oncetask list --status done-failed --limit 10

    [bold]In a pipe:[/bold] oncetask list --all --ids --kind send-email | xargs oncetask reset
    """
    if everything and cursor is not None:
        msg = f"cursor {cursor!r} and --all exclude each other: --all begins at the beginning"
        raise BadInput(msg)
    output = Output(as_json=json_)
    filters: dict[str, Any] = {"kind": kind, "status": status, "resource_key": resource_key, "owner": owner}

    async def work(client: Client) -> None:
        if everything:
            await _print_all(output, client.iter_tasks(**filters), ids=ids)
            return
        page = await client.list_tasks(**filters, limit=limit, cursor=cursor)
        if output.as_json:
            output.document({"tasks": [as_json(task) for task in page.tasks], "cursor": page.cursor})
            return
        _print(output, page.tasks, ids=ids)
        if not page.tasks:
            output.note(f"no tasks: {place(client)}")
        if page.cursor is not None:
            output.note(f"there are more: --cursor {page.cursor}")

    with_client(store, env, work)


def show(
    *,
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the task.", show_default=False)],
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """Show everything about one task: data, result, every error, and what is wrong with its document.

    Times are in the zone of this machine; with --json in UTC.

    [bold]Example:[/bold] oncetask show send-email:42 --json | jq .result
    """
    output = Output(as_json=json_)
    task = with_client(store, env, lambda client: client.get_task(task_id))
    if output.as_json:
        output.document(as_json(task))
        return
    for name, text, style in _lines(task):
        first, *more = text.split("\n")
        output.text(f"{name:<14}{first}", style)
        for line in more:
            output.text(f"{'':<14}{line}", style)


async def _print_all(output: Output, tasks: AsyncIterator[Task], *, ids: bool) -> None:
    """Print as the pages come in, but for a terminal, whose table is laid out for all of them."""
    drawn: list[Task] = []
    async for task in tasks:
        if output.as_json:
            output.line(as_json(task))
        elif ids:
            output.text(printable(task.id))
        else:
            drawn.append(task)
    if drawn:
        _print(output, drawn, ids=False)


def _print(output: Output, tasks: list[Task], *, ids: bool) -> None:
    if ids:
        for task in tasks:
            output.text(printable(task.id))
    elif tasks:
        output.table(_COLUMNS, (_row(task, for_people=output.is_terminal) for task in tasks))


def _row(task: Task, *, for_people: bool) -> list[str]:
    instant = milestone(task)
    when = "" if instant is None else ago(instant - task.read_at) if for_people else iso(instant)
    status = standing(task) if for_people else task.status
    return [task.id, task.kind, status, str(task.attempts), when, error_line(task)]


def _lines(task: Task) -> Iterator[tuple[str, str, str]]:
    """Give what `show` says: a name, a text and a style each."""
    yield "id", printable(task.id), "bold"
    for problem in task.problems:
        yield "unreadable", printable(problem), "red"
    yield "kind", task.kind, ""
    yield "status", standing(task), "bold"
    tries = f"{task.attempts}" + (f", and {task.cancel_attempts} of the cleanup" if task.cancel_attempts else "")
    yield "tries", tries, ""
    for name, value in (
        ("resource key", task.resource_key),
        ("owner", task.owner),
        ("occurrence of", task.parent_recurrence_id),
        ("timeout", f"{task.timeout:g} s" if task.timeout is not None else None),
    ):
        if value is not None:
            yield name, printable(value), ""
    for name, instant in _instants(task):
        if instant is not None:
            yield name, local(instant, task.read_at), ""
    yield from rule_lines(task)
    if task.progress is not None:
        yield "progress", printable(progress_line(task.progress, task.read_at)), ""
    for name, structure in (
        ("recurrence", task.recurrence),
        ("data", task.data),
        ("result", task.result),
        ("progress data", task.progress and task.progress.data),
    ):
        if structure is not None:
            yield name, json.dumps(plain(structure), indent=2), ""
    for error in task.errors:
        of = " of the cleanup" if is_of_cleanup(task, error) else ""
        text = f"attempt {error.attempt}{of}, {local(error.at, task.read_at)}\n{error.type}: "
        yield "error", text + "\n".join(map(printable, error.message.split("\n"))), "red"


def _instants(task: Task) -> tuple[tuple[str, datetime | None], ...]:
    return (
        ("created", task.created_at),
        ("not before", task.wait_until),
        ("due", task.due_at),
        ("started", task.started_at),
        ("leased until", task.leased_until),
        ("deadline", task.deadline),
        ("cancelled", task.cancelled_at),
        ("done", task.done_at),
        ("expires", task.expire_at),
    )
