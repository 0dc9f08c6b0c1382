"""Training beside SASRec of RecTools: seconds an epoch, seconds to the same validation NDCG@10, peak memory.

Each trains in a process of its own on the same events with the same width, length, blocks, heads, dropout and kind of
loss; Segue without its rules, attributes and temporal module. Optimizer, learning rate and batches are each one's own:
the automatic recipe's, and RecTools' defaults unless --peer-set says otherwise. After every epoch both are judged by
`evaluation.evaluate` on all validation cases; time for that is not counted.

    OUTPUT/training-speed/SET/segue, rectools    what each left, replaced by the next call
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence
from scripts.benchmarks.accuracy import add_experiment_arguments
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.experiments import benchmark_data, leave_one_out
from scripts.benchmarks.pages import machine, markdown_table, share, write_section
from scripts.benchmarks.processes import ProcessCost, measured
from scripts.training.config import TrainingConfig, config_toml, parse_assignments
from scripts.training.interactions import Cases, PreparedData
from scripts.training.recipe import choose_recipe, count
from scripts.training.run_folder import WATCHED_METRIC, read_history
from scripts.training.scorer import metrics_at_10

PEER_SCRIPT = Path(__file__).parent / "peers" / "rectools_sasrec.py"
PLAIN = {
    "position_bias": False,
    "temporal": "none",
    "attributes": "none",
    "followers": 0,
    "members": 1,
    "rerank": False,
    "negatives": "uniform",
    "logq_correction": False,
}
"""What the peer has not, switched off."""
PEER_LOSSES = {"cross_entropy": "softmax", "sampled_softmax": "sampled_softmax", "gbce": "gBCE", "bce": "BCE"}
SETTINGS_FILE = "settings.json"
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""`scripts.train` sets it for itself; on shared cores it helps the peer as much."""


@dataclass(frozen=True)
class Course:
    """Of each epoch, in order: seconds of training alone, and validation NDCG@10 after it; `steps` from one item to the
    next that an epoch learns from. Of the whole process, validation or export included: processor time and peak."""

    steps: int
    seconds: tuple[float, ...]
    ndcg: tuple[float, ...]
    cpu_seconds: float
    peak_bytes: int

    @property
    def best(self) -> float:
        return max(self.ndcg)

    @property
    def median_seconds(self) -> float:
        return float(np.median(self.seconds))

    @property
    def cpu_seconds_an_epoch(self) -> float:
        """Other work on the machine does not change them much."""
        return self.cpu_seconds / len(self.seconds)

    def reaches(self, ndcg: float) -> tuple[int, float]:
        """The first epoch with at least so much, and the seconds up to its end; at most `best` is asked for.

        >>> Course(9, (2.0, 3.0, 4.0), (0.1, 0.3, 0.2), 9.0, 0).reaches(0.2)
        (2, 5.0)
        """
        epoch = next(number for number, value in enumerate(self.ndcg, 1) if value >= ndcg)
        return epoch, sum(self.seconds[:epoch])


class VectorScorer:
    """`evaluation.Scorer` of exported vectors: the inner product of a history's state with each item.

    row_of: see `case_rows`; states: float32 (cases, D), row by row; item_vectors: float32 (V, D); what is not known to
    the model, bool (V,), scores −inf.
    """

    def __init__(
        self,
        row_of: Mapping[tuple[int, ...], int],
        states: NDArray[np.float32],
        item_vectors: NDArray[np.float32],
        is_known: NDArray[np.bool_],
    ) -> None:
        self._row_of = row_of
        self._states = states
        self._item_vectors = item_vectors
        self._is_known = is_known

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        rows = [self._row_of[tuple(history.items)] for history in histories]
        scores_BV = self._states[rows] @ self._item_vectors.T
        scores_BV[:, ~self._is_known] = -np.inf
        return scores_BV


def measure_segue(data: PreparedData, config: TrainingConfig, folder: Path) -> Course:
    """Raises ProcessFailed: the training ended with an error, which it has shown."""
    folder.mkdir(parents=True)
    toml = folder / "config.toml"
    toml.write_text(config_toml(config))
    words = ["--data", str(data.folder), "--output", str(folder / "run"), "--config", str(toml), "--tracker", "none"]
    cost = measured([sys.executable, "-m", "scripts.train", *words], ENVIRONMENT)
    history = read_history(folder / "run")
    return Course(
        int(np.maximum(data.train.lengths - 1, 0).sum()),
        tuple(record["seconds"] for record in history),
        tuple(record[WATCHED_METRIC] for record in history),
        cost.cpu_seconds,
        cost.peak_bytes,
    )


