"""What goes wrong with a request, as its sender gets to know it: a status, a sentence, the fields that are wrong.

An error that nobody foresaw is logged, and its text stays here.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from oncetask.errors import InvalidPayload, PayloadTooLarge, StoreUnavailable, TaskNotFound, Unsupported
from oncetask.http.auth import Refused
from oncetask.representation import plain

__all__ = ["Answer", "Trouble", "explained", "field_errors", "unfit"]

RETRY_AFTER = 5
"""Seconds after which a sender may try again when the store did not answer."""

_NAMES = {"task_id": "taskId", "resource_key": "resourceKey", "wait_until": "waitUntil"}
_FIELDS = frozenset({"kind", "status", "owner", "parent", "limit", "cursor", "delay", "timeout", "deadline", *_NAMES})

_log = logging.getLogger("oncetask")


class Answer(Response):
    """A JSON response, which nobody keeps a copy of. Whatever a document holds can be in it."""

    media_type = "application/json"

    def __init__(self, content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """`content`: what `representation.plain` takes."""
        super().__init__(content, status, {"Cache-Control": "no-store", **(headers or {})})

    def render(self, content: object) -> bytes:
        """Write it in ASCII, since half a surrogate pair has no UTF-8."""
        return json.dumps(plain(content), allow_nan=False, separators=(",", ":")).encode("ascii")


class Trouble(Exception):
    """A request that cannot be done, and why; its sender may read all of it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        fields: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`status`: of HTTP. `fields`: `{field, message}` for each field that is wrong."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = tuple(fields)
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": message}`, and `fields` where there are any."""
        return {"error": self.message, **({"fields": list(self.fields)} if self.fields else {})}

    def answer(self) -> Answer:
        """Give the response that tells it."""
        return Answer(self.body, self.status, self.headers)


def unfit(fields: Sequence[Mapping[str, str]]) -> Trouble:
    """Make the trouble with fields that are wrong: status 422."""
    return Trouble(422, "; ".join(f"{field['field']}: {field['message']}" for field in fields), fields=fields)


def explained(error: Exception, *, doing: str) -> Trouble:  # noqa: PLR0911  # one answer for each error
    """Say what a sender gets to know of an error. What nobody foresaw is logged, with what was being done."""
    match error:
        case Trouble():
            return error
        case Refused():
            return Trouble(error.status, error.message, headers=error.headers)
        case TaskNotFound():
            return Trouble(404, str(error))
        case InvalidPayload():
            return unfit(_of_payload(error))
        case PayloadTooLarge():
            return Trouble(413, str(error))
        case Unsupported():
            return Trouble(501, str(error))
        case StoreUnavailable():
            _log.warning("%s: the store is not available: %s", doing, error)
            headers = {"Retry-After": str(RETRY_AFTER)}
            return Trouble(503, "the store is not available at the moment: try again later", headers=headers)
        case HTTPException():
            return Trouble(error.status_code, error.detail, headers=error.headers)
        case ValueError() if type(error) is ValueError:  # oncetask's own; subclasses come from elsewhere
            return _of_argument(str(error))
    _log.error("%s failed", doing, exc_info=error)
    return Trouble(500, "internal error")


def field_errors(error: ValidationError, *within: str) -> list[dict[str, str]]:
    """Give each field that pydantic found wrong, by its path, and what would be right. `within`: what it is part of."""
    return [
        {"field": ".".join(map(str, (*within, *e["loc"]))) or "body", "message": _sentence(e)}
        for e in error.errors(include_url=False, include_input=False)
    ]


def _sentence(error: Any) -> str:  # pydantic's ErrorDetails
    own = error.get("ctx", {}).get("error")
    return str(own) if isinstance(own, ValueError) else error["msg"]


def _of_payload(error: InvalidPayload) -> list[dict[str, str]]:
    cause = error.__cause__
    while isinstance(cause, InvalidPayload):
        cause = cause.__cause__
    if isinstance(cause, ValidationError):
        return field_errors(cause, "data")
    if cause is None:
        return [{"field": "data", "message": str(error)}]
    _log.warning("a payload could not be read", exc_info=error)  # a validator or a serialiser failed: user code
    return [{"field": "data", "message": "cannot be read as a payload of this kind"}]


def _of_argument(text: str) -> Trouble:
    """Tell what an argument should be, with the name that it has in JSON."""
    if (found := re.match(r"([a-z_]+) (.*)", text, re.DOTALL)) and found[1] in _FIELDS:
        return unfit([{"field": _NAMES.get(found[1], found[1]), "message": found[2]}])
    return Trouble(422, text)
