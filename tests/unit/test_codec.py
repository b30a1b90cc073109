"""The codec: what it is handed, in which form its bytes are stored, what becomes of what it refuses."""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncetask import Codec, InvalidPayload, OncetaskError, Payload, PayloadTooLarge, connect, lifecycle
from oncetask.codec import CODED, SealedMap, SealedText, codec_from_environment, why_coded
from oncetask.lifecycle import Transition
from oncetask.store.coding import with_codec
from oncetask.store.coding.store import CodingStore
from oncetask.store.coding.tasks import Coder
from oncetask.store.coding.values import open_text, open_value, seal_text, seal_value
from oncetask.store.fitting import firestore_holds, stored_size
from oncetask.store.sqlite import SqliteStore
from oncetask.task import Progress, Task, TaskError
from tests.codecs import Broken, Scrambled
from tests.support import T0, a_task, exactly

CODEC = Scrambled()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Plain:
    """A codec whose bytes are printable text."""

    def encode(self, plain: bytes) -> bytes:
        """Give it in hexadecimal."""
        return plain.hex().encode()

    def decode(self, coded: bytes) -> bytes:
        """Give it back."""
        return bytes.fromhex(coded.decode())


def failed(task: Task, message: str) -> Transition:
    """Record a failed attempt."""
    return lifecycle.fail(task, ValueError(message), delay=1, now=exactly(T0))


@given(JSON)
def test_every_json_value_comes_back(value: Any) -> None:
    """Whatever JSON can say comes back, lone surrogates among it, and Firestore can hold its coded form as a map."""
    stored = seal_value(CODEC, value)
    assert firestore_holds(stored)
    assert open_value(CODEC, json.loads(json.dumps(stored))) == value


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text: str) -> None:
    """Whatever an error says comes back, also where it looks like something coded."""
    assert open_text(CODEC, seal_text(CODEC, text)) == text
    coded = seal_text(CODEC, text)
    assert open_text(CODEC, seal_text(CODEC, coded)) == coded


def test_printable_bytes_are_stored_as_they_are() -> None:
    """What is printable ASCII already, as Fernet's tokens are, does not grow by a third in base64."""
    assert seal_value(Plain(), [1]) == {CODED: 1, "text": "5b315d"}
    assert set(seal_value(CODEC, [1])) == {CODED, "base64"}


def test_text_is_handed_over_as_utf_8() -> None:
    """Letters beyond ASCII take their bytes in UTF-8, not JSON's escapes, which would triple them."""
    assert bytes.fromhex(seal_value(Plain(), {"é": "漢"})["text"]).decode() == '{"é":"漢"}'


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (seal_value(Scrambled(b"another"), {}), "the codec (Scrambled) refused it: ValueError: another key"),
        ({CODED: 2, "text": "x"}, "it is in no form that this version of oncetask knows"),
        ({CODED: 1}, "it is in no form that this version of oncetask knows"),
        ({CODED: 1, "base64": 5}, "it is in no form that this version of oncetask knows"),
        ({CODED: 1, "base64": "~"}, "it was changed after it had been stored"),
        ({CODED: 1, "text": "é"}, "it was changed after it had been stored"),
    ],
)
def test_what_cannot_be_decoded_stays_as_it_is_stored(stored: dict[str, Any], why: str) -> None:
    """It is given as it stands in the document, and says why; also after it went to another process."""
    opened = pickle.loads(pickle.dumps(open_value(CODEC, stored)))  # noqa: S301  # our own
    assert isinstance(opened, SealedMap)
    assert (opened, opened.why, why_coded(opened)) == (stored, why, why)


def test_decoded_rubbish_is_refused() -> None:
    """A codec that knows no keys gives anything; what is no JSON, or no map where there has to be one, is not taken."""

    class Careless:
        encode = decode = staticmethod(lambda text: text[::-1])

    stored = {CODED: 1, "text": "]1["}
    assert open_value(Careless(), stored) == [1]
    assert why_coded(Coder(Careless()).opened(a_task(data=stored)).data) == "what was coded is no map but a list"
    assert open_value(Careless(), {CODED: 1, "text": "[1]"}).why == "the codec (Careless) makes no JSON of it"


@pytest.mark.parametrize("codec", [Broken(), type("Wordy", (), {"encode": lambda *_: "text", "decode": str})()])
def test_a_codec_that_fails_keeps_the_task_from_being_stored(codec: Codec) -> None:
    """The error names the codec, and does not repeat what the codec said, which may be what was to be hidden."""
    with pytest.raises(OncetaskError, match=r"^the codec ") as caught:
        Coder(codec).task(a_task(data={"name": "hush"}))
    assert "hush" not in str(caught.value)


