"""Rules that go on learning equal the rules learnt from everything at once, as long as nothing is cut off."""

import numpy as np
import pytest
from hypothesis import given, settings

from app.ranking import rules as definition
from app.ranking.rules import KnownRules, NewRules
from scripts.training.rules import RuleTable, learn_rules
from tests.unit.test_rules import HISTORIES, NUM_ITEMS, dense, expected_of, interactions


def added(histories: list[list[int]]) -> NewRules:
    rules = NewRules()
    for history in histories:
        for place, item in enumerate(history):
            rules.add(str(item), [str(each) for each in history[:place]])
    return rules


def over(rules: NewRules, table: RuleTable, counts: np.ndarray, num_items: int = NUM_ITEMS) -> RuleTable:
    return RuleTable(*rules.over(KnownRules(table.items_VN, table.weights_VN, counts, num_items, int)))


@given(HISTORIES)
@settings(max_examples=50)
def test_from_nothing_they_are_the_rules_of_the_definition(histories: list[list[int]]) -> None:
    nothing = RuleTable(
        np.zeros((NUM_ITEMS + 1, NUM_ITEMS), np.int32), np.zeros((NUM_ITEMS + 1, NUM_ITEMS), np.float32)
    )
    found = over(added(histories), nothing, np.zeros(NUM_ITEMS + 1, np.int64))
    np.testing.assert_allclose(dense(found), expected_of(histories), atol=1e-5)
    assert (np.diff(found.weights_VN, axis=1) <= 0).all(), "the heaviest first"


@given(HISTORIES)
@settings(max_examples=20)
def test_nothing_new_changes_nothing(histories: list[list[int]]) -> None:
    learnt = learn_rules(interactions(histories), NUM_ITEMS, NUM_ITEMS)
    counts = interactions(histories).item_counts(NUM_ITEMS)
    found = over(NewRules(), learnt, counts)
    np.testing.assert_array_equal(found.items_VN, learnt.items_VN)
    np.testing.assert_array_equal(found.weights_VN, learnt.weights_VN)


def test_new_events_add_to_what_was_learnt_by_hand() -> None:
    """Item 1 had 10 events and one rule, 1 → 2 of weight .5: evidence .5 · 40. Then 4, a new one, comes after 1."""
    items, weights = np.zeros((4, 2), np.int32), np.zeros((4, 2), np.float32)
    items[1, 0], weights[1, 0] = 2, 0.5
    rules = NewRules()
    rules.add("1", [])
    rules.add("4", ["1"])
    known = KnownRules(items, weights, np.array([0, 10, 100, 0]), 4, {"1": 1, "4": 4}.get)
    found_items, found_weights = rules.over(known)
    assert found_items[1].tolist() == [2, 4]
    rare = (1 + 1 / 100) ** -0.25
    np.testing.assert_allclose(found_weights[1], [20 / 41, rare / 41], rtol=1e-6)
    # Of item 4 only what came before it is known: half of it, shrunk by its one event.
    assert found_items[4].tolist() == [1, 0]
    np.testing.assert_allclose(found_weights[4], [0.5 * 30 / 31 * (1 + 11 / 100) ** -0.25 / 31, 0], rtol=1e-6)


@given(HISTORIES, HISTORIES)
@settings(max_examples=30)
def test_changed_rows_alone_give_what_all_rows_give(first: list[list[int]], second: list[list[int]]) -> None:
    """Also where a call makes a row at a time. (Rows of items that did not change keep an older rarity of others, so
    the rarity is switched off.)"""
    nothing = np.zeros((NUM_ITEMS + 1, NUM_ITEMS), np.int32), np.zeros((NUM_ITEMS + 1, NUM_ITEMS), np.float32)
    known = KnownRules(*nothing, np.zeros(NUM_ITEMS + 1, np.int64), NUM_ITEMS, int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(definition, "RARITY_EXPONENT", 0.0)
        rules = added(first)
        tables = rules.over(known)
        for history in second:
            for place, item in enumerate(history):
                rules.add(str(item), [str(each) for each in history[:place]])
        for _ in range(NUM_ITEMS):
            tables = known.tables(tables)
            rules.write(tables, known, at_most=1)
        for found, expected in zip(tables, rules.over(known), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_item_that_cannot_be_recommended_is_in_no_rule() -> None:
    rules = NewRules()
    rules.add("unknown", ["1"])
    rules.add("2", ["1", "unknown"])
    nothing = np.zeros((3, 2), np.int32), np.zeros((3, 2), np.float32), np.zeros(3, np.int64)
    items, _ = rules.over(KnownRules(*nothing, 2, {"1": 1, "2": 2}.get))
    assert items.tolist() == [[0, 0], [2, 0], [1, 0]]


def test_memory_is_bounded_by_items_and_by_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition, "MAX_ITEMS", 5)
    monkeypatch.setattr(definition, "MAX_FOLLOWERS", 3)
    rules = NewRules()
    for follower in range(2, 200):
        rules.add(str(follower), ["1"] * (20 if follower % 50 == 0 else 1))
    assert len(rules._after) <= 5
    assert "1" in rules._after, "the one with the newest events stays"
    assert len(rules._after["1"]) <= 6
