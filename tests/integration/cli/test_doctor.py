"""`oncetask doctor`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oncetask import Payload, Recurrence, SyncClient
from oncetask.clock import StoreClock, SystemClock
from tests.integration.cli.conftest import Cli, Declare
from tests.integration.cli.test_change import running
from tests.integration.cli.test_schedules import DAILY, shop
from tests.integration.cli.test_tasks import FAILED, T0, Foreign


class Greet(Payload, kind="greet"):
    """A sound task."""

    name: str = "x"


class Other(Payload, kind="other"):
    """A task of somebody else's."""


def findings(cli: Cli, *arguments: str) -> list[tuple[str, str | None]]:
    """Give what a visit finds, after seeing that the exit code says the same."""
    answer = cli("doctor", "--json", *arguments)
    assert (answer.code, answer.json["ok"]) == ((1, False) if answer.json["findings"] else (0, True))
    return [(finding["check"], finding["taskId"]) for finding in answer.json["findings"]]


def test_a_sound_store_is_well(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """Open, running and done tasks are nothing to complain about."""
    client.enqueue(Greet())
    foreign({"busy": running(), "f": FAILED})
    answer = cli("doctor", "--app", "jobs:app")
    assert answer.code == 0
    assert "all is well" in answer.out
    assert "tasks    3 read" in answer.out
    assert "handles greet, hold, sleep" in answer.out


def test_unreadable_documents_are_named(cli: Cli, foreign: Foreign) -> None:
    """A document with wrong fields is named, with its problems, whether done or not."""
    foreign({"odd": {**running(), "attempts": "many"}, "done": {**FAILED, "createdAt": None}})
    assert findings(cli) == [("unreadable", "done"), ("unreadable", "odd")]
    answer = cli("doctor")
    assert "WRONG    unreadable: odd: attempts: must be a whole number" in answer.out
    assert answer.err.startswith("error: 2 things are wrong in sqlite:///")


def test_what_no_query_finds_is_named(cli: Cli, foreign: Foreign) -> None:
    """An open document without a kind or a dueAt is named; a done one needs neither."""
    foreign(
        {
            "no-kind": {**running(), "kind": None},
            "no-due": {**running(), "dueAt": None},
            "text-due": {**running(), "dueAt": "tomorrow"},
            "done": FAILED,
        }
    )
    found = findings(cli)
    assert [task for check, task in found if check == "unreachable"] == ["no-due", "no-kind", "text-due"]
    assert "for want of dueAt" in cli("doctor").out


@pytest.mark.parametrize(("minutes", "found"), [(4, []), (6, [("abandoned", "crashed")])])
def test_a_lease_that_ran_out_long_ago_is_named(
    cli: Cli, foreign: Foreign, minutes: int, found: list[tuple[str, str]]
) -> None:
    """A lease that ended more than five minutes ago has no worker that would rescue its task."""
    ended = datetime.now(UTC) - timedelta(minutes=minutes)
    foreign({"crashed": {**running(), "leasedUntil": ended, "dueAt": ended}})
    assert findings(cli) == found


def test_tasks_of_a_newer_version_are_named(cli: Cli, foreign: Foreign) -> None:
    """A document of a schema that this version does not know is left alone by its workers, so it is named."""
    foreign({"new": {**running(), "schema": 2}})
    assert findings(cli) == [("newer", "new")]


def test_kinds_without_a_handler_are_named(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """With --app: open tasks of kinds that it does not handle; done ones are of no concern."""
    client.enqueue_many([Other(), Other()])
    client.enqueue(Greet())
    foreign({"done": {**FAILED, "kind": "third"}})
    assert findings(cli) == []
    assert findings(cli, "--app", "jobs:app") == [("unhandled", None)]
    assert "unhandled: 2 open tasks of kind 'other'" in cli("doctor", "--app", "jobs:app").out


def test_sound_schedules_are_well(cli: Cli, client: SyncClient, declare: Declare) -> None:
    """Enqueued, declared, paused, cancelled and done schedules are nothing to complain about."""
    for task_id in ("open", "paused", "cancelled"):
        client.enqueue(Greet(), task_id=task_id, recurrence=DAILY)
    client.pause_schedule("paused")
    client.cancel_task("cancelled")
    declare(shop("a"))
    assert findings(cli) == []


def test_vanished_schedules_are_named(cli: Cli, declare: Declare) -> None:
    """What no code declares any more is named in one line, which says how to end it; once ended it is well."""
    declare(shop("a", "b", "c"))
    declare(shop("b"))
    assert findings(cli) == [("vanished", None)]
    assert (
        "WRONG    vanished: 2 schedules go on that no code declares any more: shop:a, shop:c "
        "(`oncetask schedules --prune` cancels them)\n"
    ) in cli("doctor").out
    cli("schedules", "--prune", "--yes")
    assert findings(cli) == []


def test_unreadable_schedules_are_named(cli: Cli, foreign: Foreign) -> None:
    """An open schedule whose rule cannot be read is named with the reason; a done one is of no concern."""
    odd = {"recurrence": {"cron": "soon", "dtstart": T0}}
    foreign({"odd": {**running(), "leaseOwner": None, "leasedUntil": None, **odd}, "done": {**FAILED, **odd}})
    assert findings(cli) == [("unreadable", "odd")]
    assert "WRONG    unreadable: odd: its recurrence cannot be read: cron expression 'soon': " in cli("doctor").out


def test_schedules_of_kinds_without_a_handler_are_named(cli: Cli, client: SyncClient) -> None:
    """With --app each schedule that no worker of it would look at is named, and not counted among the open tasks."""
    rule = Recurrence.cron("@daily")
    client.enqueue(Greet(), task_id="handled", recurrence=rule)
    client.enqueue(Other(), task_id="unhandled", recurrence=rule)
    assert findings(cli) == []
    assert findings(cli, "--app", "jobs:app") == [("unhandled", "unhandled")]
    assert (
        "unhandled: a schedule of kind 'other', which has no handler in this app"
        in cli("doctor", "--app", "jobs:app").out
    )
    client.cancel_task("unhandled")
    (finding,) = cli("doctor", "--app", "jobs:app", "--json").json["findings"]
    assert finding["message"].startswith("1 open task of kind 'other', ")


def notes(cli: Cli) -> dict[str, str]:
    """Give what a visit tells beside what is wrong."""
    return {note["about"]: note["message"] for note in cli("doctor", "--json").json["notes"]}


def test_paused_kinds_are_told(cli: Cli, client: SyncClient) -> None:
    """A pause is nothing wrong: kinds that are paused are told, with the tasks that wait for that."""
    assert notes(cli)["paused"] == "no kind"
    client.enqueue_many([Greet(), Greet()])
    client.pause_kind("greet")
    client.pause_kind("other")
    assert notes(cli)["paused"] == "greet (2 open tasks), other (0 open tasks)"
    assert findings(cli) == []
    assert "paused   greet (2 open tasks), other (0 open tasks)\n" in cli("doctor").out


def test_who_wakes_and_who_may_call_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are what the environment variables here say, and nobody where they say nothing."""
    told = notes(cli)
    assert told["waker"].startswith("nobody, ")
    assert told["callers"].startswith("on this machine only ")
    monkeypatch.setenv("ONCETASK_WAKE", "http")
    monkeypatch.setenv("ONCETASK_WAKE_URL", "https://tick.example.com")
    monkeypatch.setenv("ONCETASK_AUTH", "iam")
    told = notes(cli)
    assert (told["waker"], told["callers"]) == (
        "http, at https://tick.example.com (ONCETASK_WAKE)",
        "iam (ONCETASK_AUTH)",
    )


def test_nonsense_about_callers_is_wrong(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONCETASK_AUTH with which no service would start is a finding."""
    monkeypatch.setenv("ONCETASK_AUTH", "oidc")
    assert findings(cli) == [("callers", None)]
    assert "WRONG    callers: ONCETASK_AUDIENCE must be set" in cli("doctor").out


def test_without_the_extra_it_does_not_know_who_may_call(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no library for HTTP is installed the rest is told all the same."""
    for name in [name for name in sys.modules if name.startswith("oncetask.http")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert notes(cli)["callers"].startswith("not checked: this command needs starlette, ")


@pytest.mark.parametrize(("most", "scanned", "complete"), [("5", 5, True), ("4", 4, False), ("1", 1, False)])
def test_the_scan_has_a_bound(cli: Cli, client: SyncClient, most: str, scanned: int, complete: bool) -> None:
    """--most bounds what is read, and it is told whether that was all."""
    client.enqueue_many([Greet()] * 5)
    report = cli("doctor", "--most", most, "--json").json
    assert (report["scanned"], report["complete"]) == (scanned, complete)
    assert ("the first of more" in cli("doctor", "--most", most).out) is not complete


def test_the_scan_goes_on_beyond_a_page(cli: Cli, client: SyncClient) -> None:
    """More tasks than one query reads are all looked at."""
    client.enqueue_many([Greet()] * 1_001)
    report = cli("doctor", "--json").json
    assert (report["scanned"], report["complete"]) == (1_001, True)


@pytest.mark.parametrize(
    ("ahead", "found"), [(4.0, []), (-4.0, []), (6.5, [("clock", None)]), (-6.5, [("clock", None)])]
)
def test_a_wrong_clock_is_told(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, ahead: float, found: list[tuple[str, None]]
) -> None:
    """More than five seconds between this machine and the store are wrong, whichever is ahead."""
    given = StoreClock.__init__

    def with_a_time(clock: StoreClock, *arguments: Any) -> None:
        given(clock, *arguments)
        clock.observe(datetime.now(UTC) - timedelta(seconds=ahead), asked=SystemClock().monotonic())

    monkeypatch.setattr(StoreClock, "__init__", with_a_time)
    assert findings(cli) == found
    assert cli("doctor", "--json").json["clockOffsetSeconds"] == pytest.approx(ahead, abs=0.5)


def test_an_unknown_app_is_wrong_input(cli: Cli) -> None:
    """--app is looked for before the store is asked."""
    assert cli("doctor", "--app", "nojobs:app").code == 2
