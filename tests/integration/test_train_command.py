"""`python -m scripts.train`: what it prints and keeps of its choice."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.train import main
from scripts.training.recipe import count
from scripts.training.run_folder import load_run
from scripts.training.synthetic import markov_sequences, write_sequences
from tests.walk_set import settings


def test_what_was_counted_and_why_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = markov_sequences(num_users=60, num_items=30, length=9, predictability=0.9, seed=1)
    data = write_sequences(tmp_path / "data", sequences, name="markov", num_items=30)
    words = ["--data", str(data.folder), "--output", str(tmp_path / "run"), "--tracker", "none", *settings()]
    assert main(words) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    table = {line[0]: line[1] for line in lines if len(line) == 2}
    assert table["data"] == str(count(data))
    assert table["dim"].split() == ["16", "--set"]
    assert table["loss"].split(maxsplit=1) == ["cross_entropy", "30 items: all of them against each target"]
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["statistics"]["num_steps"] == 60 * 6
    assert kept["reasons"]["dim"] == "--set"
    assert kept["reasons"]["loss"] == "30 items: all of them against each target"


def test_reranker_is_learnt_kept_by_validation_and_taken_over_by_refit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Items 21…30 come last, in any order: what comes late comes next, which one epoch of attention does not know."""
    sequences = markov_sequences(num_users=300, num_items=20, length=8, predictability=0.0, seed=1)
    rng = np.random.default_rng(1)
    for sequence in sequences:
        sequence[-4:] = 21 + rng.permutation(10)[:4]
    data = write_sequences(tmp_path / "data", sequences, name="late", num_items=30)
    words = ["--data", str(data.folder), "--output", str(tmp_path / "run"), "--tracker", "none", "--refit"]
    words += [*settings(), "--set", "rerank=true", "--set", "followers=5", "--set", "max_epochs=1"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "re-ranked: " in printed
    assert printed.split("re-ranked: ")[1].split("\n")[0].endswith("kept")
    measured, refitted = load_run(tmp_path / "run").model, load_run(tmp_path / "run", refit=True).model
    assert measured.reranker is not None
    assert refitted.reranker is not None
    for name, weights in measured.reranker.state_dict().items():
        assert torch.equal(weights, refitted.reranker.state_dict()[name])
    events = measured.statistics_VS[:, 0].expm1().round().sum(), refitted.statistics_VS[:, 0].expm1().round().sum()
    assert events == (300 * 6, 300 * 8)
    assert list(measured.parts()) == ["attention_alone", "rules_alone", "without_reranker"]


@pytest.mark.parametrize("followers", [5, 0], ids=["too few events to hold some out", "no rules to reorder"])
def test_reranker_without_anything_to_learn_from_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], followers: int
) -> None:
    """30 events to learn from: 3 % of them are none."""
    sequences = markov_sequences(num_users=10, num_items=8, length=5, predictability=0.9, seed=1)
    data = write_sequences(tmp_path / "data", sequences, name="few", num_items=8)
    words = ["--data", str(data.folder), "--output", str(tmp_path / "run"), "--tracker", "none", *settings()]
    assert main([*words, "--set", "rerank=true", "--set", f"followers={followers}"]) == 0
    assert "re-ranked" not in capsys.readouterr().out
    assert load_run(tmp_path / "run").model.reranker is None
