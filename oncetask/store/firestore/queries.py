"""The structured queries that the store sends; `firestore.indexes.json` has to serve every one of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1.types import query as query_types

from oncetask.store.firestore.codec import write_value
from oncetask.store.firestore.writes import GENERATOR, LANE
from oncetask.task import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from oncetask.store import Cursor, TaskFilter
    from oncetask.task import Task

__all__ = [
    "Place",
    "doorbell",
    "due",
    "due_without",
    "filtered",
    "first_due",
    "in_chunks",
    "in_chunks_without",
    "line",
    "matching",
    "next_kind",
]

_Query: Any = query_types.StructuredQuery.pb()
_Op = _Query.FieldFilter
_MOST_DISJUNCTIONS = 30
_FEWEST_KINDS, _MOST_KINDS = 3, 10  # of a query that leaves keys out: more keys for each make it more queries
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_NAME = "__name__"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the due line where keys are left out, which is ordered by lane as well."""

    due_at: datetime
    lane: str | None
    """None: not known; then it is the whole instant."""
    name: str


def in_chunks(kinds: Collection[str], size: int = _MOST_DISJUNCTIONS) -> Iterator[list[str]]:
    """Give the kinds in parts that one query can ask for."""
    ordered = sorted(set(kinds))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def in_chunks_without(kinds: Collection[str], without: Collection[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Give the kinds in parts, each with those of the keys, from the first on, that its query can leave out.

    So many keys part the others into one range more, and a query is about each kind in each range.
    """
    keys = list(dict.fromkeys(filter(None, without)))  # an empty one is nobody's key, but generators' lane
    size = min(_MOST_KINDS, max(_FEWEST_KINDS, _MOST_DISJUNCTIONS // (len(keys) + 1)))
    for part in in_chunks(kinds, size):
        yield part, keys[: _MOST_DISJUNCTIONS // len(part) - 1]


def due(  # the port's arguments
    kinds: Sequence[str],
    *,
    now: datetime,
    limit: int,
    after: Cursor | None,
    after_name: str,
    generators: bool = False,
) -> Any:
    """Ask for the beginning of the due line; at most 30 kinds.

    Comparing with an instant finds instants only: neither nulls nor numbers.
    """
    conditions = [_one_of("kind", kinds), _compared("dueAt", _Op.LESS_THAN_OR_EQUAL, now)]
    if generators:
        conditions.append(_IS_GENERATOR)
    query = _ordered_by_due(*conditions, limit=limit)
    return _starting_behind(query, after, after_name)


def due_without(kinds: Sequence[str], lanes: Sequence[str], *, now: datetime, limit: int, behind: Place | None) -> Any:
    """Ask for the beginning of the due line without these lanes, as `in_chunks_without` gives both."""
    query = _query(_one_of("kind", kinds), _compared("dueAt", _Op.LESS_THAN_OR_EQUAL, now), _beside(LANE, lanes))
    _order(query, "dueAt", LANE, _NAME)
    query.limit.value = limit
    if behind is not None:
        write_value(query.start_at.values.add(), behind.due_at)
        query.start_at.before = behind.lane is None
        if behind.lane is not None:
            query.start_at.values.add().string_value = behind.lane
            query.start_at.values.add().reference_value = behind.name
    return query


def line(resource_keys: Sequence[str], *, now: datetime, limit: int, after: Task | None, after_name: str) -> Any:
    """Ask for the beginning of the line of resource keys, at most 30; what has no instants has no place there."""
    query = _query(
        _one_of("resourceKey", resource_keys),
        _is_null("outcome"),
        _compared("waitUntil", _Op.LESS_THAN_OR_EQUAL, now),
        _compared("createdAt", _Op.GREATER_THAN_OR_EQUAL, _EARLIEST),
    )
    _order(query, "waitUntil", "createdAt", _NAME)
    query.limit.value = limit
    if after is not None:
        write_value(query.start_at.values.add(), after.wait_until)
        write_value(query.start_at.values.add(), after.created_at)
        query.start_at.values.add().reference_value = after_name
        query.start_at.before = False
    return query


def doorbell(kinds: Sequence[str], *, limit: int, after: Cursor | None = None, after_name: str = "") -> Any:
    """Ask for the tasks that are due first, whenever that is; at most 30 kinds.

    Without the lower bound nulls and numbers would come first, and could fill all places for ever.
    """
    earliest = _compared("dueAt", _Op.GREATER_THAN_OR_EQUAL, _EARLIEST)
    return _starting_behind(_ordered_by_due(_one_of("kind", kinds), earliest, limit=limit), after, after_name)


def first_due(tasks: Iterable[Task], *, limit: int) -> list[Task]:
    """Give the beginning of a line that several queries have answered in parts."""
    return sorted(tasks, key=lambda task: (task.due_at or _EARLIEST, task.id))[:limit]


def filtered(which: TaskFilter, *, limit: int, after_name: str | None) -> Any:
    """Ask for tasks in the order of their ids."""
    query = _query(*_conditions(which))
    _order(query, _NAME)
    query.limit.value = limit
    if after_name is not None:
        query.start_at.values.add().reference_value = after_name
        query.start_at.before = False
    return query


def matching(
    which: TaskFilter,
    *,
    due: datetime | None = None,
    unleased: bool = False,
    cancelled: bool = False,
) -> Any:
    """Ask for tasks in no order, to count them; `due`: only those due at that instant."""
    more = []
    if unleased:
        more.append(_is_null("leaseOwner"))
    if cancelled:
        more.append(_compared("isCancelled", _Op.EQUAL, wanted=True))
    if due is not None:
        more.append(_compared("dueAt", _Op.LESS_THAN_OR_EQUAL, due))
    return _query(*_conditions(which), *more)


def next_kind(last: str) -> Any:
    """Ask for one task of the kind that follows `last` in the alphabet; only its kind is read."""
    query = _query(_compared("kind", _Op.GREATER_THAN, last))
    query.select.fields.add(field_path="kind")
    _order(query, "kind")
    query.limit.value = 1
    return query


def _conditions(which: TaskFilter) -> Iterator[Any]:
    for field, wanted in which.equal.items():
        yield _compared(field, _Op.EQUAL, wanted)
    if which.generators:
        yield _IS_GENERATOR
    if which.done is False:
        yield _is_null("outcome")
    elif which.done and which.outcome is None:
        yield _one_of("outcome", [outcome.value for outcome in Outcome])


def _ordered_by_due(*conditions: Any, limit: int) -> Any:
    query = _query(*conditions)
    _order(query, "dueAt", _NAME)
    query.limit.value = limit
    return query


def _starting_behind(query: Any, after: Cursor | None, after_name: str) -> Any:
    if after is not None:
        write_value(query.start_at.values.add(), after.due_at)
        query.start_at.values.add().reference_value = after_name
        query.start_at.before = False
    return query


def _query(*conditions: Any) -> Any:
    query = _Query()
    query.from_.add(collection_id="onceTasks")
    if conditions:
        query.where.CopyFrom(_joined(_Query.CompositeFilter.AND, conditions))
    return query


def _joined(operator: int, conditions: Sequence[Any]) -> Any:
    if len(conditions) == 1:
        return conditions[0]
    condition = _Query.Filter()
    condition.composite_filter.op = operator
    condition.composite_filter.filters.extend(conditions)
    return condition


def _order(query: Any, *fields: str) -> None:
    for field in fields:
        query.order_by.add(direction=_Query.ASCENDING).field.field_path = field


def _compared(field: str, operator: int, wanted: object) -> Any:
    condition = _Query.Filter()
    condition.field_filter.field.field_path = field
    condition.field_filter.op = operator
    write_value(condition.field_filter.value, wanted)
    return condition


def _one_of(field: str, wanted: Sequence[str]) -> Any:
    return _compared(field, _Op.IN, list(wanted))


def _beside(field: str, values: Sequence[str]) -> Any:
    """Ask for texts that are none of these; a comparison finds no others than texts."""
    ordered = sorted(values)  # by code points, which is the order of their bytes in UTF-8
    ranges = [_compared(field, _Op.LESS_THAN, ordered[0])]
    for last, first in itertools.pairwise(ordered):
        between = [_compared(field, _Op.GREATER_THAN, last), _compared(field, _Op.LESS_THAN, first)]
        ranges.append(_joined(_Query.CompositeFilter.AND, between))
    ranges.append(_compared(field, _Op.GREATER_THAN, ordered[-1]))
    return _joined(_Query.CompositeFilter.OR, ranges)


def _is_null(field: str) -> Any:
    condition = _Query.Filter()
    condition.unary_filter.field.field_path = field
    condition.unary_filter.op = _Query.UnaryFilter.IS_NULL
    return condition


_IS_GENERATOR = _compared(GENERATOR, _Op.EQUAL, wanted=True)
