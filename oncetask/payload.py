"""The typed data of a task: a pydantic model with a kind."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self

from pydantic import BaseModel, ValidationError

from oncetask.codec import why_coded
from oncetask.errors import InvalidPayload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from oncetask.recurrence import Recurrence

__all__ = [
    "Payload",
    "check_indexed",
    "check_kind",
    "check_resource_key",
    "check_several",
    "check_task_id",
    "derive_task_id",
    "has_surrogates",
    "is_kind",
    "kind_of",
    "sort_out_ids",
]

_KIND = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_RESERVED = ("kind", "idempotency_key", "resource_key", "wait_until", "recurrence")
_LONGEST_DERIVED_ID = 200
_LONGEST_ID_BYTES = 1_500
_LONGEST_KEY_BYTES = 1_000


class Payload(BaseModel):
    """What a task is about. Subclass it, and give the subclass a kind.

    `class SendEmail(Payload, kind="send-email")`; left out, the kind is the class's name in kebab case. A kind has
    1 to 100 of the characters a-z 0-9 . _ - and is not inherited. A generic payload has to name its own.
    """

    kind: ClassVar[str] = ""

    def __init_subclass__(cls, *, kind: str | None = None, **kwargs: Any) -> None:  # pydantic's own
        """Settle the kind, and refuse fields that would hide a method of this class."""
        super().__init_subclass__(**kwargs)
        for name in _RESERVED:
            if name in set(_field_names(cls)) or (name == "kind" and name in cls.__dict__):
                msg = (
                    f"{cls.__name__} may not have a field {name!r}: Payload uses that name. "
                    f'Call it something else and keep the wire name with Field(alias="{name}"); '
                    f'a kind is given as class {cls.__name__}(Payload, kind="…")'
                )
                raise TypeError(msg)
        if kind is not None:
            cls.kind = check_kind(kind)
        elif "[" in cls.__name__ or Generic in cls.__bases__:
            cls.kind = ""
        else:
            cls.kind = check_kind(_kebab(cls.__name__))

    def idempotency_key(self) -> str | None:
        """Tasks of the same kind and key are the same task: it is enqueued once. None: a random id."""
        return None

    def resource_key(self) -> str | None:
        """Tasks that share this key run one at a time. None: no such limit. At most 1,000 bytes."""
        return None

    def wait_until(self) -> datetime | None:
        """Not before this instant (aware). None: at once."""
        return None

    def recurrence(self) -> Recurrence | None:
        """Again and again: the task is a generator then, which spawns an occurrence at each instant. None: once."""
        return None

    def to_data(self) -> dict[str, Any]:
        """Give the JSON form that is stored.

        Raises InvalidPayload where reading it back would give another payload (a masked secret, an excluded field):
        such data would be lost silently.
        """
        kind_of(type(self))
        try:
            data = self.model_dump(mode="json", by_alias=True, round_trip=True)
            restored = self.from_data(data)
        except InvalidPayload as error:
            msg = f"payload of kind {self.kind!r} cannot be read back from its own JSON form: {error}"
            raise InvalidPayload(msg) from error
        except Exception as error:  # a serialiser is user code and may raise anything
            msg = f"payload of kind {self.kind!r} cannot be written as JSON: {error}"
            raise InvalidPayload(msg) from error
        if names := _differing(restored, self):
            msg = f"payload of kind {self.kind!r} would come back from the store different in: {names}"
            raise InvalidPayload(msg)
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the stored form. Raises InvalidPayload with each field, its value and what would be right.

        Values are left out of the message where the class's `model_config` has `hide_input_in_errors`.
        """
        if (why := why_coded(data)) is not None:  # a model of defaults only would take it for its own
            raise InvalidPayload(f"data of kind {cls.kind!r} is coded: {why}")
        try:
            text = json.dumps(data, allow_nan=False)
        except (
            TypeError,
            ValueError,
            RecursionError,
        ) as error:  # a map that somebody else wrote may hold anything
            msg = f"data of kind {cls.kind!r} holds what JSON cannot: {error}"
            raise InvalidPayload(msg) from error
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            quiet = cls.model_config.get("hide_input_in_errors", False)
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'data'}: {e['msg']}"
                + ("" if quiet else f" (was {_short(e['input'])})")
                for e in error.errors(include_url=False)
            )
            msg = f"data does not fit {cls.__name__} (kind {cls.kind!r}): {problems}"
            raise InvalidPayload(msg) from error
        except Exception as error:  # a validator is user code and may raise anything
            msg = f"data does not fit {cls.__name__} (kind {cls.kind!r}): {type(error).__name__}: {error}"
            raise InvalidPayload(msg) from error


def kind_of(kind: str | type[Payload]) -> str:
    """Give the kind that a name or a payload class stands for, checked."""
    if isinstance(kind, str):
        return check_kind(kind)
    if not (isinstance(kind, type) and issubclass(kind, Payload)):
        msg = f"kind must be a name or a Payload class, not {kind!r}"
        raise TypeError(msg)
    if not kind.kind:
        msg = f'{kind.__name__} has no kind of its own: a generic payload has to name one (kind="…" in a subclass)'
        raise TypeError(msg)
    return kind.kind


