"""What indexes a query needs, on the examples of Firestore's documentation and at the edges of the rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.indexes.definitions import ASCENDING, CONTAINS, DESCENDING, Definitions, Index
from tests.indexes.derivation import described, missing, needless, needs

NOTHING = Definitions([], {})


def query(where: Any = None, *order: str, collection: str = "cities", **more: Any) -> dict[str, Any]:
    """Give a query's shape; an order is a field, with a minus before it where it descends."""
    sorting = [[one.lstrip("-"), DESCENDING if one.startswith("-") else ASCENDING] for one in order]
    return {
        "collection": collection,
        "group": False,
        "where": where,
        "order": sorting,
        "aggregations": [],
        "unknown": [],
        **more,
    }


def both(*parts: Any) -> Any:
    """Join conditions by AND."""
    return {"AND": list(parts)}


def either(*parts: Any) -> Any:
    """Join conditions by OR."""
    return {"OR": list(parts)}


def equal(field: str) -> list[str]:
    """Ask for one value."""
    return [field, "EQUAL"]


def less(field: str) -> list[str]:
    """Ask for smaller values."""
    return [field, "LESS_THAN"]


def having(*indexes: Index, **overrides: Any) -> Definitions:
    """Give definitions with these composite indexes; fields of cities that are named have these indexes only."""
    return Definitions(indexes, {("cities", field): modes for field, modes in overrides.items()})


def index(*fields: str, collection: str = "cities", group: bool = False) -> Index:
    """Give an index; `-field` descends, `@field` is what a list contains."""
    modes = {"-": DESCENDING, "@": CONTAINS}
    return Index.of(collection, *((one.lstrip("-@"), modes.get(one[0], ASCENDING)) for one in fields), group=group)


COUNTRY_AND_POPULATION = [
    query(equal("country"), "population"),
    query(both(equal("country"), less("population"))),
    query(both(equal("country"), ["population", "GREATER_THAN"])),
    query(both(equal("country"), less("population")), "population"),
]


@pytest.mark.parametrize(
    "served",
    [
        query(),
        query(None, "__name__"),
        query(None, "state"),
        query(None, "-population"),
        query(equal("state")),
        query(less("population")),
        query(less("population"), "-population"),
        query(["regions", "ARRAY_CONTAINS"]),
        query(["country", "IN"]),
        query(["regions", "ARRAY_CONTAINS_ANY"]),
        query(["capital", "NOT_EQUAL"]),
        query(both(equal("state"), equal("name"))),
        query(both(equal("state"), equal("name"), ["population", "IS_NULL"], ["regions", "ARRAY_CONTAINS"])),
        query(both(["country", "IN"], equal("capital"))),
        query(either(equal("capital"), both(equal("state"), ["name", "IN"]))),
        query(equal("state"), "__name__"),
        query(equal("state"), "-__name__"),
        query(["__name__", "GREATER_THAN"], "__name__"),
        query(both(["__name__", "EQUAL"], equal("state"))),
        query(equal("state"), "state"),
    ],
    ids=described,
)
def test_automatic_indexes(served: dict[str, Any]) -> None:
    """One field, or any number of fields asked for by equality, needs nothing that has to be defined."""
    assert missing(served, NOTHING) == []


@pytest.mark.parametrize("asked", COUNTRY_AND_POPULATION, ids=described)
def test_equality_and_order(asked: dict[str, Any]) -> None:
    """Equality and a comparison, or an order, of another field need one index of both, in this order and direction."""
    assert missing(asked, having(index("country", "population"))) == []
    assert missing(asked, having(index("-country", "population"))) == []
    for other in ("country", "-population"), ("population", "country"), ("country", "population", "name"):
        assert missing(asked, having(index(*other))) == [f"add {index('country', 'population')}"]


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        (query(equal("country"), "-population"), index("country", "-population")),
        (query(both(equal("country"), less("population")), "-population"), index("country", "-population")),
        (query(None, "name", "-population"), index("name", "-population")),
        (query(less("population"), "population", "name"), index("population", "name")),
        (query(both(["regions", "ARRAY_CONTAINS"], less("population"))), index("@regions", "population")),
        (query(both(["regions", "ARRAY_CONTAINS_ANY"], less("population"))), index("@regions", "population")),
        (query(both(["country", "IN"], less("population"))), index("country", "population")),
        (query(both(less("population"), less("density"))), index("density", "population")),
        (query(both(less("population"), less("density")), "-population"), index("-population", "-density")),
        (query(either(equal("capital"), less("population"))), index("capital", "population")),
        (
            query(both(equal("state"), either(equal("capital"), ["capital", "IS_NULL"])), "population"),
            index("capital", "state", "population"),
        ),
        (
            query(None, "population", "-__name__"),
            Index.of("cities", ("population", ASCENDING), ("__name__", DESCENDING)),
        ),
        (query(["country", "IN"], "country", "population"), index("country", "population")),
    ],
    ids=lambda given: described(given) if isinstance(given, dict) else "",
)
def test_composite_indexes(asked: dict[str, Any], needed: Index) -> None:
    """An index that is missing is named, and having it is enough."""
    assert missing(asked, NOTHING) == [f"add {needed}"]
    assert missing(asked, having(needed)) == []


