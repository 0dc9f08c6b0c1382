"""`python -m scripts.train`: what it prints and keeps of its choice."""

import json
from pathlib import Path

import pytest

from scripts.train import main
from scripts.training.recipe import count
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
