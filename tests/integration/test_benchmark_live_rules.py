"""`python -m scripts.benchmark live-rules`: what is replayed, and that live rules find what frozen ones cannot know."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from scripts.benchmark import main
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.experiments import benchmark_data, temporal_split
from scripts.benchmarks.live_rules import replay
from scripts.training.fusion import FusedModel
from scripts.training.interactions import PreparedData
from scripts.training.model import SequenceModel
from scripts.training.model_config import ModelConfig
from scripts.training.rules import learn_rules
from tests.walk_set import settings, write_walk_set


def test_the_command_reports_both_arms_over_time(tmp_path: Path) -> None:
    folders = ["--data-folder", str(write_walk_set(tmp_path, has_clock=True)), "--output", str(tmp_path / "runs")]
    assert main(["live-rules", *folders, "--page", str(tmp_path / "page.md"), "--sets", "walk", *settings()]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "| walk-temporal: fifth of the test period | cases | of new items | HR@10 frozen | HR@10 live |" in page
    assert "Live minus frozen: HR@10" in page


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    """Everybody sees four of forty items at random; after four fifths of the time everybody goes from item a0 to
    an item that nobody has seen before, one user a minute."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(400):
        start_s = 1_700_000_000 + 600 * user
        items = [f"a{item}" for item in rng.choice(40, 4, replace=False)]
        if user >= 330:
            items = [*items[:2], "a0", "new"]
        rows += [(f"u{user}", item, start_s + 60 * step) for step, item in enumerate(items)]
    (tmp_path / "sets" / "shop").mkdir(parents=True)
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame.write_parquet(tmp_path / "sets" / "shop" / "interactions.parquet")
    return benchmark_data("shop", tmp_path / "sets", tmp_path / "runs", temporal_split("shop"))


def test_live_rules_find_the_new_item_and_frozen_ones_do_not(data: PreparedData) -> None:
    attention = SequenceModel(ModelConfig(num_items=data.num_items, max_length=10, dim=8, num_blocks=1)).eval()
    rules = learn_rules(data.train, data.num_items, followers=20)
    found = replay(data, FusedModel(attention, rules, 0.9))
    assert found.is_new.mean() > 0.1
    assert not found.is_new.all()
    assert found.live[found.is_new].mean() > 0.9
    assert found.frozen[found.is_new].mean() < 0.5
    assert found.live[~found.is_new].mean() > found.frozen[~found.is_new].mean(), (
        "a0, of which nobody knew what leads to it"
    )


def test_model_without_rules_has_nothing_to_replay(data: PreparedData) -> None:
    attention = SequenceModel(ModelConfig(num_items=data.num_items, max_length=10, dim=8, num_blocks=1)).eval()
    with pytest.raises(BenchmarkError, match="gave the rules no share"):
        replay(data, FusedModel(attention, None, 0))
