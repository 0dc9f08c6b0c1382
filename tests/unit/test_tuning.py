"""The search: what it may try, what it keeps, and that it goes on as if nobody had stopped it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="the extra `tune` is not installed")

from scripts.training import tuning as tuning_module
from scripts.training.config import TrainingConfig, config_toml, read_config
from scripts.training.interactions import PreparedData
from scripts.training.recipe import DataStatistics, choose_recipe
from scripts.training.run_folder import BEST_FILE, RunError, read_history, read_run_config, write_history
from scripts.training.synthetic import markov_sequences, write_sequences
from scripts.training.trainer import Observer, Outcome
from scripts.training.tuning import Tuning, TuningError, num_judging_cases, search_space, tune
from scripts.tune import main
from tests.accuracy.conftest import SMALL, SilentObserver

EPOCHS = 6


class Watcher:
    def __init__(self) -> None:
        self.trials: list[tuple[int, TrainingConfig]] = []
        self.endings: dict[int, str] = {}
        self.changes: list[Mapping[str, tuple[Any, Any]]] = []
        """From the automatic recipe to what was best when a trial began."""

    def on_trial(self, number: int, config: TrainingConfig, standing: Tuning) -> Observer:
        self.trials.append((number, config))
        self.changes.append(standing.changes)
        return SilentObserver()

    def on_trial_end(self, number: int, outcome: str, standing: Tuning) -> None:
        self.endings[number] = outcome


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    sequences = markov_sequences(num_users=40, num_items=20, length=8, predictability=0.9, seed=1)
    return write_sequences(tmp_path / "data", sequences, name="walk", num_items=20)


def value_of(config: TrainingConfig, epoch: int) -> float:
    """A landscape whose best dropout is 0.25, climbed in equal steps."""
    return (1 - abs(config.dropout - 0.25)) * epoch / EPOCHS


@pytest.fixture
def landscape(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Training replaced by `value_of`; `killed_after` ends the process's attempt after so many epochs in all."""
    control: dict[str, Any] = {"epochs": 0, "killed_after": None, "broken": False}

    def train(data: PreparedData, config: TrainingConfig, run: Path, *, observer: Observer) -> Outcome:
        if control["broken"]:
            raise RunError("the loss is nan at step 7")
        history = read_history(run)
        for epoch in range(len(history) + 1, EPOCHS + 1):
            control["epochs"] += 1
            history.append({"epoch": epoch, "ndcg@10": value_of(config, epoch)})
            (run / BEST_FILE).touch()
            write_history(run, history)
            if control["epochs"] == control["killed_after"]:
                raise KeyboardInterrupt
            observer.on_epoch(history[-1], history[-1])
        return Outcome(best=history[-1], num_epochs=len(history), best_epochs=[history[-1]["epoch"]])

    monkeypatch.setattr(tuning_module, "train", train)
    return control


def test_the_automatic_choice_is_in_every_range() -> None:
    for statistics in (
        DataStatistics(num_items=1682, num_steps=97_000, long_history=242, events_per_item=58),
        DataStatistics(num_items=1_000_000, num_steps=40_000_000, long_history=2, events_per_item=3),
        DataStatistics(num_items=1, num_steps=0, long_history=2, events_per_item=0),
    ):
        automatic = choose_recipe(statistics)[0]
        for name, values in search_space(automatic).items():
            assert values._contains(values.to_internal_repr(getattr(automatic, name))), name


def test_a_large_catalogue_is_never_scored_whole_nor_by_a_loss_for_other_negatives() -> None:
    """gBCE is calibrated for uniform ones, and the recipe's are drawn by popularity here."""
    automatic = choose_recipe(DataStatistics(1_000_000, 40_000_000, 50, 40))[0]
    assert search_space(automatic)["loss"].choices == ("sampled_softmax",)
    uniform = automatic.with_values({"negatives": "uniform", "logq_correction": False})
    assert search_space(uniform)["loss"].choices == ("sampled_softmax", "gbce")


def test_the_first_trial_is_the_automatic_recipe_and_the_best_one_is_kept(
    tmp_path: Path, data: PreparedData, landscape: dict[str, Any]
) -> None:
    automatic, watcher = SMALL.with_values({"dropout": 0.4}), Watcher()
    found = tune(data, automatic, tmp_path / "tuned", max_trials=9, observer=watcher)
    assert watcher.trials[0] == (0, automatic)
    assert found.automatic == pytest.approx(0.85)  # 1 − |0.4 − 0.25|
    values = [value_of(config, EPOCHS) for _, config in watcher.trials]
    assert found.best == pytest.approx(max(values))
    assert found.best > found.automatic
    kept = read_config(tmp_path / "tuned" / "config.toml")
    assert kept == watcher.trials[values.index(max(values))][1]
    assert {key: after for key, (_, after) in found.changes.items()}["dropout"] == kept.dropout
    weights = list((tmp_path / "tuned" / "trials").glob(f"*/{BEST_FILE}"))
    assert found.best_run is not None
    assert weights == [found.best_run / BEST_FILE]
    assert read_run_config(found.best_run).training == kept
    assert found.num_ended == 9


def test_every_trial_changes_a_few_values_of_the_best_so_far(
    tmp_path: Path, data: PreparedData, landscape: dict[str, Any]
) -> None:
    watcher = Watcher()
    tune(data, SMALL, tmp_path / "tuned", max_trials=20, observer=watcher)
    assert len({str(changes) for changes in watcher.changes}) > 2, "the best changes, and the others follow"
    for (_, config), changes in zip(watcher.trials[1:], watcher.changes[1:], strict=True):
        best = SMALL.with_values({name: after for name, (_, after) in changes.items()})
        drawn = {name for name in search_space(SMALL) if getattr(config, name) != getattr(best, name)}
        assert len(drawn - {"num_negatives"}) <= 3


