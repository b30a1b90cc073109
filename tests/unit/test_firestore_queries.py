"""Every query that the store sends is served by the indexes that are deployed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oncetask.store import Cursor, TaskFilter
from oncetask.store.firestore import queries
from oncetask.store.firestore.queries import Place
from oncetask.task import Outcome
from tests.support import T0, a_task

DEFINITIONS = json.loads((Path(__file__).parents[2] / "firestore.indexes.json").read_text())
COMPOSITE = {tuple(field["fieldPath"] for field in index["fields"]) for index in DEFINITIONS["indexes"]}
EXEMPT = {
    override["fieldPath"]
    for override in DEFINITIONS["fieldOverrides"]
    if override["collectionGroup"] == "onceTasks" and not override["indexes"]
}
EQUAL = (5, 8)
"""The operators EQUAL and IN."""


def filters() -> Iterator[TaskFilter]:
    """Give every combination of conditions."""
    names = ("kind", "resource_key", "owner", "parent", "lease_owner")
    for given in itertools.product((None, "x"), repeat=len(names)):
        texts: dict[str, Any] = dict(zip(names, given, strict=True))
        for done, outcome, generators in itertools.product((None, True, False), (None, Outcome.FAILED), (False, True)):
            yield TaskFilter(**texts, done=done, outcome=outcome, generators=generators)


def sent() -> Iterator[Any]:
    """Give every query of the store."""
    for after, generators in itertools.product((None, Cursor(T0, "x")), (False, True)):
        yield queries.due(["a", "b"], now=T0, limit=5, after=after, after_name="x", generators=generators)
    for lanes, behind in itertools.product((["k"], ["k", "l", "m"]), (None, Place(T0, None, "x"), Place(T0, "l", "x"))):
        yield queries.due_without(["a", "b"], lanes, now=T0, limit=5, behind=behind)
    for before in (None, a_task()):
        yield queries.line(["k", "l"], now=T0, limit=5, after=before, after_name="x")
    yield queries.doorbell(["a", "b"], limit=5)
    yield queries.next_kind("")
    for which in filters():
        yield queries.filtered(which, limit=5, after_name="x")
        yield queries.matching(which)
    for unleased, cancelled in itertools.product((True, False), repeat=2):
        for due in (None, T0):
            yield queries.matching(TaskFilter(kind="a"), due=due, unleased=unleased, cancelled=cancelled)
            yield queries.matching(TaskFilter(kind="a", done=False), unleased=unleased, cancelled=cancelled)


def conditions(where: Any) -> Iterator[Any]:
    """Give the single conditions of a filter."""
    which = where.WhichOneof("filter_type")
    if which == "composite_filter":
        for part in where.composite_filter.filters:
            yield from conditions(part)
    elif which is not None:
        yield where


def needs(query: Any) -> tuple[set[str], tuple[str, ...]]:
    """Give the fields that are asked for by equality, and those by order or comparison in the order of their index."""
    equal, compared = set(), set()
    for condition in conditions(query.where):
        if condition.WhichOneof("filter_type") == "unary_filter":
            equal.add(condition.unary_filter.field.field_path)
        elif condition.field_filter.op in EQUAL:
            equal.add(condition.field_filter.field.field_path)
        else:
            compared.add(condition.field_filter.field.field_path)
    ordered = [order.field.field_path for order in query.order_by if order.field.field_path != "__name__"]
    return equal, (*ordered, *sorted(compared - set(ordered)))


def serving(query: Any) -> set[tuple[str, ...]]:
    """Give the composite indexes that a query needs: one for each equality, which are merged, or one for all."""
    equal, order = needs(query)
    if not equal or not order:
        return set()
    merged = {(field, *order) for field in equal}
    for_all = {(*fields, *order) for fields in itertools.permutations(equal)} & COMPOSITE
    return for_all if for_all and not merged <= COMPOSITE else merged


def test_served() -> None:
    """Indexes of one field each are merged; where there is an order, each field has one together with it."""
    for query in sent():
        equal, order = needs(query)
        if needed := serving(query):
            assert needed <= COMPOSITE, query
        else:
            assert not {*equal, *order} & EXEMPT, query


def test_no_index_for_nothing() -> None:
    """Every index that is deployed serves a query."""
    assert {index for query in sent() for index in serving(query)} == COMPOSITE


@pytest.mark.parametrize("kinds", [1, 2, 3, 7, 10, 29, 100])
@pytest.mark.parametrize("keys", [1, 2, 9, 14, 29, 30, 500])
def test_keys_are_left_out_as_far_as_a_query_can_say_so(kinds: int, keys: int) -> None:
    """Each kind is asked for once, at most thirty alternatives a query, and never without the first of the keys."""
    named = [f"kind-{n:03}" for n in range(kinds)]
    crowded = [f"key-{n:03}" for n in reversed(range(keys))]
    parts = list(queries.in_chunks_without(named, crowded))

    assert [kind for part, _ in parts for kind in part] == named
    for part, lanes in parts:
        query = queries.due_without(part, lanes, now=T0, limit=5, behind=None)
        *_, beside = query.where.composite_filter.filters
        assert lanes == crowded[: len(lanes)]
        assert len(beside.composite_filter.filters) == len(lanes) + 1 >= 2
        assert len(part) * (len(lanes) + 1) <= 30


def test_few_kinds_leave_out_many_keys() -> None:
    """Of one kind twenty-nine keys are left out, of ten kinds two; nine of many kinds, at the price of more queries."""
    keys = [f"k{n}" for n in range(100)]

    def most(kinds: int, crowded: int) -> list[tuple[int, int]]:
        parts = queries.in_chunks_without([f"kind-{n}" for n in range(kinds)], keys[:crowded])
        return [(len(part), len(lanes)) for part, lanes in parts]

    assert most(1, 100) == [(1, 29)]
    assert most(10, 2) == [(10, 2)]
    assert most(9, 100) == [(3, 9)] * 3
