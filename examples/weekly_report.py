"""Write a report every Monday at nine in Berlin, and see what a schedule can do without waiting for Monday.

    pip install oncetask
    python examples/weekly_report.py

The tasks live in memory, or where ONCETASK_STORE says. `oncetask worker weekly_report:app`, started in this folder,
would keep the schedule for good. On a Monday the occurrence only splits the work: one mail for each team is enqueued,
together with its own completion or not at all, and each of these is tried again by itself. A team that gets a report
of the same week twice would be a nuisance, so the mails have a key.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from uuid import uuid4
from zoneinfo import ZoneInfo

from oncetask import App, Client, Context, ExponentialBackoff, Payload, Recurrence, Worker, connect

BERLIN = ZoneInfo("Europe/Berlin")


class WeeklyReport(Payload, kind="weekly-report"):
    """The report of the week that is over, for these teams."""

    teams: list[str]


class MailReport(Payload, kind="mail-report"):
    """One team's part of it."""

    team: str
    week: str

    def idempotency_key(self) -> str:
        """One mail for each team and week, however often the report is begun."""
        return f"{self.week} {self.team}"


class Beat(Payload, kind="beat"):
    """Something that happens every second."""


app = App("reports", retry=ExponentialBackoff(max_attempts=5))
app.schedule(
    "weekly",
    WeeklyReport(teams=["sales", "support"]),
    Recurrence.cron("0 9 * * MON", timezone="Europe/Berlin", catch_up="one", overlap="skip"),
)


@app.handler(WeeklyReport)
async def write_report(ctx: Context, report: WeeklyReport) -> str:
    """Split the work: the mails are stored together with this occurrence's completion."""
    due = ctx.task.occurrence_timestamp or datetime.now(UTC)
    week = f"{due.astimezone(BERLIN):%G-W%V}"
    for team in report.teams:
        ctx.enqueue(MailReport(team=team, week=week))
    return week


@app.handler(MailReport, timeout=30)
async def mail_report(_: Context, mail: MailReport) -> str:
    """Mail one report, of which the week's day and hour are of no concern any more."""
    show("mail-report", f"{mail.week} to {mail.team}")
    return f"mailed to {mail.team}"


@app.handler(Beat)
async def beat(ctx: Context, _: Beat) -> None:
    """Say that it happened."""
    show("beat", "an occurrence runs" if ctx.task.parent_recurrence_id else "a task runs")


async def look_at_schedule(client: Client) -> None:
    """Print what the code declares, as the worker has stored it."""
    print("Every Monday at nine, summer and winter")
    schedule = await client.get_task("reports:weekly")
    rule = Recurrence.from_fields(schedule.recurrence or {})
    instant = rule.first(after=datetime(2026, 3, 20, tzinfo=UTC))
    for _ in range(3):
        show("next run", f"{instant.astimezone(BERLIN):%A %Y-%m-%d %H:%M} is {instant:%H:%M} in UTC")
        instant = rule.first(after=instant)
    show("reports:weekly", f"is {schedule.status}")


async def run_now(client: Client) -> None:
    """Enqueue the same payload once, beside its schedule."""
    print("\nToday's report, by hand")
    receipt = await client.enqueue(WeeklyReport(teams=["sales", "support"]))
    report = await client.wait(receipt.task_id, timeout=30)
    for team in ("sales", "support"):
        await client.wait(f"mail-report:{report.result} {team}", timeout=30)


async def beat_three_times(client: Client) -> None:
    """Enqueue a generator that has three instants, and wait until it has spawned the last one."""
    print("\nThree times, a second apart")
    rule = Recurrence("FREQ=SECONDLY;COUNT=3", dtstart=datetime.now(UTC), catch_up="all")
    receipt = await client.enqueue(Beat(), recurrence=rule)
    generator = await client.wait(receipt.task_id, timeout=30)
    async for occurrence in client.iter_tasks(parent=receipt.task_id):
        await client.wait(occurrence.id, timeout=30)
    show("generator", f"is {generator.status}")


async def stop_and_go(client: Client) -> None:
    """Pause, resume, cancel and reset the schedule."""
    print("\nNo reports in the holidays")
    for verb in (client.pause_schedule, client.resume_schedule, client.cancel_task, client.reset_task):
        done = await verb("reports:weekly")
        if verb == client.cancel_task:
            await client.wait("reports:weekly", timeout=30)
        schedule = await client.get_task("reports:weekly")
        look = f"{schedule.status}, " + ("never due" if schedule.due_at is None else "due on a Monday")
        show(verb.__name__, f"{done}: it is {look}")


async def main() -> None:
    """Let a worker keep the schedule for a moment."""
    url = os.environ.get("ONCETASK_STORE") or "memory://"
    env = f"example-{uuid4().hex[:8]}"  # of this run only: in a shared store nobody else's tasks are touched
    async with asyncio.timeout(60), connect(url, env=env) as client, Worker(app, client):
        await look_at_schedule(client)
        await run_now(client)
        await beat_three_times(client)
        await stop_and_go(client)


def show(who: str, what: str) -> None:
    """Print a line."""
    print(f"  {who:<16}  {what}", flush=True)


if __name__ == "__main__":
    logging.getLogger("oncetask").setLevel(logging.CRITICAL)
    asyncio.run(main())
