"""Which indexes serve a query, by the rules of Firestore's Standard edition.

A query is answered from one index, or from several that share an order and are merged. Each of them has fields that the
query asks for by equality, in any order, and then, in exactly this order and direction, those by which it sorts or
compares. Together they have all that it asks for by equality. `in`, `array-contains-any` and OR are several queries at
once. A count needs what its query needs; limits, cursors and a selection of fields change nothing. After
https://firebase.google.com/docs/firestore/query-data/index-overview.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.indexes.definitions import ASCENDING, CONTAINS, NAME, Definitions, Index, Part

__all__ = ["Need", "Shape", "described", "missing", "needless", "needs"]

Shape = Mapping[str, Any]
"""What `recorder.shape_of` gives."""

_EQUALITIES = {"EQUAL": "=", "IN": "in", "IS_NULL": "is null", "IS_NAN": "is nan"}
_MEMBERSHIPS = {"ARRAY_CONTAINS": "contains", "ARRAY_CONTAINS_ANY": "contains any of"}
_COMPARISONS = {
    "LESS_THAN": "<",
    "LESS_THAN_OR_EQUAL": "<=",
    "GREATER_THAN": ">",
    "GREATER_THAN_OR_EQUAL": ">=",
    "NOT_EQUAL": "!=",
    "NOT_IN": "not in",
    "IS_NOT_NULL": "is not null",
    "IS_NOT_NAN": "is not nan",
}
_OPERATORS = {**_EQUALITIES, **_MEMBERSHIPS, **_COMPARISONS}


@dataclass(frozen=True)
class Need:
    """What the indexes have to offer to one alternative of a query: conditions that are joined by AND only."""

    collection: str
    group: bool
    wanted: frozenset[Part]
    """The fields that are asked for by equality (`ASCENDING`) or by what a list contains (`CONTAINS`)."""
    order: tuple[Part, ...]
    """The fields by which it sorts or compares, the last one always `__name__`."""

    def is_served(self, definitions: Definitions) -> bool:
        """Tell whether one index, or several of the same order, have all of it."""
        if not self.wanted and self.order == (Part(NAME, ASCENDING),):
            return True  # documents lie in this order
        held = [fields for index in self._candidates(definitions) if (fields := self._held_by(index)) is not None]
        return bool(held) and frozenset().union(*held) == self.wanted

    def index(self) -> Index:
        """Give the one index that would serve it alone."""
        return Index(self.collection, self.group, (*sorted(self.wanted), *self.order))

    def exempt(self, definitions: Definitions) -> list[str]:
        """Give the fields without an index of their own."""
        fields = sorted({part.field for part in (*self.wanted, *self.order)} - {NAME})
        return [one for one in fields if not definitions.of_field(self.collection, one, group=self.group)]

    def _candidates(self, definitions: Definitions) -> Iterator[Index]:
        for field in {part.field for part in (*self.wanted, *self.order)} - {NAME}:
            yield from definitions.of_field(self.collection, field, group=self.group)
        for index in definitions.composite:
            if (index.collection, index.group) == (self.collection, self.group):
                yield index

    def _held_by(self, index: Index) -> frozenset[Part] | None:
        """Give the wanted fields that an index has before the order; None: it has others, or another order."""
        end = len(index.parts) - len(self.order)
        front = frozenset(Part(one.field, CONTAINS if one.mode == CONTAINS else ASCENDING) for one in index.parts[:end])
        return front if index.parts[end:] == self.order and front <= self.wanted else None


def needs(shape: Shape) -> set[Need]:
    """Give what each alternative of a query needs. Raises ValueError for what the rules above say nothing about."""
    if beyond := [*shape["unknown"], *(one for one in shape["aggregations"] if one != "count")]:
        raise ValueError(f"tests/indexes/derivation.py does not know which index {', '.join(beyond)} needs")
    sorting = [Part(*one) for one in shape["order"]]
    compared = sorted({field for field, operator in _leaves(shape["where"]) if operator in _COMPARISONS})
    direction = sorting[-1].mode if sorting else ASCENDING
    names = [part.field for part in sorting]
    order = [*sorting, *(Part(field, direction) for field in (*compared, NAME) if field not in names)]
    order = order[: [part.field for part in order].index(NAME) + 1]  # nothing is left to sort behind the name
    return {_need(shape, conditions, order) for conditions in _alternatives(shape["where"])}


def missing(shape: Shape, definitions: Definitions) -> list[str]:
    """Say in words which indexes a query lacks; nothing where it is served. Raises ValueError as `needs` does."""
    said = []
    for need in needs(shape):
        if need.is_served(definitions):
            continue
        index, exempt = need.index(), need.exempt(definitions)
        ways = [f"add {index}"] if len(index.mentioned) > 1 else []
        if exempt and min(len(need.wanted), 1) + len(need.order) <= 2:
            ways.append(f"take {', '.join(exempt)} out of the exemptions")
        said.append(", or ".join(ways) or "no index is known that would do")
    return sorted(said)


def needless(shapes: Iterable[Shape], definitions: Definitions) -> list[Index]:
    """Give the composite indexes without each of which all that is served would still be."""
    served = {need for shape in shapes for need in needs(shape) if need.is_served(definitions)}
    return [
        index for index in definitions.composite if all(need.is_served(definitions.without(index)) for need in served)
    ]


def described(shape: Shape) -> str:
    """Give a query for people to read."""
    counted = f"{' and '.join(shape['aggregations'])} of " if shape["aggregations"] else ""
    collection = f"all {shape['collection']}" if shape["group"] else shape["collection"]
    where = f" where {_described(shape['where'])}" if shape["where"] else ""
    order = ", ".join(f"{field} {mode.lower()}" for field, mode in shape["order"])
    return f"{counted}{collection}{where}{f' order by {order}' if order else ''}"


def _need(shape: Shape, conditions: Iterable[tuple[str, str]], order: list[Part]) -> Need:
    sorted_by = {part.field for part in order}
    wanted = set()
    for field, operator in conditions:
        if operator in _MEMBERSHIPS:
            wanted.add(Part(field, CONTAINS))
        elif operator in _EQUALITIES and field != NAME and not (operator == "IN" and field in sorted_by):
            wanted.add(Part(field, ASCENDING))
    settled = {part.field for part in wanted if part.mode == ASCENDING}  # all have the same value: nothing to sort
    rest = tuple(part for part in order if part.field not in settled)
    return Need(shape["collection"], shape["group"], frozenset(wanted), rest)


def _alternatives(where: Any) -> Iterator[tuple[tuple[str, str], ...]]:
    """Give the conditions of each alternative: the disjunctive normal form."""
    match where:
        case None:
            yield ()
        case {"AND": parts}:
            for one_of_each in itertools.product(*(tuple(_alternatives(part)) for part in parts)):
                yield tuple(itertools.chain(*one_of_each))
        case {"OR": parts}:
            for part in parts:
                yield from _alternatives(part)
        case [field, operator] if operator in _OPERATORS:
            yield ((field, operator),)
        case _:
            raise ValueError(f"tests/indexes/derivation.py does not know the condition {where!r}")


def _leaves(where: Any) -> set[tuple[str, str]]:
    return {condition for conditions in _alternatives(where) for condition in conditions}


def _described(where: Any) -> str:
    match where:
        case {"AND": parts}:
            return " and ".join(map(_described, parts))
        case {"OR": parts}:
            return f"({' or '.join(map(_described, parts))})"
        case [field, operator]:
            return f"{field} {_OPERATORS.get(operator, operator)}"
        case _:
            return repr(where)
