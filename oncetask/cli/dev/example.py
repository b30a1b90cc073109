"""A call of the HTTP API that somebody can paste: a task of the App's own, as far as its payload class tells."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from pydantic.errors import PydanticInvalidForJsonSchema

if TYPE_CHECKING:
    from oncetask.app import App
    from oncetask.payload import Payload

__all__ = ["curl"]

_VALUES = {"string": "…", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


def curl(url: str, app: App) -> str:
    """Give a curl command that enqueues a task of the App's first kind; `url`: of the API."""
    kind, handler = min(app.handlers().items())
    body = json.dumps({"kind": kind, "data": _data(handler.payload_type)}, ensure_ascii=False)
    return f"curl {url}/tasks -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def _data(payload_type: type[Payload]) -> dict[str, Any]:
    """Give a value of the right type for each field that has to be given; what is in them is for the caller to say."""
    try:
        schema = payload_type.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return {}
    fields = schema.get("properties", {})
    return {name: _value(fields[name]) for name in schema.get("required", [])}


def _value(field: dict[str, Any]) -> Any:  # whatever JSON can say
    for name in ("examples", "enum"):
        if field.get(name):
            return field[name][0]
    return field["const"] if "const" in field else _VALUES.get(field.get("type", "object"))
