"""How a task looks as a document, and what is made of a strange one."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncetask import lifecycle
from oncetask.clock import EPOCH
from oncetask.store.document import ABSENT, FIELDS, INSTANTS, decode, encode, encode_changes
from oncetask.task import Outcome, Progress, Task, TaskError, TaskStatus
from tests.support import T0, a_task, at, exactly

SOUND = encode(a_task())
"""The fields of a document with nothing wrong."""

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
some_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
instants = st.datetimes(timezones=st.just(UTC))
counts = st.integers(0, 2**53 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | text,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(text, children, max_size=3),
    max_leaves=10,
)
json_maps = st.dictionaries(text, json_values, max_size=4)

tasks = st.builds(
    Task,
    id=some_text,
    kind=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
    data=json_maps,
    resource_key=st.none() | some_text,
    wait_until=instants,
    leased_until=st.none() | instants,
    lease_owner=st.none() | some_text,
    created_at=instants,
    started_at=st.none() | instants,
    done_at=st.none() | instants,
    attempts=counts,
    cancel_attempts=counts,
    errors=st.lists(st.builds(TaskError, at=instants, attempt=counts, type=text, message=text), max_size=3).map(tuple),
    result=json_values,
    progress=st.none()
    | st.builds(
        Progress,
        fraction=st.none() | st.floats(0, 1),
        message=st.none() | text,
        data=json_values,
        at=st.none() | instants,
    ),
    is_cancelled=st.booleans(),
    cancelled_at=st.none() | instants,
    recurrence=st.none() | st.dictionaries(some_text, text, max_size=3),
    parent_recurrence_id=st.none() | some_text,
    occurrence_timestamp=st.none() | instants,
    timeout=st.none() | st.floats(0.001, 1e9),
    deadline=st.none() | instants,
    owner=st.none() | some_text,
    outcome=st.none() | st.sampled_from(Outcome),
    expire_at=st.none() | instants,
    due_at=st.none() | instants,
    create_id=st.none() | some_text,
    schema=counts,
    version=counts,
    read_at=instants,
)


def read(fields: dict[str, Any]) -> Task:
    """Decode as a store does."""
    return decode("greet:1", fields, version=7, read_at=T0)


class TestEncode:
    """The fields of a document."""

    def test_the_document_as_it_is_specified(self) -> None:
        """Fields are camelCase, times are instants, and what is None is absent, but for two filters' sake."""
        assert encode(a_task(resource_key="r", is_cancelled=True)) == {
            "kind": "greet",
            "data": {"name": "Ada"},
            "resourceKey": "r",
            "waitUntil": T0,
            "dueAt": T0,
            "createdAt": T0,
            "attempts": 0,
            "cancelAttempts": 0,
            "isCancelled": True,
            "errors": [],
            "leaseOwner": None,
            "outcome": None,
            "createId": "create-greet:1",
            "schema": 1,
        }

    def test_a_done_task_has_no_due_at(self) -> None:
        """`dueAt` is absent once done, never null."""
        assert "dueAt" not in encode(a_task(outcome=Outcome.FAILED))

    def test_every_field_of_a_task_has_a_place(self) -> None:
        """All attributes are stored, apart from the id, what the reading adds, and what is derived."""
        assert set(FIELDS) == {field.name for field in fields(Task)} - {"id", "version", "read_at", "problems"}
        assert len(set(FIELDS.values())) == len(FIELDS)
        assert set(INSTANTS) <= set(FIELDS)

    def test_a_change_removes_what_it_sets_to_none(self) -> None:
        """None in a change removes the field, except where a filter looks for null."""
        changes = {"lease_owner": None, "outcome": None, "leased_until": None, "due_at": None, "progress": None}

        assert encode_changes(changes) == {
            "leaseOwner": None,
            "outcome": None,
            "leasedUntil": ABSENT,
            "dueAt": ABSENT,
            "progress": ABSENT,
        }

    def test_structures_become_maps(self) -> None:
        """Errors and progress are maps of plain values; progress leaves out what was not said."""
        changes = {"errors": (TaskError(T0, 2, "E", "m"),), "progress": Progress(0.5, at=T0), "outcome": Outcome.FAILED}

        assert encode_changes(changes) == {
            "errors": [{"at": T0, "attempt": 2, "type": "E", "message": "m"}],
            "progress": {"fraction": 0.5, "at": T0},
            "outcome": "failed",
        }


