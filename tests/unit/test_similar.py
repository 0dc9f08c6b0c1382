"""Likeness of vectors that one can draw: the angles are read off the drawing."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence, Ranking
from app.ranking.similar import SimilarItems


class Drawn:
    """A ranker that is asked for its vectors alone."""

    def __init__(self, vectors: Sequence[Sequence[float]] | None) -> None:
        self.item_vectors = None if vectors is None else np.array(vectors, np.float32)
        self.num_items = 0 if vectors is None else len(vectors) - 1

    def rank(
        self, sequences: Sequence[ItemSequence], k: int, adjust_BV: NDArray[np.float32] | None = None
    ) -> list[Ranking]:
        raise NotImplementedError

    def score(self, sequences: Sequence[ItemSequence], item_indices_C: NDArray[np.int64]) -> NDArray[np.float32]:
        raise NotImplementedError


#              padding   east    north    north-east  west     nothing
PLANE = Drawn([[9, 9], [2, 0], [0, 0.5], [3, 3], [-1, 0], [0, 0]])


def test_likeness_is_the_angle_whatever_the_length() -> None:
    likeness_V = SimilarItems().likeness(PLANE, [1])
    assert likeness_V is not None
    assert likeness_V.tolist() == pytest.approx(
        [-math.inf, 1, 0.5, (1 + math.cos(math.pi / 4)) / 2, 0, -math.inf], abs=1e-6
    )


def test_several_items_are_like_what_lies_between_them() -> None:
    """East and north mean north-east, however long the one and short the other; what is unknown is passed over."""
    likeness_V = SimilarItems().likeness(PLANE, [1, 2, 5, 77])
    assert likeness_V is not None
    assert int(np.argmax(likeness_V)) == 3
    assert likeness_V[3] == pytest.approx(1)
    assert likeness_V[1] == pytest.approx(likeness_V[2])


@pytest.mark.parametrize("items", [[5], [77], [], [1, 4]], ids=["zeros", "unknown", "none", "opposite"])
def test_where_no_direction_is_left_nothing_is_alike(items: list[int]) -> None:
    assert SimilarItems().likeness(PLANE, items) is None
    assert SimilarItems().likeness(Drawn(None), items) is None


def test_lengths_are_those_of_the_ranker_that_is_asked() -> None:
    similar = SimilarItems()
    similar.likeness(PLANE, [1])
    other = Drawn([[0, 0], [0, 4], [5, 0]])
    likeness_V = similar.likeness(other, [2])
    assert likeness_V is not None
    assert likeness_V.tolist() == pytest.approx([-math.inf, 0.5, 1])
