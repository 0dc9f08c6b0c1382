"""Filters over a catalogue that changes: every mask equals what one reads off the plain items, one by one."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.api.schemas.filters import FilterField
from app.artifacts.vocabulary import ItemAttributes, ItemVocabulary
from app.errors import InvalidRequest
from app.state.items import blocks, view
from app.state.items.masks import MaskCache
from app.state.items.records import DELETED, ItemRecord
from app.state.items.view import CatalogueView

FILTER: TypeAdapter[Any] = TypeAdapter(FilterField)


@dataclass(frozen=True)
class Model:
    version: str
    vocabulary: ItemVocabulary
    attributes: ItemAttributes


def model_of(folder: Path, items: Mapping[str, Mapping[str, Any]], version: str = "v1") -> Model:
    path = folder / f"{version}.jsonl"
    ItemAttributes.write(path, items.values())
    return Model(version, ItemVocabulary(list(items)), ItemAttributes(path))


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Iterator[None]:
    """Three rows a block, so that few items show what happens between blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_ROWS", 3)
        patch.setattr(view, "BLOCK_ROWS", 3)
        yield


FILMS: dict[str, dict[str, Any]] = {
    "a": {"title": "Ran", "year": 1985, "genres": ["Drama", "War"], "colour": True, "seen": "1985-06-01T00:00:00Z"},
    "b": {"title": "Alien", "year": 1979, "genres": ["Horror"], "colour": True, "sizes": [35, 70]},
    "c": {"title": "Metropolis", "year": 1927, "genres": [], "colour": False, "price": 2.5},
    "d": {"title": "Ikiru", "year": 1952, "genres": ["Drama"], "available": False},
    "e": {},
}


@pytest.fixture
def films(tmp_path: Path) -> CatalogueView:
    return CatalogueView.of_model(model_of(tmp_path, FILMS), MaskCache())


def found(catalogue: CatalogueView, expression: Mapping[str, Any]) -> str:
    mask_V = catalogue.mask(FILTER.validate_python(expression))
    assert (mask_V.shape, mask_V[0]) == ((catalogue.num_items + 1,), False)
    return "".join(catalogue.id_of(int(index)) for index in np.flatnonzero(mask_V))


@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("title", "eq", "Ran", "a"),
        ("title", "ne", "Ran", "bcde"),  # `ne` is the opposite of `eq`: an item without a title has not this one
        ("title", "eq", "ran", ""),
        ("genres", "eq", "Drama", "ad"),  # on a list: some element
        ("genres", "ne", "Drama", "bce"),
        ("genres", "any_of", ["War", "Horror"], "ab"),
        ("genres", "in", ["War", "Horror"], "ab"),
        ("genres", "all_of", ["War", "Drama"], "a"),
        ("year", "lt", 1952, "c"),
        ("year", "lte", 1952, "cd"),
        ("year", "gt", 1952, "ab"),
        ("year", "gte", 1979.0, "ab"),
        ("year", "eq", 1979.0, "b"),
        ("year", "in", [1927, 1952, 1, 2, 3, 4, 5], "cd"),
        ("year", "all_of", [1979], "b"),
        ("year", "all_of", [1979, 1985], ""),
        ("year", "gt", "1970-01-01T00:00:01.980Z", "a"),  # a number is a time in milliseconds
        ("sizes", "gt", 60, "b"),
        ("sizes", "lt", 60, "b"),
        ("colour", "eq", True, "ab"),
        ("colour", "eq", False, "c"),
        ("price", "exists", True, "c"),
        ("price", "exists", False, "abde"),
        ("genres", "exists", True, "abcd"),  # an empty list is there
        ("seen", "eq", "1985-06-01T02:00:00+02:00", "a"),  # the same instant
        ("seen", "lt", 486_432_000_001, "a"),  # `date -u -d 1985-06-01 +%s` is 486432000
        ("seen", "lt", 486_432_000_000, ""),
        ("item_id", "in", ["e", "b", "nobody"], "be"),
        ("item_id", "ne", "b", "acde"),
        ("item_id", "exists", True, "abcde"),
        ("item_id", "all_of", ["a", "b"], ""),
        ("available", "eq", True, "abce"),  # the artifact says otherwise of d
        ("available", "eq", False, "d"),
        ("available", "in", [True, False], "abcde"),
    ],
)
def test_meaning_of_each_operator(films: CatalogueView, field: str, op: str, value: Any, expected: str) -> None:
    assert found(films, {"field": field, "op": op, "value": value}) == expected


