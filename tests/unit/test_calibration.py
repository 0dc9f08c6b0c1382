"""Probabilities: the arithmetic on paper, and a fit that finds the truth again."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from app.ranking.calibration import log_shares, probabilities
from app.ranking.ranker import ItemSequence
from scripts.training.calibration import NUM_BINS, Pairs, expected_calibration_error, fit, pairs_of
from scripts.training.interactions import Cases
from tests.unit.test_evaluation import cases_of


def test_share_is_of_what_the_best_weigh_together_whatever_is_added_to_the_scores() -> None:
    """Weights 4, 2, 2 and 0: shares ½, ¼, ¼; a restricted item of weight 1 has ⅛."""
    best_N = np.log(np.array([4, 2, 2], np.float32))
    items_C = np.log(np.array([4, 2, 1], np.float32))
    for constant in (0, 300, -300):
        found_C = np.exp(log_shares(items_C + np.float32(constant), best_N + np.float32(constant)))
        np.testing.assert_allclose(found_C, [1 / 2, 1 / 4, 1 / 8], rtol=1e-4)


def test_only_the_128_best_count() -> None:
    best_N = np.zeros(500, np.float32)
    assert log_shares(best_N[:1], best_N)[0] == pytest.approx(-math.log(128))


def test_error_is_the_mean_distance_over_bins_of_equally_many() -> None:
    """Twenty pairs, two a bin. Nine bins say 0 and nothing came; the last says (0.6 + 0.8) / 2 = 0.7 and half came:
    (9 · 0 + 1 · 0.2) / 10."""
    chances_P = np.zeros(20)
    came_P = np.zeros(20, dtype=bool)
    chances_P[[7, 3]], came_P[7] = [0.6, 0.8], True
    assert expected_calibration_error(chances_P, came_P) == pytest.approx(0.02)


def test_error_of_fewer_pairs_than_bins_weighs_each() -> None:
    """|0.25 − 0| and |0.5 − 1|, half and half."""
    assert NUM_BINS > 2
    assert expected_calibration_error(np.array([0.5, 0.25]), np.array([True, False])) == pytest.approx(0.375)


def test_sure_and_right_has_no_error_and_sure_and_wrong_all_of_it() -> None:
    came_P = np.array([True, False] * 10)
    assert expected_calibration_error(came_P.astype(float), came_P) == 0
    assert expected_calibration_error(1 - came_P.astype(float), came_P) == pytest.approx(1)


def test_fit_finds_the_line_that_made_the_data() -> None:
    """Standard errors at 50,000 pairs are about 0.02 and 0.05."""
    rng = np.random.default_rng(2)
    shares_P = rng.uniform(-6, 0, 50_000)
    came_P = rng.random(50_000) < probabilities(shares_P, 0.7, -0.5)
    slope, intercept = fit(Pairs(shares_P, came_P))
    assert (slope, intercept) == (pytest.approx(0.7, abs=0.06), pytest.approx(-0.5, abs=0.15))
    fresh_P = rng.random(50_000) < probabilities(shares_P, 0.7, -0.5)
    assert expected_calibration_error(probabilities(shares_P, slope, intercept), fresh_P) < 0.01


def test_fit_of_pairs_that_a_line_separates_is_finite() -> None:
    slope, intercept = fit(Pairs(np.array([-3.0, -2.0, -1.0]), np.array([False, False, True])))
    assert math.isfinite(slope)
    assert math.isfinite(intercept)


def test_pairs_are_of_what_is_shown_with_the_shares_of_the_model() -> None:
    """Scores log 8, log 4, log 2, …; the discount hides the favourite's lead, so the first ten begin with item 2."""
    scores_V = np.log(2.0 ** np.arange(30, 0, -1)).astype(np.float32)
    discount_V = np.zeros(30, np.float32)
    discount_V[1] = -100.0
    cases = cases_of([[29]], [1])

    def scorer(histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        return np.repeat(scores_V[None], len(histories), axis=0)

    plain, shown = (
        pairs_of(scorer, cases, num_items=29, exclude_seen=True, discount_V=each) for each in (None, discount_V)
    )
    np.testing.assert_allclose(np.exp(plain.log_shares_P[:3]), [1 / 2, 1 / 4, 1 / 8], rtol=1e-4)
    np.testing.assert_allclose(np.exp(shown.log_shares_P[:3]), [1 / 4, 1 / 8, 1 / 16], rtol=1e-4)
    assert (plain.came_P.sum(), shown.came_P.sum()) == (1, 0)


def test_without_cases_the_shares_are_the_probabilities() -> None:
    """Odds of a share: what a slope of 1 and no intercept say."""
    none = Cases(cases_of([[1]], [1]).histories.prefixes(np.empty(0, np.int64), np.empty(0, np.int64)),
                 np.empty(0, np.int32), np.empty(0, np.int64))  # fmt: skip
    pairs = pairs_of(lambda _: np.empty((0, 3), np.float32), none, num_items=2, exclude_seen=True)
    assert fit(pairs) == (1.0, 0.0)
