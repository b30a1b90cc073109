"""The OpenAPI document: every route but the WebSocket, with what each takes and whatever it may answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from oncetask.app import App
from oncetask.http.inputs import ID_PATTERN, KIND_PATTERN, TaskQuery, TickOptions
from oncetask.http.schemas import Schema, parameters_of, ref, schemas
from oncetask.http.troubles import Answer
from oncetask.payload import Payload

__all__ = ["Documents", "document"]

_VERSION = "1"  # of this API, not of the package: it rises with a change that breaks callers

_TROUBLES = {
    400: "The body is not JSON.",
    401: "The caller brought no valid token.",
    403: "The caller may not call.",
    404: "There is no such task, or no such kind.",
    409: "The state of the task does not allow it.",
    413: "The body, or the task, is too large.",
    415: "The body is sent as something else than JSON.",
    422: "Fields are wrong: `fields` names them.",
    500: "An error of the service.",
    503: "The store is not available at the moment.",
    504: "The request reached its time limit, and its work was cancelled.",
}
_HEADERS: dict[int, Schema] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    503: {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}},
}
_PREFER: Schema = {
    "name": "Prefer",
    "in": "header",
    "description": "With `respond-async` the answer begins at once; such requests share the next tick.",
    "schema": {"type": "string"},  # what one does not know of it is ignored (RFC 7240)
}
_ALWAYS = (401, 403, 500, 503, 504)
_BODY = (400, 413, 415, 422)

_TASK_ID: Schema = {
    "name": "taskId",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 1_500, "pattern": f"^{ID_PATTERN}$"},
}


class Documents:
    """The document of an App, as it is asked for."""

    def __init__(self, app: App, *, has_tokens: bool) -> None:
        """`has_tokens`: whether callers bring one."""
        self._app = app
        self._has_tokens = has_tokens
        self._made: tuple[dict[str, type[Payload]], Schema] | None = None

    async def answer(self, request: Request) -> Response:
        """`GET /openapi.json`; its paths begin where this application is mounted."""
        types = {kind: handler.payload_type for kind, handler in self._app.handlers().items()}
        if self._made is None or self._made[0] != types:
            self._made = types, document(types, title=self._app.name, has_tokens=self._has_tokens)
        return Answer({**self._made[1], "servers": [{"url": request.scope.get("root_path") or "/"}]})


def document(payload_types: dict[str, type[Payload]], *, title: str, has_tokens: bool) -> Schema:
    """Give the document, without `servers`. `payload_types`: by their kinds."""
    components: Schema = {
        "schemas": schemas(payload_types),
        "responses": {f"Error{status}": _trouble(status) for status in _TROUBLES},
    }
    if has_tokens:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"oncetask: {title}",
            "version": _VERSION,
            "description": "Background tasks: enqueue, look, cancel, reset, delete, run. The WebSocket at `/ws` takes "
            "the same as messages, and tells of every change of a task.",
        },
        "paths": _paths(list(payload_types)),
        "components": components,
        **({"security": [{"token": []}]} if has_tokens else {}),
    }


def _paths(kinds: Sequence[str]) -> Schema:
    known: Schema = {"enum": list(kinds)} if kinds else {}
    one, paused = [_TASK_ID], [_kind(known)]
    resumed = [_kind({"pattern": f"^{KIND_PATTERN}$"})]
    ticks = [ref("TickOptions")]
    return {
        "/tasks": {
            "post": _operation(
                "enqueueTask",
                "Enqueue a task, once per id",
                202,
                "Receipt",
                body=[ref("NewTask")],
                troubles=(*_BODY, 404),
                headers={"X-Task-Id": {"schema": {"type": "string"}, "description": "The id, percent-encoded."}},
            ),
            "get": _operation(
                "listTasks", "List tasks by id", 200, "TaskPage", parameters=parameters_of(TaskQuery), troubles=(422,)
            ),
        },
        "/tasks/cancel": {
            "post": _operation(
                "cancelTasks",
                "Cancel tasks by their ids or their resource key; after a 504, ask again for the rest",
                200,
                "CancelledMany",
                body=[ref("CancelByIds"), ref("CancelByKey")],
                troubles=_BODY,
            )
        },
        "/tasks/{taskId}": {
            "get": _operation("getTask", "Read a task", 200, "Task", parameters=one, troubles=(404, 422)),
            "delete": _operation(
                "deleteTask",
                "Delete a task that is not running",
                200,
                "Deleted",
                parameters=one,
                troubles=(404, 409, 422),
            ),
        },
        "/tasks/{taskId}/cancel": {
            "post": _operation(
                "cancelTask", "Cancel a task that is not done", 200, "Cancelled", parameters=one, troubles=(404, 422)
            )
        },
        "/tasks/{taskId}/reset": {
            "post": _operation(
                "resetTask", "Run a done task again", 200, "Reset", parameters=one, troubles=(404, 409, 422)
            )
        },
        "/tick": {
            "post": _operation(
                "tick",
                "Run what is due, within a budget; it goes on where the caller hangs up",
                200,
                "TickReport",
                parameters=[*parameters_of(TickOptions), _PREFER],
                body=ticks,
                body_required=False,
                troubles=_BODY,
                begun={"anyOf": [ref("TickReport"), ref("Error")]},
            )
        },
        "/kinds/{kind}/pause": {
            "post": _operation(
                "pauseKind", "Let tasks of a kind wait", 200, "Paused", parameters=paused, troubles=(404, 422)
            )
        },
        "/kinds/{kind}/resume": {
            "post": _operation(
                "resumeKind", "Let tasks of a kind run again", 200, "Resumed", parameters=resumed, troubles=(422,)
            )
        },
        "/stats": {"get": _operation("stats", "Count tasks by kind and status", 200, "Stats")},
        "/openapi.json": {"get": _operation("openapi", "This document", 200, None)},
        "/healthz": {"get": _operation("health", "Whether the service answers", 200, "Health", is_open=True)},
    }


def _operation(
    name: str,
    summary: str,
    status: int,
    answer: str | None,
    *,
    parameters: Sequence[Schema] = (),
    body: Sequence[Schema] = (),
    body_required: bool = True,
    troubles: Sequence[int] = (),
    headers: Schema | None = None,
    is_open: bool = False,
    begun: Schema | None = None,
) -> Schema:
    """Describe one operation. `answer`: the schema of its success; None: an object. `is_open`: to anybody.

    `begun`: of an answer that begins before it is known.
    """
    success: Schema = {"description": "Done.", "content": _json({"type": "object"} if answer is None else ref(answer))}
    if headers is not None:
        success["headers"] = headers
    statuses = [] if is_open else sorted({*_ALWAYS, *troubles})
    found: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {
            str(status): success,
            **{str(one): {"$ref": f"#/components/responses/Error{one}"} for one in statuses},
        },
    }
    if begun is not None:
        found["responses"]["202"] = {"description": "Begun; the body ends with the work.", "content": _json(begun)}
    if parameters:
        found["parameters"] = list(parameters)
    if body:
        schema = body[0] if len(body) == 1 else {"oneOf": list(body)}
        found["requestBody"] = {"required": body_required, "content": _json(schema)}
    if is_open:
        found["security"] = []
    return found


def _trouble(status: int) -> Schema:
    found: Schema = {"description": _TROUBLES[status], "content": _json(ref("Error"))}
    return {**found, "headers": _HEADERS[status]} if status in _HEADERS else found


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _kind(schema: Schema) -> Schema:
    return {"name": "kind", "in": "path", "required": True, "schema": {"type": "string", **schema}}
