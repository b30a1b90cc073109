"""`oncetask cancel`."""

from __future__ import annotations

import pytest

from oncetask import Payload, Recurrence, SyncClient
from tests.integration.cli.conftest import Cli, Person
from tests.integration.cli.test_cancelled import CANCELLED
from tests.integration.cli.test_change import running
from tests.integration.cli.test_tasks import FAILED, Foreign
from tests.integration.places import FilePlace


class Greet(Payload, kind="greet"):
    """What is cancelled."""


class Other(Payload, kind="other"):
    """What is cancelled with it, or stays."""


def statuses(client: SyncClient) -> dict[str, str]:
    """Give the status of every task."""
    return {task.id: task.status.value for task in client.iter_tasks()}


def test_cancel_cancels_what_is_open(cli: Cli, client: SyncClient) -> None:
    """Tasks that wait are cancelled, each once, hundreds at a time."""
    ids = [receipt.task_id for receipt in client.enqueue_many([Greet()] * 250)]
    answer = cli("cancel", *ids, ids[0])
    assert (answer.code, answer.out, answer.err) == (0, "cancelled 250 tasks\n", "")
    assert client.stats().counts == {"greet": {"cancellation-pending": 250}}


def test_cancel_as_json_has_three_lists(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """A done task and a missing one make it exit with 1; the others are cancelled."""
    foreign({"f": FAILED})
    client.enqueue(Greet(), task_id="t")
    answer = cli("cancel", "gone", "f", "t", "--json")
    assert answer.code == 1
    assert answer.json == {"cancelled": ["t"], "notCancelled": ["f"], "notFound": ["gone"]}
    assert answer.error["message"] == "not found: gone; done already: f (done-failed)"


def test_a_running_task_is_cancelled(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """Somebody's lease stays, and the task is marked."""
    foreign({"busy": running()})
    assert cli("cancel", "busy").code == 0
    task = client.get_task("busy")
    assert (task.status, task.is_cancelled) == ("leased", True)


def test_a_second_cancel_is_told(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """Who cancels twice reads that it was cancelled already, and how it stands: not that it is done."""
    foreign({"ended": {**FAILED, **CANCELLED, "outcome": "cancelled"}, "busy": running()})
    client.enqueue(Greet(), task_id="t")
    assert cli("cancel", "t", "busy").code == 0
    again = cli("cancel", "t", "busy", "ended")
    assert (again.code, again.out) == (1, "cancelled 0 tasks\n")
    assert again.err == "error: cancelled already: t (cancellation-pending), busy (leased), ended (done-cancelled)\n"
    assert cli("cancel", "t", "--json").json == {"cancelled": [], "notCancelled": ["t"], "notFound": []}


@pytest.mark.parametrize(("bad", "reason"), [("a/b", "may not contain a slash"), ("", "must be a text with at least")])
def test_a_bad_id_does_not_hold_up_the_others(cli: Cli, client: SyncClient, bad: str, reason: str) -> None:
    """What cannot be an id is wrong input, told with its reason; the others are cancelled, which is told too."""
    client.enqueue(Greet(), task_id="t")
    answer = cli("cancel", bad, "t", "gone")
    assert (answer.code, answer.out) == (2, "cancelled 1 task\n")
    assert answer.err.startswith(f"error: task_id {reason}")
    assert answer.err.endswith(f"not {bad!r}; not found: gone; 1 other was cancelled all the same\n")
    assert statuses(client) == {"t": "cancellation-pending"}


def test_nothing_but_bad_ids_asks_no_store(cli: Cli) -> None:
    """Where no id can be one, all reasons are told, and no store has to be there."""
    answer = cli("cancel", "a/b", "..", "--store", "sqlite:////no/such/folder/x.db")
    assert (answer.code, answer.out) == (2, "")
    assert (answer.err.count("task_id"), "all the same" in answer.err) == (2, False)


@pytest.mark.parametrize(
    ("arguments", "cancelled"),
    [
        (("--kind", "greet", "--resource-key", "ada"), {"a"}),
        (("--resource-key", "ada"), {"a", "o"}),
        (("--all-of-kind", "greet", "--yes"), {"a", "b"}),
    ],
)
def test_many_are_cancelled_at_once(
    cli: Cli, client: SyncClient, foreign: Foreign, arguments: tuple[str, ...], cancelled: set[str]
) -> None:
    """A key, with a kind or without, and a kind mean all open tasks that they fit, and no other; twice does no more."""
    foreign({"f": {**FAILED, "resourceKey": "ada"}})
    client.enqueue(Greet(), task_id="a", resource_key="ada")
    client.enqueue(Greet(), task_id="b", resource_key="bob")
    client.enqueue(Other(), task_id="o", resource_key="ada")
    answer = cli("cancel", *arguments)
    many = "1 task" if len(cancelled) == 1 else f"{len(cancelled)} tasks"
    assert (answer.code, answer.out, answer.err) == (0, f"cancelled {many}\n", "")
    assert {task for task, status in statuses(client).items() if status == "cancellation-pending"} == cancelled
    assert cli("cancel", *arguments, "--json").json == {"cancelled": 0}


@pytest.mark.parametrize(
    ("arguments", "which"),
    [
        (("--resource-key", "ada"), "with resource key 'ada'"),
        (("--kind", "greet", "--resource-key", "ada"), "of kind 'greet' with resource key 'ada'"),
        (("--all-of-kind", "greet", "-y"), "of kind 'greet'"),
    ],
)
def test_nothing_to_cancel_is_no_failure(cli: Cli, place: FilePlace, arguments: tuple[str, ...], which: str) -> None:
    """Where nothing fits it exits with 0, and says on stderr what it looked for, and where."""
    answer = cli("cancel", *arguments, "--env", "blue")
    assert (answer.code, answer.out) == (0, "cancelled 0 tasks\n")
    assert answer.err == f"no task {which} is left to cancel: {place.url}, environment blue\n"
    as_json = cli("cancel", *arguments, "--env", "blue", "--json")
    assert (as_json.code, as_json.json, as_json.err) == (0, {"cancelled": 0}, "")


@pytest.mark.parametrize("option", ["--env", "--store"])
def test_another_place_is_another_task(cli: Cli, client: SyncClient, tmp_path: object, option: str) -> None:
    """--env and --store say where to cancel; what has the same kind elsewhere stays."""
    client.enqueue(Greet(), task_id="t")
    elsewhere = {"--env": "blue", "--store": f"sqlite:///{tmp_path}/other.db"}[option]
    assert cli("cancel", "--all-of-kind", "greet", "--yes", option, elsewhere).out == "cancelled 0 tasks\n"
    assert cli("cancel", "t", option, elsewhere).err == "error: not found: t\n"
    assert statuses(client) == {"t": "pending"}


@pytest.mark.parametrize(("says_yes", "code"), [(True, 0), (False, 1)])
def test_cancelling_a_kind_asks(cli: Cli, client: SyncClient, person: Person, says_yes: bool, code: int) -> None:
    """At a terminal it names how many are open, of which kind and where, and does as it is told."""
    client.enqueue(Other(), task_id="o")
    client.enqueue(Greet(), task_id="t")
    asked = person(says_yes=says_yes)
    answer = cli("cancel", "--all-of-kind", "greet")
    assert (answer.code, asked) == (code, ["Cancel the only open task of kind greet in environment default?"])
    assert answer.err == ("" if says_yes else "error: nothing was cancelled\n")
    assert statuses(client) == {"o": "pending", "t": "cancellation-pending" if says_yes else "pending"}


def test_the_question_has_the_number_that_is_open(cli: Cli, client: SyncClient, person: Person) -> None:
    """Several are counted in the question, and --yes asks none."""
    client.enqueue_many([Greet()] * 3)
    asked = person(says_yes=False)
    assert cli("cancel", "--all-of-kind", "greet").code == 1
    assert asked == ["Cancel all 3 open tasks of kind greet in environment default?"]
    assert cli("cancel", "--all-of-kind", "greet", "--yes").out == "cancelled 3 tasks\n"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("tasks", "schedules", "counted"),
    [
        (0, 0, "all 0 open tasks"),
        (0, 1, "the only schedule"),
        (0, 2, "all 2 schedules"),
        (1, 1, "1 open task and 1 schedule"),
        (2, 3, "2 open tasks and 3 schedules"),
    ],
)
def test_the_question_counts_schedules(
    cli: Cli, client: SyncClient, person: Person, *, tasks: int, schedules: int, counted: str
) -> None:
    """A schedule of the kind is cancelled with its tasks, so the question has it."""
    client.enqueue_many([Greet()] * tasks)
    client.enqueue_many([Greet()] * schedules, recurrence=Recurrence.cron("@daily"))
    asked = person(says_yes=True)
    answer = cli("cancel", "--all-of-kind", "greet")
    assert asked == [f"Cancel {counted} of kind greet in environment default?"]
    assert answer.out == f"cancelled {tasks + schedules} task{'' if tasks + schedules == 1 else 's'}\n"


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_cancelling_a_kind_without_anybody_to_ask_is_refused(
    cli: Cli, client: SyncClient, arguments: tuple[str, ...]
) -> None:
    """In a script it wants --yes, and exits with 2 without it."""
    client.enqueue(Greet(), task_id="t")
    answer = cli("cancel", "--all-of-kind", "greet", *arguments)
    assert (answer.code, answer.out, "give --yes" in answer.err) == (2, "", True)
    assert statuses(client) == {"t": "pending"}


def test_json_asks_nobody(cli: Cli, client: SyncClient, person: Person) -> None:
    """With --json no question is put to the person who is there."""
    client.enqueue(Greet(), task_id="t")
    asked = person(says_yes=True)
    assert (cli("cancel", "--all-of-kind", "greet", "--json").code, asked) == (2, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of these"),
        (("--yes",), "give one of these"),
        (("t", "--resource-key", "ada"), "give only one of these, not ids and --resource-key"),
        (("t", "--kind", "greet"), "give only one of these, not ids and --kind"),
        (("t", "--all-of-kind", "greet"), "give only one of these, not ids and --all-of-kind"),
        (
            ("--resource-key", "ada", "--all-of-kind", "greet"),
            "give only one of these, not --resource-key and --all-of-kind",
        ),
        (("--kind", "greet", "--all-of-kind", "greet"), "give only one of these, not --kind and --all-of-kind"),
        (
            ("t", "--kind", "greet", "--resource-key", "ada"),
            "give only one of these, not ids and --kind and --resource-key",
        ),
    ],
)
def test_there_are_three_ways(cli: Cli, client: SyncClient, arguments: tuple[str, ...], message: str) -> None:
    """None of the ways, or several of them, is wrong usage; the message names the ways, and nothing is cancelled."""
    client.enqueue(Greet(), task_id="t", resource_key="ada")
    answer = cli("cancel", *arguments)
    ways = "cancel takes ids, or --resource-key (with or without --kind), or --all-of-kind"
    assert (answer.code, answer.out, answer.err) == (2, "", f"error: {ways}: {message}\n")
    assert statuses(client) == {"t": "pending"}


def test_a_kind_alone_is_not_enough(cli: Cli, client: SyncClient) -> None:
    """--kind without --resource-key is wrong usage, and the message says what may have been meant."""
    client.enqueue(Greet(), task_id="t")
    answer = cli("cancel", "--kind", "greet", "--yes")
    message = "--kind goes with --resource-key; for all tasks of kind 'greet' give --all-of-kind greet"
    assert (answer.code, answer.err) == (2, f"error: {message}\n")
    assert statuses(client) == {"t": "pending"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--all-of-kind", "No Kind"), "kind must be 1 to 100 of the characters a-z 0-9 . _ - "),
        (("--all-of-kind", ""), "kind must be 1 to 100 "),
        (("--kind", "No", "--resource-key", "ada"), "kind must be 1 to 100 "),
        (("--resource-key", ""), "resource_key must be "),
        (("--resource-key", "k" * 1_001), "resource_key must be "),
    ],
)
def test_a_malformed_kind_or_key_asks_no_store(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """A kind or key that no task can have is wrong input, told with the reason before a store is asked."""
    answer = cli("cancel", *arguments, "--yes", "--store", "sqlite:////no/such/folder/x.db")
    assert (answer.code, answer.err.startswith(f"error: {message}")) == (2, True)


@pytest.mark.parametrize("arguments", [("t",), ("--resource-key", "ada"), ("--all-of-kind", "greet", "--yes")])
def test_a_store_that_is_not_there_is_told(cli: Cli, arguments: tuple[str, ...]) -> None:
    """Each way exits with 3 where the store cannot be opened."""
    assert cli("cancel", *arguments, "--store", "sqlite:////no/such/folder/x.db").code == 3


def test_help_has_examples(cli: Cli) -> None:
    """--help shows how ids and a key are given."""
    shown = " ".join(cli("cancel", "--help").out.split())
    assert "Example: oncetask cancel send-email:42 send-email:43" in shown
    assert "oncetask cancel --kind send-email --resource-key ada" in shown
