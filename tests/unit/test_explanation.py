"""Contributions of events, against probabilities that one computes on paper."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from app.ranking.explanation import contributions, without
from app.ranking.ranker import ItemSequence, Ranking


class Doubling:
    """Item i is 1 + (events on item 10 + i) times as probable as item 9; scores have a constant of their history."""

    num_items = 20
    item_vectors = None

    def __init__(self) -> None:
        self.runs: list[int] = []

    def rank(
        self, sequences: Sequence[ItemSequence], k: int, adjust_BV: NDArray[np.float32] | None = None
    ) -> list[Ranking]:
        raise NotImplementedError

    def score(self, sequences: Sequence[ItemSequence], item_indices_C: NDArray[np.int64]) -> NDArray[np.float32]:
        self.runs.append(len(sequences))
        rows = [
            [
                math.log(1 + list(each.items).count(10 + index)) + 5 * len(each.items)
                for index in item_indices_C.tolist()
            ]
            for each in sequences
        ]
        return np.array(rows, dtype=np.float32)


def sequence(*items: int) -> ItemSequence:
    return ItemSequence(items, [1000 * item for item in items], [1] * len(items))


@pytest.mark.parametrize(("max_rows", "runs"), [(100, [4]), (3, [3, 1])])
def test_event_contributes_what_the_probability_loses_without_it(max_rows: int, runs: list[int]) -> None:
    """Items 1, 2 and 9 after events 11, 12, 12 weigh 2 : 3 : 1; without 11 1 : 3 : 1, without one 12 2 : 2 : 1."""
    ranker = Doubling()
    lost_LC = contributions(ranker, sequence(11, 12, 12), [1, 2], [9, 2], max_rows=max_rows)
    without_11 = [math.log((2 / 6) / (1 / 5)), math.log((3 / 6) / (3 / 5))]
    without_12 = [math.log((2 / 6) / (2 / 5)), math.log((3 / 6) / (2 / 5))]
    np.testing.assert_allclose(lost_LC, [without_11, without_12, without_12], atol=1e-5)
    assert ranker.runs == runs


def test_event_is_left_out_with_its_time_and_type() -> None:
    left = without(ItemSequence([4, 5, 6], [40, 50, 60], [1, 2, 3], target_type=2), 1)
    assert left == ItemSequence([4, 6], [40, 60], [1, 3], target_type=2)
