"""`oncetask stats`: how many tasks there are of each kind, and how they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncetask.cli.options import Env, Json, Store
from oncetask.cli.output import Column, Output
from oncetask.cli.session import place, with_client
from oncetask.task import Stats, TaskStatus

if TYPE_CHECKING:
    from oncetask.client import Client

__all__ = ["stats"]


def stats(*, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Count tasks by kind and status.

    Statuses without a task are left out.
    With --json: {"kinds": {KIND: {STATUS: n}}, "totals": {STATUS: n}, "total": n}.

    [bold]Example:[/bold] oncetask stats --env production
    """
    output = Output(as_json=json_)

    async def work(client: Client) -> tuple[Stats, str]:
        return await client.stats(), place(client)

    found, where = with_client(store, env, work)
    present = [status for status in TaskStatus if found.total(status)]
    if output.as_json:
        totals = {status: found.total(status) for status in present}
        output.document({"kinds": found.counts, "totals": totals, "total": found.total()})
        return
    output.note(where if found.total() else f"no tasks: {where}")
    if not found.total():
        return
    columns = [Column("kind", style="cyan"), *(Column(s, number=True) for s in present), Column("total", number=True)]
    rows = [
        [kind, *(_count(counts.get(status, 0)) for status in present), _count(sum(counts.values()))]
        for kind, counts in sorted(found.counts.items())
    ]
    total = ["total", *(_count(found.total(status)) for status in present), _count(found.total())]
    output.table(columns, [*rows, total])


def _count(number: int) -> str:
    return str(number)
