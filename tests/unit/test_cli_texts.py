"""How the command line writes times, values and strange characters, and which error means which exit code."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from oncetask import InvalidPayload, OncetaskError, StoreUnavailable, TaskNotFound, UnknownKind, Unsupported
from oncetask.cli.exits import BadInput, NotDone, code_of
from oncetask.cli.output import printable
from oncetask.cli.records import ago, as_json, iso, local, plain, progress_line
from oncetask.clock import EPOCH, seconds
from oncetask.task import Progress
from tests.support import T0, a_task, at


@pytest.mark.parametrize(
    ("seconds_", "text"),
    [
        (0, "0.0 s ago"),
        (0.05, "in 0.1 s"),
        (-3.21, "3.2 s ago"),
        (9.99, "in 10.0 s"),
        (10, "in 10 s"),
        (-59.9, "59 s ago"),
        (60, "in 1 min"),
        (-3_599, "59 min ago"),
        (3_600, "in 1 h"),
        (86_399, "in 23 h"),
        (-86_400, "1 d ago"),
        (86_400 * 1_000, "in 1000 d"),
    ],
)
def test_distances_have_one_unit(seconds_: float, text: str) -> None:
    """A distance is told in its largest whole unit, seconds below ten with a tenth."""
    assert ago(timedelta(seconds=seconds_)) == text


def test_instants_are_utc_for_programs() -> None:
    """JSON has ISO 8601 in UTC, whatever zone the instant came in."""
    assert iso(datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == "2030-01-01T00:00:00Z"
    assert iso(datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=UTC)) == "2030-01-01T00:00:00.000001Z"


@pytest.mark.parametrize("instant", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), T0])
def test_every_instant_can_be_told(instant: datetime) -> None:
    """The ends of the calendar have no local time everywhere, and are told all the same."""
    assert str(instant.year)[:1] in local(instant, T0)


def test_no_wait_is_a_word() -> None:
    """The epoch as a time to wait for means: before all others."""
    assert local(EPOCH, T0) == "at once, before all others"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (b"\xff", r"b'\xff'"),
        (T0, "2030-01-01T00:00:00Z"),
        ((1, [None, True, 1.5]), [1, [None, True, 1.5]]),
        ({1: {"a": T0}}, {"1": {"a": "2030-01-01T00:00:00Z"}}),
        ("half \ud800 pair", "half \ud800 pair"),
    ],
)
def test_anything_that_a_document_holds_is_json(value: Any, expected: Any) -> None:
    """What JSON has no word for is written as text, so that a strange document is still shown."""
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


def test_a_task_as_json_has_its_progress() -> None:
    """Progress is a map with the names of the document."""
    record = as_json(a_task(progress=Progress(0.5, "half", None, T0)))
    assert plain(record["progress"]) == {"fraction": 0.5, "message": "half", "data": None, "at": "2030-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(0.5, "half", None, T0), "50 %, half  (30 s ago)"),
        (Progress(1.0, None, {"rows": 3}, T0), "100 %  (30 s ago)"),
        (Progress(None, "page 4"), "page 4"),
        (Progress(None, None, 4, T0), "begun  (30 s ago)"),
        (Progress(float("nan"), "", None, None), "nan %"),
    ],
)
def test_a_progress_is_one_line(progress: Progress, line: str) -> None:
    """How much is done, what the handler said, and how long ago; what was not said is left out."""
    assert progress_line(progress, at(30)) == line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 🎉", "plain é 🎉"),
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("right\u202eleft", r"right\u202eleft"),
        ("\udcff", r"\udcff"),
    ],
)
def test_nothing_is_obeyed_by_a_terminal(text: str, shown: str) -> None:
    """Control characters, direction marks and halves of pairs are escaped, letters are not."""
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskNotFound("x"), 1),
        (NotDone("x"), 1),
        (OncetaskError("x"), 1),
        (BadInput("x"), 2),
        (InvalidPayload("x"), 2),
        (UnknownKind("x", []), 2),
        (Unsupported("x"), 2),
        (StoreUnavailable("x"), 3),
        (ValueError("x"), None),
        (TypeError("x"), None),
        (RuntimeError("x"), None),
        (KeyError("x"), None),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int | None) -> None:
    """Ours have an exit code; what the user's code raises is a bug, and keeps its traceback."""
    with pytest.raises(type(error)) as raised:
        raise error
    assert code_of(raised.value) == code


def test_an_argument_that_we_refuse_is_wrong_input() -> None:
    """A ValueError that oncetask itself raised is about an argument."""
    with pytest.raises(ValueError, match="delay") as refused:
        seconds("delay", -1)
    assert code_of(refused.value) == 2
