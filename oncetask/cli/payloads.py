"""The payload of a command line: JSON in an argument, in a file, or on stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ConfigDict

from oncetask.cli.exits import BadInput
from oncetask.cli.targets import load_app
from oncetask.payload import Payload, check_kind

__all__ = ["read_payload"]


def read_payload(kind: str, data: str, app: str | None) -> Payload:
    """Build the payload as its App's class, or as one that takes any fields. Raises BadInput, InvalidPayload."""
    check_kind(kind)
    payload_type = load_app(app).payload_type(kind) if app is not None else None
    read = _read_json(data)
    if payload_type is not None:
        return payload_type.from_data(read)

    class Raw(Payload, kind=kind):
        model_config = ConfigDict(extra="allow")

    return Raw.from_data(read)


def _read_json(data: str) -> dict[str, Any]:
    name, text = _text(data)
    try:
        read = json.loads(text, parse_constant=_refuse_constant)
    except BadInput:
        raise
    except json.JSONDecodeError as error:
        near = text[error.pos : error.pos + 20]
        msg = f"{name} is no JSON: {error.msg} at line {error.lineno}, column {error.colno}, before {near!r}"
        raise BadInput(msg) from error
    except RecursionError as error:
        msg = f"{name} is JSON that is nested too deep"
        raise BadInput(msg) from error
    except ValueError as error:  # a number of thousands of digits
        msg = f"{name} cannot be read as JSON: {error}"
        raise BadInput(msg) from error
    if not isinstance(read, dict):
        msg = f'{name} must be a JSON object, such as {{"to": "ada@example.com"}}, not {text[:80]!r}'
        raise BadInput(msg)
    return read


def _text(data: str) -> tuple[str, str]:
    """Give the text that is meant, and what to call it."""
    if data != "-" and not data.startswith("@"):
        return "data", data
    name = "stdin" if data == "-" else data[1:]
    try:
        content = sys.stdin.buffer.read() if data == "-" else Path(name).read_bytes()
        return name, content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        msg = f"data cannot be read from {name!r}: {error}"
        raise BadInput(msg) from error


def _refuse_constant(name: str) -> NoReturn:
    msg = f"data may not hold {name}, which JSON has no word for"
    raise BadInput(msg)
