"""The schemas of the OpenAPI document: of what is sent, from the models that check it; of what is answered."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from oncetask.http.inputs import CancelByIds, CancelByKey, NewTask, TickOptions
from oncetask.payload import Payload
from oncetask.store.document import INSTANTS
from oncetask.task import Outcome, TaskStatus

__all__ = ["Schema", "parameters_of", "ref", "schemas"]

Schema = dict[str, Any]

_REFS = "#/components/schemas/"
_log = logging.getLogger("oncetask")

_COUNT: Schema = {"type": "integer", "minimum": 0}
_COUNTS: Schema = {
    "type": "object",
    "propertyNames": {"enum": list(TaskStatus)},
    "additionalProperties": _COUNT,
}
_INSTANT: Schema = {"type": "string", "format": "date-time"}
_FLAG: Schema = {"type": "boolean"}
_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}


def ref(name: str) -> Schema:
    """Give a reference to one of the schemas."""
    return {"$ref": f"{_REFS}{name}"}


def schemas(payload_types: Mapping[str, type[Payload]]) -> dict[str, Schema]:
    """Give all schemas by name; `payload_types`: by their kinds."""
    found: dict[str, Schema] = {**_ANSWERS}
    for model in (CancelByIds, CancelByKey, TickOptions):
        found |= _of_model(model, model.__name__)
    found |= _new_tasks(payload_types)
    return found


def parameters_of(model: type[BaseModel]) -> list[Schema]:
    """Give the parameters of a query, from the model that checks them."""
    name = model.__name__
    own = _of_model(model, name)[name]["properties"]
    return [
        {"name": field, "in": "query", "description": schema.pop("description", ""), "schema": schema}
        for field, schema in own.items()
    ]


def _new_tasks(payload_types: Mapping[str, type[Payload]]) -> dict[str, Schema]:
    """Give `NewTask` as one of several, told apart by their kinds, each with a payload of its own."""
    general = _of_model(NewTask, "NewTask")
    if not payload_types:
        return general
    found: dict[str, Schema] = {}
    for kind, payload_type in payload_types.items():
        found |= _payload(kind, payload_type)
        own = {"kind": {"type": "string", "const": kind}, "data": ref(f"Payload.{kind}")}
        task = general["NewTask"]
        found[f"NewTask.{kind}"] = {**task, "title": f"NewTask.{kind}", "properties": {**task["properties"], **own}}
    names = {kind: ref(f"NewTask.{kind}") for kind in payload_types}
    mapping = {kind: one["$ref"] for kind, one in names.items()}
    discriminator = {"propertyName": "kind", "mapping": mapping}
    return {**found, "NewTask": {"oneOf": list(names.values()), "discriminator": discriminator}}


def _payload(kind: str, payload_type: type[Payload]) -> dict[str, Schema]:
    """Give the schema of a payload, and of what it is made of; of one that has none, that it is an object."""
    name = f"Payload.{kind}"
    try:
        return _of_model(payload_type, name)
    except Exception as error:  # noqa: BLE001  # how a field describes itself is user code
        _log.warning("the payload of kind %r has no JSON schema, so any object is told: %s", kind, error)
        return {name: {"type": "object"}}


def _of_model(model: type[BaseModel], name: str) -> dict[str, Schema]:
    """Give the schema of a model under a name, and of what it is made of under names that begin with it."""
    schema = model.model_json_schema(ref_template=f"{_REFS}{name}.{{model}}")
    parts = schema.pop("$defs", {})
    return {name: schema, **{f"{name}.{part}": found for part, found in parts.items()}}


def _object(**properties: Schema) -> Schema:
    """Describe a map with these fields and no others, none of which is left out."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_ANSWERS: dict[str, Schema] = {
    "Error": {
        "type": "object",
        "properties": {"error": _TEXT, "fields": _list(ref("FieldError"))},
        "required": ["error"],
        "additionalProperties": False,
    },
    "FieldError": _object(field=_TEXT, message=_TEXT),
    "Receipt": _object(taskId=_TEXT, created=_FLAG),
    "Task": _object(
        id=_TEXT,
        status={"enum": list(TaskStatus)},
        kind=_TEXT,
        data={"type": "object"},
        resourceKey=_TEXT_OR_NULL,
        leaseOwner=_TEXT_OR_NULL,
        attempts=_COUNT,
        cancelAttempts=_COUNT,
        isCancelled=_FLAG,
        parentRecurrenceId=_TEXT_OR_NULL,
        timeout={"type": ["number", "null"], "description": "Seconds."},
        owner=_TEXT_OR_NULL,
        createId=_TEXT_OR_NULL,
        schema=_COUNT,
        recurrence={"type": ["object", "null"]},
        **{field: _or_null(_INSTANT) for field in INSTANTS.values()},
        result={"description": "What the handler returned: any JSON."},
        outcome={"enum": [*Outcome, None]},
        errors=_list(_object(at=_INSTANT, attempt=_COUNT, type=_TEXT, message=_TEXT)),
        progress=_or_null(
            _object(fraction={"type": ["number", "null"]}, message=_TEXT_OR_NULL, data={}, at=_or_null(_INSTANT))
        ),
        readAt=_INSTANT,
        problems=_list(_TEXT),
    ),
    "TaskPage": _object(tasks=_list(ref("Task")), cursor=_TEXT_OR_NULL),
    "Cancelled": _object(cancelled=_FLAG),
    "CancelledMany": _object(cancelled=_COUNT),
    "Reset": _object(reset={"const": True}),
    "Deleted": _object(deleted={"const": True}),
    "Paused": _object(paused=_FLAG),
    "Resumed": _object(resumed=_FLAG),
    "TickReport": _object(
        **dict.fromkeys(
            ("claimed", "completed", "failed", "retried", "cancelled", "expired", "spawned", "interrupted"), _COUNT
        ),
        nextDue=_or_null(_INSTANT),
        more=_FLAG,
    ),
    "Stats": _object(
        kinds={"type": "object", "additionalProperties": _COUNTS},
        totals=_COUNTS,
        total=_COUNT,
        paused=_list(_TEXT),
    ),
    "Health": _object(status={"const": "ok"}),
}
