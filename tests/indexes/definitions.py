"""What `firestore.indexes.json` defines, as Firestore takes it: composite indexes, and indexes of single fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["ASCENDING", "CONTAINS", "DESCENDING", "NAME", "Definitions", "Index", "Part"]

ASCENDING, DESCENDING, CONTAINS = "ASCENDING", "DESCENDING", "CONTAINS"
NAME = "__name__"
"""The id of the document, by which every index is ordered in the end."""


class Part(NamedTuple):
    """A field in an index or in an order."""

    field: str
    mode: str
    """`ASCENDING`, `DESCENDING`, or, in an index only, `CONTAINS`."""


@dataclass(frozen=True)
class Index:
    """An index of one collection, or of all collections of that name (`group`)."""

    collection: str
    group: bool
    parts: tuple[Part, ...]
    """The fields, the last one always `__name__`."""

    @classmethod
    def of(cls, collection: str, *parts: tuple[str, str], group: bool = False) -> Index:
        """Give an index; where the names of the documents are not mentioned they follow the last field."""
        named = tuple(Part(*part) for part in parts)
        if named[-1].field != NAME:
            named = (*named, Part(NAME, DESCENDING if named[-1].mode == DESCENDING else ASCENDING))
        return cls(collection, group, named)

    def __str__(self) -> str:
        scope = "COLLECTION_GROUP" if self.group else "COLLECTION"
        fields = [
            {"fieldPath": field, "arrayConfig" if mode == CONTAINS else "order": mode} for field, mode in self.mentioned
        ]
        return json.dumps({"collectionGroup": self.collection, "queryScope": scope, "fields": fields})

    @property
    def mentioned(self) -> Sequence[Part]:
        """Give the fields that a definition has to name."""
        *before, name = self.parts
        follows = DESCENDING if before and before[-1].mode == DESCENDING else ASCENDING
        return before if name.mode == follows else self.parts


@dataclass(frozen=True)
class Definitions:
    """All indexes of a database."""

    composite: Sequence[Index]
    overrides: Mapping[tuple[str, str], Sequence[tuple[str, bool]]]
    """The indexes (mode, group) that a field of a collection has instead of the automatic ones; none: it is exempt."""

    @classmethod
    def read(cls, path: Path) -> Definitions:
        """Read the file that `firebase deploy` takes."""
        return cls.parse(json.loads(path.read_text()))

    @classmethod
    def parse(cls, parsed: Mapping[str, Any]) -> Definitions:
        """Take the content of such a file. Raises KeyError where something is missing."""
        composite = [
            Index.of(
                one["collectionGroup"],
                *((field["fieldPath"], _mode(field)) for field in one["fields"]),
                group=one["queryScope"] == "COLLECTION_GROUP",
            )
            for one in parsed["indexes"]
        ]
        overrides = {
            (one["collectionGroup"], one["fieldPath"]): [
                (_mode(index), index.get("queryScope") == "COLLECTION_GROUP") for index in one["indexes"]
            ]
            for one in parsed.get("fieldOverrides", [])
        }
        return cls(composite, overrides)

    def of_field(self, collection: str, field: str, *, group: bool) -> list[Index]:
        """Give the indexes of a single field.

        A field in a map has what its map has, where nothing is said of itself; `*` speaks for all other fields.
        """
        parts = field.split(".")
        paths = (*(".".join(parts[:end]) for end in range(len(parts), 0, -1)), "*")
        overriding = (self.overrides[collection, path] for path in paths if (collection, path) in self.overrides)
        modes = next(overriding, [(mode, False) for mode in (ASCENDING, DESCENDING, CONTAINS)])
        return [Index.of(collection, (field, mode), group=group) for mode, of_group in modes if of_group == group]

    def without(self, index: Index) -> Definitions:
        """Give these without one composite index."""
        return Definitions([one for one in self.composite if one is not index], self.overrides)


def _mode(field: Mapping[str, str]) -> str:
    return field.get("order") or field["arrayConfig"]
