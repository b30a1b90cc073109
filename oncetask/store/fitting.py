"""What a document can hold: how large it may become, and what Firestore has no form for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from oncetask.errors import PayloadTooLarge
from oncetask.payload import has_surrogates
from oncetask.task import Progress, cut

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "MOST_BYTES_TOGETHER",
    "UnstorableResult",
    "check_size",
    "firestore_holds",
    "new_progress",
    "result_of",
    "stored_size",
]

MOST_BYTES_TOGETHER = 3_000_000
"""What is written by one commit has at most so much in it: the emulator takes 4 MiB, production 10."""

_DEEPEST = 16  # Firestore nests maps 20 deep; the document and the field itself take some of them
_LARGEST_DOCUMENT = 1_048_576
_ROOM_FOR_THE_REST = 48 * 1_024  # ten errors of 2 KiB, names, ids, instants
_LARGEST_VALUES = _LARGEST_DOCUMENT - _ROOM_FOR_THE_REST
_LARGEST_PROGRESS = 8 * 1_024
_MOST_BYTES_PER_CHARACTER = 8  # "{}, " takes four characters of JSON and 32 bytes of Firestore
_LONGEST_PATH = 1_450  # Firestore's 1,500 bytes hold for all names on the way to a value, "result" and dots too
_LENIENT = json.JSONEncoder(default=str)  # data may be somebody else's
_STRICT = json.JSONEncoder(allow_nan=False)


class UnstorableResult(TypeError):
    """What a handler returned has no JSON form."""


def check_size(*, data: object, result: object = None) -> None:
    """Raise PayloadTooLarge where a document with these values would outgrow Firestore's 1 MiB.

    Raises ValueError for a result with NaN or infinity, which JSON has no word for.
    """
    characters = len(_LENIENT.encode(data)) + (0 if result is None else len(_STRICT.encode(result)))
    if characters * _MOST_BYTES_PER_CHARACTER <= _LARGEST_VALUES:
        return
    sizes = {"data": stored_size(data), "result": stored_size(result)}
    if sum(sizes.values()) > _LARGEST_VALUES:
        largest = max(sizes, key=lambda name: sizes[name])
        msg = (
            f"{largest} takes {sizes[largest]:,} bytes; data and result of a task together may take "
            f"{_LARGEST_VALUES:,} (Firestore's document limit is 1 MiB): store it elsewhere and pass a reference"
        )
        raise PayloadTooLarge(msg)


def stored_size(value: object) -> int:
    """Give the bytes that a JSON value takes in a document."""
    return _firestore_size(value) if firestore_holds(value) else len(json.dumps(value, default=str))


def result_of(returned: object) -> Any:  # any JSON
    """Give what a handler returns in its JSON form. Raises UnstorableResult for what has none."""
    try:
        return None if returned is None else to_jsonable_python(returned)
    except Exception as error:  # a serialiser is user code and may raise anything
        msg = f"the handler's result, a {type(returned).__name__}, cannot be stored as JSON: {error}"
        raise UnstorableResult(msg) from error


def new_progress(fraction: float | None, message: str | None, data: object, *, at: datetime) -> Progress:
    """Make a record of how far a handler is, out of what it says.

    Raises TypeError and ValueError for values that cannot be kept, PayloadTooLarge for more than 8 KiB of data.
    """
    if fraction is not None:
        if not isinstance(fraction, int | float) or isinstance(fraction, bool):
            msg = f"fraction must be a number from 0 to 1, or None, not {fraction!r:.80}"
            raise TypeError(msg)
        if not 0 <= fraction <= 1:
            msg = f"fraction must be a number from 0 to 1, or None, not {fraction!r:.80}"
            raise ValueError(msg)
    if message is not None and not isinstance(message, str):
        msg = f"message must be a text, or None, not {message!r:.80}"
        raise TypeError(msg)
    return Progress(
        None if fraction is None else float(fraction),
        None if message is None else cut(message),
        None if data is None else _progress_data(data),
        at,
    )


def _progress_data(data: object) -> Any:  # any JSON
    try:
        value = to_jsonable_python(data)
        json.dumps(value, allow_nan=False)
    except Exception as error:  # a serialiser is user code and may raise anything
        msg = f"data, a {type(data).__name__}, must be something that JSON can hold: {error}"
        raise TypeError(msg) from error
    size = stored_size(value)
    if size > _LARGEST_PROGRESS:
        msg = f"data takes {size:,} bytes; that of a progress may take {_LARGEST_PROGRESS:,}: pass a reference"
        raise PayloadTooLarge(msg)
    return value


def firestore_holds(value: object, depth: int = _DEEPEST, path: int = _LONGEST_PATH) -> bool:  # noqa: PLR0911  # one answer for each type of JSON
    """Tell whether Firestore can hold a JSON value as it is; else it is kept as text."""
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if depth == 0:
        return False
    if isinstance(value, list):
        return all(not isinstance(v, list) and firestore_holds(v, depth - 1, path) for v in value)
    if isinstance(value, dict):
        return all(_plain_key(k, path) and firestore_holds(v, depth - 1, path - _length(k)) for k, v in value.items())
    return False


def _plain_key(key: str, path: int) -> bool:
    reserved = not key or (key.startswith("__") and key.endswith("__"))
    return not reserved and _is_text(key) and _length(key) <= path


def _is_text(value: str) -> bool:
    return value.isascii() or not has_surrogates(value)


def _length(name: str) -> int:
    return len(name.encode()) + 1


def _firestore_size(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode()) + 1
    if isinstance(value, dict):
        return 32 + sum(len(k.encode()) + 1 + _firestore_size(v) for k, v in value.items())
    if isinstance(value, list):
        return sum(map(_firestore_size, value))
    return 1 if value is None or isinstance(value, bool) else 8
