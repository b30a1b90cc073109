"""One conditional write of one task's document, and what a refusal means after an answer got lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from google.cloud.firestore_v1.types import write as write_types

from oncetask.errors import OncetaskError
from oncetask.store import Written
from oncetask.store.document import ABSENT, encode, encode_changes
from oncetask.store.firestore.codec import set_micros, write_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncetask.lifecycle import Transition
    from oncetask.store.firestore.codec import Names
    from oncetask.task import Task

__all__ = [
    "GENERATOR",
    "LANE",
    "Write",
    "change",
    "changes_of",
    "creation",
    "document_of",
    "fields_set",
    "removal",
    "tried",
]

T = TypeVar("T")

GENERATOR = "isGenerator"
LANE = "lane"
_Write: Any = write_types.Write.pb()
_NOT_STORED = frozenset({"version", "read_at", "problems"})


@dataclass(slots=True, eq=False)
class Write:
    """A write on its way: `done` holds what became of it."""

    pb: Any
    name: str
    base: int
    """The version that it was derived from; 0 for a document that did not exist."""
    judge: Callable[[Task | None], Written]
    """What became of it, told from the document, where it was refused after an answer had got lost."""
    done: asyncio.Future[Written] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    doubtful: bool = False
    """An earlier try may have been applied: if this one is refused, the document has to be looked at."""

    @property
    def names(self) -> tuple[str]:
        """Give the documents that it writes: this one."""
        return (self.name,)

    @property
    def size(self) -> int:
        """Give its bytes."""
        return int(self.pb.ByteSize())

    def settle(self, written: Written) -> None:
        """Tell the caller, if he is still there."""
        if not self.done.done():
            self.done.set_result(written)

    def fail(self, error: BaseException) -> None:
        """Tell the caller that it is not known."""
        if not self.done.done():
            self.done.set_exception(error)


def document_of(task: Task) -> dict[str, Any]:
    """Give the fields of a new document.

    A generator has one that others have not, since `recurrence` itself is in no index: this is how it is found. The
    lane is what the due line leaves out for a resource key that is busy, so a generator, which needs none, has none.
    """
    fields_of_it = encode(task) | {LANE: _lane_of(task)}
    return fields_of_it if task.recurrence is None else {**fields_of_it, GENERATOR: True}


def changes_of(transition: Transition) -> dict[str, Any]:
    """Give the fields that a transition writes; `ABSENT` for those that it removes."""
    fields_of_it = encode_changes(transition.changes)
    return fields_of_it | {LANE: _lane_of(transition.after)} if "resource_key" in transition.changes else fields_of_it


def _lane_of(task: Task) -> str:
    return task.resource_key or "" if task.recurrence is None else ""


def creation(names: Names, task: Task) -> Write:
    """Give the write of a new task. Raises TypeError and ValueError for what Firestore cannot hold."""
    pb = _Write()
    pb.update.name = names.task(task.id)
    for name, given in document_of(task).items():
        write_value(pb.update.fields[name], given)
    pb.current_document.exists = False

    def judge(found: Task | None) -> Written:
        ours = found is not None and found.create_id is not None and found.create_id == task.create_id
        return Written(found.version) if found is not None and ours else Written()

    # Whether an earlier try, maybe an earlier call, has stored it: one that says whose it is can always be told.
    return Write(pb, pb.update.name, 0, judge, doubtful=task.create_id is not None)


def change(names: Names, transition: Transition) -> Write:
    """Give the write of a transition. Raises TypeError and ValueError for what Firestore cannot hold."""
    name = names.task(transition.before.id)
    pb = fields_set(name, changes_of(transition))
    set_micros(pb.current_document.update_time, transition.before.version)
    return Write(pb, pb.update.name, transition.before.version, partial(_judge_change, transition))


def fields_set(name: str, changes: Mapping[str, Any]) -> Any:
    """Give the message that sets, or removes, some fields of a document; its precondition is the caller's to say."""
    pb = _Write()
    pb.update.name = name
    pb.update_mask.SetInParent()  # without a mask, a write that changes nothing would empty the document
    for field_name, given in changes.items():
        pb.update_mask.field_paths.append(field_name)
        if given is not ABSENT:
            write_value(pb.update.fields[field_name], given)
    return pb


def removal(names: Names, task: Task) -> Write:
    """Give the write that deletes a task."""
    pb = _Write()
    pb.delete = names.task(task.id)
    set_micros(pb.current_document.update_time, task.version)
    return Write(pb, pb.delete, task.version, lambda found: Written(None if found else task.version))


def tried(build: Callable[[], T]) -> T | Written:
    """Build a write, or give the error of a document that Firestore cannot hold."""
    try:
        return build()
    except (TypeError, ValueError) as error:
        return Written(error=OncetaskError(f"Firestore cannot hold this document: {error}"))


def _judge_change(transition: Transition, found: Task | None) -> Written:
    """Tell whether a transition was applied.

    Where it was, and somebody has written since, the version given is one that no write can build on: whoever goes
    on from the record that he knows is refused, and reads the newer one first.
    """
    after = transition.after
    if found is None or any(getattr(found, name) != getattr(after, name) for name in transition.changes):
        return Written()
    stored = {field.name for field in fields(after)} - _NOT_STORED
    newest = all(getattr(found, name) == getattr(after, name) for name in stored)
    return Written(found.version if newest else found.version - 1)
