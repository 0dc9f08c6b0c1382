"""`python -m scripts.benchmark peer-accuracy`: the epoch that validation likes best is tested by our metric."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks import training_speed
from scripts.benchmarks.experiments import Evaluated, set_folder
from scripts.benchmarks.peer_accuracy import VARIANTS, PeerAccuracy, measure_variant, peer_table
from scripts.training.interactions import PreparedData
from scripts.training.run_folder import RunError
from scripts.training.synthetic import markov_sequences, write_sequences

# Stands in for RecTools. Epoch 1 ranks every target last. Epoch 2 ranks those of validation first and those of test
# last, epoch 3 the other way round: who chooses by test would take epoch 3.
PEER = """
import json, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
settings = json.loads((folder / "settings.json").read_text())
targets = np.load({targets!r})
half = len(targets) // 2
signs = {{1: (-1, -1), 2: (1, -1), 3: (-1, 1)}}
for epoch in range(1, settings["max_epochs"] + 1):
    sign = np.repeat(signs[epoch], [half, len(targets) - half])[:, None]
    items = np.eye(settings["num_items"] + 1, dtype=np.float32)
    states = (sign * items[targets]).astype(np.float32)
    np.savez(folder / f"epoch-{{epoch}}.npz", states=states, item_vectors=items, is_known=np.ones(len(items), bool))
    with (folder / "seconds.jsonl").open("a") as file:
        file.write(json.dumps({{"epoch": epoch, "seconds": 10.0 * epoch}}) + "\\n")
"""


@pytest.fixture
def walk(tmp_path: Path) -> PreparedData:
    # Nothing is predictable, so no two histories are alike: the stand-in gives each its own target.
    sequences = markov_sequences(num_users=40, num_items=30, length=9, predictability=0, seed=2)
    return write_sequences(tmp_path / "walk", sequences, name="walk", num_items=30)


def test_validation_chooses_the_epoch_that_is_tested(
    tmp_path: Path, walk: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = tmp_path / "targets.npy"
    np.save(targets, np.concatenate([walk.cases("validation").targets, walk.cases("test").targets]))
    (tmp_path / "peer.py").write_text(PEER.format(targets=str(targets)))
    monkeypatch.setattr(training_speed, "PEER_SCRIPT", tmp_path / "peer.py")

    def measured(max_epochs: int = 3) -> PeerAccuracy:
        python, output = Path(sys.executable), tmp_path / "out"
        return measure_variant(walk, "esasrec", output, python=python, seed=1, max_epochs=max_epochs, accelerator="cpu")

    found = measured()
    assert (found.epoch, found.num_epochs, found.epoch_seconds) == (2, 3, 20.0)
    assert found.evaluated["validation"].metrics["ndcg@10"] == 1
    assert found.evaluated["test"].metrics["ndcg@10"] == 0
    folder = set_folder(walk, tmp_path / "out") / "peers" / "esasrec-1"
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["layers"], settings["accelerator"]) == ("ligr", "cpu")
    assert (settings["model"]["loss"], settings["model"]["n_negatives"]) == ("sampled_softmax", 256)
    (tmp_path / "peer.py").write_text("raise SystemExit(1)")
    assert measured().epoch == 2, "what is kept is not trained again"
    assert not list(folder.glob("epoch-*.npz"))
    with pytest.raises(RunError, match="holds 3 epochs on cpu, not 60 on cpu; delete it"):
        measured(max_epochs=60)


def test_the_lead_is_paired_by_case(walk: PreparedData) -> None:
    """Ours finds three targets of four in the first place, theirs one of the same and one in the third, 1 / log2(4) =
    1/2: 3/4 − 3/8."""

    def evaluated(*ranks: int) -> Evaluated:
        metrics = {"hit_rate@10": 0.75, "ndcg@10": 0.5, "coverage@10": 0.5}
        return Evaluated(metrics, {}, np.array(ranks))

    theirs = evaluated(1, 3, 50, 50)
    variant = PeerAccuracy(VARIANTS["sasrec"], {"validation": theirs, "test": theirs}, 2, 3, 1.5, "a machine", "cpu")
    table = peer_table(walk, [variant], evaluated(1, 1, 1, 50))
    assert "| SASRec, full cross-entropy | .5000 | .7500 | .5000 | 2 of 3 | 1.5 | +.3750 [" in table
    assert "**Segue**" not in peer_table(walk, [variant], None)
