"""A training that was killed and resumed ends exactly where one that nobody disturbed ends."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.training.config import TrainingConfig
from scripts.training.run_folder import BEST_FILE, CHECKPOINT_FILE, RunConfig, RunError, read_history, start_run
from scripts.training.synthetic import markov_sequences, write_sequences

SETTINGS = ["max_length=10", "dim=16", "num_blocks=1", "loss=sampled_softmax", "num_negatives=16", "batch_tokens=128"]
SETTINGS += ["max_epochs=8", "patience=8", "device=cpu", "dropout=0.2", "accumulation=2"]
DEADLINE_SECONDS = 60.0


def command(data: Path, run: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "scripts.train", "--data", str(data), "--output", str(run), *options]


def settings() -> list[str]:
    return [word for setting in SETTINGS for word in ("--set", setting)]


def without_seconds(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in read_history(run)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    sequences = markov_sequences(num_users=300, num_items=40, length=12, predictability=0.7, seed=5)
    return write_sequences(tmp_path / "data", sequences, name="walk", num_items=40).folder


def test_killed_and_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, data: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(
        command(data, whole, *settings(), "--refit"), check=True, capture_output=True, timeout=DEADLINE_SECONDS
    )

    process = subprocess.Popen(command(data, killed, *settings()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(read_history(killed)) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "the training ended before it could be killed"
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(read_history(killed)) < 8

    resumed = command(data, killed, "--resume", "--refit")
    subprocess.run(resumed, check=True, capture_output=True, timeout=DEADLINE_SECONDS)

    assert without_seconds(killed) == without_seconds(whole)
    for name in (BEST_FILE, CHECKPOINT_FILE, "refit/weights.pt"):
        assert_same(torch.load(whole / name, weights_only=True), torch.load(killed / name, weights_only=True), name)


def assert_same(first: object, second: object, where: str) -> None:
    """Bit for bit."""
    if isinstance(first, dict) and isinstance(second, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where} {key}")
    elif isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        assert len(first) == len(second), where
        for number, (left, right) in enumerate(zip(first, second, strict=True)):
            assert_same(left, right, f"{where} {number}")
    else:
        assert first == second, where


def test_run_folder_with_a_training_is_not_trained_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = RunConfig(TrainingConfig(), "data/x", "0" * 64, 5, {})
    start_run(run, config, resume=False)
    (run / CHECKPOINT_FILE).touch()
    with pytest.raises(RunError, match="holds a training already; go on with --resume"):
        start_run(run, config, resume=False)
    with pytest.raises(RunError, match="was begun on data with fingerprint 000000000000…, not 111111111111…"):
        start_run(run, replace(config, data_fingerprint="1" * 64), resume=True)