def measure_peer(
    data: PreparedData,
    config: TrainingConfig,
    folder: Path,
    *,
    python: Path,
    changes: Mapping[str, Any],
    max_epochs: int,
    max_seconds: float,
) -> Course:
    """`changes`: of the arguments of RecTools' SASRecModel.

    Raises:
        ProcessFailed: the training ended with an error, which it has shown.
    """
    cases = data.cases("validation")
    model = {"loss": PEER_LOSSES[config.loss], "n_negatives": config.num_negatives, "gbce_t": config.calibration}
    cost, records = train_peer(
        data,
        [cases],
        folder,
        python=python,
        seed=config.seed,
        model={**peer_shape(config), **model, **changes},
        max_epochs=max_epochs,
        max_seconds=max_seconds,
    )
    row_of = case_rows([cases])
    scorers = (epoch_scorer(folder, record["epoch"], row_of) for record in records)
    ndcg = tuple(metrics_at_10(scorer, data, cases)[WATCHED_METRIC] for scorer in scorers)
    # RecTools cuts a history to its newest events instead of reading it in several windows.
    steps = int(np.clip(data.train.lengths - 1, 0, config.max_length).sum())
    return Course(steps, tuple(record["seconds"] for record in records), ndcg, cost.cpu_seconds, cost.peak_bytes)


def peer_shape(config: TrainingConfig) -> dict[str, Any]:
    """Arguments of RecTools' SASRecModel that make it as wide, long and deep as ours."""
    return {
        "n_factors": config.dim,
        "n_blocks": config.num_blocks,
        "n_heads": config.num_heads,
        "session_max_len": config.max_length,
        "dropout_rate": config.dropout,
    }


def train_peer(
    data: PreparedData,
    cases: Sequence[Cases],
    folder: Path,
    *,
    python: Path,
    seed: int,
    model: Mapping[str, Any],
    max_epochs: int,
    max_seconds: float,
    layers: str = "sasrec",
    accelerator: str = "cpu",
) -> tuple[ProcessCost, list[dict[str, Any]]]:
    """Train RecTools in a process of its own, on `data.train`, in a folder that is made here; what it cost, and each
    epoch with its seconds. `epoch_scorer` then scores the histories of `cases`.

    `model` are arguments of RecTools' SASRecModel, `layers` is a key of `LAYERS` in the peer's script, `accelerator`
    what PyTorch Lightning calls a device. An epoch in which `max_seconds` of training are over is the last.

    Raises:
        ProcessFailed: the training ended with an error, which it has shown.
    """
    folder.mkdir(parents=True)
    settings = {
        "num_items": data.num_items,
        "seed": seed,
        "max_epochs": max_epochs,
        "max_seconds": max_seconds,
        "layers": layers,
        "accelerator": accelerator,
        "model": dict(model),
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2))
    lengths = np.concatenate([each.histories.lengths for each in cases])
    np.savez(
        folder / "data.npz",
        items=data.train.items,
        offsets=data.train.offsets,
        case_items=np.concatenate([each.histories.items for each in cases]),
        case_offsets=np.concatenate([[0], np.cumsum(lengths)]),
    )
    cost = measured([str(python), str(PEER_SCRIPT), str(folder)], ENVIRONMENT)
    return cost, [json.loads(line) for line in (folder / "seconds.jsonl").read_text().splitlines()]


def case_rows(cases: Sequence[Cases]) -> dict[tuple[int, ...], int]:
    """A history's items → the row of its state, where the histories of all cases stand one after another. A state
    follows from the items alone, so equal histories may share one."""
    sequences = (tuple(part.histories.item_sequence(case).items) for part in cases for case in range(len(part)))
    return {items: row for row, items in enumerate(sequences)}


def epoch_scorer(folder: Path, epoch: int, row_of: Mapping[tuple[int, ...], int]) -> VectorScorer:
    """What the peer's weights after an epoch score; the rows are of the cases that it was trained with."""
    with np.load(folder / f"epoch-{epoch}.npz") as arrays:
        return VectorScorer(row_of, arrays["states"], arrays["item_vectors"], arrays["is_known"])


