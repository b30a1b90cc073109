"""`oncetask tick`."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta

import pytest

from oncetask import Recurrence, SyncClient
from tests.integration.cli.conftest import Cli, Command
from tests.integration.cli.running import Greet, Sleep, wait_until_begun
from tests.integration.cli.test_tasks import Foreign

NOTHING = {
    "claimed": 0,
    "completed": 0,
    "failed": 0,
    "retried": 0,
    "cancelled": 0,
    "expired": 0,
    "spawned": 0,
    "interrupted": 0,
    "nextDue": None,
    "more": False,
}


def test_what_is_due_is_run_and_told(cli: Cli, client: SyncClient) -> None:
    """It runs what is due, tells how that ended and when to look again; a task that failed is in the log."""
    client.enqueue(Greet(name="Ada"), task_id="t")
    client.enqueue(Greet(name="nobody"))
    client.enqueue(Greet(name="later"), delay=3_600)
    answer = cli("tick", "jobs:app")
    first, second = answer.out.splitlines()
    assert (answer.code, first) == (0, "2 attempts begun, 1 completed, 1 failed")
    assert second.startswith("next due ")
    assert second.endswith("(in 59 min)")
    assert client.get_task("t").result == {"greeting": "Hello Ada"}


def test_programs_get_the_report_of_the_api(cli: Cli, client: SyncClient) -> None:
    """With --json the report has the names that POST /tick gives them, and instants in UTC."""
    client.enqueue(Greet(name="Ada"))
    instant = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    client.enqueue(Greet(name="later"), wait_until=instant)
    due = instant.isoformat().replace("+00:00", "Z")
    assert cli("tick", "jobs:app", "--json").json == {**NOTHING, "claimed": 1, "completed": 1, "nextDue": due}


def test_nothing_to_do_is_no_failure(cli: Cli) -> None:
    """A tick on an empty queue says so."""
    answer = cli("tick", "jobs:app")
    assert (answer.code, answer.out) == (0, "nothing was due\n")
    assert cli("tick", "jobs:app", "--json").json == NOTHING


def test_occurrences_are_told(cli: Cli, foreign: Foreign) -> None:
    """What a schedule spawned is counted, and the occurrence runs in the same tick."""
    begun = datetime.now(UTC) - timedelta(seconds=90)
    rule = {"recurrence": Recurrence.every(3_600, start=begun).to_fields()}
    times = {"createdAt": begun, "waitUntil": begun, "dueAt": begun}
    foreign({"g": {"kind": "greet", "data": {"name": "Ada"}, **rule, **times}})
    out = cli("tick", "jobs:app").out
    assert out.startswith("1 attempt begun, 1 completed\n1 occurrence of schedules enqueued\nnext due ")


def test_a_spent_budget_is_told(cli: Cli, client: SyncClient) -> None:
    """What had the whole budget has failed; what did not get its turn is left, and it says to come again."""
    client.enqueue_many([Sleep(), Sleep()])
    answer = cli("tick", "jobs:app", "--budget", "0.3", "--concurrency", "1")
    assert answer.out == "1 attempt begun, 1 failed\ndue tasks are left, because the budget was spent: tick again\n"


def test_it_lingers(cli: Cli, client: SyncClient) -> None:
    """With --linger it takes what becomes due meanwhile."""
    client.enqueue(Greet(name="Ada"), delay=0.3)
    assert cli("tick", "jobs:app", "--linger", "1", "--json").json["completed"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_gives_back(command: Command, client: SyncClient, number: signal.Signals) -> None:
    """At SIGTERM or Ctrl-C what runs is aborted and pending again, its attempt unspent; exit code 130."""
    client.enqueue(Sleep(), task_id="t")
    tick = command("tick", "jobs:app", tells=False)
    wait_until_begun(client, "t")
    tick.stop(number)
    code, out, err = tick.ended()
    assert (code, out) == (130, "")
    assert json.loads(err.splitlines()[-1])["message"] == "interrupted; what ran was told to stop, and given back"
    assert (client.get_task("t").status, client.get_task("t").attempts) == ("pending", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jobs:empty",), "jobs:empty has no handler, so there is nothing that it could run"),
        (("nojobs:app",), "there is no module 'nojobs'"),
        (("jobs:app", "--concurrency", "0"), "concurrency must be a whole number, 1 or more, not 0"),
        (("jobs:app", "--budget", "0"), "budget must be more than zero"),
        (("jobs:app", "--linger", "-1"), "linger must be zero or more"),
    ],
)
def test_wrong_arguments_run_nothing(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """What is wrong is told in one line."""
    answer = cli("tick", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {message}")


def test_an_unavailable_store_is_3(cli: Cli) -> None:
    """Where the store cannot be opened, cron gets another code than for wrong usage."""
    assert cli("tick", "jobs:app", "--store", "sqlite:////no/such/folder/x.db").code == 3
