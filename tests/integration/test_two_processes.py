"""torchrun: two processes train the model that one trains, and one of them writes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.training.batches import Batch
from scripts.training.distributed import Processes
from scripts.training.run_folder import CHECKPOINT_FILE, REFIT_FOLDER, read_history
from scripts.training.synthetic import markov_sequences, write_sequences

SETTINGS = ["max_length=10", "dim=16", "num_blocks=1", "batch_tokens=256", "accumulation=2", "max_epochs=3"]
SETTINGS += ["num_negatives=16", "device=cpu", "precision=float32", "learning_rate=0.01", "followers=5"]
DEADLINE_SECONDS = 300.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 301 users: the last batch of a length has an odd number of rows, or a single one."""
    sequences = markov_sequences(num_users=301, num_items=40, length=12, predictability=0.7, seed=5)
    return write_sequences(tmp_path_factory.mktemp("data"), sequences, name="walk", num_items=40).folder


def trained(data: Path, run: Path, *settings: str, num_processes: int = 1, options: tuple[str, ...] = ()) -> str:
    """Trains in `run`; returns what the command printed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    changes = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    command = [sys.executable, *(launcher if num_processes > 1 else []), "-m", "scripts.train", "--tracker", "none"]
    command += ["--data", str(data), "--output", str(run), *options, *changes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("loss", ["cross_entropy", "sampled_softmax"])
def test_two_processes_end_with_the_weights_of_one(loss: str, data: Path, tmp_path: Path) -> None:
    """Without dropout nothing is left to chance: the sum of the parts' gradients is that of the whole batch, up to the
    order of additions; gradients that are not summed end 1e-2 apart. The bias of the keys adds the same to all scores
    of a softmax: its gradient is rounding alone, and where that leads is not compared."""
    settings = (f"loss={loss}", "dropout=0.0")
    trained(data, tmp_path / "one", *settings)
    printed = trained(data, tmp_path / "two", *settings, num_processes=2, options=("--refit",))
    assert printed.count("best epoch") == 1
    assert printed.splitlines()[-1] == str(tmp_path / "two")
    one, two = (torch.load(tmp_path / name / CHECKPOINT_FILE, weights_only=True) for name in ("one", "two"))
    assert one["num_steps"] == two["num_steps"] > 10
    for name, value in one["model"].items():
        first = len(value) // 2 if name.endswith("key_value.bias") else 0
        torch.testing.assert_close(two["model"][name][first:], value[first:], atol=1e-3, rtol=0)
    of_one, of_two = read_history(tmp_path / "one"), read_history(tmp_path / "two")
    assert [record["loss"] for record in of_two] == pytest.approx([record["loss"] for record in of_one], rel=1e-4)
    assert len(read_history(tmp_path / "two" / REFIT_FOLDER)) >= 1


def test_parts_of_the_processes_make_up_the_batch() -> None:
    rows = np.arange(1, 11).reshape(5, 2)
    batch = Batch(rows, rows + 10, rows + 20, rows + 30, rows + 40)
    parts = [Processes(rank, 3).part_of(batch) for rank in range(3)]
    assert [part.items_BL.tolist() for part in parts] == [[[1, 2], [7, 8]], [[3, 4], [9, 10]], [[5, 6]]]
    assert [part.target_types_BL[0, 0] for part in parts] == [41, 43, 45]
    assert len(Processes(5, 6).part_of(batch).items_BL) == 0
