"""What 8-bit weights and pruning cost and give: accuracy, size and time of the graphs that `export` would write.

The second table is of an untrained model over a large catalogue: what grows with the items is their vectors, which stay
float32.
"""

import argparse
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from app.ranking.exact import ExactRanker
from app.ranking.ranker import ItemSequence
from scripts.benchmarks.pages import machine, markdown_table, share, write_section
from scripts.training.evaluation import EvaluationResult, paired_bootstrap_interval
from scripts.training.fusion import FusedModel
from scripts.training.graph import export_graph, random_history, ranker_of
from scripts.training.interactions import PreparedData
from scripts.training.model import SequenceModel
from scripts.training.model_config import ModelConfig
from scripts.training.quantization import quantize_graph
from scripts.training.run_folder import Run, load_run
from scripts.training.scorer import RankerScorer, evaluate_at_10
from scripts.training.smaller import Smaller, histories_to_prune_by, pruned

VARIANTS = {
    "float32": Smaller(),
    "int8": Smaller(quantize="int8"),
    "a quarter pruned": Smaller(prune=0.25),
    "half pruned": Smaller(prune=0.5),
    "half pruned, int8": Smaller(quantize="int8", prune=0.5),
}
BATCH = 32
ROUNDS = 100
HISTORY_LENGTH = 20


@dataclass(frozen=True, eq=False)
class Variant:
    """A graph on the disk and a ranker of it; `table_bytes` are those of the tables that it reads."""

    ranker: ExactRanker
    graph_bytes: int
    table_bytes: int


def write_variants(model: FusedModel, histories: Sequence[ItemSequence], folder: Path) -> dict[str, Variant]:
    """`histories` are those that pruning goes by."""
    found: dict[str, Variant] = {}
    made_by_share: dict[float, FusedModel] = {}
    for number, (name, smaller) in enumerate(VARIANTS.items()):
        exported = folder / f"pruned-{smaller.prune:g}.onnx"
        if smaller.prune not in made_by_share:
            made_by_share[smaller.prune] = pruned(model, smaller.prune, histories) if smaller.prune else model
            export_graph(made_by_share[smaller.prune], exported)
        path, made = folder / f"{number}.onnx", made_by_share[smaller.prune]
        shutil.copyfile(exported, path)
        if smaller.quantize == "int8":
            quantize_graph(path)
        ranker = ranker_of(made, path)
        found[name] = Variant(ranker, path.stat().st_size, sum(table.nbytes for table in ranker.tables.values()))
    return found


def milliseconds(variants: Mapping[str, Variant], batch: int, *, rounds: int = ROUNDS) -> dict[str, float]:
    """The fastest run for `batch` histories and the best ten: other work on the machine only adds. In turns, so that it
    troubles all alike."""
    rng = np.random.default_rng(0)
    first = next(iter(variants.values())).ranker
    histories = [random_history(rng, first.num_items, HISTORY_LENGTH) for _ in range(batch)]
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant.ranker.rank(histories, 10)
            taken[name].append(1000 * (time.perf_counter() - start))
    return {name: min(values) for name, values in taken.items()}


def accuracy(variants: Mapping[str, Variant], data: PreparedData) -> dict[str, EvaluationResult]:
    """On the test part, as `evaluate` measures it."""
    cases = data.cases("test")
    best = 10 + int(cases.histories.lengths.max())
    return {
        name: evaluate_at_10(RankerScorer(variant.ranker, best=best), data, cases, with_coverage=False)
        for name, variant in variants.items()
    }


def same_ten(variants: Mapping[str, Variant], *, num_histories: int = 200) -> dict[str, float]:
    """Share of the float32 graph's best ten that a graph's best ten hold, over random histories."""
    rng = np.random.default_rng(1)
    first = next(iter(variants.values())).ranker
    histories = [random_history(rng, first.num_items, int(rng.integers(1, 21))) for _ in range(num_histories)]
    best = {
        name: [set(ranking.item_indices.tolist()) for ranking in variant.ranker.rank(histories, 10)]
        for name, variant in variants.items()
    }
    exact = best["float32"]
    return {
        name: float(np.mean([len(mine & its) / 10 for mine, its in zip(each, exact, strict=True)]))
        for name, each in best.items()
    }


def trained_table(run: Run, folder: Path) -> str:
    variants = write_variants(run.model, histories_to_prune_by(run.data), folder)
    results = accuracy(variants, run.data)
    alone, together = milliseconds(variants, 1), milliseconds(variants, BATCH)
    rows = []
    for name, variant in variants.items():
        result = results[name]
        change = paired_bootstrap_interval(result, results["float32"], "ndcg@10")
        rows.append(
            [
                name,
                f"{variant.graph_bytes / 1e6:.2f}",
                f"{(variant.graph_bytes + variant.table_bytes) / 1e6:.2f}",
                share(result.metrics["hit_rate@10"]),
                share(result.metrics["ndcg@10"]),
                "" if name == "float32" else f"{change.mean:+.5f} [{change.low:+.5f}, {change.high:+.5f}]",
                f"{alone[name]:.2f}",
                f"{together[name]:.1f}",
            ]
        )
    name = f"{run.data.name}, {run.data.num_items:,} items, d = {run.model.config.dim}"
    sizes = ["graph, MB", "with tables, MB"]
    times = ["ms, one history", f"ms, {BATCH} histories"]
    return markdown_table([name, *sizes, "HR@10", "NDCG@10", "change of NDCG@10", *times], rows)


def large_table(num_items: int, config: ModelConfig, folder: Path) -> str:
    """An untrained model of the same shape without rules."""
    torch.manual_seed(0)
    shape = dataclasses.replace(config, num_items=num_items, attributes="none")
    rng = np.random.default_rng(2)
    histories = [random_history(rng, num_items, HISTORY_LENGTH) for _ in range(64)]
    variants = write_variants(FusedModel(SequenceModel(shape).eval(), None, 0.0), histories, folder)
    alone, together, same = milliseconds(variants, 1), milliseconds(variants, BATCH), same_ten(variants)
    rows = [
        [name, f"{variant.graph_bytes / 1e6:.2f}", f"{(variant.graph_bytes + variant.table_bytes) / 1e6:.2f}",
         f"{same[name]:.1%}", f"{alone[name]:.2f}", f"{together[name]:.1f}"]
        for name, variant in variants.items()
    ]  # fmt: skip
    head = [f"{num_items:,} items, d = {config.dim}, untrained", "graph, MB", "with tables, MB",
            "best ten as float32", "ms, one history", f"ms, {BATCH} histories"]  # fmt: skip
    return markdown_table(head, rows)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("quantization", help="accuracy, size and time of 8-bit and pruned graphs")
    parser.add_argument("--run", type=Path, required=True, dest="run_folder", help="folder that train wrote")
    parser.add_argument("--items", type=int, default=100_000, metavar="N",
                        help="of the second table (default %(default)s)")  # fmt: skip
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/quantization.md"),
                        help="whose section is written (default %(default)s)")  # fmt: skip
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    run = load_run(options.run_folder)
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        tables = [trained_table(run, Path(small)), large_table(options.items, run.model.config, Path(large))]
    command = f"    python -m scripts.benchmark quantization --run RUN --items {options.items}"
    text = "\n\n".join([command, f"{machine()}, one thread of onnxruntime, the fastest of {ROUNDS} runs.", *tables])
    write_section(options.page, "quantization", text)
    print("\n\n".join(tables), end="\n\n")
    print(options.page)