def test_nodes_join_and_negate(films: CatalogueView) -> None:
    drama = {"field": "genres", "op": "eq", "value": "Drama"}
    old = {"field": "year", "op": "lt", "value": 1960}
    assert found(films, {"all": [drama, old]}) == "d"
    assert found(films, {"any": [drama, old]}) == "acd"
    assert found(films, {"not": {"any": [drama, old]}}) == "be"
    assert found(films, {"all": []}) == "abcde"
    assert found(films, {"any": []}) == ""


def test_truth_and_one_are_not_the_same_filter(tmp_path: Path) -> None:
    catalogue = CatalogueView.of_model(model_of(tmp_path, {"a": {"x": True}, "b": {"x": 1}}), MaskCache())
    assert found(catalogue, {"field": "x", "op": "eq", "value": True}) == "a"
    assert found(catalogue, {"field": "x", "op": "eq", "value": 1}) == "b"
    assert found(catalogue, {"field": "x", "op": "eq", "value": 1.0}) == "b"


@pytest.mark.parametrize(
    ("expression", "pointer", "detail"),
    [
        (
            {"any": [{"field": "year", "op": "eq", "value": 1}, {"not": {"field": "yaer", "op": "eq", "value": 1}}]},
            "/filter/any/1/not/field",
            "No item has a field 'yaer'; known are item_id, available, colour, genres, price, seen, sizes, title, year",
        ),
        (
            {"field": "year", "op": "eq", "value": "1979"},
            "/filter/value",
            "Field 'year' holds numbers or times, not a string",
        ),
        (
            {"field": "genres", "op": "in", "value": ["War", 1]},
            "/filter/value/1",
            "Field 'genres' holds strings, not a number or a time",
        ),
        (
            {"field": "title", "op": "lt", "value": 1},
            "/filter/op",
            "Field 'title' holds strings, which have no order",
        ),
        (
            {"field": "available", "op": "eq", "value": "yes"},
            "/filter/value",
            "Field 'available' holds booleans, not a string",
        ),
    ],
)
def test_filter_that_does_not_fit_says_where_and_why(
    films: CatalogueView, expression: Mapping[str, Any], pointer: str, detail: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        films.mask(FILTER.validate_python(expression), pointer="/filter")
    assert [(fault.pointer, fault.detail) for fault in raised.value.faults] == [(pointer, detail)]


def test_hidden_are_the_padding_and_what_is_unavailable_or_deleted(films: CatalogueView) -> None:
    assert films.hidden.tolist() == [True, False, False, False, True, False]
    assert films.hidden_items.tolist() == [4]
    later = films.with_records({"a": DELETED.encode(), "d": ItemRecord(available=True).encode(), "n": b"{}"})
    assert later.hidden.tolist() == [True, True, False, False, False, False, False]
    assert films.hidden.tolist() == [True, False, False, False, True, False]
    with pytest.raises(ValueError, match="read-only"):
        later.hidden[1] = False


def test_added_items_follow_the_models_and_later_views_do_not_change_earlier_ones(films: CatalogueView) -> None:
    later = films.with_records({"x": ItemRecord({"year": 2026}, replaces=True).encode(), "y": b"{}"})
    assert [films.index_of(item_id) for item_id in "aexy"] == [1, 5, None, None]
    assert [later.index_of(item_id) for item_id in "aexy"] == [1, 5, 6, 7]
    assert (films.num_items, later.num_items) == (5, 7)
    assert [later.id_of(index) for index in range(1, 8)] == list("abcdexy")
    for index in (0, 8):
        with pytest.raises(IndexError):
            later.id_of(index)
    with pytest.raises(IndexError):
        films.attributes(6)
    assert later.attributes(6) == {"year": 2026}
    assert found(later, {"field": "year", "op": "gt", "value": 1980}) == "ax"
    assert found(films, {"field": "year", "op": "gt", "value": 1980}) == "a"


def test_live_attributes_lie_over_those_of_the_artifact(films: CatalogueView) -> None:
    later = films.with_records(
        {
            "b": ItemRecord({"year": 1980, "sizes": None}).encode(),
            "c": ItemRecord({"title": "M"}, available=False, replaces=True).encode(),
        }
    )
    assert later.attributes(2) == {"title": "Alien", "year": 1980, "genres": ["Horror"], "colour": True}
    assert later.attributes(3) == {"title": "M"}
    item = later.item("c")
    assert item is not None
    assert (item.available, item.in_model) == (False, True)
    assert later.with_records({"c": DELETED.encode()}).item("c") is None


def test_titles_are_found_as_they_are_now(films: CatalogueView) -> None:
    later = films.with_records(
        {
            "b": ItemRecord({"title": "Metropolitan"}).encode(),
            "a": DELETED.encode(),
            "n": ItemRecord({"title": "METRO"}).encode(),
        }
    )
    assert [films.id_of(index) for index in films.find_title("")] == list("bdca")
    assert [later.id_of(index) for index in later.find_title("metro")] == list("ncb")
    assert list(later.find_title("alien")) == []


def test_masks_are_kept_and_the_least_used_forgotten(tmp_path: Path) -> None:
    catalogue = CatalogueView.of_model(model_of(tmp_path, FILMS), MaskCache(max_masks=2))
    first, second, third = (
        FILTER.validate_python({"field": "year", "op": "lt", "value": year}) for year in (1950, 1960, 1970)
    )
    kept = catalogue.mask(first)
    catalogue.mask(second)
    assert catalogue.mask(first) is kept
    catalogue.mask(third)
    assert catalogue.mask(first) is kept
    catalogue.mask(second)
    catalogue.mask(third)
    assert catalogue.mask(first) is not kept


# --- random catalogues, random changes, random filters ---------------------------------------------------------------

TEXTS = (
    "red",
    "blue",
    "",
    "2026-01-01T00:00:00Z",
    "2026-01-01T01:00:00+01:00",
    "1969-12-31T23:59:59.5Z",
    "2026-02-31T00:00:00Z",
)
NUMBERS = (0, -0.0, 1, 2.5, -3, 1_767_225_600_000)  # the last one is the first of the times above
SCALARS = st.sampled_from([*TEXTS, *NUMBERS, True, False])
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3))
FIELDS = ("p", "q", "r")
ATTRIBUTES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3)
PATCHES = st.dictionaries(st.sampled_from(FIELDS), st.one_of(st.none(), VALUES), max_size=3)
IDS = st.sampled_from([f"i{number}" for number in range(12)])
RECORDS = st.one_of(
    st.builds(ItemRecord, PATCHES, st.sampled_from([None, True, False])),
    st.builds(ItemRecord, ATTRIBUTES, st.booleans(), replaces=st.just(True)),
    st.just(DELETED),
)
CONDITIONS = st.one_of(
    st.fixed_dictionaries({"field": st.sampled_from(FIELDS), "op": st.sampled_from(["eq", "ne"]), "value": SCALARS}),
    st.fixed_dictionaries(
        {
            "field": st.sampled_from(FIELDS),
            "op": st.sampled_from(["in", "any_of", "all_of"]),
            "value": st.lists(SCALARS, min_size=1, max_size=8),
        }
    ),
    st.fixed_dictionaries(
        {
            "field": st.sampled_from(FIELDS),
            "op": st.sampled_from(["lt", "lte", "gt", "gte"]),
            "value": st.sampled_from([*NUMBERS, *TEXTS[3:6]]),
        }
    ),
    st.fixed_dictionaries({"field": st.sampled_from(FIELDS), "op": st.just("exists"), "value": st.booleans()}),
    st.fixed_dictionaries({"field": st.just("item_id"), "op": st.just("in"), "value": st.lists(IDS, min_size=1)}),
    st.fixed_dictionaries({"field": st.just("available"), "op": st.sampled_from(["eq", "ne"]), "value": st.booleans()}),
)
EXPRESSIONS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"all": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, max_size=3)}),
    ),
    max_leaves=6,
)


