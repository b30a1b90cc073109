"""`oncetask schedules --preview`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.cli.conftest import Cli

FIRST = "2030-03-30T02:30:00+01:00"
"""The night before the clocks are put forward in Berlin."""


def preview(cli: Cli, rule: str, *options: str) -> Any:
    """Give the document about a rule."""
    return cli("schedules", "--preview", rule, *options, "--json").json


def test_the_next_runs_are_told_in_both_times(cli: Cli) -> None:
    """A run has its time on the clocks of the zone and in UTC, over a change of the clocks."""
    assert preview(cli, "FREQ=DAILY", "--timezone", "Europe/Berlin", "--dtstart", FIRST, "-n", "3") == {
        "rule": "FREQ=DAILY",
        "inWords": "every day at 02:30",
        "timezone": "Europe/Berlin",
        "dtstart": "2030-03-30T01:30:00Z",
        "next": ["2030-03-30T01:30:00Z", "2030-03-31T01:30:00Z", "2030-04-01T00:30:00Z"],
        "local": ["2030-03-30T02:30:00+01:00", "2030-03-31T03:30:00+02:00", "2030-04-01T02:30:00+02:00"],
        "ends": False,
    }


def test_people_read_a_report(cli: Cli) -> None:
    """On a terminal and in a pipe alike: the rule in words, then a line a run."""
    answer = cli("schedules", "--preview", "0 9 * * MON", "--timezone", "Asia/Tokyo", "--dtstart", FIRST, "-n", "2")
    assert (answer.code, answer.err) == (0, "")
    assert [line.rstrip() for line in answer.out.splitlines()] == [
        "at 09:00 on Monday  (Asia/Tokyo)",
        "day  there                      in UTC",
        "Mon  2030-04-01 09:00:00+09:00  2030-04-01T00:00:00Z",
        "Mon  2030-04-08 09:00:00+09:00  2030-04-08T00:00:00Z",
    ]


@pytest.mark.parametrize("rule", ["FREQ=DAILY;BYHOUR=9", "rrule:freq=daily;byhour=9", "0 9 * * *", "@daily"])
def test_both_kinds_of_rules_are_understood(cli: Cli, rule: str) -> None:
    """A text with FREQ= is an RRULE, in capitals or not; another one a cron expression."""
    assert len(preview(cli, rule)["next"]) == 10


def test_left_out_it_begins_now(cli: Cli) -> None:
    """Without --dtstart the first run of a rule is now, in whole seconds, as that of a schedule enqueued now."""
    before = datetime.now(UTC).replace(microsecond=0)
    told = preview(cli, "FREQ=HOURLY", "-n", "2")
    first, second = map(datetime.fromisoformat, told["next"])
    assert before <= first <= datetime.now(UTC)
    assert (second - first, datetime.fromisoformat(told["dtstart"])) == (timedelta(hours=1), first)


def test_what_has_passed_is_left_out(cli: Cli) -> None:
    """A rule that began long ago tells the runs from now on."""
    now = datetime.now(UTC)
    (first,) = preview(cli, "FREQ=HOURLY", "--dtstart", "2020-01-01T00:30:00Z", "-n", "1")["next"]
    assert now < datetime.fromisoformat(first) <= now + timedelta(hours=1, seconds=60)


def test_the_end_of_a_rule_is_told(cli: Cli) -> None:
    """Where fewer runs are left than were asked for, it says that the rule ends there."""
    options = ("--dtstart", FIRST, "-n", "3")
    assert preview(cli, "FREQ=DAILY;COUNT=2", *options)["ends"] is True
    assert preview(cli, "FREQ=DAILY;COUNT=3", *options)["ends"] is False
    told = cli("schedules", "--preview", "FREQ=DAILY;COUNT=2", *options).out.splitlines()
    assert (len(told), told[-1]) == (5, "the rule ends there, after 2 runs")


def test_a_rule_that_has_ended_is_told(cli: Cli) -> None:
    """A rule without a run from now on has none, and that is no failure."""
    arguments = ("FREQ=DAILY;COUNT=1", "--dtstart", "2020-01-01T00:00:00Z")
    assert (preview(cli, *arguments)["next"], preview(cli, *arguments)["ends"]) == ([], True)
    answer = cli("schedules", "--preview", *arguments)
    assert (answer.code, answer.out) == (0, "every day at 00:00, once  (UTC)\nthe rule has ended\n")


@pytest.mark.parametrize(("number", "lines"), [("1", 1), ("1000", 1_000)])
def test_as_many_as_wanted(cli: Cli, number: str, lines: int) -> None:
    """From one run to a thousand."""
    assert len(preview(cli, "FREQ=SECONDLY", "-n", number)["next"]) == lines


def test_no_store_is_opened(cli: Cli) -> None:
    """A preview needs no store."""
    assert cli("schedules", "--preview", "@daily", "--store", "sqlite:////no/such/folder/x.db").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("FREQ=DAYLY",), "rrule 'FREQ=DAYLY': FREQ must be one of YEARLY, "),
        (
            ("FREQ=DAILY;BYHOUR=24",),
            "rrule 'FREQ=DAILY;BYHOUR=24': BYHOUR must be whole numbers from 0 to 23, not '24'",
        ),
        (("61 * * * *",), "cron expression '61 * * * *': Bad minute"),
        (("",), "cron expression '': Wrong number of fields"),
        (
            ("@daily", "--timezone", "Europe/Berln"),
            "timezone 'Europe/Berln' is no IANA zone that this machine knows: did",
        ),
        (("@daily", "--dtstart", "2030-01-01T00:00:00"), "dtstart must say its zone"),
        (("@daily", "-n", "0"), "-n must be a whole number from 1 to 1000, not 0"),
        (("@daily", "-n", "1001"), "-n must be a whole number from 1 to 1000, not 1001"),
        (("@daily", "-n", "many"), "Invalid value for '-n'"),
    ],
)
def test_bad_input_is_named(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """A wrong rule, zone, time or number exits with 2 and a line that names it."""
    answer = cli("schedules", "--preview", *arguments)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert answer.err.startswith(f"error: {message}")


def test_a_rule_without_freq_is_explained(cli: Cli) -> None:
    """What has the parts of an RRULE and no FREQ is told how it was read."""
    answer = cli("schedules", "--preview", "BYDAY=MO")
    assert (answer.code, answer.err.endswith("; without FREQ= it was read as a cron expression\n")) == (2, True)