class TestValues:
    """Maps where Firestore can hold them, JSON text where it cannot."""

    @pytest.mark.parametrize(
        "value",
        [
            {},
            {"a": [1, {"b": [2]}], "c": None, "d": True, "e": 0.5, "f": "é😀"},
            {"x": 2**63 - 1, "y": -(2**63)},
            {"__a": 1, "a__": 2, "a.b": 3, "`": 4, "k" * 1_449: 5},
            {"f": math.inf},
        ],
        ids=lambda value: ",".join(value)[:12] or "empty",
    )
    def test_what_firestore_can_hold_is_a_map(self, value: Any) -> None:
        """Maps, flat lists, and integers of 64 bits stay what they are, and replace JSON that stood there."""
        assert encode_changes({"data": value}) == {"data": value, "dataJson": ABSENT}

    @pytest.mark.parametrize(
        "value",
        [
            {"lists in lists": [[1]]},
            {"deeper": [{"a": [[]]}]},
            {"huge": 2**63},
            {"tiny": -(2**63) - 1},
            {"__reserved__": 1},
            {"inner": {"__x__": 1}},
            {"": "empty name"},
            {"é" * 725: "long name"},
            {"outer" * 145: {"inner" * 145: "long path"}},
            {"broken": "\ud800"},
            {"deep": json.loads("[{" + '"a":{' * 20 + "}" * 20 + "}]")},
        ],
        ids=lambda value: next(iter(value))[:12],
    )
    def test_what_firestore_cannot_hold_is_json(self, value: Any) -> None:
        """Lists in lists, reserved or long names, huge integers and deep nesting are stored as JSON text."""
        encoded = encode_changes({"data": value})

        assert encoded["data"] is ABSENT
        assert json.loads(encoded["dataJson"]) == value
        assert encoded["dataJson"].isascii()

    def test_sixteen_maps_deep_is_a_map(self) -> None:
        """Firestore nests twenty deep: sixteen of them are the data's, the seventeenth makes them JSON."""
        assert "data" in encode(a_task(data=json.loads('{"a":' * 16 + "1" + "}" * 16)))
        assert "dataJson" in encode(a_task(data=json.loads('{"a":' * 17 + "1" + "}" * 17)))

    def test_a_result_of_any_form_is_kept(self) -> None:
        """A result may be any JSON value; none at all removes what stood there."""
        assert encode_changes({"result": 5}) == {"result": 5, "resultJson": ABSENT}
        assert encode_changes({"result": [[1]]}) == {"result": ABSENT, "resultJson": "[[1]]"}
        assert encode_changes({"result": None}) == {"result": ABSENT, "resultJson": ABSENT}

    @pytest.mark.parametrize(
        ("progress", "fields"),
        [
            (Progress(None), {}),
            (Progress(0.0, "", at=T0), {"fraction": 0.0, "message": "", "at": T0}),
            (
                Progress(1.0, "done", {"rows": [1, 2]}, T0),
                {"fraction": 1.0, "message": "done", "data": {"rows": [1, 2]}, "at": T0},
            ),
            (Progress(None, data=False), {"data": False}),
            (Progress(None, data=0), {"data": 0}),
            (Progress(None, data=[]), {"data": []}),
            (Progress(None, data={}), {"data": {}}),
            (Progress(None, data=[[1], [2]]), {"dataJson": "[[1], [2]]"}),
            (Progress(None, data=2**70), {"dataJson": str(2**70)}),
            (Progress(0.5, data={"__x__": 1}), {"fraction": 0.5, "dataJson": '{"__x__": 1}'}),
            (Progress(None, data="\ud800"), {"dataJson": '"\\ud800"'}),
        ],
        ids=lambda value: repr(value)[:60],
    )
    def test_progress_is_a_map_of_what_was_said(self, progress: Progress, fields: dict[str, Any]) -> None:
        """Parts that were not said are absent; data stand in `dataJson` where Firestore cannot hold them, or nowhere.

        Read again it is the same.
        """
        assert encode_changes({"progress": progress}) == {"progress": fields}
        assert read({**SOUND, "progress": fields}).progress == progress


class TestRoundTrip:
    """Reading gives what was written."""

    @settings(deadline=None)
    @given(tasks)
    def test_every_task_comes_back(self, task: Task) -> None:
        """What was written is read again, exactly and without a problem."""
        assert decode(task.id, encode(task), version=task.version, read_at=task.read_at) == task

    @settings(deadline=None)
    @given(tasks, tasks)
    def test_a_change_turns_one_document_into_the_other(self, before: Task, after: Task) -> None:
        """Writing all of a task's attributes over another document leaves nothing of that one."""
        stored = encode(before)
        for name, value in encode_changes({name: getattr(after, name) for name in FIELDS}).items():
            if value is ABSENT:
                stored.pop(name, None)
            else:
                stored[name] = value

        assert decode(after.id, stored, version=after.version, read_at=after.read_at) == after


