"""The same commands on Firestore: in processes of their own, as a user has them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from oncetask import App, connect
from oncetask.schedules import reconcile
from tests.integration.cli.test_schedules import shop

pytestmark = pytest.mark.emulator

Oncetask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def oncetask(folder: Path, firestore_environment: dict[str, str]) -> Oncetask:
    """Runs a command against this test's project."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "oncetask", *arguments]
        return subprocess.run(
            command, cwd=folder, env=firestore_environment, capture_output=True, text=True, check=False
        )

    return call


def test_the_demo_runs_and_cleans_up(oncetask: Oncetask, folder: Path, project_id: str) -> None:
    """`oncetask demo --store firestore://…` does all its work there, and leaves no task."""
    (folder / "more.txt").write_text("some words\n")
    done = oncetask("demo", ".", "--store", f"firestore://{project_id}", "--env", "show", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], report["totals"]["files"]) == (0, True, 2)
    assert report["where"].startswith(f"firestore://{project_id} (emulator at ")
    assert json.loads(oncetask("stats", "--env", "show", "--json").stdout)["total"] == 0


def test_a_task_can_be_followed(oncetask: Oncetask, project_id: str) -> None:
    """Enqueue, list, show, stats, doctor, cancel and delete agree about a task."""
    enqueued = oncetask("enqueue", "greet", '{"name": "Ada"}', "--task-id", "greet:1")
    assert (enqueued.returncode, enqueued.stdout) == (0, "greet:1\n")
    assert enqueued.stderr.startswith(f"created: firestore://{project_id} ")
    assert oncetask("list", "--kind", "greet", "--status", "pending", "--ids").stdout == "greet:1\n"
    shown = json.loads(oncetask("show", "greet:1", "--json").stdout)
    assert (shown["data"], shown["attempts"]) == ({"name": "Ada"}, 0)
    assert json.loads(oncetask("stats", "--json").stdout)["kinds"] == {"greet": {"pending": 1}}
    health = json.loads(oncetask("doctor", "--json").stdout)
    assert (health["ok"], health["scanned"]) == (True, 1)
    assert abs(health["clockOffsetSeconds"]) < 5
    cancelled = oncetask("cancel", "greet:1")
    assert (cancelled.returncode, cancelled.stdout) == (0, "cancelled 1 task\n")
    assert oncetask("cancel", "greet:1").stderr == "error: cancelled already: greet:1 (cancellation-pending)\n"
    assert oncetask("delete", "greet:1", "--yes").returncode == 0
    assert oncetask("show", "greet:1").stderr == "error: no task has the id 'greet:1' in this environment\n"


def test_a_kind_can_be_paused_and_a_tick_runs_the_rest(oncetask: Oncetask) -> None:
    """Pause, tick, resume and doctor agree about a kind."""
    assert oncetask("enqueue", "greet", '{"name": "Ada"}').returncode == 0
    assert oncetask("pause", "--kind", "greet").stdout == "paused 1 kind\n"
    assert json.loads(oncetask("tick", "jobs:app", "--json").stdout)["claimed"] == 0
    notes = {note["about"]: note["message"] for note in json.loads(oncetask("doctor", "--json").stdout)["notes"]}
    assert notes["paused"] == "greet (1 open task)"
    assert notes["indexes"] == "not checked: an emulator needs none"
    assert oncetask("resume", "--kind", "greet").returncode == 0
    assert json.loads(oncetask("tick", "jobs:app", "--json").stdout)["completed"] == 1


def test_many_are_cancelled_at_once(oncetask: Oncetask) -> None:
    """A resource key and a kind mean the same tasks on Firestore: each open one is cancelled once."""
    for task_id, key in (("a", "ada"), ("b", "ada"), ("c", "bob")):
        assert oncetask("enqueue", "greet", "{}", "--task-id", task_id, "--resource-key", key).returncode == 0
    answers = [
        oncetask("cancel", "--resource-key", "ada", "--json"),
        oncetask("cancel", "--kind", "other", "--resource-key", "bob", "--json"),
        oncetask("cancel", "--all-of-kind", "greet", "--yes", "--json"),
    ]
    assert [json.loads(answer.stdout)["cancelled"] for answer in answers] == [2, 0, 1]
    assert oncetask("list", "--status", "cancellation-pending", "--ids").stdout == "a\nb\nc\n"


def test_a_schedule_can_be_followed(oncetask: Oncetask) -> None:
    """Enqueue, schedules, pause, resume, show, doctor and cancel agree about a schedule."""
    rule = ("--cron", "0 9 * * *", "--timezone", "Europe/Berlin", "--dtstart", "2030-01-01T00:00:00Z")
    assert oncetask("enqueue", "greet", "{}", "--task-id", "g", *rule).returncode == 0
    assert oncetask("enqueue", "greet", "{}", "--task-id", "t").returncode == 0
    (listed,) = json.loads(oncetask("schedules", "--json").stdout)["schedules"]
    assert (listed["taskId"], listed["inWords"]) == ("g", "at 09:00 every day")
    assert listed["next"][:2] == ["2030-01-01T08:00:00Z", "2030-01-02T08:00:00Z"]
    paused = oncetask("pause", "g", "t", "--json")
    assert (paused.returncode, json.loads(paused.stdout)["paused"]) == (2, ["g"])
    assert "waiting, paused" in oncetask("show", "g").stdout
    assert json.loads(oncetask("doctor", "--json").stdout)["ok"] is True
    (listed,) = json.loads(oncetask("schedules", "--json").stdout)["schedules"]
    assert (listed["paused"], listed["next"]) == (True, [])
    assert oncetask("resume", "g").stdout == "resumed 1 schedule\n"
    assert oncetask("cancel", "g").returncode == 0
    assert "\tcancelled\t" in oncetask("schedules").stdout


def test_what_vanished_is_pruned(
    oncetask: Oncetask, project_id: str, emulator_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule that the code does not declare any more is found by doctor, and cancelled by --prune."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)

    async def declare(*apps: App) -> None:
        async with connect(f"firestore://{project_id}") as client:
            for app in apps:
                await reconcile(client.store, {app.name}, app.schedules(), client.telemetry)

    asyncio.run(declare(shop("a", "b"), shop("a")))
    (finding,) = json.loads(oncetask("doctor", "--json").stdout)["findings"]
    assert (finding["check"], "shop:b" in finding["message"]) == ("vanished", True)
    pruned = oncetask("schedules", "--prune", "--yes", "--json")
    assert json.loads(pruned.stdout) == {"cancelled": 1, "ids": ["shop:b"]}
    assert json.loads(oncetask("doctor", "--json").stdout)["ok"] is True
