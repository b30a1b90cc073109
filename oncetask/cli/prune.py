"""`oncetask schedules --prune`: cancel what no code declares any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncetask.cli.consent import ask
from oncetask.cli.generators import app_of
from oncetask.cli.output import printable
from oncetask.cli.records import how_many
from oncetask.cli.session import place, with_client
from oncetask.schedules import prune, survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncetask.cli.output import Output
    from oncetask.client import Client
    from oncetask.schedules import Found

__all__ = ["print_pruned", "vanished"]


def vanished(found: Sequence[Found]) -> list[Found]:
    """Give the schedules that an App declared and does not declare any more, as far as they go on."""
    return [one for one in found if one.is_vanished and one.task.outcome is None and not one.task.is_cancelled]


def print_pruned(output: Output, store: str | None, env: str | None, *, yes: bool) -> None:
    """Cancel the schedules that have vanished from the code, and tell how many."""

    async def look(client: Client) -> tuple[list[Found], str, str]:
        return vanished(await survey(client.store)), place(client), client.store.env

    seen, where, environment = with_client(store, env, look)
    if not output.as_json:
        for one in seen:
            output.text(printable(f"{one.task.id}  ({one.name}, declared by the app {app_of(one)} before)"))
    if seen and not yes:
        what = "the schedule" if len(seen) == 1 else f"these {len(seen)} schedules"
        ask(
            lambda: f"Cancel {what} in environment {environment}?",
            what="schedules --prune asks before it cancels",
            otherwise="nothing was cancelled",
            as_json=output.as_json,
        )
    tasks = [one.task for one in seen]
    cancelled = with_client(store, env, lambda client: prune(client.store, tasks, client.telemetry)) if tasks else []
    if output.as_json:
        output.document({"cancelled": len(cancelled), "ids": cancelled})
        return
    output.text(f"cancelled {how_many(len(cancelled), 'schedule')}")
    if not tasks:
        output.note(f"no schedule goes on that no code declares any more: {where}")
