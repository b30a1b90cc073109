"""What a client sends as JSON, read within bounds."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from starlette.requests import Request

from oncetask.http.troubles import Trouble, unfit

__all__ = ["MOST_BYTES", "json_body", "json_of", "query_of"]

MOST_BYTES = 1_048_576
"""What a body, or a message of a WebSocket, may have at most."""


def json_of(content: bytes | str) -> object:
    """Read JSON in UTF-8; raises ValueError or RecursionError where it is none."""
    text = content.decode() if isinstance(content, bytes) else content
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


async def json_body(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """Read a JSON object. `optional`: a body without a byte is an empty object, whatever its media type.

    Raises Trouble: 415 for another media type or a coding such as gzip, 413 for too many bytes (no more of them are
    read), 400 for what is no JSON, 422 for what is no object.
    """
    if not optional:
        _check_media_type(request)
    raw = await _read(request)
    if optional:
        if not raw:
            return {}
        _check_media_type(request)
    try:
        found = json_of(raw)
    except (ValueError, RecursionError) as error:
        raise Trouble(400, f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Trouble(422, f"the body must be a JSON object, not a {_NAMES[type(found)]}")
    return found


def query_of(request: Request) -> dict[str, str]:
    """Read the parameters of the query. Raises Trouble for one that is given twice."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in found:
            raise unfit([{"field": name, "message": "is given more than once"}])
        found[name] = value
    return found


_DIGITS = 20  # of a length that is looked at: Python refuses to read thousands of them

_NAMES = {list: "list", str: "text", int: "number", float: "number", bool: "truth value", type(None): "null"}


def _check_media_type(request: Request) -> None:
    """Insist on JSON by name: a page of another site cannot send that without asking first."""
    given = request.headers.get("content-type", "")
    media_type, *parameters = (part.strip().lower() for part in given.split(";"))
    if media_type != "application/json":
        found = f"not {given!r}" if given else "and is missing"
        raise Trouble(415, f"the Content-Type must be application/json, {found}")
    for parameter in parameters:
        if parameter.startswith("charset=") and parameter.removeprefix("charset=").strip('"') != "utf-8":
            raise Trouble(415, f"the charset of JSON must be utf-8, not {given!r}")
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise Trouble(415, f"the body must be sent without a Content-Encoding, not as {coding!r}")


async def _read(request: Request) -> bytes:
    """Read the body, and no byte more of it once there are too many; its announced length is only a hint."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:_DIGITS]) > MOST_BYTES:
        raise _too_large()
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > MOST_BYTES:
            raise _too_large()
    return bytes(read)


def _too_large() -> Trouble:
    # The rest of the body is never read, so nothing else can come over this connection.
    return Trouble(413, f"the body may have at most {MOST_BYTES:,} bytes", headers={"Connection": "close"})


def _finite(number: str) -> float:
    if not math.isfinite(found := float(number)):
        msg = f"{number[:80]} is beyond every number that can be held"
        raise ValueError(msg)
    return found


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is no JSON"  # Python would take NaN and Infinity
    raise ValueError(msg)
