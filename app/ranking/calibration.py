"""From scores to probabilities: how likely an item is to come next, as validation has shown it.

Shapes: C items, N scores.
"""

import numpy as np
from numpy.typing import NDArray

NORMALISER_ITEMS = 128


def log_shares(scores_C: NDArray[np.float32], best_N: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 (C,): the logarithm of each item's share of what the 128 best items of the history weigh together.

    Scores are logarithms up to a constant of the history, which this takes away.

    Args:
        scores_C: of the items.
        best_N: the highest scores of the whole catalogue, by falling score, at least 128 where there are so many items.
    """
    highest = float(best_N[0])
    weights = np.exp(best_N[:NORMALISER_ITEMS].astype(np.float64) - highest)
    shares_C: NDArray[np.float64] = scores_C.astype(np.float64) - highest - np.log(weights.sum())
    return shares_C


def probabilities(log_shares_C: NDArray[np.float64], slope: float, intercept: float) -> NDArray[np.float64]:
    """float64 (C,): 1 / (1 + exp(−(slope · log share + intercept))), after Platt (1999).

    >>> probabilities(np.log([0.5, 0.25]), 1.0, 0.0).round(4).tolist()  # ½ / (1 + ½), ¼ / (1 + ¼)
    [0.3333, 0.2]
    """
    chances: NDArray[np.float64] = 1 / (1 + np.exp(-(slope * log_shares_C + intercept)))
    return chances
