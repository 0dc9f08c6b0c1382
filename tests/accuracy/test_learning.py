"""The model learns what can be learnt and nothing else."""

from pathlib import Path

import pytest

from scripts.training.config import TrainingConfig
from scripts.training.evaluation import EvaluationResult, evaluate
from scripts.training.interactions import PreparedData
from scripts.training.run_folder import RunConfig, load_run, start_run
from scripts.training.synthetic import markov_sequences, write_sequences
from scripts.training.trainer import train
from tests.accuracy.conftest import SMALL, SilentObserver

NUM_ITEMS = 100


def markov_data(folder: Path, predictability: float) -> PreparedData:
    sequences = markov_sequences(num_users=500, num_items=NUM_ITEMS, length=15, predictability=predictability, seed=3)
    return write_sequences(folder, sequences, name="markov", num_items=NUM_ITEMS)


def trained_result(folder: Path, data: PreparedData, config: TrainingConfig) -> EvaluationResult:
    """Test metrics of the best epoch, by way of the run folder."""
    run = folder / "run"
    start_run(run, RunConfig(config, str(data.folder), data.fingerprint, data.num_items, {}), resume=False)
    train(data, config, run, observer=SilentObserver())
    return evaluate(
        load_run(run).scorer,
        data.cases("test"),
        num_items=data.num_items,
        item_counts=data.train.item_counts(data.num_items),
        exclude_seen=data.exclude_seen,
        cutoffs=(1, 10),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"temporal": "none", "loss": "cross_entropy"},
        {"temporal": "conv", "loss": "sampled_softmax", "num_negatives": 32},
        {"temporal": "gru", "loss": "gbce", "num_negatives": 32},
        {"head": "none", "loss": "bce", "num_negatives": 32},
        {"denoise": 0.3},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_predictable_walks_are_learnt(tmp_path: Path, changes: dict[str, object]) -> None:
    """With predictability 0.9 nobody can hit the first place more often than 0.9 + 0.1 / 100 = 0.901; over 500 users
    the standard error of that is 0.013."""
    data = markov_data(tmp_path / "data", predictability=0.9)
    result = trained_result(tmp_path, data, SMALL.with_values(changes))
    assert 0.80 <= result.metrics["hit_rate@1"] <= 0.901 + 4 * 0.013


def test_random_walks_stay_at_chance(tmp_path: Path) -> None:
    """Ten places among 100 equally likely items hit 0.1; the standard error over 500 users is √(0.1 · 0.9 / 500) =
    0.0134."""
    data = markov_data(tmp_path / "data", predictability=0.0)
    result = trained_result(tmp_path, data, SMALL.with_values({"max_epochs": 4}))
    assert result.metrics["hit_rate@10"] == pytest.approx(0.1, abs=4 * 0.0134)
