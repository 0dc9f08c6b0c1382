"""Evaluation of many users over a large catalogue: time and peak memory, in a process of its own.

python -m scripts.benchmarks.evaluation USERS ITEMS evaluates alone, and prints what it found as JSON.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.processes import ProcessCost, measured

EVENTS_PER_USER = 10
DIM = 64
EXPLANATION = (
    "The model is untrained, so the hit rate is that of chance. Scores exist for one batch at a time (64 MiB, and a "
    "copy in which seen items are masked); what grows with the users is their ranks and histories, with the items the "
    "model and one counter each. The rest of the peak is PyTorch."
)


@dataclass(frozen=True)
class EvaluationCost:
    num_users: int
    num_items: int
    metrics: dict[str, float]
    cost: ProcessCost


def measure_evaluation(num_users: int, num_items: int) -> EvaluationCost:
    """An untrained attention model (d = 64, histories of ten events) ranks every item for every user, with coverage.

    Raises:
        ProcessFailed: the process ended with an error.
    """
    cost = measured([sys.executable, "-m", __spec__.name, str(num_users), str(num_items)])
    return EvaluationCost(num_users, num_items, json.loads(cost.output), cost)


def _evaluate(num_users: int, num_items: int) -> dict[str, float]:
    # Only here: the parent, whose peak the child's begins with, stays small.
    import numpy as np
    from tqdm import tqdm

    from scripts.training.evaluation import evaluate
    from scripts.training.interactions import Cases, Interactions
    from scripts.training.model import SequenceModel
    from scripts.training.model_config import ModelConfig
    from scripts.training.scorer import ModelScorer

    rng = np.random.default_rng(0)
    items = rng.integers(1, num_items + 1, num_users * EVENTS_PER_USER, dtype=np.int32)
    offsets = np.arange(0, len(items) + 1, EVENTS_PER_USER)
    histories = Interactions(items, np.arange(len(items)), np.ones(len(items), np.uint8), offsets)
    cases = Cases(histories, rng.integers(1, num_items + 1, num_users, dtype=np.int32), np.arange(num_users))
    model = SequenceModel(ModelConfig(num_items=num_items, max_length=EVENTS_PER_USER, dim=DIM))
    with tqdm(total=num_users, unit="user", file=sys.stderr) as bar:
        result = evaluate(
            ModelScorer(model),
            cases,
            num_items=num_items,
            item_counts=histories.item_counts(num_items),
            exclude_seen=True,
            progress=bar.update,
        )
    return result.metrics


def summary(found: EvaluationCost) -> str:
    chance = 10 / (found.num_items - EVENTS_PER_USER)
    return (
        f"{found.num_users:,} users × {found.num_items:,} items ranked in {found.cost.seconds:,.0f} s "
        f"({found.cost.cpu_seconds:,.0f} s of processor time), peak memory {found.cost.peak_bytes / 1e9:.2f} GB; "
        f"hit_rate@10 {found.metrics['hit_rate@10']:.5f} (chance {chance:.5f}), coverage@10 "
        f"{found.metrics['coverage@10']:.3f}"
    )


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("evaluation", help="time and peak memory of evaluating many users and items")
    parser.add_argument("--users", type=int, default=100_000, help="default %(default)s")
    parser.add_argument("--items", type=int, default=100_000, help="default %(default)s")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/evaluation.md"),
                        help="whose section is written (default %(default)s)")  # fmt: skip
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    line = summary(measure_evaluation(options.users, options.items))
    # After the measurement: it loads PyTorch.
    from scripts.benchmarks.pages import machine, write_section

    command = f"    python -m scripts.benchmark evaluation --users {options.users} --items {options.items}"
    write_section(
        options.page,
        "evaluation",
        f"# Evaluating: time and memory\n\n{command}\n\n{machine()}.\n\n```\n{line}\n```\n\n{EXPLANATION}",
    )
    print(line)
    print(options.page)


if __name__ == "__main__":
    print(json.dumps(_evaluate(int(sys.argv[1]), int(sys.argv[2]))))
