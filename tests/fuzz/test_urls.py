"""What names a store: any text is a client or a ValueError that names it, and nothing is opened for that."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncetask import Client, connect
from tests.fuzz.effort import examples
from tests.fuzz.refusals import may_refuse
from tests.fuzz.strategies import anything, mutated, texts

SOUND = [
    "memory://",
    "sqlite:///tasks.db",
    "sqlite:////var/lib/tasks.db",
    "sqlite:///with%20a%20blank.db",
    "firestore://my-project",
    "firestore://example.com:my-project/my-database",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder without a file; opening a database or a connection fails a test."""

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("something was opened")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sqlite3, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


def made(url: Any, **options: Any) -> Client | None:
    """Give a client, or None where the url, or the environment, was refused by its name."""
    name, value = next(iter(options.items()), ("url", url))
    with may_refuse(f"{name} must be ") as refusal:
        return connect(url, **options)
    assert repr(value) in str(refusal.error)
    return None


@examples(400)
@given(texts | mutated(st.sampled_from(SOUND)) | st.builds(str.__add__, st.sampled_from(SOUND), texts))
@example("sqlite:///a%00b")
@example("sqlite:///%ff")
@example("//[")
@example("firestore://p/%2e%2e")
def test_any_text_is_a_client_or_refused(folder: Path, url: str) -> None:
    """A url names a store, whose own url names the same one again, or the ValueError has it."""
    client = made(url)
    if client is not None:
        assert connect(client.store.url).store.url == client.store.url
    assert list(folder.iterdir()) == []


@examples(100)
@given(anything.filter(lambda value: value is not None))
def test_what_is_no_text_is_refused(url: object) -> None:
    """A url of another type is a TypeError that names it."""
    if not isinstance(url, str):
        assert made(url) is None


@examples(200)
@given(texts | mutated(st.sampled_from(["default", "staging-2", "__x__", "..", "A.b_c"])) | anything)
def test_any_environment_is_taken_or_refused(env: Any) -> None:
    """An environment is what it says, or is refused with its name."""
    if env is not None:
        client = made("memory://", env=env)
        assert client is None or client.store.env == env
