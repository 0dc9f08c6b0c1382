"""`python -m scripts.benchmark cold-items`: what is held out is not learnt from, and attributes alone find it."""

from pathlib import Path

import polars as pl
import pytest
import torch

from scripts.benchmark import main
from scripts.benchmarks.cold_items import hold_out, rank_held_out
from scripts.benchmarks.experiments import benchmark_source
from scripts.training.attributes import shared_attributes
from scripts.training.fusion import FusedModel
from scripts.training.model import SequenceModel
from scripts.training.model_config import ModelConfig
from tests.walk_set import settings, write_walk_set


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """The walks, with one of three colours for each item."""
    folder = write_walk_set(tmp_path)
    items = [{"item_id": f"i{item}", "colour": ("red", "green", "blue")[item % 3]} for item in range(1, 31)]
    pl.DataFrame(items).write_parquet(folder / "walk" / "items.parquet")
    return folder


def test_the_command_writes_hit_rates_beside_popularity_and_chance(sets: Path, tmp_path: Path) -> None:
    folders = ["--data-folder", str(sets), "--output", str(tmp_path / "runs"), "--page", str(tmp_path / "page.md")]
    assert main(["cold-items", *folders, "--sets", "walk", *settings()]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "HR@10 among 3 new items | HR@50 among 3 new items | HR@10 among all 30" in page
    assert "| **ranked with all others** | 1.0000 |" in page, "of three items each is among the first ten"
    assert "| **10% of the places, by likeness** | 1.0000 |" in page
    assert "| random | 1.0000 | 1.0000 | .3333 | 1.0000 | 10.0% |  |" in page


def test_held_out_items_are_in_no_history_and_cases_end_with_one(sets: Path, tmp_path: Path) -> None:
    cold = hold_out(benchmark_source("walk", sets, tmp_path), "walk", tmp_path / "data")
    assert (len(cold.item_ids), cold.data.num_items) == (3, 27)
    assert not set(cold.item_ids) & set(cold.data.item_ids)
    events = pl.read_parquet(sets / "walk" / "interactions.parquet").sort("user_id", "timestamp")
    last = events.group_by("user_id").last()["item_id"].to_list()
    assert len(cold.targets) == sum(item in cold.item_ids for item in last)
    assert all(1 <= item <= 27 for history in cold.histories for item in history)


def test_item_with_the_attributes_that_a_state_points_at_comes_first(sets: Path, tmp_path: Path) -> None:
    """The state of every history is the vector of green: a green item scores 1, others 0."""
    cold = hold_out(benchmark_source("walk", sets, tmp_path), "walk", tmp_path / "data")
    table = shared_attributes(cold.data.attributes)
    config = ModelConfig(num_items=27, max_length=10, dim=8, num_blocks=1, head="none", attributes="embedding")
    attention = SequenceModel(config, table).eval()
    vectors_AD = attention.attribute_vectors()
    assert vectors_AD is not None
    with torch.no_grad():
        vectors_AD.copy_(torch.eye(3, 8))  # blue, green, red
        attention.item_embedding.weight.zero_()
        attention.norm.weight.zero_()
        attention.norm.bias.copy_(vectors_AD[1])
    ranks = rank_held_out(cold, FusedModel(attention, None, 0))
    colours = [cold.attributes[place]["colour"] for place in cold.targets]
    num_green = sum(each["colour"] == "green" for each in cold.attributes)
    assert {"green"} < set(colours)
    by_attention = ranks["attention alone"]
    for colour, rank in zip(colours, by_attention.among.tolist(), strict=True):
        alike = sum(each["colour"] == colour for each in cold.attributes)
        behind = num_green if colour != "green" else 0
        others = {each["colour"] for each in cold.attributes} - {"green", colour}
        tied = sum(each["colour"] in others for each in cold.attributes) if colour != "green" else 0
        assert rank == behind + tied + alike - 1, "an item of the same score comes first"


def test_kept_places_hold_new_items_whatever_the_model_says(sets: Path, tmp_path: Path) -> None:
    """All vectors are equal: a list of ten by rank holds the first ten known items, and one place of it is kept."""
    cold = hold_out(benchmark_source("walk", sets, tmp_path), "walk", tmp_path / "data")
    table = shared_attributes(cold.data.attributes)
    attention = SequenceModel(
        ModelConfig(num_items=27, max_length=10, dim=8, num_blocks=1, attributes="embedding"), table
    ).eval()
    with torch.no_grad():
        attention.item_embedding.weight.zero_()
        vectors_AD = attention.attribute_vectors()
        assert vectors_AD is not None
        vectors_AD.fill_(1.0)
    ranks = rank_held_out(cold, FusedModel(attention, None, 0))
    assert ranks["ranked with all others"].places == 0
    assert ranks["10% of the places, by likeness"].places == pytest.approx(0.1)
    assert (ranks["10% of the places, by likeness"].among == 2).all(), "all are alike, and ties count against"
