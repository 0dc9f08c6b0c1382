"""The recipe follows the data, and says so."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.benchmarks.recipes import reasons_sections
from scripts.training.config import ConfigError, TrainingConfig, parse_assignments, read_config
from scripts.training.recipe import DataStatistics, choose_recipe, count
from scripts.training.synthetic import write_sequences

CONFIGS = Path(__file__).parents[2] / "scripts" / "configs"
MOVIES = DataStatistics(num_items=1682, num_steps=97_000, long_history=242, events_per_item=58)
BEAUTY = DataStatistics(num_items=12_101, num_steps=131_000, long_history=14, events_per_item=13)
GROCERIES = DataStatistics(num_items=68_000, num_steps=1_400_000, long_history=1300, events_per_item=21)

DENSE = DataStatistics(num_items=3416, num_steps=980_000, long_history=400, events_per_item=290)
HUGE = dataclasses.replace(GROCERIES, num_items=1_000_000)


def test_longer_histories_get_a_longer_model() -> None:
    assert choose_recipe(BEAUTY)[0].max_length == 20
    assert choose_recipe(MOVIES)[0].max_length == 50, "97,000 steps teach no more positions"
    assert choose_recipe(GROCERIES)[0].max_length == 200


def test_models_of_many_events_know_how_far_apart_they_are() -> None:
    short = dataclasses.replace(MOVIES, num_steps=80_000)
    assert choose_recipe(short)[0].max_length == 40
    for statistics, many in ((BEAUTY, False), (short, True), (MOVIES, True), (GROCERIES, True)):
        config = choose_recipe(statistics)[0]
        assert (config.position_bias, config.attention_dropout > 0) == (many, many)


def test_large_catalogues_are_sampled() -> None:
    assert choose_recipe(BEAUTY)[0].loss == "cross_entropy"
    config = choose_recipe(GROCERIES)[0]
    assert (config.loss, config.negatives, config.logq_correction) == ("sampled_softmax", "popularity", True)


def test_rare_items_get_more_dropout_and_much_data_fewer_epochs() -> None:
    assert choose_recipe(BEAUTY)[0].dropout > choose_recipe(DENSE)[0].dropout
    assert choose_recipe(GROCERIES)[0].max_epochs < choose_recipe(MOVIES)[0].max_epochs


def test_rare_items_get_two_models_and_large_catalogues_no_reranker() -> None:
    assert [choose_recipe(each)[0].members for each in (BEAUTY, MOVIES, GROCERIES)] == [2, 1, 1]
    assert [choose_recipe(each)[0].rerank for each in (BEAUTY, MOVIES, GROCERIES, HUGE)] == [True, True, True, False]


def test_attributes_are_used_where_items_share_some() -> None:
    with_genres = dataclasses.replace(MOVIES, num_attribute_values=19)
    assert choose_recipe(MOVIES)[0].attributes == "none"
    assert choose_recipe(with_genres)[0].attributes == "embedding"
    assert "19 values" in choose_recipe(with_genres)[1]["attributes"]


def test_each_reason_belongs_to_a_value() -> None:
    config, reasons = choose_recipe(MOVIES)
    assert reasons.keys() <= vars(config).keys()
    assert "242 events" in reasons["max_length"]


@pytest.mark.parametrize("extras", [{}, {"has_clock": True, "num_attribute_values": 19}], ids=["bare", "clock"])
@pytest.mark.parametrize("statistics", [BEAUTY, MOVIES, DENSE, GROCERIES, HUGE])
def test_each_value_that_is_not_the_default_has_a_reason(statistics: DataStatistics, extras: dict[str, Any]) -> None:
    config, reasons = choose_recipe(dataclasses.replace(statistics, **extras))
    defaults = vars(TrainingConfig())
    assert {key for key, value in vars(config).items() if value != defaults[key]} <= reasons.keys()
    assert all(reasons.values())


def test_statistics_are_counted_over_the_training_part(tmp_path: Path) -> None:
    """Users of 6, 4 and 2 events leave 4, 2 and 2 for training: 3 + 1 + 1 steps, 8 events over 10 items, of which one
    repeats item 3; the held-out 9 9 repeats nothing here."""
    sequences = [np.array(items, np.int32) for items in ([3, 4, 3, 5, 9, 9], [1, 2, 3, 4], [1, 2])]
    statistics = count(write_sequences(tmp_path, sequences, name="x", num_items=10))
    assert statistics == DataStatistics(
        num_items=10,
        num_steps=5,
        long_history=3,
        events_per_item=0.8,
        median_history=2,
        share_of_repeats=0.125,
        has_clock=False,
        num_attribute_values=0,
    )
    assert str(statistics) == (
        "10 items of 0.8 events each, histories of 2 events (median) and 3 (nine of ten), 12.5% repeats, times are an "
        "order without a clock, 0 attribute values that several items share"
    )


def test_the_page_says_once_what_sets_have_alike() -> None:
    page = reasons_sections(["beauty", "groceries"], [BEAUTY, GROCERIES])
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["All of these sets", "beauty", "groceries"]
    alike, beauty, groceries = page.split("\n\n## ")
    assert "`learning_rate` 0.003" in alike
    assert "`learning_rate`" not in beauty + groceries
    assert "`patience` 5: " in beauty
    assert "`patience` 10: of 21 epochs at most" in groceries
    assert "`dropout` 0.5: 13.0 events" in beauty
    assert "`dropout` 0.5: 21.0 events" in groceries, "the same value for another reason"
    assert "`num_negatives` 1,024: shared by all of a batch" in groceries
    assert reasons_sections(["beauty"], [BEAUTY]).startswith("## beauty\n\n- `max_length` 20")


def test_nothing_to_learn_from_still_gives_a_recipe() -> None:
    choose_recipe(DataStatistics(num_items=1, num_steps=0, long_history=2, events_per_item=0))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_committed_experiments_are_valid(path: Path) -> None:
    read_config(path)


def test_unknown_key_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("lerning_rate = 0.1\n")
    with pytest.raises(ConfigError, match=r"x\.toml: unknown key lerning_rate; known are max_length, .*learning_rate"):
        read_config(path)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig().with_values({"temporal": "lstm", "dim": "large", "dropout": 1.5, "max_epochs": 0})
    assert str(caught.value) == (
        "dim must be a whole number, found 'large'; temporal must be one of none, conv, gru, found 'lstm'; "
        "max_epochs must be at least 1, found 0; dropout must be in [0, 1), found 1.5"
    )


def test_heads_that_do_not_divide_the_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match="dim must be a multiple of num_heads, found 10 and 4"):
        TrainingConfig(dim=10, num_heads=4)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"loss": "gbce", "denoise": 0.1}, "denoise belongs to .*, not to gbce"),
        ({"logq_correction": True}, "logq_correction belongs to sampled_softmax, not to cross_entropy"),
        ({"kernel_sizes": [3, 0]}, r"kernel_sizes must be a list of whole numbers of at least 1, found \(3, 0\)"),
        ({"kernel_sizes": []}, "kernel_sizes must be a list"),
        ({"rerank": "no"}, "rerank must be true or false, found 'no'"),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        TrainingConfig().with_values(values)


def test_lists_are_read_from_assignments_and_files(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("kernel_sizes = [3, 7]\n")
    assert read_config(path).kernel_sizes == (3, 7)
    assert TrainingConfig().with_values(parse_assignments(["kernel_sizes=[3, 7]"])).kernel_sizes == (3, 7)


def test_assignments_read_numbers_and_words() -> None:
    assert parse_assignments(["dim=32", "loss=bce", "dropout = 0.5"]) == {"dim": 32, "loss": "bce", "dropout": 0.5}
    with pytest.raises(ConfigError, match="expected key=value, found 'dim'"):
        parse_assignments(["dim"])