def speed_table(name: str, segue: Course, peer: Course, peer_name: str) -> str:
    """Markdown: what each took, and how many times more the peer did."""
    target = min(segue.best, peer.best)
    (our_epoch, our_seconds), (their_epoch, their_seconds) = segue.reaches(target), peer.reaches(target)
    rows = [
        ["steps an epoch", f"{segue.steps:,}", f"{peer.steps:,}", f"{peer.steps / segue.steps:.1f}"],
        ["seconds an epoch, median", f"{segue.median_seconds:.1f}", f"{peer.median_seconds:.1f}",
         f"{peer.median_seconds / segue.median_seconds:.1f}"],
        ["processor seconds an epoch", f"{segue.cpu_seconds_an_epoch:.1f}", f"{peer.cpu_seconds_an_epoch:.1f}",
         f"{peer.cpu_seconds_an_epoch / segue.cpu_seconds_an_epoch:.1f}"],
        ["best validation NDCG@10", share(segue.best), share(peer.best), ""],
        [f"seconds to validation NDCG@10 {share(target)}", f"{our_seconds:.0f} (epoch {our_epoch})",
         f"{their_seconds:.0f} (epoch {their_epoch})", f"{their_seconds / our_seconds:.1f}"],
        ["peak memory, GB", f"{segue.peak_bytes / 1e9:.2f}", f"{peer.peak_bytes / 1e9:.2f}",
         f"{peer.peak_bytes / segue.peak_bytes:.1f}"],
    ]  # fmt: skip
    courses = [
        f"{label}, validation NDCG@10 by epoch: " + " ".join(map(share, course.ndcg))
        for label, course in (("Segue", segue), (peer_name, peer))
    ]
    return "\n\n".join([markdown_table([name, "Segue", peer_name, "times"], rows), *courses])


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("training-speed", help="seconds to equal accuracy beside RecTools' SASRec")
    add_experiment_arguments(parser, Path("docs/benchmarks/training-speed.md"), ("beauty", "ml-1m"))
    parser.add_argument("--peer-python", type=Path, required=True, metavar="PYTHON",
                        help="of a virtual environment in which rectools[torch] is installed")  # fmt: skip
    parser.add_argument("--peer-set", action="append", default=[], metavar="KEY=VALUE",
                        help="of RecTools' SASRecModel, such as lr=0.003")  # fmt: skip
    parser.add_argument("--peer-epochs", type=int, default=40, metavar="N", help="at most (default %(default)s)")
    parser.add_argument("--peer-minutes", type=float, default=60.0, metavar="M",
                        help="of training, after which its epoch is the last (default %(default)s)")  # fmt: skip
    parser.set_defaults(run=_main)


def peer_version(python: Path) -> str:
    """Raises BenchmarkError: no RecTools there."""
    asks = "from importlib.metadata import version; print(version('rectools'))"
    try:
        done = subprocess.run([str(python), "-c", asks], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchmarkError(
            f"{python} knows no RecTools; python -m venv FOLDER, FOLDER/bin/pip install 'rectools[torch]==0.19.0'"
        ) from error
    return f"RecTools {done.stdout.strip()}"


def _main(options: argparse.Namespace) -> None:
    peer_name = f"{peer_version(options.peer_python)} SASRec"
    changes = parse_assignments(options.set)
    words = [f" --set {assignment}" for assignment in options.set]
    words += [f" --peer-set {assignment}" for assignment in options.peer_set]
    words += [f" --peer-epochs {options.peer_epochs} --peer-minutes {options.peer_minutes:g}"]
    for name in options.sets:
        data = benchmark_data(name, options.data_folder, options.output, leave_one_out(name))
        all_cases = {"validation_cases": len(data.cases("validation"))}
        config = choose_recipe(count(data))[0].with_values({**PLAIN, **all_cases, **changes})
        folder = options.output / "training-speed" / name
        shutil.rmtree(folder, ignore_errors=True)
        segue = measure_segue(data, config, folder / "segue")
        peer = measure_peer(
            data,
            config,
            folder / "rectools",
            python=options.peer_python,
            changes=parse_assignments(options.peer_set),
            max_epochs=options.peer_epochs,
            max_seconds=60 * options.peer_minutes,
        )
        table = speed_table(name, segue, peer, peer_name)
        shape = (
            f"d = {config.dim}, {config.max_length} positions, {config.num_blocks} blocks, {config.num_heads} heads, "
            f"dropout {config.dropout:g}, {config.loss.replace('_', ' ')}"
        )
        command = (
            "    python -m scripts.benchmark training-speed --data-folder DATA --peer-python PYTHON "
            f"--sets {name}{''.join(words)}"
        )
        write_section(
            options.page,
            f"training speed on {name}",
            f"## {name}\n\n{command}\n\n{machine()}. Both: {shape}.\n\n{table}",
        )
        print(table, end="\n\n")
    print(options.page)
