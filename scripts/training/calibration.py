"""Probabilities that hold: Platt's two numbers fitted on validation, and how far they are off on test.

Looked at are the first ten items of every list, which is what people are shown: did the next event go to this item?

Shapes: B batch, V catalogue with padding, P pairs of a list and one of its items.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.artifacts.manifest import Calibration
from app.ranking.calibration import NORMALISER_ITEMS, log_shares, probabilities
from app.ranking.rerank import top_k
from scripts.training.evaluation import Scorer
from scripts.training.interactions import Cases, PreparedData

FIRST = 10
MAX_CASES = 20_000
NUM_BINS = 10
NUM_STEPS = 50
BATCH_SCORES = 4_000_000
PRIOR = 1e-3
"""Of the fit, towards slope 1 and intercept 0: without it, pairs that a line separates would have no best fit."""


class Pairs(NamedTuple):
    """Log shares float64 (P,) and whether the item came next, bool (P,)."""

    log_shares_P: NDArray[np.float64]
    came_P: NDArray[np.bool_]


@dataclass(frozen=True)
class CalibrationReport:
    """What was fitted, and the expected calibration errors on test: of the probabilities, and of the bare shares."""

    calibration: Calibration
    error_of_shares: float
    num_pairs: int

    def as_json(self) -> dict[str, object]:
        return {**self.calibration.model_dump(), "error_of_shares": self.error_of_shares, "num_pairs": self.num_pairs}


def calibrate(
    scorer: Scorer, data: PreparedData, *, exclude_seen: bool, discount_V: NDArray[np.float32] | None = None
) -> CalibrationReport:
    """Fitted on the validation part, measured on the test part, at most 20,000 cases of each, evenly chosen.

    discount_V: of popularity, which is added to the scores to decide what is shown; the probability of what is shown
    stays the model's.
    """
    fitted, measured = (
        pairs_of(scorer, data.cases(part), num_items=data.num_items, exclude_seen=exclude_seen, discount_V=discount_V)
        for part in ("validation", "test")
    )
    slope, intercept = fit(fitted)
    chances_P = probabilities(measured.log_shares_P, slope, intercept)
    return CalibrationReport(
        Calibration(
            slope=slope, intercept=intercept, expected_error=expected_calibration_error(chances_P, measured.came_P)
        ),
        error_of_shares=expected_calibration_error(np.exp(measured.log_shares_P), measured.came_P),
        num_pairs=len(measured.came_P),
    )


def pairs_of(
    scorer: Scorer,
    cases: Cases,
    *,
    num_items: int,
    exclude_seen: bool,
    discount_V: NDArray[np.float32] | None = None,
) -> Pairs:
    """Of the first ten eligible items of each case; none of no cases."""
    if len(cases) == 0:
        return Pairs(np.empty(0, np.float64), np.empty(0, np.bool_))
    chosen = np.unique(np.linspace(0, len(cases) - 1, min(len(cases), MAX_CASES)).astype(np.int64))
    shares, came = [], []
    size = max(1, min(512, BATCH_SCORES // (num_items + 1)))
    for start in range(0, len(chosen), size):
        some = chosen[start : start + size]
        histories = [cases.histories.item_sequence(int(case), None) for case in some]
        for case, history, scores_V in zip(some, histories, scorer(histories), strict=True):
            scores_V = np.array(scores_V, dtype=np.float32)
            scores_V[0] = -np.inf
            best_N = scores_V[top_k(scores_V, NORMALISER_ITEMS)]
            eligible_V = scores_V.copy() if discount_V is None else scores_V + discount_V
            if exclude_seen:
                eligible_V[np.asarray(history.items, dtype=np.int64)] = -np.inf
            first = top_k(eligible_V, FIRST)
            shares.append(log_shares(scores_V[first], best_N))
            came.append(first == cases.targets[case])
    return Pairs(np.concatenate(shares), np.concatenate(came))


def fit(pairs: Pairs) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of `came` on the log share, by Newton's method."""
    inputs_P2 = np.stack([pairs.log_shares_P, np.ones(len(pairs.came_P))], axis=1)
    prior_2 = np.array([1.0, 0.0])
    line_2 = prior_2.copy()
    for _ in range(NUM_STEPS):
        chances_P = probabilities(pairs.log_shares_P, *line_2.tolist())
        gradient_2 = inputs_P2.T @ (chances_P - pairs.came_P) + PRIOR * (line_2 - prior_2)
        curvature_22 = (inputs_P2 * (chances_P * (1 - chances_P))[:, None]).T @ inputs_P2 + PRIOR * np.eye(2)
        step_2 = np.linalg.solve(curvature_22, gradient_2)
        line_2 -= step_2
        if np.abs(step_2).max() < 1e-9:
            break
    return float(line_2[0]), float(line_2[1])


def expected_calibration_error(chances_P: NDArray[np.float64], came_P: NDArray[np.bool_]) -> float:
    """The mean distance, over ten bins of equally many pairs, of the mean probability from the share that came.

    Bins of equal width would put nearly all pairs into the first one: a next item is rarely likely. (Naeini et al.
    2015; bins of equal mass after Nguyen and O'Connor 2015.)
    """
    order = np.argsort(chances_P, kind="stable")
    error = 0.0
    for bin_ in np.array_split(order, NUM_BINS):
        if len(bin_):
            error += len(bin_) / len(order) * abs(float(chances_P[bin_].mean()) - float(came_P[bin_].mean()))
    return error
