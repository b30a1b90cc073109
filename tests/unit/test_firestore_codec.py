"""Values of Firestore documents: what goes in comes out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.cloud.firestore_v1.types import document as document_types
from hypothesis import given
from hypothesis import strategies as st

from oncetask.clock import EPOCH
from oncetask.store.document import decode, encode
from oncetask.store.firestore.codec import (
    Foreign,
    Names,
    micros,
    read_document,
    read_value,
    set_micros,
    write_fields,
    write_value,
)
from tests.support import a_task

Value: Any = document_types.Value.pb()
Document: Any = document_types.Document.pb()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=10)
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


def written(given_value: object) -> Any:
    """Give the protobuf value."""
    target = Value()
    write_value(target, given_value)
    return Value.FromString(target.SerializeToString())


@given(values)
def test_round_trip(value: object) -> None:
    """Every value that a document can hold comes back as it was, its type too."""
    read = read_value(written(value))
    assert read == value
    assert type(read) is type(value)


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_micros(number: int) -> None:
    """A version becomes a timestamp and a version again, to the microsecond, before 1970 too."""
    timestamp = Value().timestamp_value
    set_micros(timestamp, number)
    assert micros(timestamp) == number
    assert 0 <= timestamp.nanos < 1_000_000_000


def test_other_zones() -> None:
    """An instant is stored as the moment that it is, whatever its zone."""
    instant = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    assert read_value(written(instant)) == instant
    assert read_value(written(instant)).tzinfo is UTC


@pytest.mark.parametrize("impossible", [2**63, -(2**63) - 1, object(), {1, 2}, 1j])
def test_impossible_values(impossible: object) -> None:
    """What Firestore cannot hold raises TypeError or ValueError."""
    with pytest.raises((TypeError, ValueError)):
        written(impossible)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Value(reference_value="projects/p/databases/d/documents/a/b"), "<reference>"),
        (Value(geo_point_value={"latitude": 1}), "<geo_point>"),
        (Value(), "<None>"),
    ],
)
def test_foreign_types(value: object, shown: str) -> None:
    """A type that no field of ours has is shown as what it is, and fits no field."""
    read = read_value(value)
    assert isinstance(read, Foreign)
    assert repr(read) == shown
    task = decode("t", {**encode(a_task()), "kind": read, "errors": read}, version=1, read_at=EPOCH)
    assert [problem.split(":")[0] for problem in task.problems] == ["kind", "errors"]


def test_document() -> None:
    """A document gives the task's id from its name, its version and its time."""
    names = Names("projects/p/databases/d", "test")
    document = Document(name=names.task("a:b"))
    write_fields(document.fields, encode(a_task("a:b")))
    set_micros(document.update_time, 123)
    read_time = Value().timestamp_value
    set_micros(read_time, 1_000_001)
    task = read_document(names, document, read_time=read_time)
    assert document.name == "projects/p/databases/d/documents/oncetask/test/onceTasks/a:b"
    assert (task.id, task.version, task.problems) == ("a:b", 123, ())
    assert task.read_at == EPOCH + timedelta(seconds=1, microseconds=1)


def test_names() -> None:
    """Tasks and locks lie beside each other; a lock's name is the hash of its key, which may hold any character."""
    names = Names("projects/p/databases/(default)", "staging")

    assert names.task("a") == "projects/p/databases/(default)/documents/oncetask/staging/onceTasks/a"
    assert names.task_id(names.task("a:b c")) == "a:b c"
    assert names.lock("é/ü") == (
        "projects/p/databases/(default)/documents/oncetask/staging/onceLocks/"
        "172f7ec3f2c56f87a09231f4aa5b774b3d34fc575cc38545d6f872d80f58d475"
    )
