"""The form in which coded bytes stand in a document, and the way back.

A map is `{"oncetaskCoded": 1, "text": …}`, or `"base64"` where the codec gives bytes that are no printable ASCII. An
error's message is one text with a prefix that says the same.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from oncetask.codec import CODED, SealedMap, SealedText
from oncetask.errors import OncetaskError

if TYPE_CHECKING:
    from oncetask.codec import Codec

__all__ = ["is_coded", "open_text", "open_value", "seal_text", "seal_value"]

_FORM = 1
_PREFIX = "oncetask:coded:"
_LONGEST_REASON = 200


class _Refused(Exception):
    """Something coded that cannot be decoded; its text says why."""


def is_coded(value: object) -> bool:
    """Tell whether a stored value is a coded one, or looks like it."""
    return value.startswith(_PREFIX) if isinstance(value, str) else isinstance(value, Mapping) and CODED in value


def seal_value(codec: Codec, value: Any) -> dict[str, Any]:  # any JSON
    """Give the coded map of a JSON value. Raises OncetaskError where the codec fails."""
    form, text = _encoded(codec, _json(value))
    return {CODED: _FORM, form: text}


def open_value(codec: Codec, stored: Mapping[str, Any]) -> Any:  # any JSON
    """Give the value of a coded map; where it cannot be decoded, a `SealedMap` that says why."""
    form = "text" if "text" in stored else "base64"
    text = stored.get(form) if stored.get(CODED) == _FORM else None
    try:
        return json.loads(_decoded(codec, form, text))
    except (_Refused, ValueError, RecursionError) as error:
        sealed = SealedMap(stored)
        sealed.why = str(error) if isinstance(error, _Refused) else f"{_name(codec)} makes no JSON of it"
        return sealed


def seal_text(codec: Codec, text: str) -> str:
    """Give the coded form of a text. Raises OncetaskError where the codec fails."""
    return f"{_PREFIX}{':'.join(_encoded(codec, text.encode()))}"


def open_text(codec: Codec, stored: str) -> str:
    """Give the text of a coded one; where it cannot be decoded, a `SealedText`; what is not coded, as it is."""
    if not is_coded(stored):
        return stored
    form, _, text = stored.removeprefix(_PREFIX).partition(":")
    try:
        return _decoded(codec, form, text).decode()
    except (_Refused, ValueError):
        return SealedText(stored)


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which has no UTF-8
        return json.dumps(value, separators=(",", ":")).encode()


def _encoded(codec: Codec, plain: bytes) -> tuple[str, str]:
    """Let the codec encode; gives what kind of text it is, and the text."""
    try:
        coded = codec.encode(plain)
    except Exception as error:  # user code; its message might quote what was to be hidden
        raise OncetaskError(f"{_name(codec)} raised {type(error).__name__}, so it is not stored") from error
    if not isinstance(coded, bytes):
        raise OncetaskError(f"{_name(codec)} must encode to bytes, not to a {type(coded).__name__}")
    text = coded.decode("ascii", "replace")
    return ("text", text) if coded.isascii() and text.isprintable() else ("base64", b64encode(coded).decode())


def _decoded(codec: Codec, form: str, text: object) -> bytes:
    if not isinstance(text, str) or form not in {"text", "base64"}:
        raise _Refused("it is in no form that this version of oncetask knows")
    try:
        coded = b64decode(text, validate=True) if form == "base64" else text.encode("ascii")
    except ValueError as error:
        raise _Refused("it was changed after it had been stored") from error
    try:
        plain = codec.decode(coded)
    except Exception as error:  # user code
        reason = f"{_name(codec)} refused it: {type(error).__name__}: {error}".rstrip(": ")
        raise _Refused(reason[:_LONGEST_REASON]) from error
    if not isinstance(plain, bytes):
        raise _Refused(f"{_name(codec)} must decode to bytes, not to a {type(plain).__name__}")
    return plain


def _name(codec: Codec) -> str:
    return f"the codec ({type(codec).__name__})"
