"""Every query that the store sends is served by the indexes that are deployed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oncetask.store import Cursor, TaskFilter
from oncetask.store.firestore import queries
from oncetask.task import Outcome
from tests.support import T0

DEFINITIONS = json.loads((Path(__file__).parents[2] / "firestore.indexes.json").read_text())
COMPOSITE = {tuple(field["fieldPath"] for field in index["fields"]) for index in DEFINITIONS["indexes"]}
EXEMPT = {override["fieldPath"] for override in DEFINITIONS["fieldOverrides"] if not override["indexes"]}
EQUAL = (5, 8)
"""The operators EQUAL and IN."""


def filters() -> Iterator[TaskFilter]:
    """Give every combination of conditions."""
    names = ("kind", "resource_key", "owner", "parent")
    for given in itertools.product((None, "x"), repeat=len(names)):
        texts: dict[str, Any] = dict(zip(names, given, strict=True))
        for done, outcome, generators in itertools.product((None, True, False), (None, Outcome.FAILED), (False, True)):
            yield TaskFilter(**texts, done=done, outcome=outcome, generators=generators)


def sent() -> Iterator[Any]:
    """Give every query of the store."""
    for after, generators in itertools.product((None, Cursor(T0, "x")), (False, True)):
        yield queries.due(["a", "b"], now=T0, limit=5, after=after, after_name="x", generators=generators)
    yield queries.doorbell(["a", "b"], limit=5)
    yield queries.next_kind("")
    for which in filters():
        yield queries.filtered(which, limit=5, after_name="x")
        yield queries.matching(which)
    for unleased, cancelled in itertools.product((True, False), repeat=2):
        for due in (None, T0):
            yield queries.matching(TaskFilter(kind="a"), due=due, unleased=unleased, cancelled=cancelled)
            yield queries.matching(TaskFilter(kind="a", done=False), unleased=unleased, cancelled=cancelled)


def conditions(query: Any) -> list[Any]:
    """Give the single conditions of a query."""
    which = query.where.WhichOneof("filter_type")
    if which is None:
        return []
    return list(query.where.composite_filter.filters) if which == "composite_filter" else [query.where]


def needs(query: Any) -> tuple[set[str], set[str]]:
    """Give the fields that are asked for by equality, and those by order or comparison."""
    equal, ordered = set(), set()
    for condition in conditions(query):
        if condition.WhichOneof("filter_type") == "unary_filter":
            equal.add(condition.unary_filter.field.field_path)
        elif condition.field_filter.op in EQUAL:
            equal.add(condition.field_filter.field.field_path)
        else:
            ordered.add(condition.field_filter.field.field_path)
    ordered |= {order.field.field_path for order in query.order_by}
    return equal, ordered - {"__name__"}


def test_served() -> None:
    """Indexes of one field each are merged; where there is an order, each field has one together with it."""
    for query in sent():
        equal, ordered = needs(query)
        if equal and ordered:
            (order,) = ordered
            assert {(field, order) for field in equal} <= COMPOSITE, query
        else:
            assert not (equal | ordered) & EXEMPT, query


def test_no_index_for_nothing() -> None:
    """Every index that is deployed serves a query."""
    needed = {
        (field, order) for query in sent() for equal, ordered in [needs(query)] for field in equal for order in ordered
    }
    assert needed == COMPOSITE