def test_trials_below_the_median_stop_early(tmp_path: Path, data: PreparedData, landscape: dict[str, Any]) -> None:
    """Curves here never cross: whoever ends below the median of the complete ones is below it at every epoch."""
    watcher = Watcher()
    found = tune(data, SMALL, tmp_path / "tuned", max_trials=9, observer=watcher)
    assert found.num_pruned > 0
    assert landscape["epochs"] == 9 * EPOCHS - sum(
        EPOCHS - int(ending.removeprefix("stopped at epoch "))
        for ending in watcher.endings.values()
        if "stop" in ending
    )
    assert 0 not in [number for number, ending in watcher.endings.items() if "stop" in ending]


def test_an_interrupted_search_goes_on_with_the_trial_that_was_cut_off(
    tmp_path: Path, data: PreparedData, landscape: dict[str, Any]
) -> None:
    landscape["killed_after"] = EPOCHS + 2  # in the second epoch of trial 1
    with pytest.raises(KeyboardInterrupt):
        tune(data, SMALL, tmp_path / "tuned", max_trials=3, observer=Watcher())
    landscape["killed_after"] = None
    watcher = Watcher()
    found = tune(data, SMALL, tmp_path / "tuned", max_trials=3, observer=watcher)
    assert [number for number, _ in watcher.trials] == [1, 2]
    assert landscape["epochs"] == 3 * EPOCHS, "no epoch twice"
    assert watcher.trials[0][1] == read_run_config(tmp_path / "tuned/trials/0001").training
    assert found.num_ended == 3
    assert tune(data, SMALL, tmp_path / "tuned", max_trials=3, observer=watcher) == found
    assert landscape["epochs"] == 3 * EPOCHS


def test_time_that_is_over_ends_the_search_between_two_epochs(
    tmp_path: Path, data: PreparedData, landscape: dict[str, Any]
) -> None:
    found = tune(data, SMALL, tmp_path / "tuned", max_trials=3, max_seconds=1e-3, observer=Watcher())
    assert found.best is None
    assert landscape["epochs"] <= 1


def test_other_data_or_another_recipe_is_refused(tmp_path: Path, data: PreparedData, landscape: dict[str, Any]) -> None:
    tune(data, SMALL, tmp_path / "tuned", max_trials=1, observer=Watcher())
    with pytest.raises(TuningError, match="holds a tuning with another automatic recipe; choose another output"):
        tune(data, SMALL.with_values({"dim": 64}), tmp_path / "tuned", max_trials=2, observer=Watcher())


def test_a_trial_that_diverges_is_one_failure_and_the_automatic_recipe_must_not(
    tmp_path: Path, data: PreparedData, landscape: dict[str, Any]
) -> None:
    tune(data, SMALL, tmp_path / "tuned", max_trials=1, observer=Watcher())
    landscape["broken"] = True
    found = tune(data, SMALL, tmp_path / "tuned", max_trials=2, observer=Watcher())
    assert (found.num_failed, found.best) == (1, found.automatic)
    with pytest.raises(TuningError, match="automatic recipe cannot be trained: the loss is nan"):
        tune(data, SMALL, tmp_path / "other", max_trials=2, observer=Watcher())


def test_values_that_exclude_one_another_are_one_failed_trial(
    tmp_path: Path, data: PreparedData, landscape: dict[str, Any]
) -> None:
    """Down-weighting implausible events does not go with gBCE, which the search tries as well."""
    watcher = Watcher()
    found = tune(data, SMALL.with_values({"denoise": 0.1}), tmp_path / "tuned", max_trials=9, observer=watcher)
    refused = [ending for ending in watcher.endings.values() if "denoise belongs to" in ending]
    assert found.num_ended == 9
    assert len(refused) == found.num_failed > 0
    assert all(config.loss != "gbce" for _, config in watcher.trials)


def test_a_written_experiment_is_read_as_it_was(tmp_path: Path) -> None:
    config = TrainingConfig(learning_rate=1e-5, loss="gbce", seed=3)
    (tmp_path / "config.toml").write_text(config_toml(config))
    assert read_config(tmp_path / "config.toml") == config


def test_the_command_trains_and_prints_the_gain(
    tmp_path: Path, data: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    """With real training; --set keeps it to seconds."""
    words = ["--data", str(data.folder), "--output", str(tmp_path / "tuned"), "--trials", "2", "--quiet"]
    settings = ["dim=8", "num_blocks=1", "max_epochs=2", "device=cpu", "num_heads=2", "max_length=10"]
    assert main([*words, *[word for setting in settings for word in ("--set", setting)]]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "2 trials ended, 0 of them stopped early, 0 failed"
    assert printed[1].startswith("automatic recipe  validation ndcg@10 0.")
    best = float(printed[2].split("ndcg@10 ")[1].split()[0])
    assert printed[-3].startswith("the gain is on the 40 cases that chose it")
    stated = float(printed[-3].split("up to ")[1].rstrip(":"))
    assert stated == pytest.approx(math.sqrt(best * (1 - best) / 40), abs=2e-4), "best is printed to four places"
    assert printed[-1] == str(tmp_path / "tuned" / "config.toml")
    read_config(tmp_path / "tuned" / "config.toml")


def test_more_cases_judge_a_trial_that_is_mixed_with_rules(data: PreparedData) -> None:
    """40 users have one each; the epochs look at ten of them."""
    few = SMALL.with_values({"validation_cases": 10})
    assert num_judging_cases(data, few.with_values({"followers": 0})) == 10
    assert num_judging_cases(data, few.with_values({"followers": 5})) == 40


def test_a_folder_without_data_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--output", str(tmp_path / "tuned"), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith(f"tune: {tmp_path} is not a data folder")
