"""`python -m scripts.benchmark training-speed`: one metric judges both, times are summed up to the same accuracy."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from app.ranking.ranker import ItemSequence
from scripts.benchmark import main
from scripts.benchmarks import training_speed
from scripts.benchmarks.training_speed import Course, VectorScorer, case_rows, measure_peer, measure_segue, speed_table
from scripts.training.config import TrainingConfig, parse_assignments
from scripts.training.interactions import PreparedData
from scripts.training.synthetic import markov_sequences, write_sequences
from tests.walk_set import SETTINGS, write_walk_set

# Stands in for RecTools: its first epoch ranks every target last, its second one ranks every target first.
PEER = """
import json, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
settings = json.loads((folder / "settings.json").read_text())
targets = np.load(folder.parent / "targets.npy")
assert len(np.load(folder / "data.npz")["case_offsets"]) == len(targets) + 1
for epoch, sign in ((1, -1), (2, 1)):
    states = sign * np.eye(settings["num_items"] + 1, dtype=np.float32)[targets]
    items = np.eye(settings["num_items"] + 1, dtype=np.float32)
    np.savez(folder / f"epoch-{epoch}.npz", states=states, item_vectors=items, is_known=np.ones(len(items), bool))
    with (folder / "seconds.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": epoch, "seconds": 10.0 * epoch}) + "\\n")
"""


@pytest.fixture
def walk(tmp_path: Path) -> PreparedData:
    # Nothing is predictable, so no two histories are alike: the stand-in gives each its own target.
    sequences = markov_sequences(num_users=40, num_items=30, length=9, predictability=0, seed=2)
    return write_sequences(tmp_path / "walk", sequences, name="walk", num_items=30)


def test_the_peer_is_judged_by_our_metric(tmp_path: Path, walk: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peer.py").write_text(PEER)
    np.save(tmp_path / "targets.npy", walk.cases("validation").targets)
    monkeypatch.setattr(training_speed, "PEER_SCRIPT", tmp_path / "peer.py")
    course = measure_peer(
        walk,
        TrainingConfig(dim=16, max_length=4, loss="gbce"),
        tmp_path / "rectools",
        python=Path(sys.executable),
        changes={"lr": 0.01},
        max_epochs=2,
        max_seconds=60,
    )
    assert course.ndcg == (0.0, 1.0)
    assert course.seconds == (10.0, 20.0)
    assert course.steps == 40 * 4, "seven training events a user make six steps, of which it reads the newest four"
    model = json.loads((tmp_path / "rectools" / "settings.json").read_text())["model"]
    assert model["loss"] == "gBCE"
    assert (model["n_factors"], model["session_max_len"], model["lr"]) == (16, 4, 0.01)


def test_ours_is_trained_by_the_command(tmp_path: Path, walk: PreparedData) -> None:
    course = measure_segue(walk, TrainingConfig().with_values(parse_assignments(SETTINGS)), tmp_path / "segue")
    assert len(course.seconds) == len(course.ndcg) == 2
    assert course.steps == 40 * 6
    assert course.peak_bytes > 1e8
    assert course.cpu_seconds > 0


def test_unknown_items_score_nothing(walk: PreparedData) -> None:
    cases = walk.cases("validation")
    states = np.arange(len(cases), dtype=np.float32)[:, None]
    item_vectors = np.arange(31, dtype=np.float32)[:, None]
    scorer = VectorScorer(case_rows([cases]), states, item_vectors, np.arange(31) != 5)
    history: ItemSequence = cases.histories.item_sequence(7)
    scores = scorer([history, cases.histories.item_sequence(2)])
    assert scores[:, 4].tolist() == [7 * 4, 2 * 4]
    assert scores[:, 5].tolist() == [-np.inf, -np.inf]


def test_times_are_summed_up_to_what_both_reach() -> None:
    """Both reach .05: Segue after 2 of its epochs (2 + 3 s), the peer after 3 (10 + 10 + 10 s)."""
    segue = Course(100, (2.0, 3.0, 3.0), (0.02, 0.055, 0.06), 12.0, 500_000_000)
    peer = Course(80, (10.0, 10.0, 10.0), (0.01, 0.04, 0.05), 60.0, 1_000_000_000)
    table = speed_table("walk", segue, peer, "Peer")
    assert "| seconds to validation NDCG@10 .0500 | 5 (epoch 2) | 30 (epoch 3) | 6.0 |" in table
    assert "| seconds an epoch, median | 3.0 | 10.0 | 3.3 |" in table
    assert "| processor seconds an epoch | 4.0 | 20.0 | 5.0 |" in table
    assert "| peak memory, GB | 0.50 | 1.00 | 2.0 |" in table
    assert "| steps an epoch | 100 | 80 | 0.8 |" in table


def test_without_rectools_nothing_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--data-folder", str(write_walk_set(tmp_path)), "--output", str(tmp_path / "runs")]
    assert main(["training-speed", *folders, "--sets", "walk", "--peer-python", sys.executable]) == 1
    assert "knows no RecTools; python -m venv" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
