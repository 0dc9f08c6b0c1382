"""RecTools' SASRec, and eSASRec, the best of its variants, judged as Segue is: the same cases, masks and ties.

Both have the width, length and depth that our recipe chooses for the set, and otherwise RecTools' defaults. The epoch
that validation likes best is tested.

    OUTPUT/SET-FINGERPRINT/peers/VARIANT-SEED/   settings.json, seconds.jsonl, measured.json, ranks-CASES.npy
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks.accuracy import add_experiment_arguments
from scripts.benchmarks.experiments import (
    MEASURED_FILE,
    Evaluated,
    benchmark_data,
    evaluated_by,
    kept_training,
    leave_one_out,
    read_evaluated,
    set_folder,
    write_evaluated,
)
from scripts.benchmarks.pages import machine, markdown_table, share, signed, write_section
from scripts.benchmarks.training_speed import (
    SETTINGS_FILE,
    case_rows,
    epoch_scorer,
    peer_shape,
    peer_version,
    train_peer,
)
from scripts.training.config import TrainingConfig
from scripts.training.evaluation import Interval, bootstrap_interval, ndcg
from scripts.training.interactions import Cases, PreparedData
from scripts.training.recipe import choose_recipe, count
from scripts.training.run_folder import WATCHED_METRIC, RunError
from scripts.training.scorer import metrics_at_10
from scripts.training.trainer import validation_cases


@dataclass(frozen=True)
class Variant:
    """`model`: what it changes of RecTools' SASRecModel; `layers`: see `train_peer`."""

    name: str
    layers: str
    model: Mapping[str, Any]


VARIANTS = {
    "sasrec": Variant("SASRec, full cross-entropy", "sasrec", {"loss": "softmax"}),
    # Tikhonovich et al., "eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion", RecSys 2025.
    "esasrec": Variant(
        "eSASRec: gated layers (LiGR), sampled softmax over 256 negatives",
        "ligr",
        {"loss": "sampled_softmax", "n_negatives": 256},
    ),
}


@dataclass(frozen=True, eq=False)
class PeerAccuracy:
    """One variant on one set: the chosen epoch, of how many, and the median seconds of one."""

    variant: Variant
    evaluated: Mapping[str, Evaluated]
    epoch: int
    num_epochs: int
    epoch_seconds: float
    machine: str
    accelerator: str


def measure_variant(
    data: PreparedData,
    variant: str,
    output: Path,
    *,
    python: Path,
    seed: int,
    max_epochs: int,
    accelerator: str,
) -> PeerAccuracy:
    """Train and test; or take what an earlier call kept.

    Raises:
        ProcessFailed: the training ended with an error, which it has shown.
        RunError: what is kept had other epochs or another accelerator.
    """
    kept = kept_variant(data, variant, output, seed=seed)
    if kept is not None:
        if (kept.num_epochs, kept.accelerator) != (max_epochs, accelerator):
            raise RunError(
                f"{_folder(data, variant, output, seed)} holds {kept.num_epochs} epochs on {kept.accelerator}, "
                f"not {max_epochs} on {accelerator}; delete it to train it again"
            )
        return kept
    cases = _cases(data)
    folder = _folder(data, variant, output, seed)
    shutil.rmtree(folder, ignore_errors=True)
    config = choose_recipe(count(data))[0]
    parts = list(cases.values())
    _, records = train_peer(
        data,
        parts,
        folder,
        python=python,
        seed=seed,
        model={**peer_shape(config), **VARIANTS[variant].model},
        max_epochs=max_epochs,
        max_seconds=float("inf"),
        layers=VARIANTS[variant].layers,
        accelerator=accelerator,
    )
    row_of = case_rows(parts)
    epoch = _best_epoch(data, folder, row_of, config, [record["epoch"] for record in records])
    scorer = epoch_scorer(folder, epoch, row_of)
    evaluated = {name: evaluated_by(scorer, data, each) for name, each in cases.items()}
    seconds = float(np.median([record["seconds"] for record in records]))
    facts: dict[str, Any] = {"epoch": epoch, "num_epochs": len(records), "epoch_seconds": seconds, "machine": machine()}
    write_evaluated(folder, evaluated, facts)
    for path in folder.glob("epoch-*.npz"):
        path.unlink()
    return PeerAccuracy(VARIANTS[variant], evaluated, accelerator=accelerator, **facts)