def is_kind(kind: object) -> bool:
    """Tell whether something is spelt as a kind."""
    return isinstance(kind, str) and _KIND.fullmatch(kind) is not None


def check_kind(kind: str) -> str:
    """Check the spelling of a kind."""
    if not is_kind(kind):
        msg = f"kind must be 1 to 100 of the characters a-z 0-9 . _ - and start with a letter or digit, not {kind!r}"
        raise ValueError(msg)
    return kind


def check_task_id(task_id: str) -> str:
    """Check that both stores take this as the id of a document."""
    problem = ""
    if not isinstance(task_id, str) or not task_id:
        problem = "must be a text with at least one character"
    elif "/" in task_id or any(ord(c) < ord(" ") for c in task_id) or has_surrogates(task_id):
        problem = "may not contain a slash, a control character or half a surrogate pair"
    elif task_id in {".", ".."} or re.fullmatch(r"__.*__", task_id):
        problem = 'may not be ".", ".." or of the form __…__ (Firestore reserves these)'
    elif len(task_id.encode()) > _LONGEST_ID_BYTES:
        problem = f"may have at most {_LONGEST_ID_BYTES} bytes in UTF-8"
    if problem:
        msg = f"task_id {problem}, not {_short(task_id)}"
        raise ValueError(msg)
    return task_id


def check_several(ids: Iterable[str]) -> None:
    """Raise TypeError for one text in place of several ids, and for what is none at all."""
    if isinstance(ids, str):
        msg = f"ids must be several ids, not the single text {ids!r}"
        raise TypeError(msg)
    if not hasattr(ids, "__iter__"):
        msg = f"ids must be several ids, in a list say, not {_short(ids)}"
        raise TypeError(msg)


def sort_out_ids(ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """Give the ids, each once, and what is wrong with those that cannot be one. Raises TypeError for a single text."""
    check_several(ids)
    fit, unfit = dict[str, None](), dict[str, None]()
    for task_id in ids:
        try:
            fit[check_task_id(task_id)] = None
        except ValueError as error:
            unfit[str(error)] = None
    return list(fit), list(unfit)


def check_resource_key(key: str | None) -> str | None:
    """Check a resource key: None, or 1 to 1,000 bytes of text."""
    return check_indexed("resource_key", key)


def check_indexed(name: str, text: str | None) -> str | None:
    """Check what queries ask for: None, or 1 to 1,000 bytes of text (longer values are cut in indexes)."""
    if text is None:
        return None
    if not isinstance(text, str) or not text or has_surrogates(text) or len(text.encode()) > _LONGEST_KEY_BYTES:
        msg = f"{name} must be None or a text of 1 to {_LONGEST_KEY_BYTES} bytes in UTF-8, not {_short(text)}"
        raise ValueError(msg)
    return text


def derive_task_id(kind: str, key: str) -> str:
    """Give the id that a kind and an idempotency key always lead to."""
    if not isinstance(key, str) or not key or has_surrogates(key):
        msg = f"idempotency_key must be None or a text with at least one character, not {_short(key)}"
        raise ValueError(msg)
    readable = f"{kind}:{key}"
    if len(readable) <= _LONGEST_DERIVED_ID and "/" not in key and all(ord(c) >= ord(" ") for c in key):
        return readable
    return f"{kind}:{hashlib.sha256(key.encode()).hexdigest()}"


def has_surrogates(text: str) -> bool:
    """Tell a text with half a surrogate pair, which has no UTF-8."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def _kebab(name: str) -> str:
    if not name.isascii():
        return name  # which no kind may be: leaving letters out could make two classes one kind
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    return "-".join(parts).lower() or name.lower()


def _field_names(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        if base is not Payload and base not in BaseModel.__mro__:
            yield from _own_annotations(base)


def _own_annotations(cls: type) -> Iterable[str]:
    if sys.version_info >= (3, 14):  # annotations are lazy there, and may name what does not exist yet
        import annotationlib  # noqa: PLC0415

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(cls)


def _differing(restored: Payload, given: Payload) -> str:
    pairs = {name: (restored.__dict__.get(name), given.__dict__.get(name)) for name in type(given).model_fields}
    pairs["its extra fields"] = (restored.__pydantic_extra__, given.__pydantic_extra__)
    return ", ".join(name for name, (back, value) in pairs.items() if back != value and _utc(back) != _utc(value))


def _utc(value: object) -> object:
    """Put aware datetimes into UTC: in the hour that a zone skips or repeats, they equal none of another zone."""
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value
    if isinstance(value, BaseModel):
        return type(value), _utc(value.__dict__), _utc(value.__pydantic_extra__)
    if isinstance(value, dict):
        return {_utc(key): _utc(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [_utc(item) for item in value]
    return {_utc(item) for item in value} if isinstance(value, set | frozenset) else value


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
