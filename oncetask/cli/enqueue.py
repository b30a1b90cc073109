"""`oncetask enqueue`: one task, with the payload class of an App or raw."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperCommand

from oncetask.cli.exits import BadInput, NotDone
from oncetask.cli.generators import there, zone_of
from oncetask.cli.options import AppOption, Env, Json, Store, instant
from oncetask.cli.output import Output
from oncetask.cli.payloads import read_payload
from oncetask.cli.records import as_json as task_as_json
from oncetask.cli.records import error_line
from oncetask.cli.rules import CatchUpOption, CronOption, Dtstart, OverlapOption, RruleOption, Timezone, given_rule
from oncetask.cli.session import place, with_client
from oncetask.cli.words import in_words
from oncetask.clock import seconds
from oncetask.task import Receipt, TaskStatus

if TYPE_CHECKING:
    from oncetask.client import Client
    from oncetask.enqueueing import EnqueueOptions
    from oncetask.recurrence import Recurrence
    from oncetask.task import Task

__all__ = ["EnqueueCommand", "enqueue"]

_FOR_EVER = "for-ever"


class EnqueueCommand(TyperCommand):
    """A command whose `--wait` may stand alone or be followed by a number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a lone `--wait` its value."""
        end = args.index("--") if "--" in args else len(args)
        for at, arg in enumerate(args[:end]):
            following = args[at + 1] if at + 1 < end else ""
            if arg == "--wait" and not re.fullmatch(r"-?[0-9.]+", following):
                args = [*args[:at], f"--wait={_FOR_EVER}", *args[at + 1 :]]
        return super().parse_args(ctx, args)


def enqueue(
    *,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="The kind of the task.", show_default=False)],
    data: Annotated[
        str,
        typer.Argument(metavar="JSON", help="The payload: a JSON object, @FILE, or - for stdin.", show_default=False),
    ],
    app: AppOption = None,
    task_id: Annotated[
        str | None, typer.Option("--task-id", metavar="ID", help="Its id; enqueued again, it stays one task.")
    ] = None,
    resource_key: Annotated[
        str | None, typer.Option("--resource-key", metavar="KEY", help="Tasks that share it run one at a time.")
    ] = None,
    delay: Annotated[
        float | None, typer.Option("--delay", metavar="SECONDS", help="Not before so many seconds from now.")
    ] = None,
    wait_until: Annotated[
        str | None,
        typer.Option("--wait-until", metavar="TIME", help="Not before this instant: ISO 8601, with a zone."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="The time limit of one attempt.")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="TIME", help="The instant at which it ends if it is not done by then."),
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="The end user whom it belongs to.")
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait",
            metavar="[SECONDS]",
            help="Wait until it is done, at most so long; exit 1 where it did not complete.",
            show_default=False,
        ),
    ] = None,
    rrule: RruleOption = None,
    cron: CronOption = None,
    timezone: Timezone = None,
    dtstart: Dtstart = None,
    catch_up: CatchUpOption = None,
    overlap: OverlapOption = None,
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """Enqueue one task, and print its id; stderr tells whether it is new.

    With --app its payload class checks the data, and gives id, key and time;
    without it any JSON object goes. After --wait the result follows, as JSON.
    With --rrule or --cron it is a schedule, which enqueues the payload at each
    of its times; oncetask schedules --preview shows them before.

    With --json: {"taskId", "created"}, and after --wait also "task".

    [bold]Example:[/bold] oncetask enqueue send-email '{"to": "ada@example.com"}' --wait 30

    [bold]Checked:[/bold] oncetask enqueue send-email @mail.json --app jobs:app

    [bold]A schedule:[/bold] oncetask enqueue report '{}' --task-id nightly --cron "0 2 * * *" --timezone Europe/Berlin
    """
    output = Output(as_json=json_)
    limit = _limit(wait)
    recurrence = given_rule(
        rrule=rrule, cron=cron, timezone=timezone, dtstart=dtstart, catch_up=catch_up, overlap=overlap
    )
    if recurrence is not None:
        _check_schedule("--cron" if rrule is None else "--rrule", delay=delay, wait_until=wait_until, wait=wait)
    given = {
        "task_id": task_id,
        "resource_key": resource_key,
        "delay": delay,
        "wait_until": None if wait_until is None else instant("wait_until", wait_until),
        "timeout": timeout,
        "deadline": None if deadline is None else instant("deadline", deadline),
        "owner": owner,
        "recurrence": recurrence,
    }
    options = cast("EnqueueOptions", {name: value for name, value in given.items() if value is not None})
    payload = read_payload(kind, data, app)

    async def work(client: Client) -> None:
        receipt = await client.enqueue(payload, **options)
        if not output.as_json:
            output.text(receipt.task_id)
        output.note(f"{'created' if receipt.created else 'exists already, nothing was stored'}: {place(client)}")
        if recurrence is not None and receipt.created:
            output.note(_told(recurrence, await client.get_task(receipt.task_id)))
        if wait is None:
            _print_receipt(output, receipt)
            return
        try:
            task = await client.wait(receipt.task_id, limit)
        except TimeoutError:
            task = await client.get_task(receipt.task_id)
        _print_receipt(output, receipt, task)
        if task.status is not TaskStatus.DONE_COMPLETED:
            _complain(task, limit)

    with_client(store, env, work)


def _check_schedule(rule: str, **waits: object) -> None:
    """Refuse what cannot go with a schedule."""
    reasons = {
        "delay": "its rule says when it runs",
        "wait_until": "its rule says when it runs; --dtstart says from when on",
        "wait": "a schedule is done only when its rule has ended; look at its runs with oncetask schedules",
    }
    for name, value in waits.items():
        if value is not None:
            raise BadInput(f"--{name.replace('_', '-')} and {rule} exclude each other: {reasons[name]}")


def _told(recurrence: Recurrence, generator: Task) -> str:
    """Say what a new schedule will do."""
    first = there(generator.wait_until, zone_of(recurrence))
    return f"{in_words(recurrence)} ({recurrence.timezone}), first at {first}"


def _limit(wait: str | None) -> float | None:
    if wait is None or wait == _FOR_EVER:
        return None
    try:
        number = float(wait)
    except ValueError:
        msg = f"wait must be seconds, or stand without a value, not {wait!r}"
        raise BadInput(msg) from None
    return seconds("wait", number, zero=True)


def _print_receipt(output: Output, receipt: Receipt, task: Task | None = None) -> None:
    if output.as_json:
        found = {"taskId": receipt.task_id, "created": receipt.created}
        output.document(found if task is None else {**found, "task": task_as_json(task)})
    elif task is not None and task.result is not None:
        output.document(task.result)


def _complain(task: Task, limit: float | None) -> NoReturn:
    if task.status.is_done:
        msg = f"task {task.id!r} ended {task.status}: {error_line(task) or 'no reason is stored'}"
    else:
        msg = f"task {task.id!r} is still {task.status} after {limit:g} s"
    raise NotDone(msg)