def plain(value: Any) -> set[tuple[str, Any]]:
    """The comparable values of an attribute, or of a condition: what the module's docstring of `filters` says."""
    found: set[tuple[str, Any]] = set()
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, bool):
            found.add(("boolean", part))
        elif isinstance(part, str):
            try:
                moment = datetime.fromisoformat(part)
            except ValueError:
                found.add(("string", part))
            else:
                found.add(("number", moment.timestamp() * 1000))
        else:
            found.add(("number", part))
    return found


def holds(expression: Mapping[str, Any], item_id: str, available: bool, attributes: Mapping[str, Any]) -> bool:
    """One expression, one item, no array."""
    if "all" in expression:
        return all(holds(part, item_id, available, attributes) for part in expression["all"])
    if "any" in expression:
        return any(holds(part, item_id, available, attributes) for part in expression["any"])
    if "not" in expression:
        return not holds(expression["not"], item_id, available, attributes)
    field, op, value = expression["field"], expression["op"], expression["value"]
    item = {**attributes, "item_id": item_id, "available": available}
    if op == "exists":
        return (field in item) is value
    if op == "ne":
        return not plain(value) & (plain(item[field]) if field in item else set())
    if field not in item:
        return False
    has, wanted = plain(item[field]), plain(value)
    if op == "all_of":
        return wanted <= has
    if op in ("eq", "in", "any_of"):
        return bool(wanted & has)
    ((_, bound),) = wanted
    numbers = [number for kind, number in has if kind == "number"]
    compare = {"lt": "__lt__", "lte": "__le__", "gt": "__gt__", "gte": "__ge__"}[op]
    return any(getattr(float(number), compare)(float(bound)) for number in numbers)


