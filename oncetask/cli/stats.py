"""`oncetask stats`: how many tasks there are of each kind, and how they stand, and which kinds are paused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncetask.cli.options import Env, Json, Store
from oncetask.cli.output import Column, Output
from oncetask.cli.session import place, with_client
from oncetask.task import Stats, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncetask.client import Client

__all__ = ["stats"]


def stats(*, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Count tasks by kind and status; the kinds that are paused are marked.

    Statuses without a task are left out.
    With --json: {"kinds": {KIND: {STATUS: n}}, "totals": {STATUS: n}, "total": n,
    "paused": [KIND...]}.

    [bold]Example:[/bold] oncetask stats --env production
    """
    output = Output(as_json=json_)

    async def work(client: Client) -> tuple[Stats, list[str], str]:
        return await client.stats(), await client.paused_kinds(), place(client)

    found, paused, where = with_client(store, env, work)
    present = [status for status in TaskStatus if found.total(status)]
    if output.as_json:
        totals = {status: found.total(status) for status in present}
        output.document({"kinds": found.counts, "totals": totals, "total": found.total(), "paused": paused})
        return
    output.note(where if found.total() else f"no tasks: {where}")
    if not found.total() and not paused:
        return
    columns = [
        Column("kind", style="cyan"),
        *(Column(status, number=True) for status in (*present, "total")),
        *([Column("paused", style="yellow")] if paused else []),
    ]
    rows = [
        [*_row(kind, found.counts.get(kind, {}), present), *([_mark(kind in paused)] if paused else [])]
        for kind in sorted({*found.counts, *paused})
    ]
    total = _row("total", {status: found.total(status) for status in present}, present)
    output.table(columns, [*rows, [*total, *([""] if paused else [])]])


def _row(name: str, counts: Mapping[TaskStatus, int], present: Sequence[TaskStatus]) -> list[str]:
    return [name, *(str(counts.get(status, 0)) for status in present), str(sum(counts.values()))]


def _mark(is_paused: bool) -> str:
    return "paused" if is_paused else ""
