"""`oncetask reset` and `oncetask delete`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from oncetask import Payload, SyncClient, TaskNotFound
from tests.integration.cli.conftest import Cli, Person
from tests.integration.cli.test_tasks import FAILED, Foreign


class Greet(Payload, kind="greet"):
    """What is changed."""


def running() -> dict[str, object]:
    """Give the document of a task that somebody runs for some time yet."""
    until, now = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC)
    times = {"createdAt": now, "waitUntil": now, "leasedUntil": until, "dueAt": until}
    return {"kind": "greet", "data": {}, "attempts": 1, "leaseOwner": "somebody", **times}


def test_reset_runs_done_tasks_again(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """A done task is pending again, with no attempt spent."""
    foreign({"f": FAILED})
    answer = cli("reset", "f")
    assert (answer.code, answer.out, answer.err) == (0, "reset 1 task\n", "")
    assert (client.get_task("f").status, client.get_task("f").attempts) == ("pending", 0)


def test_reset_names_what_it_could_not(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """One that is not done and one that is not there make it exit with 1; the others are reset."""
    foreign({"f": FAILED})
    client.enqueue(Greet(), task_id="open")
    answer = cli("reset", "f", "open", "gone", "f", "--json")
    assert answer.code == 1
    assert answer.json == {"reset": ["f"], "notDone": ["open"], "notFound": ["gone"]}
    assert answer.error["message"] == "not found: gone; not done, so they were not reset: open"


def test_a_malformed_id_changes_nothing(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """All ids are checked before the first task is touched."""
    foreign({"f": FAILED})
    assert cli("reset", "f", "a/b").code == 2
    assert cli("delete", "f", "a/b", "--yes").code == 2
    assert client.get_task("f").status == "done-failed"


def test_delete_deletes_with_yes(cli: Cli, client: SyncClient) -> None:
    """--yes asks nothing; hundreds go at once."""
    ids = [receipt.task_id for receipt in client.enqueue_many([Greet()] * 250)]
    assert cli("delete", *ids, "--yes").out == "deleted 250 tasks\n"
    assert client.stats().total() == 0


def test_delete_leaves_what_runs(cli: Cli, client: SyncClient, foreign: Foreign) -> None:
    """A running task and a missing one make it exit with 1; the others are deleted."""
    foreign({"busy": running(), "f": FAILED})
    answer = cli("delete", "busy", "f", "gone", "-y", "--json")
    assert answer.code == 1
    assert answer.json == {"deleted": ["f"], "running": ["busy"], "notFound": ["gone"]}
    assert client.get_task("busy").status == "leased"


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_delete_without_anybody_to_ask_is_refused(cli: Cli, client: SyncClient, arguments: tuple[str, ...]) -> None:
    """In a script delete wants --yes, and exits with 2 without it."""
    client.enqueue(Greet(), task_id="t")
    answer = cli("delete", "t", *arguments)
    assert answer.code == 2
    assert client.stats().total() == 1


@pytest.mark.parametrize(("says_yes", "code"), [(True, 0), (False, 1)])
def test_delete_asks(cli: Cli, client: SyncClient, person: Person, says_yes: bool, code: int) -> None:
    """At a terminal it asks, and does as it is told."""
    client.enqueue(Greet(), task_id="t")
    asked = person(says_yes=says_yes)
    assert cli("delete", "t").code == code
    assert asked == ["Delete 1 task for good?"]
    if code:
        assert client.stats().total() == 1
    else:
        with pytest.raises(TaskNotFound):
            client.get_task("t")