def test_each_alternative_needs_its_own() -> None:
    """OR is several queries, each of which has to be served."""
    asked = query(either(equal("state"), equal("country")), "population")
    assert missing(asked, having(index("state", "population"))) == [f"add {index('country', 'population')}"]
    assert missing(asked, having(index("state", "population"), index("country", "population"))) == []


def test_alternatives_are_multiplied() -> None:
    """An OR within an AND is one query for each of its parts, together with what stands beside it."""
    asked = query(both(equal("a"), either(equal("b"), both(equal("c"), equal("d"))), either(equal("e"), equal("f"))))
    wanted = {"".join(sorted(part.field for part in need.wanted)) for need in needs(asked)}
    assert wanted == {"abe", "abf", "acde", "acdf"}


RESTAURANTS = [index(field, "-star_rating", collection="restaurants") for field in ("category", "city", "editors_pick")]


@pytest.mark.parametrize("fields", [["category"], ["category", "city"], ["category", "city", "editors_pick"]])
def test_merging(fields: list[str]) -> None:
    """Indexes that end in the same order serve any of their first fields together."""
    asked = query(both(*map(equal, fields)), "-star_rating", collection="restaurants")
    assert missing(asked, Definitions(RESTAURANTS, {})) == []
    assert missing(asked, Definitions(RESTAURANTS[1:], {})) != []
    upwards = query(both(*map(equal, fields)), "star_rating", collection="restaurants")
    assert missing(upwards, Definitions(RESTAURANTS, {})) != []


def test_merging_longer_indexes() -> None:
    """An index with several fields before the order may be merged with others, if the query asks for all of these."""
    definitions = having(index("a", "b", "x"), index("b", "c", "x"))
    assert missing(query(both(equal("a"), equal("b"), equal("c")), "x"), definitions) == []
    assert missing(query(both(equal("a"), equal("c")), "x"), definitions) == [f"add {index('a', 'c', 'x')}"]


def test_merging_keeps_to_the_whole_order() -> None:
    """Of two fields that are sorted by, an index of the first does not do."""
    asked = query(both(equal("a"), equal("b")), "x", "y")
    assert missing(asked, having(index("a", "x", "y"), index("b", "x"))) == [f"add {index('a', 'b', 'x', 'y')}"]


def test_exemptions() -> None:
    """A field without an index of its own is neither found nor sorted by, unless a composite one has it."""
    exempt: dict[str, Any] = {"a": []}
    for asked in (query(equal("a")), query(less("a")), query(None, "-a"), query(["a", "ARRAY_CONTAINS"])):
        assert missing(asked, having(**exempt)) == ["take a out of the exemptions"]
        assert missing(asked, having(index("a", "b"), **exempt)) == ["take a out of the exemptions"]
    asked = query(both(equal("a"), equal("b")))
    assert missing(asked, having(**exempt)) == [f"add {index('a', 'b')}, or take a out of the exemptions"]
    assert missing(asked, having(index("b", "a"), **exempt)) == []
    assert missing(query(equal("b"), "a"), having(**exempt)) == [f"add {index('b', 'a')}"]
    assert missing(query(equal("b"), "a"), having(index("b", "a"), **exempt)) == []


