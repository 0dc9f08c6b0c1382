"""How much hit rate is traded for the long tail, and how popularity is taken off the scores."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.artifacts.registry import load_model
from app.ranking.ranker import ItemSequence
from app.ranking.rerank import popularity_discount
from scripts.training.export import export_run
from scripts.training.interactions import PreparedData
from scripts.training.long_tail import STRENGTHS, choose_discount
from scripts.training.run_folder import RunConfig, load_run, start_run
from scripts.training.scorer import ModelScorer
from scripts.training.synthetic import write_sequences
from scripts.training.trainer import train
from tests.accuracy.conftest import SMALL, SilentObserver

NUM_ITEMS = 60


def test_discount_is_the_logarithm_of_an_items_events() -> None:
    found = popularity_discount(np.array([0, 0, 1, 7]), 0.5)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([0, 0, -0.5 * math.log(2), -0.5 * math.log(8)])


class ByPopularity:
    """Scores the logarithm of an item's events, and one more for the item after the newest on the ring."""

    def __init__(self, item_counts: NDArray[np.int64]) -> None:
        self.scores_V = np.log1p(item_counts).astype(np.float32)

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        scores_BV = np.tile(self.scores_V, (len(histories), 1))
        for row, history in enumerate(histories):
            scores_BV[row, history.items[-1] % NUM_ITEMS + 1] += 1
        return scores_BV


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    """Item i is drawn in proportion to 1/i, and half the time the item after the one before."""
    rng = np.random.default_rng(1)
    share = 1 / np.arange(1, NUM_ITEMS + 1)
    sequences = []
    for _ in range(300):
        items = [int(rng.choice(NUM_ITEMS, p=share / share.sum())) + 1]
        for _ in range(9):
            drawn = int(rng.choice(NUM_ITEMS, p=share / share.sum())) + 1
            items.append(items[-1] % NUM_ITEMS + 1 if rng.random() < 0.5 else drawn)
        sequences.append(np.array(items, dtype=np.int32))
    return write_sequences(tmp_path / "data", sequences, name="skewed", num_items=NUM_ITEMS)


def hit_rate(data: PreparedData, strength: float) -> float:
    """At 10, written out: the target is among the ten best, seen items eligible, an equal score ahead of it."""
    counts = data.train.item_counts(NUM_ITEMS)
    cases = data.cases("validation")
    hits = 0
    for case, target in enumerate(cases.targets.tolist()):
        newest = cases.histories.item_sequence(case).items[-1]
        scores = [
            (1 - strength) * math.log1p(counts[item]) + (item == newest % NUM_ITEMS + 1)
            for item in range(1, NUM_ITEMS + 1)
        ]
        hits += sum(score >= scores[target - 1] - 1e-5 for score in scores) <= 10
    return hits / len(cases.targets)


def test_run_ranks_and_exports_with_the_discount_that_was_chosen(data: PreparedData, tmp_path: Path) -> None:
    config = SMALL.with_values({"max_epochs": 2, "tail_budget": 0.1})
    folder = tmp_path / "run"
    start_run(folder, RunConfig(config, str(data.folder), data.fingerprint, NUM_ITEMS, {}), resume=False)
    outcome = train(data, config, folder, observer=SilentObserver())
    strength = outcome.trades[-1].strength
    assert strength > 0
    run = load_run(folder)
    history = data.cases("test").histories.item_sequence(0)
    expected = ModelScorer(run.model)([history])[0] - strength * np.log1p(data.train.item_counts(NUM_ITEMS))
    np.testing.assert_allclose(run.scorer([history])[0], expected, rtol=1e-5)
    parts = run.parts()
    assert "without_discount" in parts
    np.testing.assert_allclose(parts["without_discount"]([history])[0], ModelScorer(run.model)([history])[0])
    live = load_model(export_run(run, tmp_path / "artifacts"), history_cap=200)
    assert live.discount is not None
    np.testing.assert_allclose(live.discount, -strength * np.log1p(data.train.item_counts(NUM_ITEMS)), rtol=1e-6)


@pytest.mark.parametrize("budget", [0.02, 0.1])
def test_largest_discount_within_the_budget_is_chosen(budget: float, data: PreparedData) -> None:
    scorer = ByPopularity(data.train.item_counts(NUM_ITEMS))
    trades = choose_discount(scorer, data, data.cases("validation"), budget)
    assert [trade.strength for trade in trades] == list(STRENGTHS[: len(trades)])
    assert 1 < len(trades) < len(STRENGTHS)
    first, last = hit_rate(data, 0), hit_rate(data, trades[-1].strength)
    assert (trades[0].hit_rate, trades[-1].hit_rate) == pytest.approx((first, last), abs=0.004)
    assert trades[-1].hit_rate >= (1 - budget) * trades[0].hit_rate
    assert hit_rate(data, STRENGTHS[len(trades)]) < (1 - budget) * first + 0.004
    assert trades[-1].coverage > trades[0].coverage
    assert trades[-1].tail_hit_rate > trades[0].tail_hit_rate
