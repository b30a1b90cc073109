"""Which store a client gets, by url and environment, and on which loop it may be used."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore import AsyncClient

from oncetask import Client, OncetaskError, StoreUnavailable, connect, connect_sync
from oncetask.store.firestore import FirestoreStore
from oncetask.store.sqlite import SqliteStore
from tests.integration.client.support import LIMIT, Note
from tests.integration.places import FirestorePlace, Place
from tests.integration.stores import ON_FIRESTORE, ON_SQLITE


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _file(client: Client) -> str:
    """Give the file that an SQLite client works on."""
    assert isinstance(client.store, SqliteStore)
    return client.store._path


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tasks.db",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://tasks.db",
        "sqlite:///tasks.db?mode=ro",
        "sqlite:///a%00b",
        "sqlite:///:memory:",
        "memory",
        "memory://shared",
        "memory:///x",
        "firestore:",
        "firestore://",
        "firestore:///database",
        "firestore://project/database/collection",
        "firestore://project?emulator=1",
        "firestore://my project",
        "firestore://user@project",
        "redis://localhost",
        "http://[::1",
    ],
)
def test_a_malformed_url_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A url that names no store is refused at once, with what would be right, wherever it came from."""
    for make in (connect, connect_sync):
        with pytest.raises(ValueError, match="url must be firestore://PROJECT") as caught:
            make(url)
        assert repr(url) in str(caught.value)
    monkeypatch.setenv("ONCETASK_STORE", url or "nothing")
    with pytest.raises(ValueError, match="url must be firestore://PROJECT"):
        connect()


@pytest.mark.parametrize("url", [7, b"memory://", Path("tasks.db")])
def test_a_url_is_a_text(url: Any) -> None:
    """What is no text is refused by type."""
    with pytest.raises(TypeError, match="url must be a text"):
        connect(url)


@pytest.mark.parametrize("env", ["", "a/b", "..", "__x__", "ümlaut", "x" * 101, 7])
def test_a_malformed_environment_is_named(env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment's name is checked, wherever it came from."""
    with pytest.raises(ValueError, match="env must be") as caught:
        connect("memory://", env=env)
    assert repr(env) in str(caught.value)
    if isinstance(env, str) and env:
        monkeypatch.setenv("ONCETASK_ENV", env)
        with pytest.raises(ValueError, match="env must be"):
            connect("memory://")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tasks.db", "tasks.db"),
        ("sqlite:///data/tasks.db", "data/tasks.db"),
        ("sqlite:////var/tasks.db", "/var/tasks.db"),
        ("sqlite:///my%20tasks.db", "my tasks.db"),
        ("memory://", ":memory:"),
    ],
)
def test_sqlite_urls_name_a_file(url: str, path: str) -> None:
    """Three slashes are a relative path, four an absolute one; nothing is opened yet."""
    assert _file(connect(url)) == path


@pytest.mark.usefixtures("_elsewhere")
def test_the_default_is_a_file_here(caplog: pytest.LogCaptureFixture) -> None:
    """Without a url and a Google project tasks are kept in ./oncetask.db, and a log line says so."""
    with caplog.at_level(logging.INFO, "oncetask"):
        client = connect()
    assert _file(client) == "oncetask.db"
    assert "./oncetask.db" in caplog.text
    assert list(Path.cwd().iterdir()) == []


def test_variables_choose_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ONCETASK_STORE` is taken where no url is given, and an argument comes before it."""
    monkeypatch.setenv("ONCETASK_STORE", "sqlite:///from-variable.db")
    assert _file(connect()) == "from-variable.db"
    assert _file(connect("memory://")) == ":memory:"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "somewhere")
    assert _file(connect()) == "from-variable.db"


@pytest.mark.parametrize("name", ["FIRESTORE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"])
def test_a_google_project_means_firestore(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator or a project in the environment chooses Firestore."""
    monkeypatch.setenv(name, "127.0.0.1:1")
    assert isinstance(connect().store, FirestoreStore)


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("name", ["K_SERVICE", "FUNCTION_TARGET", "CLOUD_RUN_JOB", "KUBERNETES_SERVICE_HOST"])
def test_a_passing_disk_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk will not last, no file is chosen silently: the error names the variable and what to set."""
    monkeypatch.setenv(name, "here")
    monkeypatch.setattr("google.auth.default", lambda: (AnonymousCredentials(), None))  # type: ignore[no-untyped-call]
    with pytest.raises(StoreUnavailable, match=f"{name}.*ONCETASK_STORE"):
        connect()
    assert isinstance(connect("sqlite:///chosen.db").store, SqliteStore)


async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A folder that is missing, or a file that is no database, is told with its name, and may be there next time."""
    client = connect(f"sqlite:///{tmp_path}/missing/tasks.db")
    with pytest.raises(StoreUnavailable, match=r"missing/tasks\.db.*folder"):
        await client.enqueue(Note())
    (tmp_path / "missing").mkdir()
    async with client:
        assert (await client.enqueue(Note())).created
    (tmp_path / "text.db").write_text("this is no database, though it is long enough to be one" * 20)
    with pytest.raises(StoreUnavailable, match=r"text\.db.*not a database"):
        await connect(f"sqlite:///{tmp_path}/text.db").enqueue(Note())


@ON_FIRESTORE
async def test_an_own_firestore_client_may_be_passed_in(place: FirestorePlace) -> None:
    """Tasks go to the project of the client that is passed in, and it stays open."""
    own = AsyncClient(project=place.project)
    async with connect(firestore=own) as client:
        await client.enqueue(Note(), task_id="here")
    assert (await own.document("oncetask/default/onceTasks/here").get()).exists
    await own._firestore_api.transport.close()
    with pytest.raises(ValueError, match="url must be left out"):
        connect("memory://", firestore=own)


async def test_a_client_reopens(connected: Client) -> None:
    """After `aclose`, which may be called twice, the next use opens the store again."""
    await connected.enqueue(Note(), task_id="kept")
    await connected.aclose()
    await connected.aclose()
    assert (await connected.get_task("kept")).id == "kept"


def test_a_client_belongs_to_one_loop(opened_place: Place) -> None:
    """Used from a second event loop, a client says clearly that it belongs to another."""
    client = opened_place.connect()

    async def use() -> None:
        await client.enqueue(Note())

    async def main() -> None:
        await use()
        with pytest.raises(OncetaskError, match="another event loop"):
            await asyncio.wait_for(asyncio.to_thread(asyncio.run, use()), LIMIT)
        await use()
        await client.aclose()

    with asyncio.Runner() as runner:
        runner.run(main())
        runner.run(use())  # closed meanwhile, so that it may open anywhere
        runner.run(client.aclose())


@ON_SQLITE
async def test_two_clients_see_each_other(connected: Client, place: Place) -> None:
    """A second client of the same file reads what the first has written, at once."""
    receipt = await connected.enqueue(Note(n=5))
    assert (await place.connect().get_task(receipt.task_id)).data == {"n": 5}
