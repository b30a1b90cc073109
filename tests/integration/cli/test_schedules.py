"""`oncetask schedules`: what is listed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from oncetask import App, Payload, Recurrence, SyncClient
from tests.integration.cli.conftest import Cli, Declare, Spawn
from tests.integration.cli.test_tasks import T0, Foreign

DAILY = Recurrence("FREQ=DAILY", T0, "Europe/Berlin")
"""Its first instant is in 2030, at 01:00 in Berlin."""


class Report(Payload, kind="report"):
    """What is enqueued again and again."""


def shop(*names: str) -> App:
    """Give an App that declares schedules."""
    app = App("shop")
    for name in names:
        app.schedule(name, Report(), DAILY)
    return app


def test_an_enqueued_schedule_is_listed(cli: Cli, client: SyncClient) -> None:
    """Programs get everything about a generator: rule, words, zone, policies, standing, and five runs in UTC."""
    rule = Recurrence.cron("0 9 * * *", "America/New_York", start=T0, catch_up="all", overlap="skip")
    client.enqueue(Report(), task_id="g", recurrence=rule)
    assert cli("schedules", "--json").json == {
        "schedules": [
            {
                "taskId": "g",
                "app": None,
                "name": "g",
                "kind": "report",
                "rule": "0 9 * * *",
                "inWords": "at 09:00 every day",
                "timezone": "America/New_York",
                "catchUp": "all",
                "overlap": "skip",
                "status": "waiting",
                "paused": False,
                "vanished": False,
                "problem": None,
                "next": [f"2030-01-0{day}T14:00:00Z" for day in range(1, 6)],
                "lastRun": None,
            }
        ]
    }


def test_a_declared_schedule_has_its_name(cli: Cli, declare: Declare) -> None:
    """What an App declares is listed under its name, with that of the App, in the order of the ids."""
    declare(shop("nightly", "hourly"))
    found = cli("schedules", "--json").json["schedules"]
    assert [(one["taskId"], one["app"], one["name"]) for one in found] == [
        ("shop:hourly", "shop", "hourly"),
        ("shop:nightly", "shop", "nightly"),
    ]


def test_a_pipe_gets_a_line_a_schedule(cli: Cli, client: SyncClient, declare: Declare) -> None:
    """In a pipe: a heading, then tab-separated fields, times in UTC."""
    declare(shop("nightly"))
    client.enqueue(Report(), task_id="g", recurrence=Recurrence("FREQ=DAILY;COUNT=2", T0))
    heading, enqueued, declared = cli("schedules").lines
    assert heading == [
        *("id", "app", "name", "kind", "rule", "in words", "timezone", "catch up", "overlap"),
        *("standing", "next", "last", "outcome"),
    ]
    assert enqueued == [
        *("g", "", "g", "report", "FREQ=DAILY;COUNT=2", "every day at 00:00, 2 times", "UTC", "one", "allow"),
        *("active", "2030-01-01T00:00:00Z 2030-01-02T00:00:00Z", "", ""),
    ]
    assert declared[:3] == ["shop:nightly", "shop", "nightly"]


def test_a_terminal_shows_it_to_people(
    cli: Cli, declare: Declare, spawn: Spawn, terminal: Callable[[int], None]
) -> None:
    """People read the rule in words, the policies, and the runs on the clocks of its zone, the last one too."""
    declare(shop("nightly"))
    spawn("shop:nightly", datetime(2026, 6, 1, tzinfo=UTC))
    terminal(100)
    lines = cli("schedules").out.splitlines()
    assert lines[:7] == [
        "nightly",
        "  id        shop:nightly  (declared by the app shop)",
        "  kind      report",
        "  rule      every day at 01:00  (FREQ=DAILY)",
        "  zone      Europe/Berlin",
        "  policy    catch-up one, overlap allow",
        "  standing  active",
    ]
    assert lines[7].startswith("  next      2030-01-01 01:00:00+01:00  (in ")
    assert [line.split()[0] for line in lines[8:12]] == [f"2030-01-0{day}" for day in range(2, 6)]
    assert lines[12].startswith("  last      2026-06-01 02:00:00+02:00  (")
    assert lines[12].endswith(": pending")


def test_several_are_told_apart_on_a_terminal(cli: Cli, declare: Declare, terminal: Callable[[int], None]) -> None:
    """Each schedule has a paragraph of its own; one that never ran says so."""
    declare(shop("a", "b"))
    terminal(100)
    first, second = cli("schedules").out.split("\n\n")
    assert (first.splitlines()[0], second.splitlines()[0]) == ("a", "b")
    assert first.splitlines()[-1] == "  last      none yet"


def test_the_last_run_has_its_outcome(cli: Cli, client: SyncClient, spawn: Spawn) -> None:
    """The last occurrence is told with its id and status; where it was deleted, without one."""
    client.enqueue(Report(), task_id="g", recurrence=DAILY)
    occurrence = spawn("g", T0 - timedelta(days=1))
    last = {"at": "2029-12-31T00:00:00Z", "taskId": "g:2029-12-31T00:00:00Z", "status": "waiting"}
    assert cli("schedules", "--json").json["schedules"][0]["lastRun"] == last
    assert cli("schedules").lines[1][-2:] == ["2029-12-31T00:00:00Z", "waiting"]
    client.delete_task(occurrence)
    assert cli("schedules", "--json").json["schedules"][0]["lastRun"] == {**last, "status": None}
    assert cli("schedules").lines[1][-1] == "gone"


def test_a_deleted_run_is_told_to_people(
    cli: Cli, client: SyncClient, spawn: Spawn, terminal: Callable[[int], None]
) -> None:
    """People read that the task of the last run is not there any more."""
    client.enqueue(Report(), task_id="g", recurrence=DAILY)
    client.delete_task(spawn("g", T0 - timedelta(days=1)))
    terminal(100)
    assert cli("schedules").out.endswith(": its task is not there any more\n")


def test_what_does_not_run_has_no_next_run(cli: Cli, client: SyncClient, declare: Declare) -> None:
    """Paused and cancelled schedules are listed without runs; what vanished from the code goes on."""
    for name in ("c", "p"):
        client.enqueue(Report(), task_id=name, recurrence=DAILY)
    client.cancel_task("c")
    client.pause_schedule("p")
    declare(shop("v"))
    declare(shop())
    found = {line[0]: (line[9], bool(line[10])) for line in cli("schedules").lines[1:]}
    assert found == {
        "c": ("cancelled", False),
        "p": ("paused", False),
        "shop:v": ("active, not declared any more", True),
    }
    told = {one["taskId"]: one for one in cli("schedules", "--json").json["schedules"]}
    assert [told[name]["paused"] for name in ("c", "p", "shop:v")] == [False, True, False]
    assert [told[name]["vanished"] for name in ("c", "p", "shop:v")] == [False, False, True]


def test_an_unreadable_schedule_is_listed(cli: Cli, foreign: Foreign, terminal: Callable[[int], None]) -> None:
    """A rule that somebody wrote wrong is listed with what is wrong, and does not hide the others."""
    open_one = {"kind": "report", "data": {}, "createdAt": T0, "waitUntil": T0, "dueAt": T0}
    foreign({"odd": {**open_one, "recurrence": {"rrule": "FREQ=NEVER\x1b", "dtstart": T0}}})
    (one,) = cli("schedules", "--json").json["schedules"]
    assert (one["rule"], one["inWords"], one["timezone"], one["next"]) == ("FREQ=NEVER\x1b", None, None, [])
    assert one["problem"].startswith("rrule 'FREQ=NEVER\\x1b': ")
    assert cli("schedules").lines[1][9].startswith("unreadable: rrule ")
    terminal(200)
    shown = cli("schedules").out
    assert "  rule      FREQ=NEVER\\x1b\n" in shown
    assert "  standing  unreadable: rrule 'FREQ=NEVER\\x1b': " in shown


def test_nothing_scheduled_is_told(cli: Cli, client: SyncClient) -> None:
    """Tasks are no schedules: where there is none it says so on stderr, with the place, and exits with 0."""
    client.enqueue(Report())
    answer = cli("schedules", "--env", "default")
    assert (answer.code, answer.out, answer.err.partition(":")[0]) == (0, "", "no schedules")
    assert cli("schedules", "--json").json == {"schedules": []}


def test_each_environment_has_its_own(cli: Cli, client: SyncClient) -> None:
    """--env chooses whose schedules are listed."""
    client.enqueue(Report(), task_id="g", recurrence=DAILY)
    assert cli("schedules", "--env", "blue", "--json").json == {"schedules": []}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preview", "@daily", "--prune"), "--preview and --prune exclude each other: one opens no store, "),
        (("--timezone", "UTC"), "--timezone goes with --preview: "),
        (("--prune", "--dtstart", "2030-01-01T00:00:00Z"), "--dtstart goes with --preview: "),
        (("-n", "3"), "-n goes with --preview: "),
        (("--yes",), "--yes goes with --prune, "),
        (("--preview", "@daily", "-y"), "--yes goes with --prune, "),
    ],
)
def test_what_does_not_go_together_is_refused(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """Options that exclude each other exit with 2, and a line that says why."""
    answer = cli("schedules", *arguments)
    assert (answer.code, answer.out, answer.err.startswith(f"error: {message}")) == (2, "", True)
