"""Which events of a history carry a recommendation: what its probability loses when one event is left out.

Shapes: L events of the sequence, C items to explain, S compared items, B rows of one run.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence, Ranker


def contributions(
    ranker: Ranker, sequence: ItemSequence, item_indices_C: Sequence[int], others: Sequence[int], *, max_rows: int
) -> NDArray[np.float32]:
    """float32 (L, C): by how much the logarithm of an item's probability falls without the event; below 0 it rises.

    Only scores of one history are comparable: they are logarithms up to a constant. So an item's probability is taken
    among the explained items and the `others`, which are always the same: softmax over those. An event that happened
    twice counts for little, since the other one stays.

    Args:
        ranker: scores the histories, all of them in one run.
        sequence: at least one event, at most as many as the model reads.
        item_indices_C: different items that the ranker can score.
        others: further items to compare with.
        max_rows: histories in one run; more runs where there are more.
    """
    compared_S = np.array([*item_indices_C, *(set(others) - set(item_indices_C))], dtype=np.int64)
    histories = [sequence, *(without(sequence, place) for place in range(len(sequence.items)))]
    scores_BS = np.concatenate(
        [ranker.score(histories[start : start + max_rows], compared_S) for start in range(0, len(histories), max_rows)]
    )
    logs_BC = scores_BS[:, : len(item_indices_C)] - _log_sum_exp(scores_BS)
    lost_LC: NDArray[np.float32] = logs_BC[0] - logs_BC[1:]
    return lost_LC


def without(sequence: ItemSequence, place: int) -> ItemSequence:
    """The sequence without its event at `place`, from 0."""

    def cut(values: Sequence[int]) -> Sequence[int]:
        return [*values[:place], *values[place + 1 :]]

    return ItemSequence(
        cut(sequence.items), cut(sequence.timestamps_ms), cut(sequence.event_types), sequence.target_type
    )


def _log_sum_exp(scores_BS: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (B, 1)."""
    highest_B1 = scores_BS.max(axis=1, keepdims=True)
    sums_B1: NDArray[np.float32] = np.exp(scores_BS - highest_B1).sum(axis=1, keepdims=True)
    logs_B1: NDArray[np.float32] = highest_B1 + np.log(sums_B1)
    return logs_B1
