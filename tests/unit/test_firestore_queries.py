"""Every query that the store sends is served by the indexes that are deployed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oncetask.store import Cursor, TaskFilter
from oncetask.store.document import FIELDS as FIELDS_OF_RECORDS
from oncetask.store.firestore import queries
from oncetask.store.firestore.queries import Place
from oncetask.store.firestore.writes import GENERATOR, LANE
from oncetask.task import Outcome
from tests.indexes.definitions import Definitions
from tests.indexes.derivation import Shape, described, missing, needless, needs
from tests.indexes.recorder import shape_of
from tests.support import T0, a_task

DEFINITIONS = Definitions.read(Path(__file__).parents[2] / "firestore.indexes.json")


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
        yield queries.doorbell(["a", "b"], limit=5, after=after, after_name="x")
    for lanes, behind in itertools.product((["k"], ["k", "l", "m"]), (None, Place(T0, None, "x"), Place(T0, "l", "x"))):
        yield queries.due_without(["a", "b"], lanes, now=T0, limit=5, behind=behind)
    for before in (None, a_task()):
        yield queries.line(["k", "l"], now=T0, limit=5, after=before, after_name="x")
    yield queries.next_kind("")
    for which in filters():
        yield queries.filtered(which, limit=5, after_name="x")
        yield queries.matching(which)
    for unleased, cancelled in itertools.product((True, False), repeat=2):
        for due in (None, T0):
            yield queries.matching(TaskFilter(kind="a"), due=due, unleased=unleased, cancelled=cancelled)
            yield queries.matching(TaskFilter(kind="a", done=False), unleased=unleased, cancelled=cancelled)


@pytest.fixture(scope="module")
def shapes() -> list[Shape]:
    """What of each query decides about indexes."""
    return [shape_of(query) for query in sent()]


def test_every_builder_is_asked() -> None:
    """A query that is built in a way not listed above would be looked at only where a test sends it."""
    others = {"Place", "first_due", "in_chunks", "in_chunks_without"}
    assert set(queries.__all__) - others == {
        "doorbell",
        "due",
        "due_without",
        "filtered",
        "line",
        "matching",
        "next_kind",
    }


def test_served(shapes: list[Shape]) -> None:
    """Each of them is answered from the indexes that are deployed; no field is asked for that has none."""
    assert [(described(shape), ways) for shape in shapes if (ways := missing(shape, DEFINITIONS))] == []


def test_no_index_for_nothing(shapes: list[Shape]) -> None:
    """Without any one of the indexes that are deployed some query would fail."""
    assert needless(shapes, DEFINITIONS) == []


FIELDS = {*FIELDS_OF_RECORDS.values(), "dataJson", "resultJson", GENERATOR, LANE, "trace"}
"""All fields of a task's document; `trace` is kept free for one that no task has yet."""


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_exempt_is_what_no_query_needs(shapes: list[Shape], field: str) -> None:
    """A field has indexes of its own exactly where a query fails without: each costs a write, and some have a limit."""
    is_exempt = not DEFINITIONS.of_field("onceTasks", field, group=False)
    without = Definitions(DEFINITIONS.composite, {**DEFINITIONS.overrides, ("onceTasks", field): []})
    is_needed = any(missing(shape, without) and not missing(shape, DEFINITIONS) for shape in shapes)
    assert is_exempt == (not is_needed)


def test_counts_are_looked_at_like_their_queries() -> None:
    """To count and to find need the same index, so the queries above stand for both."""
    query = queries.matching(TaskFilter(kind="a"), due=T0, unleased=True)
    counting = {**shape_of(query), "aggregations": ["count"]}
    assert needs(counting) == needs(shape_of(query))


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
