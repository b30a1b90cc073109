"""Tasks and transitions, coded and back: which of their fields are, and how large these may be."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oncetask.codec import SealedMap, SealedText
from oncetask.errors import OncetaskError, PayloadTooLarge
from oncetask.store.coding.values import is_coded, open_text, open_value, seal_text, seal_value
from oncetask.store.fitting import stored_size
from oncetask.task import Progress, TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncetask.codec import Codec
    from oncetask.lifecycle import Transition
    from oncetask.task import Task

__all__ = ["Coder", "coded_fields"]

_FIELDS = ("data", "result", "errors", "progress")
_ROOM_FOR_THE_REST = 64 * 1_024  # ten errors of 3 KiB, a progress of 16, names, ids, instants
_LARGEST_VALUES = 1_048_576 - _ROOM_FOR_THE_REST
_LONGEST_MESSAGE = 3 * 1_024
_LARGEST_PROGRESS = 16 * 1_024
_MOST_GROWTH = 8  # what nobody's codec exceeds, so that the size of small values need not be looked at


def coded_fields(task: Task) -> dict[str, Any]:
    """Give what is coded of a task, as it is: the fields that hold anything."""
    return {name: value for name in _FIELDS if (value := getattr(task, name)) not in (None, ())}


class Coder:
    """Codes what is written, and decodes what was read."""

    def __init__(self, codec: Codec) -> None:
        """`codec`: the user's."""
        self._codec = codec

    def task(self, task: Task) -> Task:
        """Code a new task. Raises PayloadTooLarge, and OncetaskError where the codec fails."""
        return task.evolve(**self._coded(task, coded_fields(task)))

    def transition(self, transition: Transition) -> Transition:
        """Code what a change writes; what it leaves alone stays in the document as it is. Raises as `task`."""
        changed = {name: value for name, value in coded_fields(transition.after).items() if name in transition.changes}
        if not changed:
            return transition
        coded = self._coded(transition.after, changed)
        return replace(transition, after=transition.after.evolve(**coded), changes={**transition.changes, **coded})

    def opened(self, task: Task) -> Task:
        """Decode a task; what cannot be decoded stays as it is stored, and what never was coded, too."""
        changes: dict[str, Any] = {}
        if is_coded(task.data):
            changes["data"] = self._opened_data(task.data)
        if is_coded(task.result):
            changes["result"] = open_value(self._codec, task.result)
        if any(is_coded(error.message) for error in task.errors):
            changes["errors"] = tuple(replace(e, message=open_text(self._codec, e.message)) for e in task.errors)
        if task.progress is not None and is_coded(task.progress.data):
            changes["progress"] = self._opened_progress(task.progress)
        return task.evolve(**changes) if changes else task

    def _coded(self, task: Task, fields: Mapping[str, Any]) -> dict[str, Any]:
        coded: dict[str, Any] = {}
        for name, value in fields.items():
            if name == "errors":
                coded[name] = tuple(map(self._error, value))
            elif name == "progress":
                coded[name] = self._progress(value)
            else:
                coded[name] = self._value(value)
        self._check_size(task, coded)
        return coded

    def _value(self, value: Any) -> dict[str, Any]:  # any JSON
        if isinstance(value, SealedMap):
            return value
        try:
            return seal_value(self._codec, value)
        except (TypeError, ValueError, RecursionError) as error:
            raise OncetaskError(f"no store can hold this task: {error}") from error

    def _check_size(self, task: Task, coded: Mapping[str, Any]) -> None:
        """Raise PayloadTooLarge where data and result together outgrow a document of Firestore's."""
        if "data" not in coded and "result" not in coded:
            return
        sizes = {name: stored_size(coded[name]) for name in ("data", "result") if name in coded}
        if "data" not in sizes:
            plain = len(json.dumps(task.data, default=str))
            if plain * _MOST_GROWTH + sizes["result"] <= _LARGEST_VALUES:
                return
            sizes["data"] = stored_size(self._value(task.data))
        if sum(sizes.values()) > _LARGEST_VALUES:
            largest = max(sizes, key=lambda name: sizes[name])
            msg = (
                f"{largest} takes {sizes[largest]:,} bytes as the codec gives it; data and result of a task together "
                f"may take {_LARGEST_VALUES:,} then: store it elsewhere and pass a reference"
            )
            raise PayloadTooLarge(msg)

    def _error(self, error: TaskError) -> TaskError:
        """Code an error's message. This never fails, since that something has failed has to be stored."""
        if isinstance(error.message, SealedText):
            return error
        message = error.message
        try:
            while len(sealed := seal_text(self._codec, message)) > _LONGEST_MESSAGE and message:
                message = message[: len(message) // 2]
        except OncetaskError as failed:
            return replace(error, message=f"(not kept: {failed})")
        return replace(error, message=sealed)

    def _progress(self, told: Progress) -> Progress:
        """Code message and data of a progress. Raises PayloadTooLarge, and OncetaskError where the codec fails."""
        if told.message is None and (told.data is None or isinstance(told.data, SealedMap)):
            return told
        coded = self._value({"message": told.message, "data": told.data})
        if (size := stored_size(coded)) > _LARGEST_PROGRESS:
            raise PayloadTooLarge(
                f"a progress takes {size:,} bytes as the codec gives it; it may take {_LARGEST_PROGRESS:,}"
            )
        return Progress(told.fraction, None, coded, told.at)

    def _opened_data(self, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        opened = open_value(self._codec, stored)
        if isinstance(opened, dict):
            return opened
        sealed = SealedMap(stored)
        sealed.why = f"what was coded is no map but a {type(opened).__name__}"
        return sealed

    def _opened_progress(self, stored: Progress) -> Progress:
        opened = open_value(self._codec, stored.data)
        if isinstance(opened, SealedMap):
            return replace(stored, data=opened)
        if not isinstance(opened, dict):
            return stored
        message = opened.get("message")
        return replace(stored, message=message if isinstance(message, str) else None, data=opened.get("data"))
