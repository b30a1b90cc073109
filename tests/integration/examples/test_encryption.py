"""`examples/encryption`, run as a reader runs it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.fernet import Fernet, InvalidToken

from oncetask import Payload, connect_sync
from tests.integration.examples.support import run_example
from tests.integration.places import FilePlace, Place
from tests.integration.stores import EVERYWHERE, ON_SQLITE


class Letter(Payload, kind="letter"):
    """Nobody's business."""

    text: str


SAYS = [
    [
        "With the old key",
        "  done-completed: Ada has read 15 characters",
        "  in the store: oncetaskCoded, text; of the letter itself: nothing",
        "  InvalidPayload: data of kind 'letter' is coded: no codec was given (connect(codec=…) or ONCETASK_CODEC)",
    ],
    ["1. Every process learns the new key, and still writes with the old one", "  reads 'meet me at noon'"],
    [
        "2. Every process writes with the new key, and still reads with the old one",
        "  reads 'meet me at noon'",
        "  writes 3 tasks anew: one done, one that waits, one schedule",
    ],
    [
        "3. The old key goes",
        *["  reads 'meet me at noon'"] * 3,
        "  done-completed: Ada has read 15 characters",
        "  InvalidPayload: data of kind 'letter' is coded: the codec (FernetCodec) refused it: InvalidToken",
    ],
]


@EVERYWHERE
def test_it_runs_as_it_says(opened_place: Place, tmp_path: Path) -> None:
    """Old tasks stay readable through the rotation, and afterwards the new key alone reads all of them."""
    assert [part.splitlines() for part in run_example("encryption/rotation.py", opened_place, tmp_path)] == SAYS


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with the codec."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples" / "encryption"))
    return importlib.import_module("encryption")


@ON_SQLITE
def test_nothing_of_a_letter_reaches_the_disk(opened_place: Place, example: ModuleType) -> None:
    """No file of the database holds a word of it, the log of writes among them."""
    assert isinstance(opened_place, FilePlace)
    codec = example.FernetCodec(Fernet.generate_key().decode())
    with connect_sync(opened_place.url, codec=codec) as client:
        task_id = client.enqueue(Letter(text="meet me at noon"), owner="ada").task_id
        assert client.get_task(task_id).data == {"text": "meet me at noon"}
        stored = b"".join(file.read_bytes() for file in opened_place.path.parent.glob("tasks.db*"))
    assert all(word in stored for word in (b"letter", b"ada", b"gAAAA"))  # how every token of Fernet begins
    assert b"noon" not in stored


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, example: ModuleType) -> None:
    """`encryption:codec` makes a codec of TASK_KEYS whose first key writes, and all of which read."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    monkeypatch.setenv("TASK_KEYS", f"{new},{old}")
    codec, of_old, of_new = example.codec(), example.FernetCodec(old), example.FernetCodec(new)
    assert codec.decode(of_old.encode(b"plain")) == b"plain"
    assert of_new.decode(codec.encode(b"plain")) == b"plain"
    with pytest.raises(InvalidToken):
        of_old.decode(codec.encode(b"plain"))
