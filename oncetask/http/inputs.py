"""What may stand in a request, field by field: checked when it is read, and told in the OpenAPI document."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.alias_generators import to_camel

from oncetask.clock import LONGEST_SECONDS, check_instant
from oncetask.enqueueing import EnqueueOptions
from oncetask.http.troubles import field_errors, unfit
from oncetask.paging import LARGEST_PAGE
from oncetask.payload import check_indexed, check_task_id
from oncetask.task import TaskStatus

__all__ = [
    "ID_PATTERN",
    "KIND_PATTERN",
    "CancelByIds",
    "CancelByKey",
    "Input",
    "NewTask",
    "OneTask",
    "TaskQuery",
    "TickOptions",
    "task_id_of",
]

ID_PATTERN = r"[^/\x00-\x1f]+"
KIND_PATTERN = r"[a-z0-9][a-z0-9._-]{0,99}"
MOST_IDS = 1_000
LONGEST_TICK = 3_600.0
"""Seconds; no platform lets a request take longer."""

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def task_id_of(text: str) -> str:
    """Check a task's id, in the words of this API."""
    try:
        return check_task_id(text)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("task_id ")) from None


def _indexed(text: str) -> str:
    try:
        check_indexed("it", text)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("it ").replace("None or ", "")) from None
    return text


def _instant(value: object) -> datetime:
    """Read what RFC 3339 calls a date and time; leap seconds are refused, and digits beyond microseconds dropped."""
    text = value.upper() if isinstance(value, str) else ""
    if not _RFC_3339.fullmatch(text):
        msg = f"must be a text with an instant, such as 2030-01-31T07:00:00Z, not {value!r:.80}"
        raise ValueError(msg)
    try:
        return check_instant("it", datetime.fromisoformat(text))
    except ValueError as error:
        msg = f"must be an instant of the calendar, not {value!r:.80} ({error})"
        raise ValueError(msg) from error


def _exclude_each_other(schema: dict[str, Any]) -> None:
    schema["not"] = {"required": ["delay", "waitUntil"]}


def _left_out() -> Any:  # what a field has that was not given; nobody looks at it
    return None


TaskId = Annotated[str, Field(min_length=1, max_length=1_500, pattern=f"^{ID_PATTERN}$"), AfterValidator(task_id_of)]
Kind = Annotated[str, Field(pattern=f"^{KIND_PATTERN}$")]
Indexed = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_indexed)]
Instant = Annotated[datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Status = Annotated[TaskStatus, WithJsonSchema({"enum": list(TaskStatus)})]


class Input(BaseModel):
    """Fields in camelCase and no others; what is left out is not in `model_fields_set`, and null is not left out."""

    model_config: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", alias_generator=to_camel)

    @classmethod
    def read(cls, given: object, *, strict: bool = True) -> Self:
        """Check a map. `strict` False: its values are texts of a query. Raises Trouble with each wrong field."""
        try:
            return cls.model_validate(given, strict=strict)
        except ValidationError as error:
            raise unfit(field_errors(error)) from error

    def given(self) -> dict[str, Any]:
        """Give the fields that were sent, by their names in Python."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class NewTask(Input):
    """A task to enqueue."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra=_exclude_each_other)

    kind: Annotated[str, Field(min_length=1, description="The name of the payload type.")]
    data: Annotated[dict[str, Any], Field(description="The payload.")]
    task_id: TaskId = Field(
        default_factory=_left_out,
        description="Its id, at most 1,500 bytes without a slash or control characters; "
        "enqueued again, it stays one task. Left out: the payload says it, or it is random.",
    )
    resource_key: Indexed | None = Field(
        default_factory=_left_out,
        description="Tasks that share it run one at a time; null: it shares none. Left out: the payload says it.",
    )
    wait_until: Instant = Field(default_factory=_left_out, description="Not before this instant.")
    delay: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)] = Field(
        default_factory=_left_out, description="Not before so many seconds from now; excludes waitUntil."
    )
    timeout: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] = Field(
        default_factory=_left_out, description="Seconds that one attempt may take."
    )
    deadline: Instant = Field(
        default_factory=_left_out,
        description="The instant at which the task ends, done or not; later than waitUntil.",
    )
    owner: Indexed | None = Field(default_factory=_left_out, description="The end user whom it belongs to.")

    @field_validator("delay")
    @classmethod
    def _goes_alone(cls, delay: float, info: ValidationInfo) -> float:
        if info.data.get("wait_until") is not None:
            msg = "excludes waitUntil: give one of them"
            raise ValueError(msg)
        return delay

    @field_validator("deadline")
    @classmethod
    def _comes_later(cls, deadline: datetime, info: ValidationInfo) -> datetime:
        wait_until = info.data.get("wait_until")
        if wait_until is not None and deadline <= wait_until:
            msg = "must be later than waitUntil: the task could never run"
            raise ValueError(msg)
        return deadline

    def options(self) -> EnqueueOptions:
        """Give what stands beside the payload, as `Client.enqueue` takes it."""
        beside = {name: value for name, value in self.given().items() if name not in {"kind", "data"}}
        return cast("EnqueueOptions", beside)


class OneTask(Input):
    """A task that is meant, by its id."""

    task_id: TaskId


class CancelByIds(Input):
    """Tasks to cancel, by their ids."""

    ids: Annotated[list[TaskId], Field(max_length=MOST_IDS)]


class CancelByKey(Input):
    """Tasks to cancel: all of a resource key, or those of one kind among them."""

    resource_key: Indexed
    kind: Kind | None = None


class TaskQuery(Input):
    """Which tasks to list; all filters that are given hold."""

    kind: Kind = Field(default_factory=_left_out, description="Only of this kind.")
    status: Status = Field(default_factory=_left_out, description="Only with this status.")
    resource_key: Indexed = Field(default_factory=_left_out, description="Only of this resource key.")
    owner: Indexed = Field(default_factory=_left_out, description="Only of this end user.")
    parent: TaskId = Field(default_factory=_left_out, description="Only occurrences of this schedule.")
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = Field(
        default_factory=_left_out, description="How many tasks at most; 50 where it is left out."
    )
    cursor: Annotated[str, Field(pattern="^[A-Za-z0-9_=-]+$")] = Field(
        default_factory=_left_out, description="The last page's, to go on after it."
    )


class TickOptions(Input):
    """How long a tick may take; in the body or in the query, which counts more."""

    budget: Annotated[float, Field(gt=0, le=LONGEST_TICK)] = Field(
        default_factory=_left_out, description="Seconds within which it runs what is due."
    )
    linger: Annotated[float, Field(ge=0, le=LONGEST_TICK)] = Field(
        default_factory=_left_out, description="Seconds that it stays for what becomes due."
    )
