"""What the tests of this folder send: rubbish of every type, and sound things with a hole in them."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

__all__ = [
    "ENDLESS",
    "EXTREMES",
    "anything",
    "json_values",
    "mutated",
    "numbers",
    "stored_values",
    "texts",
]

ODD_TEXTS = (
    *("", " ", "\0", "\n", "\r\n", "\ud800", "\udfff\ud800", "\ufeff", "\u202e", "a\u0301", "é", "😀", ".", "..", "/"),
    *("__x__", "____", "null", "NaN", "-0", "1e999", "%", "%00", "%ud800", "'", '"', "`", "{", "[", "()", "*", ";--"),
    *("\u017f", "\u0130", "\u0661", "\U0001d7d9", "a" * 1_501, "é" * 751, "\x7f", "\x85", "\u2028"),
)
"""Texts that have been somebody's bug: controls, halves of characters, reserved names, digits that are not ASCII."""

texts = st.text(max_size=30) | st.sampled_from(ODD_TEXTS)
"""Any text, half a surrogate pair too."""

_unicode = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_ODD_NUMBERS = (0, -1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, -0.0, 1e308, 5e-324)
numbers = st.integers() | st.floats() | st.booleans() | st.sampled_from([*_ODD_NUMBERS, math.nan, math.inf, -math.inf])
"""Any number, those that are none too, and what Python takes for one."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
"""What JSON can say, half a surrogate pair and huge integers too."""

_ENDS = ("0001-01-01T00:00:00", "0001-01-02T00:00:00", "1969-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999")
edges = st.builds(
    datetime.fromisoformat,
    st.builds(str.__add__, st.sampled_from(_ENDS), st.sampled_from(["+00:00", "+14:00", "-23:59"])),
)
"""Instants at the ends of the calendar, some of them beyond it in UTC."""


stored_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | _unicode
    | st.binary(max_size=10)
    | st.datetimes(timezones=st.just(UTC))
    | st.sampled_from([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_unicode, inner, max_size=3),
    max_leaves=8,
)
"""What a document of Firestore can hold."""

anything: st.SearchStrategy[Any] = (
    stored_values
    | json_values
    | numbers
    | edges
    | st.datetimes()
    | st.sampled_from([date(2030, 1, 1), timedelta.max, timedelta.min, object(), {1, 2}, b"", ..., int, len])
)
"""Any value that a caller may give by mistake, or on purpose."""


def _nested(depth: int, *, maps: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if maps else [value]
    return value


ENDLESS = 10**5_000
"""An integer of more digits than Python writes."""
EXTREMES: dict[str, Any] = {
    "a list 100 deep": _nested(100, maps=False),
    "a list 400 deep": _nested(400, maps=False),
    "a list 900 deep": _nested(900, maps=False),
    "a list 50,000 deep": _nested(50_000, maps=False),
    "a map 400 deep": _nested(400, maps=True),
    "a map 50,000 deep": _nested(50_000, maps=True),
    "a megabyte": "x" * 1_048_576,
    "a list of 100,000": [1] * 100_000,
    "JSON 400 deep": "[" * 400 + "]" * 400,
    "JSON 900 deep": '{"a":' * 900 + "1" + "}" * 900,
}
"""Values that hypothesis could not even show."""


@st.composite
def mutated(draw: st.DrawFn, sound: st.SearchStrategy[str]) -> str:
    """Give a sound text with up to three letters lost, doubled, replaced, put in, or of another one."""
    text = draw(sound)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        end = min(len(text), place + draw(st.integers(0, 4)))
        inserted = draw(st.just("") | st.characters() | st.sampled_from([",", ";", "=", "-", "/", "*", "0", "99", " "]))
        text = text[:place] + inserted + draw(st.sampled_from(["", text[place:end] * 2])) + text[end:]
    return text
