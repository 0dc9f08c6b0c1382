"""What a head for each event type is worth: the test events of each type, ranked by every head and without heads."""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks.experiments import TrainingProgress, train_once
from scripts.benchmarks.pages import machine, markdown_table, share, write_section
from scripts.train import ProgressBar
from scripts.training.config import TrainingConfig, parse_assignments
from scripts.training.fusion import FusedModel
from scripts.training.interactions import DataError, PreparedData
from scripts.training.recipe import choose_recipe, count
from scripts.training.run_folder import load_run
from scripts.training.scorer import ModelScorer, evaluate_at_10
from scripts.training.synthetic import BEHAVIOURS, behaviour_sequences, write_sequences

NUM_USERS, NUM_ITEMS, LENGTH = 1000, 300, 16
METRIC = "ndcg@10"
EXPLANATION = (
    "Test events, one a user, by their type; NDCG@10. The generated set leaves three items possible after every "
    "history, one of each type (`scripts/training/synthetic.py`): who does not know the type reaches .71 on average."
)


def generated_set(folder: Path) -> PreparedData:
    items, types = behaviour_sequences(num_users=NUM_USERS, num_items=NUM_ITEMS, length=LENGTH, seed=1)
    return write_sequences(folder, items, name="generated", num_items=NUM_ITEMS, types=types, event_types=BEHAVIOURS)


def target_types(data: PreparedData) -> NDArray[np.uint8]:
    """The event type of every test case's target.

    Raises:
        DataError: the data are split by time, where a user has several targets.
    """
    if data.split != "leave-one-out":
        raise DataError("event types are compared on data that are split leave-one-out")
    newest = data.everything.offsets[data.cases("test").user_indices + 1] - 1
    return data.everything.event_types[newest]


def measure_heads(
    data: PreparedData, config: TrainingConfig, output: Path, progress: TrainingProgress
) -> dict[str, NDArray[np.float64]]:
    """Name of a row → NDCG@10 of each test case; `output` takes the two run folders."""
    types = target_types(data)
    names = {declared.index: name for name, declared in data.event_types.items() if declared.index in types}
    without, heads = (
        _trained(data, config.with_values({"event_types": each}), output, progress) for each in (False, True)
    )
    rows = {"types not read": _ndcg(without, data), "head of any type": _ndcg(heads, data)}
    rows |= {f"head of {name}": _ndcg(heads, data, index) for index, name in names.items()}
    own = [rows[f"head of {name}"] for name in names.values()]
    rows["each by its own head"] = np.select([types == index for index in names], own)
    return rows


def heads_table(data: PreparedData, rows: Mapping[str, NDArray[np.float64]]) -> str:
    """Markdown: a column for each type that targets have, and one for all of them."""
    types = target_types(data)
    groups = {
        f"{name} ({np.count_nonzero(types == declared.index):,})": types == declared.index
        for name, declared in data.event_types.items()
        if declared.index in types
    }
    groups[f"all ({len(types):,})"] = np.ones(len(types), dtype=np.bool_)
    return markdown_table(
        [data.name, *groups],
        [[name, *(share(float(values[chosen].mean())) for chosen in groups.values())] for name, values in rows.items()],
    )


def _trained(data: PreparedData, config: TrainingConfig, output: Path, progress: TrainingProgress) -> FusedModel:
    label = f"{data.name}, {'heads' if config.event_types else 'without'}: epoch"
    return load_run(train_once(data, config, output, label=label, progress=progress)).model


def _ndcg(model: FusedModel, data: PreparedData, target_type: int = 0) -> NDArray[np.float64]:
    scorer = ModelScorer(model, target_type)
    return evaluate_at_10(scorer, data, data.cases("test"), with_coverage=False).values(METRIC)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("event-types", help="what a head for each event type is worth")
    parser.add_argument("--data", type=Path, help="folder that prepare wrote (default: a generated set)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the automatic recipe")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/event-types.md"),
                        help="whose section is written (default %(default)s)")  # fmt: skip
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        data = PreparedData.load(options.data) if options.data else generated_set(output / "data")
        automatic, _ = choose_recipe(count(data))
        config = automatic.with_values(parse_assignments(options.set))
        table = heads_table(data, measure_heads(data, config, output, ProgressBar))
    command = "python -m scripts.benchmark event-types" + (f" --data data/{data.name}" if options.data else "")
    settings = "".join(f" --set {assignment}" for assignment in options.set)
    text = f"## {data.name}\n\n    {command}{settings}\n\n{machine()}.\n\n{table}\n\n{EXPLANATION}"
    write_section(options.page, f"event types of {data.name}", text)
    print(table)
    print(options.page)
