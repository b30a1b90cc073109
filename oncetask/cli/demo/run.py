"""The demo's run: enqueue, let a worker drain, read everything back from the store."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from oncetask.cli.demo.check import Check, check_results
from oncetask.cli.demo.work import MeasureFile, demo_app
from oncetask.cli.session import place
from oncetask.worker import Worker

if TYPE_CHECKING:
    from collections import Counter

    from oncetask.cli.demo.files import Found
    from oncetask.cli.output import Output
    from oncetask.client import Client
    from oncetask.task import Task

__all__ = ["FAILURES", "Report", "run_demo"]

FAILURES = 2
"""How often the task that fails on purpose does so."""
_LOOK_SECONDS = 0.05
_ASK_EVERY = 20


@dataclass(slots=True)
class Report:
    """What a demo did, as the store tells it."""

    where: str
    found: Found
    tasks: list[Task]
    """As read back from the store, in the order of the files."""
    flaky: int
    """The place of the task that fails on purpose."""
    twin: int
    """The place of the task that is enqueued twice."""
    second_created: bool
    """What the second enqueue of it answered."""
    succeeded: dict[str, int]
    """How often the handler of each task id succeeded."""
    checks: list[Check] = field(default_factory=list)
    left: int = 0
    """How many tasks could not be deleted."""
    fate: str = ""

    @property
    def seconds(self) -> float:
        """From the start of the first task to the end of the last one, by the store's clock."""
        starts = [task.started_at for task in self.tasks if task.started_at is not None]
        ends = [task.done_at for task in self.tasks if task.done_at is not None]
        return (max(ends) - min(starts)).total_seconds() if starts and ends else 0.0


def run_demo(client: Client, found: Found, output: Output, *, keep: bool) -> Report:
    """Run it all, and check it; unless `keep`, delete the tasks again."""
    report = asyncio.run(_run(client, found, output, keep=keep))
    report.checks = check_results(report, failures=FAILURES)
    return report


async def _run(client: Client, found: Found, output: Output, *, keep: bool) -> Report:
    flaky, twin = 0, min(1, len(found.files) - 1)
    run = uuid4().hex[:8]
    payloads = [
        MeasureFile(run=run, number=place, uri=file.path.as_uri(), failures=FAILURES if place == flaky else 0)
        for place, file in enumerate(found.files)
    ]
    app, succeeded = demo_app()
    async with client:
        output.note(f"{len(payloads):,} files of {found.root}")
        output.note(place(client))
        ids = [payload.kind + ":" + payload.idempotency_key() for payload in payloads]
        try:
            await client.enqueue_many(payloads)
            second = await client.enqueue(payloads[twin])
            async with Worker(app, client, grace=1):
                await _drain(client, len(payloads), succeeded, output)
            tasks = await client.get_tasks_by_ids(ids)
        finally:
            left = 0 if keep else len(ids) - await client.delete_tasks_by_ids(ids)
    return Report(place(client), found, tasks, flaky, twin, second.created, dict(succeeded), left=left)


async def _drain(client: Client, total: int, succeeded: Counter[str], output: Output) -> None:
    """Wait until the store has no open task left; it is asked rarely before all handlers have succeeded."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = output.stderr.is_terminal and not output.as_json
    with Progress(*columns, console=output.stderr, disable=not shown) as progress:
        bar = progress.add_task("measuring", total=total)
        for look in itertools.count(1):
            progress.update(bar, completed=len(succeeded))
            if (len(succeeded) == total or look % _ASK_EVERY == 0) and not await client.pending_count(MeasureFile):
                return
            await asyncio.sleep(_LOOK_SECONDS)