def test_errors_are_stored_whatever_the_codec_does() -> None:
    """That an attempt has failed has to be recorded: without the message, where the codec fails."""
    (stored,) = Coder(Broken()).transition(failed(a_task(), "hush")).changes["errors"]
    assert (stored.type, stored.message) == (
        "ValueError",
        "(not kept: the codec (Broken) raised RuntimeError, so it is not stored)",
    )


class TestATask:
    """One record, coded and back."""

    task = a_task(
        resource_key="key",
        owner="owner",
        result=["fine"],
        errors=(TaskError(T0, 1, "ValueError", "no such name: Ada"),),
        progress=Progress(0.5, "greeting Ada", {"to": "Ada"}, T0),
    )

    def test_what_users_put_in_is_coded(self) -> None:
        """Data, result, messages and the data of progress are; ids, keys, owner, times and types are not."""
        coded = Coder(CODEC).task(self.task)
        assert "Ada" not in repr(coded)
        assert "fine" not in repr(coded)
        assert coded.evolve(data=0, result=0, errors=0, progress=0) == self.task.evolve(
            data=0, result=0, errors=0, progress=0
        )
        assert (coded.errors[0].at, coded.errors[0].attempt, coded.errors[0].type) == (T0, 1, "ValueError")
        assert coded.progress is not None
        assert (coded.progress.fraction, coded.progress.at) == (0.5, T0)

    def test_it_comes_back(self) -> None:
        """Decoded, it is what it was."""
        assert Coder(CODEC).opened(Coder(CODEC).task(self.task)) == self.task

    def test_a_plain_one_is_read_as_it_is(self) -> None:
        """What was stored before there was a codec is the very same record."""
        assert Coder(CODEC).opened(self.task) is self.task

    def test_with_another_key_it_is_written_back_as_it_is(self) -> None:
        """A worker without the right key that writes errors and occurrences keeps what it cannot read."""
        stored = Coder(CODEC).task(self.task)
        wrong = Coder(Scrambled(b"another"))
        read = wrong.opened(stored)
        assert read == stored
        assert isinstance(read.errors[0].message, SealedText)
        assert wrong.task(read) == stored
        written = wrong.transition(failed(read, "cannot read it")).after
        assert written.errors[0] == stored.errors[0]
        assert Coder(CODEC).opened(written).errors[0] == self.task.errors[0]
        assert isinstance(Coder(CODEC).opened(written).errors[1].message, SealedText)

    def test_a_change_codes_what_it_changes(self) -> None:
        """Other fields are not written; what the store holds afterwards is what it was given."""
        coded = Coder(CODEC).transition(failed(self.task.evolve(version=7), "Ada again"))
        assert set(coded.changes) == set(failed(self.task, "").changes)
        assert "Ada" not in repr(coded.changes)
        assert coded.after.errors == coded.changes["errors"]
        assert coded.before.version == 7
        renewal = lifecycle.renew(self.task, until=T0)
        assert Coder(CODEC).transition(renewal) is renewal

    def test_a_message_that_looks_coded_is_coded(self) -> None:
        """Nobody gets plain text into a document by an error's message that begins like a coded one."""
        message = "oncetask:coded:text:hush"
        coded = Coder(CODEC).transition(failed(a_task(), message))
        assert "hush" not in repr(coded.changes)
        assert Coder(CODEC).opened(coded.after).errors[0].message == message