ERROR = {"at": T0, "attempt": 1, "type": "E", "message": "m"}
WRONG: dict[str, list[Any]] = {
    "kind": [None, "", 5, "Greet", "a b", ["greet"], "a" * 101],
    "data": [None, 5, "text", [1], True],
    "resourceKey": ["", 5, ["r"], {}],
    "leaseOwner": ["", 5, True],
    "attempts": [-1, 0.5, "1", True, 2**53, [1]],
    "cancelAttempts": [-1, "1", {}],
    "isCancelled": ["true", 2, -1, 1.0, []],
    "parentRecurrenceId": ["", 5],
    "timeout": [0, -1, "5", True, math.nan, math.inf, 10**400],
    "owner": ["", 5, b"ada"],
    "createId": ["", 5],
    "schema": ["1", -1, 1.5],
    "recurrence": ["RRULE:FREQ=DAILY", [], 5],
    "outcome": ["done", 5, "", True, [], {}],
    "errors": ["boom", 5, {}, [5], [{}], ["text"], [[]], *([{**ERROR, part: 1.5}] for part in ERROR)],
    "progress": ["half", 0.5, [0.5]],
    **{
        field: ["2030-01-01T00:00:00Z", 5, 1.5, True, {}, datetime(2030, 1, 1)]  # noqa: DTZ001  # foreign
        for field in INSTANTS.values()
    },
}
REQUIRED = {"kind", "data", "waitUntil", "createdAt"}
STRANGE_PARTS: dict[str, list[Any]] = {
    "fraction": ["half", True, [0.5], {}, T0],
    "message": [5, True, ["text"], {}, b"text"],
    "at": ["2030-01-01T00:00:00Z", 5, True, {}, datetime(2030, 1, 1)],  # noqa: DTZ001  # foreign
    "dataJson": [5, True, {}, ["{}"], "{", "", "[" * 100_000, "1" * 5_000],
}


