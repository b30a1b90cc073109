"""A command line on an SQLite file of the test's own, in a folder with a user's program."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from oncetask import App, SyncClient, connect, connect_sync, lifecycle
from oncetask.cli.entry import run
from oncetask.recurrence import Plan
from oncetask.schedules import reconcile
from tests.integration.cli.running import Running
from tests.integration.places import FilePlace

JOBS = """
import asyncio
import os

from oncetask import App, NoRetry, Payload


class Greet(Payload, kind="greet"):
    name: str

    def idempotency_key(self):
        return self.name if self.name.startswith("once-") else None


class Hold(Payload, kind="hold"):
    fifo: str


class Sleep(Payload, kind="sleep"):
    in_thread_on: str | None = None


app = App(retry=NoRetry())
empty = App("empty")
number = 5


@app.handler(Greet)
async def greet(ctx, payload):
    if payload.name == "nobody":
        raise ValueError("there is nobody\\nto greet")
    return {"greeting": f"Hello {payload.name}"}


@app.handler(Hold)
def hold(ctx, payload):
    ctx.progress(0)
    with open(payload.fifo) as fifo:  # until the test writes
        return fifo.read()


@app.handler(Sleep)
async def sleep(ctx, payload):
    ctx.progress(0)
    if payload.in_thread_on:
        await asyncio.to_thread(open, payload.in_thread_on)
    await asyncio.Event().wait()


class Factory:
    app = app
"""
"""The user's program."""


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[list[str]]:
        """The fields of each line on stdout."""
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The error that was written as JSON, which is the last line on stderr."""
        return json.loads(self.err.splitlines()[-1])["error"]


Cli = Callable[..., Answer]
Command = Callable[..., Running]
Person = Callable[..., list[str]]
Declare = Callable[[App], None]
Spawn = Callable[[str, datetime], str]


@pytest.fixture
def place(tmp_path: Path) -> FilePlace:
    """The store of this test."""
    return FilePlace(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the user's program in it; what importing it changes is undone."""
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def cli(
    folder: Path, place: FilePlace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """Runs a command in this process: all of it but the end of the process."""
    monkeypatch.setenv("ONCETASK_STORE", place.url)
    level = logging.getLogger("oncetask").level

    def call(*arguments: str, stdin: bytes = b"") -> Answer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = run(arguments)
        return Answer(code, *capsys.readouterr())

    yield call
    logging.getLogger("oncetask").setLevel(level)


@pytest.fixture
def command(folder: Path, place: FilePlace) -> Iterator[Command]:
    """Starts commands in processes of their own, which work on the test's store; none outlives the test."""
    with ExitStack() as running:

        def start(*arguments: str, tells: bool = True, **variables: str) -> Running:
            environment = {**place.environment, **variables}
            return running.enter_context(Running(*arguments, environment=environment, tells=tells))

        yield start


@pytest.fixture
def client(place: FilePlace) -> Iterator[SyncClient]:
    """The SDK on the same store."""
    with connect_sync(place.url) as client:
        yield client


@pytest.fixture
def foreign(place: FilePlace) -> Callable[[Mapping[str, Mapping[str, Any]]], None]:
    """Writes documents as somebody would who has no oncetask."""

    def put(documents: Mapping[str, Mapping[str, Any]]) -> None:
        with connect_sync(place.url):
            asyncio.run(place.put(documents))

    return put


@pytest.fixture
def declare(place: FilePlace) -> Declare:
    """Brings about what an App declares, as a worker does that starts; what it does not declare has vanished."""

    async def work(app: App) -> None:
        async with connect(place.url) as client:
            await reconcile(client.store, {app.name}, app.schedules(), client.telemetry)

    return lambda app: asyncio.run(work(app))


@pytest.fixture
def spawn(place: FilePlace) -> Spawn:
    """Has a generator spawn the occurrence of an instant, as a worker does, and gives its id."""

    async def work(task_id: str, instant: datetime) -> str:
        async with connect(place.url) as client:
            generator, now = await client.get_task(task_id), await client.store.now()
            steps, occurrences = lifecycle.spawn(generator, Plan((instant,), generator.wait_until), now=now)
            await client.store.commit(steps, occurrences, None)
            return occurrences[0].id

    return lambda task_id, instant: asyncio.run(work(task_id, instant))


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Person:
    """Sits somebody at the terminal, who answers every question the same; gives the questions."""

    def sit(*, says_yes: bool) -> list[str]:
        asked: list[str] = []

        def answer(question: str, **_: object) -> bool:
            asked.append(question)
            return says_yes

        monkeypatch.setattr("oncetask.cli.consent.has_somebody_to_ask", lambda: True)
        monkeypatch.setattr("typer.confirm", answer)
        return asked

    return sit


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes stdout look like a terminal, so many columns wide, without colours."""

    def wide(columns: int) -> None:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setenv("COLUMNS", str(columns))

    return wide
