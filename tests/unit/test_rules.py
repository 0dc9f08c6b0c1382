"""Rules against their definition, written as plain loops, and against small cases computed by hand."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from scripts.training import rules
from scripts.training.attributes import shared_attributes
from scripts.training.interactions import Interactions
from scripts.training.rules import RuleTable, largest_of_rows, learn_rules

NUM_ITEMS = 6
HISTORIES = st.lists(st.lists(st.integers(1, NUM_ITEMS), max_size=30), min_size=1, max_size=6).filter(any)


def interactions(histories: list[list[int]]) -> Interactions:
    items = np.array([item for history in histories for item in history], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    return Interactions(items, np.arange(len(items)), np.ones(len(items), np.uint8), offsets)


def dense(table: RuleTable) -> np.ndarray:
    weights_VV = np.zeros((NUM_ITEMS + 1, NUM_ITEMS + 1))
    np.add.at(weights_VV, (np.arange(NUM_ITEMS + 1)[:, None], table.items_VN), table.weights_VN)
    return weights_VV


def expected_of(histories: list[list[int]]) -> np.ndarray:
    counts = [sum(history.count(item) for history in histories) for item in range(NUM_ITEMS + 1)]
    weights_VV = np.zeros((NUM_ITEMS + 1, NUM_ITEMS + 1))
    for history in histories:
        for place, earlier in enumerate(history):
            for step, later in enumerate(history[place + 1 : place + 21], start=1):
                for a, b, share in ((earlier, later, 1.0), (later, earlier, 0.5 * 30 / (counts[later] + 30))):
                    weights_VV[a, b] += share * step**-0.75 * (1 + counts[b] / 100) ** -0.25 / (counts[a] + 30)
    return weights_VV


@given(HISTORIES)
def test_rules_are_the_sums_of_their_definition(histories: list[list[int]]) -> None:
    table = learn_rules(interactions(histories), NUM_ITEMS, followers=NUM_ITEMS)
    np.testing.assert_allclose(dense(table), expected_of(histories), rtol=1e-4, atol=1e-7)


def test_weights_by_hand() -> None:
    """2 follows 1 at one step, 3 follows 1 at two; every item has one event."""
    table = learn_rules(interactions([[1, 2, 3]]), NUM_ITEMS, followers=4)
    rare = 1.01**-0.25
    assert table.items_VN[1].tolist() == [2, 3, 0, 0]
    assert table.weights_VN[1].tolist() == pytest.approx([rare / 31, 2**-0.75 * rare / 31, 0, 0])
    assert table.items_VN[3].tolist() == [2, 1, 0, 0], "only backwards"
    assert table.weights_VN[3, 0] == pytest.approx(0.5 * 30 / 31 * rare / 31)
    assert table.items_VN[[0, 4, 5, 6]].sum() == 0


def test_users_do_not_reach_into_one_another() -> None:
    table = learn_rules(interactions([[1, 2], [3, 4]]), NUM_ITEMS, followers=4)
    assert table.items_VN[1].tolist() == [2, 0, 0, 0]
    assert table.items_VN[3].tolist() == [4, 0, 0, 0]


def test_item_without_events_is_known_by_its_attributes() -> None:
    """Items 1 and 2 share a colour, 1 and 3 the commoner size, 4 has neither; nobody met 1."""
    attributes = [
        {"colour": "red", "size": "m"},
        {"colour": "red", "size": "l"},
        {"colour": "blue", "size": "m"},
        {"colour": "green", "size": "xl"},
        {"size": "m"},
        {"size": "xl"},
    ]
    table = learn_rules(interactions([[4, 5]]), NUM_ITEMS, followers=4, attributes=shared_attributes(attributes))
    assert set(table.items_VN[1].tolist()) == {2, 3, 5, 0}
    assert table.weights_VN[1].sum() == pytest.approx(40 / 30)
    # Values that one item alone has are no values: item 2 is (red), item 3 (m), items 1 (red, m), 5 (m), 6 (xl).
    red, medium = math.log1p(6 / 2), math.log1p(6 / 3)
    length = math.hypot(red, medium)
    cosines = {2: red / length, 3: medium / length, 5: medium / length}
    for item, weight in zip(table.items_VN[1, :3].tolist(), table.weights_VN[1, :3].tolist(), strict=True):
        assert weight == pytest.approx(40 / 30 * cosines[item] / sum(cosines.values()))


def test_what_was_counted_outweighs_likeness_as_events_grow() -> None:
    attributes = [{"colour": "red"}, {"colour": "red"}, {"colour": "blue"}, {"colour": "blue"}, {}, {}]
    shared = shared_attributes(attributes)
    few = dense(learn_rules(interactions([[1, 3]]), NUM_ITEMS, 6, shared))
    many = dense(learn_rules(interactions([[1, 3]] * 300), NUM_ITEMS, 6, shared))
    assert few[1, 2] > few[1, 3]
    assert many[1, 3] > many[1, 2]


def test_table_keeps_the_heaviest_followers_in_order() -> None:
    rng = np.random.default_rng(0)
    some = interactions([rng.integers(1, NUM_ITEMS + 1, 20).tolist() for _ in range(9)])
    whole, part = learn_rules(some, NUM_ITEMS, 6), learn_rules(some, NUM_ITEMS, 3)
    assert (np.diff(whole.weights_VN, axis=1) <= 0).all()
    np.testing.assert_array_equal(part.items_VN, whole.items_VN[:, :3])
    np.testing.assert_array_equal(part.weights_VN, whole.weights_VN[:, :3])


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    some = interactions([rng.integers(1, NUM_ITEMS + 1, 20).tolist() for _ in range(9)])
    attributes = shared_attributes(
        [{"parity": index % 2 == 0, "third": index % 3} for index in range(1, NUM_ITEMS + 1)]
    )
    whole = learn_rules(some, NUM_ITEMS, 6, attributes)
    monkeypatch.setattr(rules, "ENTRIES_PER_BLOCK", 1)
    blocks = learn_rules(some, NUM_ITEMS, 6, attributes)
    np.testing.assert_allclose(dense(whole), dense(blocks), rtol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_largest_of_rows_sorts_by_value_and_then_by_column(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((5, 9)) < 0.6, rng.integers(1, 4, (5, 9)), 0).astype(np.float32)
    kept = largest_of_rows(sp.csr_array(values), count)
    for row in range(5):
        expected = sorted((column for column in range(9) if values[row, column]), key=lambda c: (-values[row, c], c))
        assert kept.indices[kept.indptr[row] : kept.indptr[row + 1]].tolist() == expected[:count]
