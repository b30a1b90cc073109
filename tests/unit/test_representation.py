"""Tasks as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncetask import Progress, TaskError
from oncetask.representation import as_json, iso, plain
from oncetask.store.document import FIELDS
from tests.support import T0, a_task, at


class Opaque:
    """What a document of somebody else may hold, and what cannot be copied."""

    def __repr__(self) -> str:
        return "<opaque>"

    def __deepcopy__(self, memo: object) -> None:
        msg = "not to be copied"
        raise TypeError(msg)


def test_a_task_has_the_fields_of_its_document() -> None:
    """And its id, its status, the time of reading, and what is wrong with it."""
    found = as_json(a_task("greet:1", read_at=T0, problems=("kind: is missing",)))
    assert set(found) == {"id", "status", "readAt", "problems", *FIELDS.values()}
    assert (found["id"], found["status"], found["readAt"]) == ("greet:1", "pending", T0)
    assert (found["resourceKey"], found["progress"], found["errors"]) == (None, None, [])


def test_what_a_document_holds_is_not_copied() -> None:
    """Data of somebody else's may be anything."""
    task = a_task(
        progress=Progress(0.5, None, Opaque(), T0), errors=(TaskError(T0, 1, "E", "m"),), data={"a": Opaque()}
    )
    found = plain(as_json(task))
    assert found["progress"] == {"fraction": 0.5, "message": None, "data": "<opaque>", "at": "2030-01-01T00:00:00Z"}
    assert found["errors"] == [{"at": "2030-01-01T00:00:00Z", "attempt": 1, "type": "E", "message": "m"}]
    assert found["data"] == {"a": "<opaque>"}


@pytest.mark.parametrize("value", [float("inf"), {"a": (1, [T0])}, "half \ud800", b"\xff", 10**40])
def test_anything_becomes_json(value: Any) -> None:
    """Nothing that a document holds keeps it from being shown."""
    json.dumps(plain(value), allow_nan=False)


def test_an_instant_has_its_microseconds() -> None:
    """ISO 8601, in UTC."""
    assert iso(at(0.000001)) == "2030-01-01T00:00:00.000001Z"