def kept_variant(data: PreparedData, variant: str, output: Path, *, seed: int) -> PeerAccuracy | None:
    """What an earlier `measure_variant` kept, however many epochs it had."""
    folder = _folder(data, variant, output, seed)
    evaluated = read_evaluated(folder, _cases(data))
    if evaluated is None:
        return None
    facts = json.loads((folder / MEASURED_FILE).read_bytes())
    del facts["evaluated"]
    accelerator = json.loads((folder / SETTINGS_FILE).read_bytes())["accelerator"]
    return PeerAccuracy(VARIANTS[variant], evaluated, accelerator=accelerator, **facts)


def _cases(data: PreparedData) -> dict[str, Cases]:
    return {"validation": data.cases("validation"), "test": data.cases("test")}


def _folder(data: PreparedData, variant: str, output: Path, seed: int) -> Path:
    return set_folder(data, output) / "peers" / f"{variant}-{seed}"


def _best_epoch(
    data: PreparedData,
    folder: Path,
    row_of: Mapping[tuple[int, ...], int],
    config: TrainingConfig,
    epochs: Sequence[int],
) -> int:
    """By the validation cases that ours is chosen by."""
    cases = validation_cases(data, config.validation_cases, config.seed)
    reached = {
        epoch: metrics_at_10(epoch_scorer(folder, epoch, row_of), data, cases)[WATCHED_METRIC] for epoch in epochs
    }
    return max(reached, key=lambda epoch: reached[epoch])


def peer_table(data: PreparedData, found: Sequence[PeerAccuracy], ours: Evaluated | None) -> str:
    """Markdown: a row for each variant, and how far Segue's first seed, where it is known, lies ahead of it."""
    rows = []
    for each in found:
        test = each.evaluated["test"]
        last = ", the last" if each.epoch == each.num_epochs else ""
        row = [
            each.variant.name,
            share(each.evaluated["validation"].metrics["ndcg@10"]),
            share(test.metrics["hit_rate@10"]),
            share(test.metrics["ndcg@10"]),
            f"{each.epoch} of {each.num_epochs}{last}",
            f"{each.epoch_seconds:.1f}",
        ]
        if ours is not None:
            lead = _lead(ours, test)
            row.append(f"{signed(lead.mean)} [{signed(lead.low)}, {signed(lead.high)}]")
        rows.append(row)
    head = [data.name, "validation NDCG@10", "HR@10", "NDCG@10", "best epoch", "seconds an epoch"]
    if ours is not None:
        head.append("NDCG@10 that Segue is ahead by")
        metrics = [share(ours.metrics[name]) for name in ("hit_rate@10", "ndcg@10")]
        rows.append(["**Segue**, the first seed", "", *metrics, "", "", ""])
    return markdown_table(head, rows)


def _lead(ours: Evaluated, theirs: Evaluated) -> Interval:
    return bootstrap_interval(ndcg(ours.ranks, 10) - ndcg(theirs.ranks, 10))


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("peer-accuracy", help="RecTools' SASRec and eSASRec by our metric")
    add_experiment_arguments(parser, Path("docs/benchmarks/accuracy.md"), ("beauty", "ml-1m"))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default all")
    parser.add_argument("--peer-python", type=Path, required=True, metavar="PYTHON",
                        help="of a virtual environment in which rectools[torch] is installed")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=60, metavar="N", help="of each (default %(default)s)")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu", help="default %(default)s")
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    peer = peer_version(options.peer_python)
    for name in options.sets:
        data = benchmark_data(name, options.data_folder, options.output, leave_one_out(name))
        config = choose_recipe(count(data))[0]
        ours = kept_training(data, config, options.output, cases={"test": data.cases("test")})
        for variant in options.variants:
            measure_variant(
                data,
                variant,
                options.output,
                python=options.peer_python,
                seed=1,
                max_epochs=options.epochs,
                accelerator=options.accelerator,
            )
        # With those that an earlier call was asked for: one section is all there is of a set.
        kept = [kept_variant(data, variant, options.output, seed=1) for variant in VARIANTS]
        found = [each for each in kept if each is not None]
        table = peer_table(data, found, None if ours is None else ours.evaluated["test"])
        command = (
            f"    python -m scripts.benchmark peer-accuracy --data-folder DATA --peer-python PYTHON --sets {name} "
            f"--variants {' '.join(options.variants)} --epochs {options.epochs} --accelerator {options.accelerator}"
        )
        what = (
            f"{' and '.join(dict.fromkeys(each.machine for each in found))}; {peer}. One seed; "
            f"d = {config.dim}, {config.max_length} positions, {config.num_blocks} blocks, {config.num_heads} heads, "
            f"dropout {config.dropout:g}. Intervals are 95 % paired bootstraps over cases."
        )
        write_section(options.page, f"peers on {name}", f"## {name}: beside RecTools\n\n{command}\n\n{what}\n\n{table}")
        print(table, end="\n\n")
    print(options.page)