class TestSizes:
    """What a document can hold once it is coded."""

    def test_data_that_is_too_large_coded_is_refused(self) -> None:
        """The size that counts is the coded one, and the message says so."""
        Coder(CODEC).task(a_task(data={"x": "x" * 700_000}))
        with pytest.raises(PayloadTooLarge, match=r"^data takes 1,0\d\d,\d{3} bytes as the codec gives it; .* 983,040"):
            Coder(CODEC).task(a_task(data={"x": "x" * 760_000}))

    def test_a_result_counts_together_with_the_data(self) -> None:
        """The data are not written with the result, and stand beside it in the document all the same."""
        task = a_task(data={"x": "x" * 500_000})
        done = lifecycle.complete(task, result="x" * 200_000, now=exactly(T0))
        Coder(CODEC).transition(done)
        done = lifecycle.complete(task, result="x" * 300_000, now=exactly(T0))
        with pytest.raises(PayloadTooLarge, match=r"^data takes "):
            Coder(CODEC).transition(done)

    def test_ten_long_errors_leave_room_for_the_data(self) -> None:
        """However much a codec makes of a message, what is stored of ten stays in the room that is kept for them."""

        class Wordy(Plain):
            def encode(self, plain: bytes) -> bytes:
                return super().encode(plain) * 4

            def decode(self, coded: bytes) -> bytes:
                return super().decode(coded[: len(coded) // 4])

        task = a_task()
        for _ in range(10):
            task = Coder(Wordy()).transition(failed(Coder(Wordy()).opened(task), "€" * 2_048)).after
        messages = [error.message for error in task.errors]
        assert len(messages) == 10
        assert sum(map(len, messages)) <= 10 * 3_072
        assert {error.message[:80] for error in Coder(Wordy()).opened(task).errors} == {"€" * 80}

    def test_progress_that_is_too_large_is_refused(self) -> None:
        """It goes without, as any progress that cannot be stored."""
        told = Progress(0.5, None, {"x": "x" * 8_000}, T0)
        coded = Coder(CODEC).transition(lifecycle.with_progress(lifecycle.progressed(a_task()), told))
        assert stored_size(coded.changes["progress"].data) < 16_384
        told = Progress(0.5, None, {"x": "x" * 16_000}, T0)
        with pytest.raises(PayloadTooLarge, match=r"^a progress takes "):
            Coder(CODEC).transition(lifecycle.with_progress(lifecycle.progressed(a_task()), told))


def test_a_payload_of_defaults_does_not_take_coded_data_for_its_own() -> None:
    """A model that would ignore fields that it does not know raises InvalidPayload that says why."""

    class Lenient(Payload, kind="lenient"):
        name: str = "nobody"

    with pytest.raises(InvalidPayload, match=r"^data of kind 'lenient' is coded: no codec was given \(connect"):
        Lenient.from_data(seal_value(CODEC, {"name": "Ada"}))


def test_a_payload_that_looks_coded_is_refused() -> None:
    """A field of the name that marks coded data cannot be enqueued, since nobody could tell it from those."""

    class Odd(Payload, kind="odd"):
        oncetaskCoded: int = 1  # noqa: N815  # that is the case

    with pytest.raises(InvalidPayload, match=r"is coded"):
        Odd().to_data()


class TestTheEnvironment:
    """ONCETASK_CODEC."""

    @pytest.fixture(autouse=True)
    def _folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.path", ["/nowhere"])
        (tmp_path / "keys_of_codec_test.py").write_text(
            "import zlib\n"
            "class Squeezed:\n"
            "    encode = staticmethod(zlib.compress)\n"
            "    decode = staticmethod(zlib.decompress)\n"
            "codec = Squeezed()\n"
            "def make(): return codec\n"
            "nothing = 5\n"
        )
        (tmp_path / "broken_codec_test.py").write_text("import a_module_that_is_missing\n")

    @pytest.mark.parametrize("name", ["codec", "Squeezed", "make"])
    def test_it_names_a_codec_or_what_gives_one(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """An object, a class or a function of a module, which may be in the current folder."""
        monkeypatch.setenv("ONCETASK_CODEC", f"keys_of_codec_test:{name}")
        store = connect("memory://").store
        assert isinstance(store, CodingStore)
        codec = codec_from_environment()
        assert codec is not None
        assert zlib.decompress(codec.encode(b"plain")) == b"plain"

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            ("keys_of_codec_test", "must be module:object"),
            ("keys/of:codec", "must be module:object"),
            ("keys_of_codec_test:other", "module 'keys_of_codec_test' has no 'other'"),
            ("no_such_module_here:codec", "there is no module 'no_such_module_here', neither in "),
        ],
    )
    def test_nonsense_is_named(self, value: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message names the variable, its value and what would be right, before anything is connected."""
        monkeypatch.setenv("ONCETASK_CODEC", value)
        with pytest.raises(ValueError, match=f"^ONCETASK_CODEC .*{error}"):
            connect("memory://")

    def test_what_is_no_codec_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An object without the two methods is refused."""
        monkeypatch.setenv("ONCETASK_CODEC", "keys_of_codec_test:nothing")
        with pytest.raises(TypeError, match=r"^ONCETASK_CODEC, .* must be an object with the methods encode.*, not 5$"):
            connect("memory://")

    def test_what_a_module_misses_is_its_own_trouble(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module that cannot be imported says itself why."""
        monkeypatch.setenv("ONCETASK_CODEC", "broken_codec_test:codec")
        with pytest.raises(ModuleNotFoundError, match=r"a_module_that_is_missing"):
            connect("memory://")

    def test_an_argument_goes_before_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a codec is given the variable is not even looked at."""
        monkeypatch.setenv("ONCETASK_CODEC", "no_such_module_here:codec")
        assert isinstance(connect("memory://", codec=CODEC).store, CodingStore)


def test_without_a_codec_nothing_is_between() -> None:
    """The client works on the adapter itself."""
    assert type(connect("memory://").store) is SqliteStore
    store = SqliteStore(":memory:")
    assert with_codec(store, None) is store


@pytest.mark.parametrize("codec", [Scrambled, "codec", object()])
def test_what_is_no_codec_is_refused(codec: Any) -> None:
    """A class in place of its object, a name, anything without the two methods."""
    with pytest.raises(TypeError, match=r"^codec must be an object with the methods encode"):
        connect("memory://", codec=codec)
