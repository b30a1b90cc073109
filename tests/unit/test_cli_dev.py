"""Where `oncetask dev` keeps tasks, and which call it offers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from oncetask import App, Context, Payload
from oncetask.cli.dev.example import curl
from oncetask.cli.dev.place import choose


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without anything, and no Java; what the choice sets is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    for name in ("FIRESTORE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.setenv(name, "")
    return tmp_path


def test_without_an_emulator_it_is_sqlite_and_says_why() -> None:
    """What is missing is told, and a wish is told as one."""
    place = choose(None, use_emulator=True)
    assert (place.url, place.host) == ("sqlite:///oncetask.db", None)
    assert place.why.startswith("SQLite in ./oncetask.db, without the Firestore emulator: no Java on PATH")
    assert choose(None, use_emulator=False).why.endswith(": --no-emulator")


def test_a_running_emulator_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used as it is, with the project that the environment names."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:9")
    assert choose(None, use_emulator=True).url == "firestore://demo-oncetask"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    place = choose(None, use_emulator=True)
    assert (place.url, place.host) == ("firestore://mine", "127.0.0.1:9")
    assert place.variables == "FIRESTORE_EMULATOR_HOST=127.0.0.1:9 ONCETASK_STORE=firestore://mine"
    assert choose(None, use_emulator=False).url == "sqlite:///oncetask.db"


def test_a_startable_emulator_leads_all_of_this_process_to_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is known before a user's module is imported; whether there are rules is told."""
    java = here / "bin" / "java"
    java.parent.mkdir()
    java.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(java.parent))
    monkeypatch.setenv("ONCETASK_EMULATOR_JAR", str(java))
    place = choose(None, use_emulator=True)
    assert place.why.startswith("a Firestore emulator in memory, without rules, for there is no ./firestore.rules")
    assert choose(None, use_emulator=False).host is None  # that one is used which the first choice named
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "")
    (here / "firestore.rules").touch()
    place = choose(None, use_emulator=True)
    assert place.why.startswith("a Firestore emulator in memory, with ./firestore.rules: ")
    assert place.host is not None
    assert choose(None, use_emulator=True).host == place.host


def test_a_store_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """--store goes before all else."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:9")
    place = choose("sqlite:///other.db", use_emulator=True)
    assert (place.url, place.emulator) == ("sqlite:///other.db", None)


class Line(BaseModel):
    """A part of an order."""

    sku: str


class Order(Payload, kind="order"):
    """All types that a field may have."""

    number: int
    price: float
    note: str = Field(alias="remark")
    is_gift: bool
    size: Literal["small", "large"]
    lines: list[Line]
    first: Line
    code: str = Field(examples=["it's"])
    sign: Literal["x"]
    optional: str = "left out"


class Strange(Payload, kind="strange"):
    """A field that JSON Schema has no words for."""

    call: Callable[[], None] | None = None


def offered(payload_type: type[Payload]) -> Any:
    """Give the body of the call that is offered for an App of this one kind."""
    app = App()

    async def handle(ctx: Context, payload: Any) -> None:
        """Do nothing."""

    app.handler(payload_type)(handle)
    command = shlex.split(curl("http://127.0.0.1:1", app))
    assert command[:-1] == ["curl", "http://127.0.0.1:1/tasks", "-H", "Content-Type: application/json", "-d"]
    return json.loads(command[-1])


def test_the_call_has_what_a_payload_needs() -> None:
    """Each field that has to be given has a value of its type, under the name that it has in JSON."""
    data = {
        "number": 1,
        "price": 1.5,
        "remark": "…",
        "is_gift": True,
        "size": "small",
        "lines": [],
        "first": {},
        "code": "it's",
        "sign": "x",
    }
    assert offered(Order) == {"kind": "order", "data": data}
    assert offered(Strange) == {"kind": "strange", "data": {}}
