"""`oncetask list`, `oncetask show` and `oncetask stats`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from oncetask import Payload, Recurrence, SyncClient
from tests.integration.cli.conftest import Cli

Foreign = Callable[[Mapping[str, Mapping[str, Any]]], None]
T0 = datetime(2030, 1, 1, tzinfo=UTC)
FAILED = {
    "kind": "greet",
    "data": {"name": "x"},
    "waitUntil": T0,
    "createdAt": T0,
    "doneAt": T0,
    "attempts": 2,
    "outcome": "failed",
    "errors": [{"at": T0, "attempt": 2, "type": "ValueError", "message": "no \x1b[31m[red]such[/red]\nname"}],
}
"""A task that failed, with a message that plays tricks."""


class Greet(Payload, kind="greet"):
    """What there are many of."""

    name: str = "x"


def test_a_pipe_gets_a_line_a_task(cli: Cli, foreign: Foreign) -> None:
    """In a pipe: a heading, then tab-separated fields, ids whole, times in UTC, nothing that a terminal obeys."""
    foreign({"i" * 200: FAILED})
    heading, task = cli("list").lines
    assert heading == ["id", "kind", "status", "try", "when", "last error"]
    assert task == [
        *("i" * 200, "greet", "done-failed", "2", "2030-01-01T00:00:00Z"),
        r"ValueError: no \x1b[31m[red]such[/red]\nname",
    ]


def test_pages_follow_each_other(cli: Cli, client: SyncClient) -> None:
    """--limit gives a page and tells the cursor of the next one; the last page tells none."""
    client.enqueue_many([Greet()] * 5, task_ids=list("abcde"))
    first = cli("list", "--limit", "3", "--ids")
    cursor = re.fullmatch(r"there are more: --cursor (\S+)\n", first.err)
    assert (first.out, bool(cursor)) == ("a\nb\nc\n", True)
    assert cursor is not None
    rest = cli("list", "--limit", "3", "--ids", "--cursor", cursor[1])
    assert (rest.out, rest.err) == ("d\ne\n", "")


def test_json_is_one_document_or_lines(cli: Cli, client: SyncClient) -> None:
    """--json gives a page with its cursor, --json --all a task a line."""
    client.enqueue_many([Greet()] * 3, task_ids=list("abc"))
    page = cli("list", "--limit", "2", "--json").json
    assert [task["id"] for task in page["tasks"]] == ["a", "b"]
    assert cli("list", "--json", "--cursor", page["cursor"]).json["cursor"] is None
    lines = cli("list", "--all", "--json").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b", "c"]


def test_all_reads_every_page(cli: Cli, client: SyncClient) -> None:
    """--all goes on beyond one page, as ids and as a table."""
    client.enqueue_many([Greet()] * 1_100)
    assert len(cli("list", "--all", "--ids").out.splitlines()) == 1_100
    assert len(cli("list", "--all").lines) == 1_101


def test_filters_hold_together(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """--kind, --status, --resource-key and --owner choose; what fits none is said on stderr."""
    client.enqueue(Greet(), task_id="a", resource_key="k", owner="ada")
    client.enqueue(Greet(), task_id="b", owner="ada")
    foreign({"c": FAILED})
    assert cli("list", "--owner", "ada", "--resource-key", "k", "--ids").out == "a\n"
    assert cli("list", "--kind", "greet", "--status", "done-failed", "--ids").out == "c\n"
    nothing = cli("list", "--kind", "other")
    assert (nothing.code, nothing.out, nothing.err.partition(":")[0]) == (0, "", "no tasks")


def test_a_cursor_and_all_exclude_each_other(cli: Cli) -> None:
    """--all --cursor is refused, as is a cursor that no page gave."""
    assert cli("list", "--all", "--cursor", "YQ==").code == 2
    assert cli("list", "--cursor", "?").err.startswith("error: cursor must be the one of an earlier page, not '?'")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_a_table_that_fits(
    cli: Cli, foreign: Foreign, terminal: Callable[[int], None], columns: int
) -> None:
    """On a terminal no line is too long, random ids are whole and the error is seen: beside, or below."""
    foreign({"f" * 32: FAILED})
    terminal(columns)
    out = cli("list").out
    assert max(map(len, out.splitlines())) <= columns
    assert f"{'f' * 32}  greet  done-failed" in out
    assert "ValueError: no " in out
    assert "\x1b[31m" not in out


def test_show_says_everything(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """Show has data, every error on lines of its own, and options that were given."""
    foreign({"f": FAILED})
    shown = cli("show", "f").out
    assert re.search(r"^status +done-failed$", shown, re.MULTILINE)
    assert '"name": "x"' in shown
    assert re.search(r"^error +attempt 2, ", shown, re.MULTILINE)
    assert "ValueError: no \\x1b[31m[red]such[/red]\n" in shown
    client.enqueue(Greet(), task_id="w", timeout=5, owner="ada", wait_until=T0)
    shown = cli("show", "w").out
    assert re.search(r"^timeout +5 s$", shown, re.MULTILINE)
    assert re.search(r"^not before +20(29|30)-\S+ \S+  \(in \d+ d\)$", shown, re.MULTILINE)


def test_show_says_how_far_a_task_is(cli: Cli, foreign: Foreign) -> None:
    """What the handler said last stands in one line, and its data below."""
    foreign({"p": {**FAILED, "progress": {"fraction": 0.4, "message": "page 4\x1b", "data": {"page": 4}}}})
    shown = cli("show", "p").out
    assert re.search(r"^progress +40 %, page 4\\x1b$", shown, re.MULTILINE)
    assert '"page": 4' in shown
    assert cli("show", "p", "--json").json["progress"]["data"] == {"page": 4}


def test_show_says_what_a_schedule_does(cli: Cli, client: SyncClient) -> None:
    """Of a generator it tells the rule in words and the next runs in its zone, beside the fields as they are stored."""
    rule = Recurrence("FREQ=WEEKLY;BYDAY=TU", T0, "Europe/Berlin")
    client.enqueue(Greet(), task_id="g", recurrence=rule)
    shown = cli("show", "g").out
    assert re.search(r"^rule +every week on Tuesday at 01:00  \(Europe/Berlin\)$", shown, re.MULTILINE)
    assert re.search(r"^next runs +2030-01-01 01:00:00\+01:00\n +2030-01-08 01:00:00\+01:00$", shown, re.MULTILINE)
    assert '"rrule": "FREQ=WEEKLY;BYDAY=TU"' in shown
    client.pause_schedule("g")
    paused = cli("show", "g").out
    assert re.search(r"^status +waiting, paused$", paused, re.MULTILINE)
    assert "next runs" not in paused


def test_show_says_why_a_schedule_is_unreadable(cli: Cli, foreign: Foreign) -> None:
    """A rule that cannot be read is shown with the reason."""
    foreign({"odd": {**FAILED, "recurrence": {"cron": "soon", "dtstart": T0}}})
    shown = cli("show", "odd")
    assert shown.code == 0
    assert re.search(r"^unreadable +cron expression 'soon': ", shown.out, re.MULTILINE)


def test_show_as_json_has_the_names_of_the_document(cli: Cli, client: SyncClient) -> None:
    """With --json all fields are there, in camel case, instants in UTC, null where there is nothing."""
    client.enqueue(Greet(name="Ada"), task_id="w", wait_until=T0)
    task = cli("show", "w", "--json").json
    assert (task["waitUntil"], task["status"], task["data"]) == ("2030-01-01T00:00:00Z", "waiting", {"name": "Ada"})
    assert (task["result"], task["errors"], task["problems"]) == (None, [], [])


def test_an_unreadable_document_is_shown_with_its_problems(cli: Cli, foreign: Foreign) -> None:
    """What somebody else wrote, and wrote wrong, is listed and shown with what is wrong with it."""
    foreign({"odd": {"kind": "greet", "createdAt": T0, "waitUntil": T0, "dueAt": T0, "attempts": "many"}})
    assert cli("list").lines[1][5].startswith("unreadable: attempts: must be a whole number, 0 or more, not 'many'")
    shown = cli("show", "odd")
    assert shown.code == 0
    assert "unreadable    attempts: must be a whole number" in shown.out
    problems = cli("show", "odd", "--json").json["problems"]
    assert [problem.partition(":")[0] for problem in problems] == ["attempts", "data"]


@pytest.mark.parametrize("id_", ["a/b", "", "__x__"])
def test_a_malformed_id_is_refused(cli: Cli, id_: str) -> None:
    """An id that no store could hold is wrong input, not a missing task."""
    answer = cli("show", id_)
    assert (answer.code, answer.err.partition(" ")[2].startswith("task_id ")) == (2, True)


def test_stats_counts_kinds_and_statuses(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """Stats has a line a kind and a total; statuses without a task are left out."""
    foreign({"c": FAILED})
    client.enqueue_many([Greet()] * 2)
    client.enqueue(Greet(), wait_until=T0)
    assert cli("stats").lines == [
        ["kind", "waiting", "pending", "done-failed", "total"],
        ["greet", "1", "2", "1", "4"],
        ["total", "1", "2", "1", "4"],
    ]
    assert cli("stats", "--json").json == {
        "kinds": {"greet": {"waiting": 1, "pending": 2, "done-failed": 1}},
        "totals": {"waiting": 1, "pending": 2, "done-failed": 1},
        "total": 4,
        "paused": [],
    }


def test_stats_of_nothing_is_empty(cli: Cli) -> None:
    """A store without tasks has nothing to count, and says so on stderr."""
    answer = cli("stats")
    assert (answer.code, answer.out, answer.err.partition(":")[0]) == (0, "", "no tasks")
    assert cli("stats", "--json").json == {"kinds": {}, "totals": {}, "total": 0, "paused": []}


def test_stats_marks_paused_kinds(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """A kind that is paused is marked, also one that has no task."""
    client.enqueue(Greet())
    foreign({"o": {**FAILED, "kind": "other"}})
    client.pause_kind("greet")
    client.pause_kind("third")
    assert cli("stats").lines == [
        ["kind", "pending", "done-failed", "total", "paused"],
        ["greet", "1", "0", "1", "paused"],
        ["other", "0", "1", "1", ""],
        ["third", "0", "0", "0", "paused"],
        ["total", "1", "1", "2", ""],
    ]
    assert cli("stats", "--json").json["paused"] == ["greet", "third"]
