"""Recurrences and schedules: what they take, and what a type checker refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type

from oncetask import App, Client, Payload, Recurrence, SyncClient, connect_sync


class Report(Payload):
    """A payload that recurs."""

    team: str = ""

    def recurrence(self) -> Recurrence:
        """Say when."""
        return Recurrence.cron("0 9 * * MON", timezone="Europe/Berlin")


START = datetime(2026, 1, 1, tzinfo=UTC)

# --- rules --------------------------------------------------------------------------------------------------------

rule = Recurrence("FREQ=DAILY", START, "Europe/Berlin", [START], "all", "skip")
assert_type(rule.first(), datetime)
assert_type(rule.first(after=START), datetime)
assert_type(rule.next_after(START), datetime | None)
assert_type(Recurrence.every(timedelta(hours=1), start=START, overlap="cancel-previous"), Recurrence)
assert_type(Recurrence.every(90), Recurrence)
assert_type(Recurrence.cron("@daily", exdates=(START,), catch_up="skip"), Recurrence)
Recurrence("FREQ=DAILY")  # type: ignore[call-arg]
Recurrence("FREQ=DAILY", "2026-01-01")  # type: ignore[arg-type]
Recurrence("FREQ=DAILY", START, catch_up="some")  # type: ignore[arg-type]
Recurrence.cron("@daily", overlap="replace")  # type: ignore[arg-type]

# --- schedules ----------------------------------------------------------------------------------------------------

app = App("reports")
app.schedule("weekly", Report(), rule)
app.schedule("weekly", Report(), rule, resource_key="r", timeout=30, deadline=START, owner="ada")
app.schedule("weekly", "report", rule)  # type: ignore[arg-type]
app.schedule("weekly", Report(), "0 9 * * MON")  # type: ignore[arg-type]
app.schedule("weekly", Report(), rule, delay=5)  # type: ignore[call-arg]


async def asynchronous(client: Client) -> None:
    """The client's verbs."""
    await client.enqueue(Report(), recurrence=rule)
    await client.enqueue(Report(), recurrence=None)
    await client.enqueue(Report(), recurrence="FREQ=DAILY")  # type: ignore[arg-type]
    assert_type(await client.pause_schedule("reports:weekly"), bool)
    assert_type(await client.resume_schedule("reports:weekly"), bool)


def blocking() -> None:
    """The same, blocking."""
    with connect_sync("memory://") as client:
        assert_type(client, SyncClient)
        client.enqueue(Report(), recurrence=rule)
        assert_type(client.pause_schedule("reports:weekly"), bool)
        assert_type(client.resume_schedule("reports:weekly"), bool)
