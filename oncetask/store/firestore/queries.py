"""The structured queries that the store sends; `firestore.indexes.json` has to serve every one of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1.types import query as query_types

from oncetask.store.firestore.codec import write_value
from oncetask.store.firestore.writes import GENERATOR
from oncetask.task import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from oncetask.store import Cursor, TaskFilter
    from oncetask.task import Task

__all__ = ["doorbell", "due", "filtered", "first_due", "in_chunks", "matching", "next_kind"]

_Query: Any = query_types.StructuredQuery.pb()
_Op = _Query.FieldFilter
_MOST_DISJUNCTIONS = 30
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_NAME = "__name__"


def in_chunks(kinds: Collection[str]) -> Iterator[list[str]]:
    """Give the kinds in parts that one query can ask for."""
    ordered = sorted(set(kinds))
    for start in range(0, len(ordered), _MOST_DISJUNCTIONS):
        yield ordered[start : start + _MOST_DISJUNCTIONS]


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
    for field, wanted in (
        ("kind", which.kind),
        ("resourceKey", which.resource_key),
        ("owner", which.owner),
        ("parentRecurrenceId", which.parent),
        ("outcome", which.outcome and which.outcome.value),
    ):
        if wanted is not None:
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
    if len(conditions) == 1:
        query.where.CopyFrom(conditions[0])
    elif conditions:
        query.where.composite_filter.op = _Query.CompositeFilter.AND
        query.where.composite_filter.filters.extend(conditions)
    return query


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


def _is_null(field: str) -> Any:
    condition = _Query.Filter()
    condition.unary_filter.field.field_path = field
    condition.unary_filter.op = _Query.UnaryFilter.IS_NULL
    return condition


_IS_GENERATOR = _compared(GENERATOR, _Op.EQUAL, wanted=True)