def test_exemptions_of_maps() -> None:
    """A field of a map has what the map has, unless it has an exception of its own; `*` is all that is not named."""
    of_maps = Definitions([], {("cities", "map"): [], ("cities", "map.but"): [(ASCENDING, False)]})
    assert missing(query(equal("map.any.deep")), of_maps) == ["take map.any.deep out of the exemptions"]
    assert missing(query(equal("map.but")), of_maps) == []
    assert missing(query(None, "-map.but"), of_maps) == ["no index is known that would do"]
    all_others = Definitions([], {("cities", "*"): [], ("cities", "kept"): [(ASCENDING, False)]})
    assert missing(query(equal("kept")), all_others) == []
    assert missing(query(equal("other")), all_others) == ["take other out of the exemptions"]


def test_exemptions_are_of_one_collection() -> None:
    """What holds for a collection says nothing about others."""
    assert missing(query(equal("a"), collection="towns"), having(a=[])) == []


def test_collection_groups() -> None:
    """Over all collections of a name there are no automatic indexes, and those of one collection do not do."""
    in_all = query(equal("country"), "population", group=True)
    assert missing(in_all, having(index("country", "population"))) == [
        f"add {index('country', 'population', group=True)}"
    ]
    assert missing(in_all, having(index("country", "population", group=True))) == []
    assert missing(query(equal("country"), group=True), NOTHING) != []
    assert missing(query(equal("country"), group=True), having(country=[(ASCENDING, True)])) == []
    assert missing(query(equal("country")), having(country=[(ASCENDING, True)])) != []


def test_documents_lie_in_the_order_of_their_names() -> None:
    """Nothing is needed to read them so; backwards no index does it."""
    assert missing(query(None, "-__name__"), NOTHING) == ["no index is known that would do"]


def test_needless() -> None:
    """An index is needless if whatever is served stays served without it; a query that is not served needs none."""
    used, unused, twice = index("a", "x"), index("b", "y"), index("a", "b", "x")
    asked = [query(equal("a"), "x"), query(equal("c"), "z")]
    assert needless(asked, having(used, unused)) == [unused]
    assert needless([], having(used)) == [used]
    merged = query(both(equal("a"), equal("b")), "x")
    assert needless([merged, *asked], having(used, index("b", "x"))) == []
    assert needless([merged, *asked], having(used, index("b", "x"), twice)) == [index("b", "x"), twice]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (query(equal("a"), unknown=["find_nearest"]), "find_nearest"),
        (query(equal("a"), aggregations=["count", "sum"]), "sum"),
        (query(["a", "SOUNDS_LIKE"]), "SOUNDS_LIKE"),
    ],
)
def test_what_the_rules_do_not_cover(asked: dict[str, Any], named: str) -> None:
    """What nobody has thought of yet is refused by name, and never taken as served."""
    with pytest.raises(ValueError, match=named):
        missing(asked, NOTHING)


def test_counts() -> None:
    """Counting needs what finding needs."""
    for asked in (*COUNTRY_AND_POPULATION, query(equal("a"))):
        assert missing({**asked, "aggregations": ["count"]}, NOTHING) == missing(asked, NOTHING)


def test_reading_definitions() -> None:
    """The file says order or contents of a field, the scope, the exemptions; what it says is written back alike."""
    composite = {
        "collectionGroup": "cities",
        "queryScope": "COLLECTION_GROUP",
        "fields": [{"fieldPath": "a", "arrayConfig": "CONTAINS"}, {"fieldPath": "b", "order": "DESCENDING"}],
    }
    override = {"collectionGroup": "cities", "fieldPath": "c", "indexes": [{"order": "ASCENDING"}]}
    exempt = {"collectionGroup": "cities", "fieldPath": "d", "ttl": True, "indexes": []}
    read = Definitions.parse({"indexes": [composite], "fieldOverrides": [override, exempt]})
    assert read.composite == [index("@a", "-b", group=True)]
    assert json.loads(str(read.composite[0])) == composite
    assert read.overrides == {("cities", "c"): [(ASCENDING, False)], ("cities", "d"): []}
    backwards = Index.of("cities", ("a", ASCENDING), ("__name__", DESCENDING))
    assert json.loads(str(backwards))["fields"][1] == {"fieldPath": "__name__", "order": "DESCENDING"}


def test_descriptions() -> None:
    """A query is told so that one finds it in the source."""
    asked = query(both(equal("kind"), either(less("lane"), ["lane", "GREATER_THAN"])), "dueAt", "-lane", group=True)
    assert described({**asked, "aggregations": ["count"]}) == (
        "count of all cities where kind = and (lane < or lane >) order by dueAt ascending, lane descending"
    )
    assert described(query()) == "cities"
