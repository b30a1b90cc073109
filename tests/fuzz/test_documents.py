"""The decoder of documents: whoever wrote them, they are read, and what is wrong is told."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from google.cloud.firestore_v1.types import document as document_types
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from hypothesis import example, given
from hypothesis import strategies as st

from oncetask import lifecycle
from oncetask.representation import as_json, plain
from oncetask.store.document import ABSENT, FIELDS, decode, encode, encode_changes
from oncetask.store.firestore.codec import Names, read_document, write_fields
from oncetask.task import Outcome, Progress, Task, TaskError, TaskStatus
from tests.fuzz.effort import examples
from tests.fuzz.strategies import ENDLESS, EXTREMES, anything, json_values, numbers, stored_values, texts
from tests.support import T0, a_task, at, exactly

Document: Any = document_types.Document.pb()
Value: Any = document_types.Value.pb()
NAMES = Names("projects/p/databases/d", "fuzz")
SOUND = encode(
    a_task(
        resource_key="r",
        owner="ada",
        recurrence={"rrule": "FREQ=DAILY", "dtstart": T0},
        errors=(TaskError(T0, 1, "E", "m"),),
        progress=Progress(0.5, "half", {"rows": 1}, T0),
        leased_until=T0,
        lease_owner="me",
        timeout=1.5,
        result=[1],
    )
)
STORED = [*FIELDS.values(), "dataJson", "resultJson"]
TYPES: dict[str, Any] = {
    **dict.fromkeys(("id", "kind"), str),
    **dict.fromkeys(("attempts", "cancel_attempts", "schema", "version"), int),
    **dict.fromkeys(("wait_until", "created_at", "read_at"), datetime),
    **dict.fromkeys(("errors", "problems"), tuple),
    "data": dict,
    "is_cancelled": bool,
    "timeout": int | float | None,
    "progress": Progress | None,
    "recurrence": dict | None,
    "outcome": Outcome | None,
    "result": object,
}
"""What the other attributes are not: a text, an instant, or nothing."""


def read(fields: dict[str, Any]) -> Task:
    """Decode as a store does."""
    return decode("greet:1", fields, version=7, read_at=T0)


def check(task: Task) -> None:
    """Hold a record against the types that it declares, and let everybody look at it who does so with every record."""
    for name, value in task.__dict__.items():
        texts_or_instants = datetime | None if name.endswith(("_at", "_until")) or name in INSTANTS else str | None
        assert isinstance(value, TYPES.get(name, texts_or_instants)), name
        assert not isinstance(value, datetime) or value.tzinfo is UTC, name
    assert task.status in TaskStatus
    assert all(problem.isprintable() for problem in task.problems)
    json.dumps(plain(as_json(task)), allow_nan=False)


INSTANTS = {"deadline", "occurrence_timestamp"}


def check_end(task: Task) -> None:
    """A record that cannot be read can be ended, and that can be written."""
    ended = lifecycle.reject(task, now=exactly(at(1)))
    write_fields(Document().fields, {k: v for k, v in encode_changes(ended.changes).items() if v is not ABSENT})


errors = st.lists(
    st.fixed_dictionaries({"at": anything, "attempt": anything, "type": anything, "message": anything})
    | st.fixed_dictionaries({"at": st.just(T0), "attempt": numbers, "type": texts, "message": texts})
    | anything,
    max_size=3,
)
progress = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("fraction", "message", "at", "dataJson", "more"), anything)
)
TYPED = sorted({*STORED} - {"data", "result", "progress"})
kept = stored_values | json_values
wrong = st.builds(
    lambda typed, free: {**typed, **free},
    st.dictionaries(st.sampled_from(TYPED), anything | errors, max_size=4),
    st.fixed_dictionaries({}, optional={"data": kept, "result": kept, "progress": progress | kept}),
)


@examples(400)
@given(wrong)
def test_whatever_stands_in_a_field_is_read(fields: dict[str, Any]) -> None:
    """A sound document with rubbish in some fields is a task of the declared types, which can be shown and ended."""
    task = read({**SOUND, **fields})
    check(task)
    check_end(task)


@pytest.mark.parametrize("value", EXTREMES.values(), ids=EXTREMES)
def test_extremes_are_read(value: Any) -> None:
    """So is one with a value of which Python itself can hardly say what it is."""
    for field in STORED:
        for within in (value, [value], {"at": value, "data": value, "dataJson": value}):
            check(read({**SOUND, field: within}))


@pytest.mark.parametrize("field", TYPED)
def test_a_number_too_long_to_write_is_a_problem(field: str) -> None:
    """A number of more digits than Python writes is told as one problem, also inside of a list."""
    for value in (ENDLESS, [ENDLESS], -ENDLESS):
        task = read({**SOUND, field: value})
        check(task)
        assert [problem.partition(":")[0] for problem in task.problems] == [field]


@examples(200)
@given(st.dictionaries(st.sampled_from(TYPED) | texts.filter(lambda name: name not in STORED), anything, max_size=10))
def test_a_map_of_anything_is_read(fields: dict[str, Any]) -> None:
    """A map that has nothing of a document is a task with problems; every required field has one."""
    task = read(fields)
    check(task)
    check_end(task)
    missing = {"kind", "waitUntil", "createdAt"} - {name for name, value in fields.items() if value is not None}
    assert missing <= {problem.partition(":")[0] for problem in task.problems}


@examples(300)
@given(st.dictionaries(st.sampled_from(STORED), stored_values | errors | progress, max_size=3))
@example({"data": {"nan": math.nan}})
@example({"progress": {"fraction": math.nan}})
def test_what_is_sound_comes_back(fields: dict[str, Any]) -> None:
    """A document without a problem is written as it was read, and read again as the same task.

    Left out are those whose data hold what only Firestore has a word for: bytes, or an instant.
    """
    task = read({**SOUND, **fields})
    try:
        json.dumps([task.data, task.result, task.progress and task.progress.data])
    except TypeError:
        return
    if task.problems:
        return
    again = read(encode(task))
    assert repr(again) == repr(task)  # which, other than ==, finds that NaN is NaN and 0.0 is no False
    assert encode(again).keys() == encode(task).keys()


_seconds = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [-62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800]
)
_nanos = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, 999, 1_000, 999_999_999, 1_000_000_000])


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
_parts = st.sampled_from(["at", "attempt", "type", "message", "fraction", "data", "rrule", "", "__x__"])
wire_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.just(Value(null_value=0)),
        st.just(Value()),
        st.builds(Value, boolean_value=st.booleans()),
        st.builds(Value, integer_value=st.integers(-(2**63), 2**63 - 1)),
        st.builds(Value, double_value=st.floats()),
        st.builds(Value, timestamp_value=st.fixed_dictionaries({"seconds": _seconds, "nanos": _nanos})),
        st.builds(Value, string_value=_texts),
        st.builds(Value, bytes_value=st.binary(max_size=5)),
        st.builds(Value, reference_value=_texts),
        st.builds(Value, geo_point_value=st.fixed_dictionaries({"latitude": st.floats()})),
    ),
    lambda inner: st.one_of(
        st.builds(Value, array_value=st.fixed_dictionaries({"values": st.lists(inner, max_size=3)})),
        st.builds(
            Value, map_value=st.fixed_dictionaries({"fields": st.dictionaries(_parts, inner, min_size=1, max_size=4)})
        ),
    ),
    max_leaves=8,
)
"""A value as a message, of each type that there is, within its limits and beyond."""


def received(raw: bytes) -> Task | None:
    """Read a document off the wire; None where the bytes are no message, which gRPC would tell."""
    try:
        document = Document.FromString(raw)
    except DecodeError:
        return None
    document.name = NAMES.task("greet:1")
    document.ClearField("update_time")
    return read_document(NAMES, document, read_time=document.update_time)


@examples(300)
@given(st.dictionaries(st.sampled_from(STORED), wire_values, max_size=5))
def test_whatever_message_comes_is_read(fields: dict[str, Any]) -> None:
    """A document of messages of any type, timestamps beyond the calendar too, is read as a task."""
    document = Document()
    write_fields(document.fields, SOUND)
    for name, value in fields.items():
        document.fields[name].CopyFrom(value)
    task = received(document.SerializeToString())
    assert task is not None
    check(task)
    check_end(task)


def _sound_bytes() -> bytes:
    document = Document()
    write_fields(document.fields, SOUND)
    raw: bytes = document.SerializeToString()
    return raw


@examples(300)
@given(st.data())
def test_bytes_are_a_document_or_no_message(data: st.DataObject) -> None:
    """A document with bytes changed on the wire is no message, or is read like any other."""
    raw = bytearray(_sound_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        if not raw:
            break
    task = received(bytes(raw))
    if task is not None:
        check(task)
        check_end(task)
