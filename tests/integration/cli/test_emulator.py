"""The same commands on Firestore: in processes of their own, as a user has them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