class TestStrangeDocuments:
    """Whoever wrote a document: what is wrong with it is told, never raised."""

    def test_a_sound_document_has_no_problems(self) -> None:
        """Nothing is said about a document that is right."""
        assert read(SOUND).problems == ()

    @pytest.mark.parametrize("field", sorted(REQUIRED))
    def test_a_missing_field_is_named(self, field: str) -> None:
        """A document without a field that it needs has one problem, which names the field."""
        task = read({name: value for name, value in SOUND.items() if name != field})

        (problem,) = task.problems
        assert problem.startswith(f"{field}: is missing, must be ")

    def test_any_other_field_may_be_missing(self) -> None:
        """Kind, data and two times make a task."""
        task = read({name: SOUND[name] for name in REQUIRED})

        assert task.problems == ()
        assert (task.attempts, task.is_cancelled, task.errors, task.schema, task.outcome) == (0, False, (), 1, None)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            pytest.param(field, value, id=f"{field}-{number}")
            for field, values in WRONG.items()
            for number, value in enumerate(values)
        ],
    )
    def test_a_wrong_field_is_named_with_its_value(self, field: str, value: Any) -> None:
        """A field of a wrong type or value is one problem that names both; everything else is read."""
        task = read({**SOUND, field: value})

        (problem,) = task.problems
        assert problem.startswith(f"{field}: ")
        assert value is None or repr(value)[:40] in problem
        assert replace(task, problems=()) != task
        others = {n for n in FIELDS if FIELDS[n] != field}
        sound = read(SOUND)
        assert {n: getattr(task, n) for n in others} == {n: getattr(sound, n) for n in others}

    @pytest.mark.parametrize("field", sorted(set(WRONG) - REQUIRED))
    def test_null_means_absent(self, field: str) -> None:
        """Null in a field that may be missing is as good as no field."""
        assert read({**SOUND, field: None}).problems == ()

    @pytest.mark.parametrize(
        "value",
        ["{", "", "[1]", "null", "5", '"text"', 5, b"\xff", ["{}"], "[" * 100_000, '{"a":' * 100_000, "1" * 5_000],
        ids=lambda value: repr(value)[:12] + str(len(repr(value))),
    )
    def test_broken_json_is_named(self, value: Any) -> None:
        """Text that is no JSON, too deep for it, or no map is one problem, and the data are empty."""
        task = read({**SOUND, "dataJson": value})

        (problem,) = task.problems
        assert problem.startswith("data")
        assert len(problem) < 400
        assert task.data == {}

    def test_a_broken_result_is_named(self) -> None:
        """A result that cannot be read is a problem, and no result."""
        task = read({**SOUND, "resultJson": "[" * 100_000})

        assert task.result is None
        assert task.problems[0].startswith("resultJson: must be JSON")

    def test_long_values_are_cut(self) -> None:
        """A megabyte in a wrong field does not become a megabyte of problem."""
        (problem,) = read({**SOUND, "resourceKey": ["x" * 10**6]}).problems

        assert len(problem) < 200

    def test_instants_are_given_in_utc(self) -> None:
        """An instant of another zone is read as the same instant in UTC."""
        berlin = T0.astimezone(timezone(timedelta(hours=1)))

        task = read({**SOUND, "createdAt": berlin})

        assert task.created_at == T0
        assert task.created_at.tzinfo is UTC

    @pytest.mark.parametrize(
        ("part", "value"),
        [(part, value) for part, values in STRANGE_PARTS.items() for value in values],
        ids=lambda value: repr(value)[:20],
    )
    def test_a_strange_part_of_a_progress_is_left_out(self, part: str, value: Any) -> None:
        """A part of a wrong type is None, which is no problem of the task; the other parts are read."""
        sound = {"fraction": 0.5, "message": "half", "at": T0}

        task = read({**SOUND, "progress": {**sound, part: value, "unknown": 1}})

        expected: dict[str, Any] = {**sound, part.removesuffix("Json"): None}
        assert task.problems == ()
        assert task.progress == Progress(**expected)

    def test_an_empty_progress_is_one(self) -> None:
        """A map without any part is a progress of which nothing is known."""
        assert read({**SOUND, "progress": {}}).progress == Progress(None)

    def test_broken_json_of_a_progress_leaves_its_plain_data(self) -> None:
        """Where both stand in a foreign progress, the text counts if it is JSON, else what stands beside it."""
        both = {"data": [1], "dataJson": "[[2]]"}

        assert read({**SOUND, "progress": both}).progress == Progress(None, data=[[2]])
        assert read({**SOUND, "progress": {**both, "dataJson": "[["}}).progress == Progress(None, data=[1])

    def test_the_instant_of_a_progress_is_given_in_utc(self) -> None:
        """An instant of another zone is read as the same instant in UTC."""
        berlin = T0.astimezone(timezone(timedelta(hours=1)))

        progress = read({**SOUND, "progress": {"at": berlin}}).progress

        assert progress is not None
        assert progress.at is not None
        assert (progress.at, progress.at.tzinfo) == (T0, UTC)

    def test_unknown_fields_are_no_problem(self) -> None:
        """What a newer version added does not disturb."""
        assert read({**SOUND, "newer": 1}).problems == ()

    def test_booleans_of_sqlite(self) -> None:
        """Zero and one are read as the booleans that they stand for."""
        assert read({**SOUND, "isCancelled": 1}).is_cancelled is True
        assert read({**SOUND, "isCancelled": 0}).is_cancelled is False

    def test_a_rejected_document_is_done(self) -> None:
        """With every field wrong at once a document is still read, and ends with the reasons."""
        task = read({field: values[-1] for field, values in WRONG.items()})

        ended = lifecycle.reject(task, now=exactly(at(1))).after

        assert len(task.problems) == len(WRONG)
        assert ended.status == TaskStatus.DONE_FAILED
        assert ended.errors[-1].type == "UnreadableTask"
        assert ended.errors[-1].message.startswith("kind: must be")

    rubbish = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.datetimes(timezones=st.sampled_from([None, UTC])),
        lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
        max_leaves=8,
    )

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(sorted({*FIELDS.values(), "dataJson", "resultJson", "unknown"})),
            rubbish | st.lists(st.fixed_dictionaries({"at": rubbish, "attempt": rubbish, "type": rubbish})),
        )
    )
    def test_decoding_never_raises(self, fields: dict[str, Any]) -> None:
        """Whatever stands in a document, reading it gives a task whose status can be told, and which can be ended."""
        task = read(fields)

        assert task.status in TaskStatus
        encode_changes(lifecycle.reject(task, now=exactly(at(1))).changes)


class TestStandIns:
    """What stands in for what is missing."""

    def test_what_is_missing_is_stood_in_for(self) -> None:
        """An empty document is a task of a kind that no handler has, due since the epoch."""
        task = read({})

        assert (task.kind, task.data, task.wait_until, task.created_at) == ("unreadable", {}, EPOCH, EPOCH)
        assert len(task.problems) == len(REQUIRED)
