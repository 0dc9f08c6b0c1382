"""Makes the small artifact that the service's tests load: `python -m tests.make_tiny_artifact`.

Thirty invented films on a ring that users walk with few detours (`training/synthetic.py`): after film n of the ring
comes film n + 1, so a test can tell the right recommendation by eye: `successors()` gives it. Commit the folder that
it prints, and remove the old one.
"""

import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.training.calibration import calibrate
from scripts.training.config import TrainingConfig
from scripts.training.evaluation import evaluate
from scripts.training.export import export_run
from scripts.training.run_folder import EVALUATION_FILE, RunConfig, load_run, write_run_config
from scripts.training.scorer import ModelScorer
from scripts.training.synthetic import markov_sequences, write_sequences
from scripts.training.trainer import train

ARTIFACTS = Path(__file__).parent / "fixtures" / "tiny_artifact"
NUM_ITEMS = 30
PREDICTABILITY = 0.9
CONFIG = TrainingConfig(
    max_length=20,
    dim=16,
    num_blocks=1,
    num_heads=2,
    dropout=0.0,
    learning_rate=5e-3,
    batch_tokens=512,
    attributes="embedding",
    max_epochs=12,
    warmup_steps=20,
    device="cpu",
)
PLACES = ("Harbour", "Orchard", "Lighthouse", "Station", "Glacier", "Museum", "Bakery", "Canyon", "Library", "Meadow")
MOODS = ("Silent", "Burning", "Last")
GENRES = ("Drama", "Comedy", "Thriller", "Romance", "Documentary")


class Silent:
    def on_member(self, member: int, num_members: int) -> None: ...
    def on_batch(self, epoch: int, tokens: int, loss: float) -> None: ...

    def on_epoch(self, record: dict[str, Any], best: dict[str, Any]) -> None: ...


def films() -> list[dict[str, Any]]:
    return [
        {
            "title": f"The {MOODS[number // len(PLACES)]} {PLACES[number % len(PLACES)]}",
            "year": 1970 + number,
            "genres": [GENRES[number % 5]] + ([GENRES[(number + 2) % 5]] if number % 3 == 0 else []),
        }
        for number in range(NUM_ITEMS)
    ]


def make(artifacts: Path) -> Path:
    """Train, evaluate and export; returns the version folder."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        sequences = markov_sequences(
            num_users=400, num_items=NUM_ITEMS, length=14, predictability=PREDICTABILITY, seed=7
        )
        data = write_sequences(Path(folder) / "data", sequences, name="tiny", num_items=NUM_ITEMS, attributes=films())
        run.mkdir()
        write_run_config(run, RunConfig(CONFIG, str(data.folder), data.fingerprint, data.num_items, {}))
        train(data, CONFIG, run, observer=Silent())
        loaded = load_run(run)
        result = evaluate(
            loaded.scorer,
            data.cases("test"),
            num_items=data.num_items,
            item_counts=data.train.item_counts(data.num_items),
            exclude_seen=data.exclude_seen,
        )
        report: dict[str, Any] = {"protocol": result.protocol, "model": result.metrics, "baselines": {}}
        calibration = calibrate(ModelScorer(loaded.model), data, exclude_seen=data.exclude_seen)
        report["calibration"] = calibration.as_json()
        (run / EVALUATION_FILE).write_text(json.dumps(report))
        return export_run(loaded, artifacts, now=datetime(2026, 1, 1, tzinfo=UTC))


def main() -> None:
    shutil.rmtree(ARTIFACTS, ignore_errors=True)
    version = make(ARTIFACTS)
    (ARTIFACTS / "CURRENT").write_text(f"{version.name}\n")
    print(version)


if __name__ == "__main__":
    main()