def in_force(base: Mapping[str, Any], record: ItemRecord | None) -> tuple[bool, dict[str, Any]]:
    if record is None:
        return True, dict(base)
    if record.deleted:
        return False, {}
    under = {} if record.replaces else base
    merged = {name: value for name, value in {**under, **record.attributes}.items() if value is not None}
    return record.available is not False, merged


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ATTRIBUTES, max_size=8),
    st.lists(st.dictionaries(IDS, RECORDS, min_size=1, max_size=4), max_size=5),
    st.lists(EXPRESSIONS, min_size=1, max_size=4),
)
def test_mask_equals_reading_every_item(
    artifact: Sequence[dict[str, Any]], changes: Sequence[dict[str, ItemRecord]], expressions: Sequence[dict[str, Any]]
) -> None:
    base = {f"i{number}": attributes for number, attributes in enumerate(artifact)}
    live: dict[str, ItemRecord] = {}
    with tempfile.TemporaryDirectory() as folder:
        catalogue = CatalogueView.of_model(model_of(Path(folder), base), MaskCache())
        for change in ({}, *changes):
            catalogue = catalogue.with_records({item_id: record.encode() for item_id, record in change.items()})
            live |= change
            items = [
                (item_id, *in_force(base.get(item_id, {}), live.get(item_id)))
                for item_id in map(catalogue.id_of, range(1, catalogue.num_items + 1))
            ]
            assert {item_id for item_id, _, _ in items} == base.keys() | live.keys()
            assert catalogue.hidden.tolist() == [True] + [not available for _, available, _ in items]
            for expression in expressions:
                try:
                    mask_V = catalogue.mask(FILTER.validate_python(expression))
                except InvalidRequest:  # a field or a kind that no item has now: nothing to compare
                    continue
                assert mask_V.tolist() == [False] + [holds(expression, *item) for item in items], expression
