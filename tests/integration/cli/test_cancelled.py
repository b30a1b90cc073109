"""How a cancelled task looks in `oncetask show`, `list` and `doctor`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from oncetask import Payload, SyncClient
from tests.integration.cli.conftest import Cli
from tests.integration.cli.test_change import running
from tests.integration.cli.test_tasks import T0, Foreign

CANCELLED = {"createdAt": T0, "waitUntil": T0, "isCancelled": True, "cancelledAt": T0}
"""What the document of a task has that was cancelled at T0."""


class Greet(Payload, kind="greet"):
    """A kind that the user's program handles."""


class Other(Payload, kind="other"):
    """One that it does not handle."""


def cleanup(error_at: datetime, **fields: Any) -> dict[str, Any]:
    """Give the document of a cancelled task whose cleanup was tried once, and of an error."""
    error = {"at": error_at, "attempt": 1, "type": "OSError", "message": "no disk"}
    times = {**CANCELLED, "attempts": 3, "cancelAttempts": 1, "errors": [error]}
    return {"kind": "greet", "data": {}, **times, **fields}


def test_a_cancelled_task_is_shown_as_such(cli: Cli, client: SyncClient) -> None:
    """Show tells the status, and when it was cancelled; as JSON it has all fields of the document."""
    client.enqueue(Greet(), task_id="t")
    cli("cancel", "t")
    shown = cli("show", "t").out
    assert re.search(r"^status +cancellation-pending$", shown, re.MULTILINE)
    assert re.search(r"^cancelled +\S+ \S+  \(\S+ s ago\)$", shown, re.MULTILINE)
    assert re.search(r"^due +at once, before all others$", shown, re.MULTILINE)
    task = cli("show", "t", "--json").json
    cancelled_at = client.get_task("t").cancelled_at
    assert (task["status"], task["isCancelled"], task["cancelAttempts"]) == ("cancellation-pending", True, 0)
    assert cancelled_at is not None
    assert datetime.fromisoformat(task["cancelledAt"]) == cancelled_at
    assert cli("list", "--json").json["tasks"][0]["cancelledAt"] == task["cancelledAt"]
    assert cli("list", "--status", "cancellation-pending").lines[1][2:5] == [
        "cancellation-pending",
        "0",
        task["cancelledAt"],
    ]


def test_a_cancelled_task_that_still_runs_is_told(cli: Cli, foreign: Foreign, terminal: Callable[[int], None]) -> None:
    """People read that a leased task has been cancelled; programs get the plain status."""
    foreign({"busy": running()})
    cli("cancel", "busy")
    assert re.search(r"^status +leased, cancelled$", cli("show", "busy").out, re.MULTILINE)
    assert cli("list").lines[1][2] == "leased"
    assert cli("show", "busy", "--json").json["status"] == "leased"
    terminal(80)
    assert "leased, cancelled" in cli("list").out


def test_errors_of_the_cleanup_are_told_apart(cli: Cli, foreign: Foreign) -> None:
    """An attempt at the cleanup is counted by itself, and an error after the cancel is called the cleanup's."""
    foreign({"mine": cleanup(T0 - timedelta(seconds=1), dueAt=T0), "its": cleanup(T0, doneAt=T0, outcome="failed")})
    its, mine = cli("show", "its").out, cli("show", "mine").out
    assert re.search(r"^tries +3, and 1 of the cleanup$", its, re.MULTILINE)
    assert re.search(r"^error +attempt 1 of the cleanup, ", its, re.MULTILINE)
    assert re.search(r"^error +attempt 1, ", mine, re.MULTILINE)
    assert [line[5] for line in cli("list").lines[1:]] == ["cleanup: OSError: no disk", "OSError: no disk"]
    assert cli("show", "its", "--json").json["cancelAttempts"] == 1


def test_doctor_names_cancelled_tasks_that_nobody_ends(cli: Cli, client: SyncClient) -> None:
    """With --app, open tasks of kinds that it does not handle are told, and how many of them are cancelled."""
    client.enqueue_many([Other()] * 3, task_ids=list("abc"))
    cli("cancel", "a", "b")
    (finding,) = cli("doctor", "--app", "jobs:app", "--json").json["findings"]
    assert finding["message"] == (
        "3 open tasks of kind 'other', which has no handler in this app "
        "(2 cancelled: only a worker that handles this kind ends them)"
    )
