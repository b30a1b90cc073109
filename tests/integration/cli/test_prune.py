"""`oncetask schedules --prune`."""

from __future__ import annotations

import pytest

from oncetask import SyncClient
from tests.integration.cli.conftest import Cli, Declare, Person
from tests.integration.cli.test_schedules import DAILY, Report, shop
from tests.integration.places import FilePlace

LISTED = "shop:b  (b, declared by the app shop before)\nshop:c  (c, declared by the app shop before)\n"


@pytest.fixture
def gone(client: SyncClient, declare: Declare) -> None:
    """Two of three declared schedules have vanished from the code; there is an enqueued one beside them."""
    client.enqueue(Report(), task_id="enqueued", recurrence=DAILY)
    declare(shop("a", "b", "c"))
    declare(shop("a"))


def open_ones(client: SyncClient) -> set[str]:
    """Give the ids of what is not cancelled."""
    return {task.id for task in client.iter_tasks() if not task.is_cancelled}


@pytest.mark.usefixtures("gone")
def test_what_vanished_is_cancelled(cli: Cli, client: SyncClient) -> None:
    """--yes asks nothing: it lists and cancels what is not declared any more, and nothing else; twice does no more."""
    answer = cli("schedules", "--prune", "--yes")
    assert (answer.code, answer.out, answer.err) == (0, f"{LISTED}cancelled 2 schedules\n", "")
    assert open_ones(client) == {"enqueued", "shop:a"}
    assert cli("schedules", "--prune", "--yes").out == "cancelled 0 schedules\n"


@pytest.mark.usefixtures("gone")
def test_json_has_the_ids(cli: Cli, client: SyncClient) -> None:
    """With --json one document says how many were cancelled, and which."""
    answer = cli("schedules", "--prune", "--yes", "--json")
    assert (answer.code, answer.json) == (0, {"cancelled": 2, "ids": ["shop:b", "shop:c"]})
    assert cli("schedules", "--prune", "--yes", "--json").json == {"cancelled": 0, "ids": []}


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(("says_yes", "code"), [(True, 0), (False, 1)])
def test_it_asks(cli: Cli, client: SyncClient, person: Person, says_yes: bool, code: int) -> None:
    """At a terminal it lists what vanished, asks, and does as it is told."""
    asked = person(says_yes=says_yes)
    answer = cli("schedules", "--prune")
    assert (answer.code, asked) == (code, ["Cancel these 2 schedules in environment default?"])
    assert answer.out == LISTED + ("cancelled 2 schedules\n" if says_yes else "")
    assert answer.err == ("" if says_yes else "error: nothing was cancelled\n")
    assert ("shop:b" in open_ones(client)) is not says_yes


def test_one_is_asked_for_as_one(cli: Cli, declare: Declare, person: Person) -> None:
    """A single schedule is not asked for as several."""
    declare(shop("a"))
    declare(shop())
    asked = person(says_yes=True)
    assert cli("schedules", "--prune").out.endswith("cancelled 1 schedule\n")
    assert asked == ["Cancel the schedule in environment default?"]


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(("arguments", "listed"), [((), LISTED), (("--json",), "")])
def test_without_anybody_to_ask_it_is_refused(
    cli: Cli, client: SyncClient, arguments: tuple[str, ...], listed: str
) -> None:
    """In a script it wants --yes, and exits with 2 without it; texts list all the same what it would cancel."""
    answer = cli("schedules", "--prune", *arguments)
    assert (answer.code, answer.out, "give --yes" in answer.err) == (2, listed, True)
    assert open_ones(client) == {"enqueued", "shop:a", "shop:b", "shop:c"}


def test_nothing_vanished_is_told(cli: Cli, place: FilePlace, declare: Declare, person: Person) -> None:
    """Where everything is declared nobody is asked, it says so, and exits with 0."""
    declare(shop("a"))
    asked = person(says_yes=True)
    answer = cli("schedules", "--prune")
    assert (answer.code, answer.out, asked) == (0, "cancelled 0 schedules\n", [])
    assert answer.err == f"no schedule goes on that no code declares any more: {place.url}, environment default\n"
    assert cli("schedules", "--prune", "--json").json == {"cancelled": 0, "ids": []}


@pytest.mark.usefixtures("gone")
def test_only_what_goes_on_counts(cli: Cli, client: SyncClient) -> None:
    """A vanished schedule that somebody cancelled is left alone; a paused one is cancelled."""
    client.cancel_task("shop:b")
    client.pause_schedule("shop:c")
    assert cli("schedules", "--prune", "--yes", "--json").json == {"cancelled": 1, "ids": ["shop:c"]}


@pytest.mark.usefixtures("gone")
def test_what_comes_back_meanwhile_stays(
    cli: Cli, client: SyncClient, declare: Declare, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is declared again while the person thinks is not cancelled."""
    person(says_yes=True)

    def answer(*_: object, **__: object) -> bool:
        declare(shop("a", "b"))
        return True

    monkeypatch.setattr("typer.confirm", answer)
    assert cli("schedules", "--prune").out == f"{LISTED}cancelled 1 schedule\n"
    assert open_ones(client) == {"enqueued", "shop:a", "shop:b"}
