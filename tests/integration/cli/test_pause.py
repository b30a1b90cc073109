"""`oncetask pause` and `oncetask resume`."""

from __future__ import annotations

import pytest

from oncetask import SyncClient
from oncetask.lifecycle import is_paused
from tests.integration.cli.conftest import Cli
from tests.integration.cli.test_schedules import DAILY, Report
from tests.integration.cli.test_tasks import FAILED, Foreign


@pytest.fixture
def ids(client: SyncClient) -> list[str]:
    """There are two schedules."""
    return [client.enqueue(Report(), task_id=name, recurrence=DAILY).task_id for name in ("a", "b")]


def test_schedules_pause_and_go_on(cli: Cli, client: SyncClient, ids: list[str]) -> None:
    """Paused schedules start nothing, resumed ones go on; each id counts once."""
    answer = cli("pause", *ids, "a")
    assert (answer.code, answer.out, answer.err) == (0, "paused 2 schedules\n", "")
    assert all(map(is_paused, client.get_tasks_by_ids(ids)))
    answer = cli("resume", *ids)
    assert (answer.code, answer.out, answer.err) == (0, "resumed 2 schedules\n", "")
    assert not any(map(is_paused, client.get_tasks_by_ids(ids)))


def test_each_id_has_its_answer(cli: Cli, client: SyncClient, ids: list[str]) -> None:
    """A paused one, a cancelled one and a missing one make it exit with 1, with the reasons; the others are paused."""
    client.pause_schedule("a")
    client.enqueue(Report(), task_id="c", recurrence=DAILY)
    client.cancel_task("c")
    answer = cli("pause", "a", "b", "c", "gone", "--json")
    assert answer.code == 1
    assert answer.json == {"paused": ["b"], "notPaused": ["a", "c"], "notFound": ["gone"]}
    assert answer.error["message"] == "not found: gone; not paused: a (paused already), c (cancelled)"


def test_only_what_is_paused_is_resumed(cli: Cli, client: SyncClient, ids: list[str]) -> None:
    """Resuming what is not paused makes it exit with 1."""
    client.pause_schedule("b")
    answer = cli("resume", *ids, "--json")
    assert (answer.code, answer.json) == (1, {"resumed": ["b"], "notResumed": ["a"], "notFound": []})
    assert answer.error["message"] == "not resumed: a (not paused)"


def test_what_is_done_is_told(cli: Cli, foreign: Foreign) -> None:
    """A schedule that has ended is neither paused nor resumed, and its status is told."""
    foreign({"d": {**FAILED, "outcome": "completed", "recurrence": DAILY.to_fields()}})
    for command, done in (("pause", "paused"), ("resume", "resumed")):
        answer = cli(command, "d")
        assert (answer.code, answer.err) == (1, f"error: not {done}: d (done-completed)\n")


@pytest.mark.parametrize(("command", "done"), [("pause", "paused"), ("resume", "resumed")])
def test_a_task_is_no_schedule(cli: Cli, client: SyncClient, ids: list[str], command: str, done: str) -> None:
    """A task without a recurrence is wrong input, named with the reason; the others are changed all the same."""
    client.enqueue(Report(), task_id="t")
    if command == "resume":
        client.pause_schedule("a")
    answer = cli(command, "t", "a")
    assert (answer.code, answer.out) == (2, f"{done} 1 schedule\n")
    assert answer.err.startswith("error: task 't' is no schedule: ")
    assert answer.err.endswith(f"; 1 other was {done} all the same\n")
    assert is_paused(client.get_task("a")) is (command == "pause")
    assert client.get_task("t").status == "pending"


def test_a_task_is_refused_in_json_too(cli: Cli, client: SyncClient, ids: list[str]) -> None:
    """What is no schedule is among those that were not paused."""
    client.enqueue(Report(), task_id="t")
    answer = cli("pause", "t", "b", "--json")
    assert (answer.code, answer.json) == (2, {"paused": ["b"], "notPaused": ["t"], "notFound": []})


def test_a_bad_id_does_not_hold_up_the_others(cli: Cli, client: SyncClient, ids: list[str]) -> None:
    """What cannot be an id is wrong input; the others are paused, and nothing else asks no store."""
    answer = cli("pause", "x/y", "a")
    assert (answer.code, answer.out) == (2, "paused 1 schedule\n")
    assert answer.err.startswith("error: task_id may not contain a slash")
    assert cli("resume", "x/y", "--store", "sqlite:////no/such/folder/x.db").code == 2


def test_hundreds_at_once(cli: Cli, client: SyncClient) -> None:
    """Many schedules are paused by one command."""
    many = [f"g{number}" for number in range(150)]
    client.enqueue_many([Report()] * 150, task_ids=many, recurrence=DAILY)
    assert cli("pause", *many).out == "paused 150 schedules\n"


def test_kinds_pause_and_go_on(cli: Cli, client: SyncClient) -> None:
    """Tasks of a paused kind wait until it is resumed; it is told how many there are."""
    client.enqueue(Report())
    answer = cli("pause", "--kind", "report", "--kind", "other", "--kind", "report")
    told = "other: 0 open tasks"
    assert (answer.code, answer.out, answer.err) == (0, "paused 2 kinds\n", f"report: 1 open task\n{told}\n")
    assert client.paused_kinds() == ["other", "report"]
    assert cli("resume", "--kind", "report").out == "resumed 1 kind\n"
    assert client.paused_kinds() == ["other"]


def test_each_kind_has_its_answer(cli: Cli, client: SyncClient) -> None:
    """What is paused already, or was never paused, makes it exit with 1; the others are changed all the same."""
    client.pause_kind("a")
    answer = cli("pause", "--kind", "a", "--kind", "b", "--json")
    assert (answer.code, answer.json) == (1, {"paused": ["b"], "notPaused": ["a"], "notFound": []})
    assert answer.error["message"] == "not paused: a (paused already)"
    answer = cli("resume", "--kind", "c", "--kind", "b")
    assert (answer.code, answer.out) == (1, "resumed 1 kind\n")
    assert answer.err.splitlines()[-1] == "error: not resumed: c (not paused)"


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the ids of schedules, or --kind with a kind of tasks"),
        (("a", "--kind", "b"), "give the ids of schedules, or --kind, not both"),
        (("--kind", "a", "--kind", "Send Email"), "kind must be 1 to 100 of the characters"),
    ],
)
def test_what_is_meant_has_to_be_said(
    cli: Cli, client: SyncClient, command: str, arguments: tuple[str, ...], message: str
) -> None:
    """Ids or kinds, and kinds that can be such; nothing is changed otherwise."""
    client.pause_kind("z")
    answer = cli(command, *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {message}")
    assert client.paused_kinds() == ["z"]
