"""Commands that run until they are told to stop, in processes of their own, and tasks of the user's program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import httpx
import pytest
from websockets.sync.client import connect as connect_websocket

from oncetask import Payload, SyncClient, Task

__all__ = ["GREET", "LIMIT", "Greet", "Hold", "Running", "Sleep", "wait_until_begun"]

GREET = {"kind": "greet", "data": {"name": "Ada"}, "taskId": "t"}
"""What `POST /tasks` takes."""

LIMIT = 30.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""


class Greet(Payload, kind="greet"):
    """Ends at once."""

    name: str


class Hold(Payload, kind="hold"):
    """Runs in a thread until the test writes to the pipe."""

    fifo: str


class Sleep(Payload, kind="sleep"):
    """Never ends by itself."""

    in_thread_on: str | None = None


class Running:
    """`oncetask COMMAND … --json`, in the current folder; it ends with the `with` block at the latest."""

    def __init__(self, *command: str, environment: Mapping[str, str], tells: bool = True) -> None:
        """Start it. `tells`: and wait until it works; `started` is what it says then."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oncetask", *command, "--json"],
            env=environment,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline() if tells else "{}"
        if not line:
            pytest.fail(f"it did not start: {self.process.communicate()[1]}")
        self.started: dict[str, Any] = json.loads(line)

    @property
    def url(self) -> str:
        """Where it serves."""
        url: str = self.started["url"]
        return url

    def post(self, path: str, content: object = None) -> httpx.Response:
        """Send JSON to what it serves, and wait for the answer."""
        return httpx.post(f"{self.url}{path}", json=content, timeout=LIMIT, trust_env=False)

    def done(self, task_id: str) -> Any:
        """Follow a task through its WebSocket, and give it once it is done."""
        with connect_websocket(f"{self.url.replace('http', 'ws')}/ws", proxy=None) as websocket:
            websocket.send(json.dumps({"action": "watch", "taskId": task_id}))
            while (task := json.loads(websocket.recv(LIMIT))["task"])["doneAt"] is None:
                pass
        return task

    def log_until(self, message: str) -> list[str]:
        """Read the log until it says so; gives its messages."""
        assert self.process.stderr is not None
        messages: list[str] = []
        for line in self.process.stderr:
            messages.append(json.loads(line)["message"])
            if message in messages[-1]:
                return messages
        pytest.fail(f"it ended without saying {message!r}, but {messages}")

    def stop(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end; gives exit code and the rest of its output."""
        out, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, out, err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs of it, its children too."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def wait_until_begun(client: SyncClient, task_id: str) -> Task:
    """Watch the task until its handler has said that it runs: a claim is seen before whoever made it knows of it."""
    return next(task for task in client.watch(task_id) if task.status == "leased" and task.progress is not None)
