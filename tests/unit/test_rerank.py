"""Reranking against what one works out by hand, and against slow code that says the same in other words."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking import rerank
from app.ranking.rerank import attribute_similarity, boost, cosine_similarity, diversify, place_pins, top_k


def test_examples_in_docstrings_are_true() -> None:
    assert doctest.testmod(rerank).failed == 0


@given(
    scores=st.lists(st.sampled_from([-math.inf, -2.0, 0.0, 1.0, 1.5]), min_size=1, max_size=12),
    k=st.integers(1, 14),
)
def test_top_k_equals_sorting_everything(scores: list[float], k: int) -> None:
    expected = sorted((i for i, s in enumerate(scores) if s != -math.inf), key=lambda i: (-scores[i], i))[:k]
    assert top_k(np.array(scores, np.float32), k).tolist() == expected


def test_boost_multiplies_probabilities_and_reveals_nothing() -> None:
    probabilities = np.array([0.1, 0.2, 0.3, 0.4])
    adjust_V = np.zeros(4, np.float32)
    adjust_V[3] = -np.inf
    boost(adjust_V, np.array([False, True, True, True]), 1.5)
    boost(adjust_V, np.array([False, False, True, False]), 2.0)
    assert np.exp(np.log(probabilities) + adjust_V) == pytest.approx([0.1, 0.3, 0.9, 0.0])


SCORES = np.array([4.0, 3.0, 2.0, 0.0], np.float32)  # relevance 1, 3/4, 1/2, 0
TWINS = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)  # the first two are alike


@pytest.mark.parametrize(
    ("diversity", "order"),
    [
        (0.0, [0, 1, 2, 3]),
        (0.15, [0, 1, 2, 3]),  # after the first, its twin is worth 0.85·0.75 − 0.15 = 0.49, the third 0.85·0.5 = 0.43
        (0.3, [0, 2, 1, 3]),  # the twin 0.7·0.75 − 0.3 = 0.23, the third 0.7·0.5 = 0.35, the last 0
        (0.5, [0, 2, 3, 1]),  # the twin 0.5·0.75 − 0.5 < 0
        (1.0, [0, 2, 3, 1]),
    ],
)
def test_diversity_puts_a_twin_behind_the_others(diversity: float, order: list[int]) -> None:
    assert diversify(SCORES, TWINS, diversity, 4) == order


@given(
    between=st.lists(st.integers(0, 4), max_size=7),
    seed=st.integers(0, 1000),
    diversity=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    size=st.integers(1, 9),
)
def test_diversity_equals_the_formula_step_by_step(between: list[int], seed: int, diversity: float, size: int) -> None:
    """Every number is a multiple of 1/16, so that no rounding decides between equals."""
    pool = sorted([4, *between, 0], reverse=True)
    likeness = np.random.default_rng(seed).integers(0, 5, (len(pool), len(pool))) / 4
    likeness = np.maximum(likeness, likeness.T)
    expected = [0]
    while len(expected) < min(size, len(pool)):
        worth = {
            place: (1 - diversity) * pool[place] / 4 - diversity * max(likeness[place][taken] for taken in expected)
            for place in range(len(pool))
            if place not in expected
        }
        expected.append(max(worth, key=lambda place: (worth[place], -place)))
    assert diversify(np.array(pool, np.float32), likeness.astype(np.float32), diversity, size) == expected


def test_cosine_ignores_length_and_opposite_directions() -> None:
    vectors_PD = np.array([[1, 0], [5, 0], [1, 1], [-1, 0], [0, 0]], np.float32)
    found = cosine_similarity(vectors_PD)
    assert found[0].tolist() == pytest.approx([1, 1, 1 / math.sqrt(2), 0, 0])
    assert np.array_equal(found, found.T)


def test_attributes_in_common_are_counted_among_those_that_tell_items_apart() -> None:
    items = [
        {"title": "A", "genres": ["War", "Drama"], "shop": "s", "year": 1990},
        {"title": "B", "genres": ["War", "Crime"], "shop": "s", "year": 1990},
        {"title": "C", "genres": ["Crime", "Drama"], "shop": "s"},
        {"shop": "s"},
    ]
    found = attribute_similarity(items)
    assert found is not None
    # Titles belong to one item each, the shop to all: what is left is one genre in common of three.
    assert found[0].tolist() == pytest.approx([1, 1 / 3, 1 / 3, 0])
    assert attribute_similarity([{"title": "A"}, {"title": "B"}]) is None


@given(
    ranked=st.lists(st.integers(0, 99), unique=True, max_size=8),
    positions=st.lists(st.integers(1, 12), unique=True, max_size=5),
    size=st.integers(1, 12),
)
def test_pins_stand_where_they_should_and_the_others_keep_their_order(
    ranked: list[int], positions: list[int], size: int
) -> None:
    pins = {position: 100 + position for position in positions}
    placed = place_pins(ranked, pins, size)
    assert len(placed) == min(size, len(ranked) + len(pins))
    assert [item for item in placed if item < 100] == ranked[: sum(item < 100 for item in placed)]
    for number, position in enumerate(sorted(positions)):
        place = min(position, len(ranked) + number + 1)  # without anything to stand behind, it moves up
        if place <= size:
            assert placed[place - 1] == pins[position]
