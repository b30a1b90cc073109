"""`examples/weekly_report.py`, run as a reader runs it, and its schedule under a clock that jumps four weeks."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import re
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import pytest

from oncetask import Client, Task, TaskStatus, Worker
from oncetask.task import occurrence_id
from tests.integration.examples.support import each_by_itself, run_example
from tests.integration.places import Place
from tests.integration.stores import EVERYWHERE
from tests.support import Shift, not_none

PRINTED = r"""
Every Monday at nine, summer and winter
  next run          Monday 2026-03-23 09:00 is 08:00 in UTC
  next run          Monday 2026-03-30 09:00 is 07:00 in UTC
  next run          Monday 2026-04-06 09:00 is 07:00 in UTC
  reports:weekly    is waiting

Today's report, by hand
  mail-report       \d{4}-W\d\d to sales
  mail-report       \d{4}-W\d\d to support

Three times, a second apart
  beat              an occurrence runs
  beat              an occurrence runs
  beat              an occurrence runs
  generator         is done-completed

No reports in the holidays
  pause_schedule    True: it is waiting, never due
  resume_schedule   True: it is waiting, due on a Monday
  cancel_task       True: it is done-cancelled, never due
  reset_task        True: it is waiting, due on a Monday
"""
BERLIN = ZoneInfo("Europe/Berlin")

pytestmark = EVERYWHERE


@pytest.fixture
def example() -> ModuleType:
    """The example as a module of its own."""
    path = Path(__file__).parents[3] / "examples" / "weekly_report.py"
    spec = not_none(importlib.util.spec_from_file_location("weekly_report", path))
    module = importlib.util.module_from_spec(spec)
    sys.modules["weekly_report"] = module
    not_none(spec.loader).exec_module(module)
    return module


def test_it_runs_as_it_says(opened_place: Place, tmp_path: Path) -> None:
    """It prints runs in both halves of the year, mails, beats, and what pausing and cancelling does."""
    parts = run_example("weekly_report.py", opened_place, tmp_path)
    printed = "\n\n".join("\n".join(each_by_itself(part)) for part in parts)
    expected = "\n\n".join("\n".join(each_by_itself(part)) for part in PRINTED.strip().split("\n\n"))
    assert re.fullmatch(expected, printed.strip()), printed


async def mails(client: Client, instant: object) -> list[str]:
    """Wait for an occurrence and for the mails that it enqueued; give what was mailed."""
    task_id = occurrence_id("reports:weekly", instant)  # type: ignore[arg-type]  # an instant of the task's
    async with asyncio.timeout(30), client.store.watch_tasks([task_id]) as feed:
        while (await feed.get())[0] is None:
            pass
    report: Task = await client.wait(task_id, timeout=30)
    sent = [await client.wait(f"mail-report:{report.result} {team}", timeout=30) for team in ("sales", "support")]
    return [f"{report.result} {mail.result}" for mail in sent]


async def test_four_weeks_at_once(connected: Client, example: ModuleType) -> None:
    """A worker sees four Mondays, each at nine in Berlin; each team gets one mail of each week."""
    shift, seen = Shift(), list[str]()
    shift.of(connected.store)
    async with Worker(example.app, connected, poll=0.05, lease=timedelta(days=1)):
        instant = (await connected.get_task("reports:weekly")).wait_until
        mondays = [instant]
        for _ in range(4):
            assert (instant.astimezone(BERLIN).strftime("%A %H:%M"), instant.second) == ("Monday 09:00", 0)
            shift.advance((instant - (await connected.store.now()).latest).total_seconds())
            seen += await mails(connected, instant)
            schedule = await connected.get_task("reports:weekly")
            instant = schedule.wait_until
            mondays.append(instant)
    assert [
        later.astimezone(BERLIN).date() - earlier.astimezone(BERLIN).date()
        for earlier, later in itertools.pairwise(mondays)
    ] == [timedelta(weeks=1)] * 4
    weeks = [f"{monday.astimezone(BERLIN):%G-W%V}" for monday in mondays[:4]]
    assert seen == [f"{week} mailed to {team}" for week in weeks for team in ("sales", "support")]


async def test_four_weeks_in_one_leap(connected: Client, example: ModuleType) -> None:
    """Where nobody worked for four weeks, the missed reports become one: that of the last Monday."""
    shift = Shift()
    shift.of(connected.store)
    async with Worker(example.app, connected):
        first = (await connected.get_task("reports:weekly")).wait_until
    shift.advance((first - (await connected.store.now()).latest).total_seconds() + 3 * 7 * 86_400 + 7_200)
    async with Worker(example.app, connected, lease=timedelta(days=1)):
        last = (first.astimezone(BERLIN) + timedelta(weeks=3)).astimezone(first.tzinfo)
        assert len(await mails(connected, last)) == 2
    spawned = [task async for task in connected.iter_tasks(parent="reports:weekly")]
    assert [(task.occurrence_timestamp, task.status) for task in spawned] == [(last, TaskStatus.DONE_COMPLETED)]
