"""Items added live over a real graph, whose vectors of attributes are vectors of items: then scores are known."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.artifacts.attribute_values import AttributeValues
from app.artifacts.registry import LiveModel, load_model
from app.artifacts.tables import AttributeVectors
from app.ranking.exact import ExactRanker
from app.ranking.ranker import ItemSequence
from app.recommender.cold_items import SPARE_ROWS, ColdItems
from app.recommender.sequences import encode
from app.state.history import HistoryEvent
from app.state.items.masks import MaskCache
from app.state.items.records import DELETED, ItemRecord
from app.state.items.view import CatalogueView
from tests.distance_model import write_distance_artifact
from tests.make_tiny_artifact import ARTIFACTS, NUM_ITEMS

HISTORIES = [ItemSequence([3], [0], [1]), ItemSequence([9, 28, 4], [0] * 3, [1] * 3)]


@pytest.fixture(scope="module")
def live() -> LiveModel:
    """The tiny artifact without rules. An item that is `like` others has the sum of their vectors over √n."""
    model = load_model(ARTIFACTS / (ARTIFACTS / "CURRENT").read_text().strip(), history_cap=200)
    assert isinstance(model.ranker, ExactRanker)
    tables = model.ranker.tables
    without_rules = model.ranker.with_tables({**tables, "rule_weights": np.zeros_like(tables["rule_weights"])})
    values = AttributeValues([f"like=i{item}" for item in range(1, NUM_ITEMS + 1)])
    vectors = AttributeVectors(values, tables["item_vectors"][1:])
    return replace(model, ranker=without_rules, attribute_vectors=vectors)


def added(view: CatalogueView, **attributes: Any) -> CatalogueView:
    """The view with an item per keyword, its attribute `like` being the argument."""
    return view.with_records({item_id: ItemRecord({"like": like}).encode() for item_id, like in attributes.items()})


def view_of(live: LiveModel, **attributes: Any) -> CatalogueView:
    return added(CatalogueView.of_model(live, MaskCache()), **attributes)


def scores(model: LiveModel, items: list[int]) -> np.ndarray:
    """Above that of item 1: in so small a catalogue every row shifts them all, for it counts in their normaliser."""
    unlike = sorted({1, *items})
    found_BC = model.ranker.score(HISTORIES, np.array(unlike))
    return (found_BC - found_BC[:, :1])[:, [unlike.index(item) for item in items]]


def test_added_item_is_scored_by_its_attributes_at_once(live: LiveModel) -> None:
    model = ColdItems().lengthened(live, view_of(live, a="i7", b="i9"))
    assert model.ranker.num_items == NUM_ITEMS + 2
    np.testing.assert_allclose(scores(model, [31, 32]), scores(live, [7, 9]), atol=1e-5)
    np.testing.assert_allclose(scores(model, [7, 9]), scores(live, [7, 9]), atol=1e-5)
    best = int(live.ranker.rank(HISTORIES, 1)[0].item_indices[0])
    (ranking, _) = ColdItems().lengthened(live, view_of(live, a=f"i{best}")).ranker.rank(HISTORIES, 2)
    assert sorted(ranking.item_indices.tolist()) == [best, 31]


def test_added_item_is_read_in_a_history(live: LiveModel) -> None:
    view = view_of(live, a="i7")
    model = ColdItems().lengthened(live, view)
    sequence = encode([HistoryEvent("a", "view", 1_000_000)], model, view)
    assert list(sequence.items) == [31]
    (of_copy,) = model.ranker.rank([sequence], 31)
    (of_item,) = model.ranker.rank([ItemSequence([7], [1000], [1])], 31)
    np.testing.assert_allclose(of_copy.scores, of_item.scores, atol=1e-5)
    assert not encode([HistoryEvent("a", "view", 1_000_000)], live, view).items


def test_item_of_which_nothing_is_known_has_the_vector_of_all_items_mean(live: LiveModel) -> None:
    model = ColdItems().lengthened(live, view_of(live, a="nothing known"))
    mean_B = (scores(live, list(range(1, NUM_ITEMS + 1)))).mean(axis=1)
    np.testing.assert_allclose(scores(model, [31])[:, 0], mean_B, atol=1e-4)


def test_changed_attributes_count_and_requests_under_way_keep_theirs(live: LiveModel) -> None:
    cold_items = ColdItems()
    view = view_of(live, a="i7", b="i9")
    before = cold_items.lengthened(live, view)
    assert cold_items.lengthened(live, view) is before, "nothing changed"
    view = view.with_records({"a": ItemRecord({"like": "i7"}, available=False).encode()})
    assert cold_items.lengthened(live, view) is before, "availability is no attribute"
    later = cold_items.lengthened(live, added(view, a="i3"))
    np.testing.assert_allclose(scores(before, [31, 32]), scores(live, [7, 9]), atol=1e-5)
    np.testing.assert_allclose(scores(later, [31, 32]), scores(live, [3, 9]), atol=1e-5)


def test_many_items_one_after_the_other_are_what_all_at_once_are(live: LiveModel) -> None:
    cold_items, view = ColdItems(), CatalogueView.of_model(live, MaskCache())
    likes = [f"i{number % NUM_ITEMS + 1}" for number in range(SPARE_ROWS + 100)]
    early = None
    for start in range(0, len(likes), 50):
        view = added(view, **{f"n{number}": likes[number] for number in range(start, min(start + 50, len(likes)))})
        model = cold_items.lengthened(live, view)
        early = early or model
    items = list(range(NUM_ITEMS + 1, model.ranker.num_items + 1))
    expected = scores(live, [int(like[1:]) for like in likes])
    np.testing.assert_allclose(scores(model, items), expected, atol=1e-5)
    assert early is not None
    assert early.ranker.num_items == NUM_ITEMS + 50
    np.testing.assert_allclose(scores(early, items[:50]), expected[:, :50], atol=1e-5)


def test_catalogue_that_numbers_its_items_anew_is_followed(live: LiveModel) -> None:
    """After many deletions other items have the indices; a ranker of before keeps its rows."""
    cold_items = ColdItems()
    before = cold_items.lengthened(live, view_of(live, a="i1", b="i2", c="i3"))
    after = cold_items.lengthened(live, view_of(live, c="i3"))
    again = cold_items.lengthened(live, view_of(live, c="i3", d="i4"))
    np.testing.assert_allclose(scores(before, [31, 32, 33]), scores(live, [1, 2, 3]), atol=1e-5)
    np.testing.assert_allclose(scores(after, [31]), scores(live, [3]), atol=1e-5)
    np.testing.assert_allclose(scores(again, [31, 32]), scores(live, [3, 4]), atol=1e-5)
    deleted = view_of(live, a="i1").with_records({"a": DELETED.encode()})
    assert cold_items.lengthened(live, deleted).ranker.num_items == NUM_ITEMS + 1
    assert deleted.hidden[31]


def test_next_model_has_rows_of_its_own(live: LiveModel) -> None:
    cold_items = ColdItems()
    cold_items.lengthened(live, view_of(live, a="i7"))
    other = live.with_ranker(live.ranker)
    model = cold_items.lengthened(other, view_of(other, a="i8"))
    np.testing.assert_allclose(scores(model, [31]), scores(live, [8]), atol=1e-5)


def test_model_without_vectors_of_attributes_takes_the_mean_and_one_of_format_1_nothing(
    live: LiveModel, tmp_path: Path
) -> None:
    without_vectors = replace(live, attribute_vectors=None)
    model = ColdItems().lengthened(without_vectors, view_of(live, a="i7"))
    mean_B = scores(live, list(range(1, NUM_ITEMS + 1))).mean(axis=1)
    np.testing.assert_allclose(scores(model, [31])[:, 0], mean_B, atol=1e-4)
    of_format_1 = load_model(write_distance_artifact(tmp_path), history_cap=200)
    assert ColdItems().lengthened(of_format_1, view_of(of_format_1, a="i7")) is of_format_1


def test_model_that_was_replaced_is_not_kept_where_the_next_one_knows_all_items(live: LiveModel) -> None:
    cold_items, before = ColdItems(), replace(live)
    cold_items.lengthened(before, view_of(before, a="i7"))
    gone = weakref.ref(before)
    del before
    assert cold_items.lengthened(live, view_of(live)) is live
    gc.collect()
    assert gone() is None
