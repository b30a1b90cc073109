"""One tree of errors, and three instructions that are none."""

from __future__ import annotations

import pickle
from datetime import timedelta

import pytest

from oncetask import errors
from oncetask.errors import (
    Discard,
    InvalidPayload,
    InvalidRecurrence,
    LeaseLost,
    OncetaskError,
    PayloadTooLarge,
    RetryAfter,
    Snooze,
    StoreUnavailable,
    TaskAborted,
    TaskExpired,
    TaskNotFound,
    TaskTimeout,
    UnknownKind,
)

INSTRUCTIONS = {"Discard", "RetryAfter", "Snooze"}


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - INSTRUCTIONS))
def test_every_error_is_an_oncetask_error(name: str) -> None:
    """One except clause catches everything that oncetask raises on purpose."""
    assert issubclass(getattr(errors, name), OncetaskError)


@pytest.mark.parametrize("name", sorted(INSTRUCTIONS))
def test_an_instruction_is_no_error_of_oncetask(name: str) -> None:
    """What a handler raises to say what it wants is not caught as a failure of the library."""
    assert not issubclass(getattr(errors, name), OncetaskError)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InvalidPayload, ValueError),
        (InvalidRecurrence, ValueError),
        (PayloadTooLarge, ValueError),
        (TaskTimeout, TimeoutError),
        (TaskExpired, TaskTimeout),
        (LeaseLost, TaskAborted),
    ],
)
def test_errors_are_also_what_python_calls_them(error: type[Exception], builtin: type[Exception]) -> None:
    """A wrong value is a ValueError too, and a passed limit a TimeoutError."""
    assert issubclass(error, builtin)


def test_everything_that_is_defined_is_exported() -> None:
    """The module exports its errors, all of them and nothing else."""
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and not name.startswith("_")}

    assert defined == set(errors.__all__)


def test_a_missing_task_is_named() -> None:
    """The id is in the message and at hand."""
    error = TaskNotFound("greet:1")

    assert error.task_id == "greet:1"
    assert "'greet:1'" in str(error)


def test_an_unknown_kind_names_the_known_ones() -> None:
    """The message tells the kind and, in order, those that would have been right."""
    error = UnknownKind("gret", ["sync", "greet"])

    assert error.kind == "gret"
    assert "'gret'" in str(error)
    assert str(error).endswith("greet, sync")
    assert str(UnknownKind("gret", [])).endswith("none")


def test_an_unavailable_store_carries_what_was_settled() -> None:
    """Receipts of a failed call are kept as they were given."""
    assert StoreUnavailable("down").receipts == ()
    assert StoreUnavailable("down", receipts=[1, None]).receipts == (1, None)


def test_instructions_keep_their_delay() -> None:
    """The delay is kept as the handler gave it, seconds or timedelta."""
    assert Snooze(5).delay == 5
    assert RetryAfter(timedelta(minutes=1)).delay == timedelta(minutes=1)
    assert "5" in str(Snooze(5))


def test_a_reason_is_the_message() -> None:
    """What a handler gives as its reason is what will be recorded."""
    assert str(RetryAfter(5, "rate limited")) == "rate limited"
    assert "5" in str(RetryAfter(5))
    assert str(Discard("no such user")) == "no such user"


@pytest.mark.parametrize(
    "error",
    [
        OncetaskError("broken"),
        TaskNotFound("greet:1"),
        UnknownKind("gret", ["sync", "greet"]),
        StoreUnavailable("down", receipts=[1, None]),
        TaskExpired("too late"),
        Discard("no such user"),
        Snooze(5),
        RetryAfter(timedelta(minutes=1)),
        RetryAfter(5, "rate limited"),
    ],
    ids=repr,
)
def test_errors_cross_a_process_border(error: Exception) -> None:
    """A pickled error comes back with its text, its attributes and its notes."""
    error.add_note("as seen there")

    back = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes

    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
