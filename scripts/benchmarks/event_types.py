"""What a head for each event type is worth: the test events of each type, ranked by every head and without heads."""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks.experiments import TrainingProgress, train_once
from scripts.benchmarks.pages import machine, markdown_table, share, signed, write_section
from scripts.train import ProgressBar
from scripts.training.config import TrainingConfig, parse_assignments
from scripts.training.evaluation import bootstrap_interval
from scripts.training.fusion import FusedModel
from scripts.training.interactions import Cases, PreparedData
from scripts.training.recipe import choose_recipe, count
from scripts.training.run_folder import load_run
from scripts.training.scorer import ModelScorer, evaluate_at_10
from scripts.training.synthetic import BEHAVIOURS, behaviour_sequences, write_sequences

NUM_USERS, NUM_ITEMS, LENGTH = 1000, 300, 16
LATER_CASES = 10_000
METRIC = "ndcg@10"
WITHOUT, OWN = "types not read", "each by its own head"
GENERATED = (
    "The generated set leaves three items possible after every history, one of each type "
    "(`scripts/training/synthetic.py`): who does not know the type reaches .71 on average."
)


def generated_set(folder: Path) -> PreparedData:
    items, types = behaviour_sequences(num_users=NUM_USERS, num_items=NUM_ITEMS, length=LENGTH, seed=1)
    return write_sequences(folder, items, name="generated", num_items=NUM_ITEMS, types=types, event_types=BEHAVIOURS)


def cases_to_rank(data: PreparedData) -> Cases:
    """Of the test part: one event a user, or of data split by time every event, at most `LATER_CASES` of them."""
    return data.cases("test", at_most=LATER_CASES)


def target_types(cases: Cases) -> NDArray[np.uint8]:
    """The event type of every case's target."""
    if cases.target_types is None:
        raise ValueError("cases of prepared data are expected, which know the event types of their targets")
    return cases.target_types


def measure_heads(
    data: PreparedData, cases: Cases, config: TrainingConfig, output: Path, progress: TrainingProgress
) -> dict[str, NDArray[np.float64]]:
    """Name of a row → NDCG@10 of each case; `output` takes the two run folders."""
    types = target_types(cases)
    names = {declared.index: name for name, declared in data.event_types.items() if declared.index in types}
    without, heads = (
        _trained(data, config.with_values({"event_types": each}), output, progress) for each in (False, True)
    )
    rows = {WITHOUT: _ndcg(without, data, cases), "head of any type": _ndcg(heads, data, cases)}
    rows |= {f"head of {name}": _ndcg(heads, data, cases, index) for index, name in names.items()}
    own = [rows[f"head of {name}"] for name in names.values()]
    rows[OWN] = np.select([types == index for index in names], own)
    return rows


def heads_table(data: PreparedData, cases: Cases, rows: Mapping[str, NDArray[np.float64]]) -> str:
    """Markdown: a column for each type that targets have, and one for all of them."""
    groups = _groups(data, cases)
    return markdown_table(
        [data.name, *(f"{name} ({np.count_nonzero(chosen):,})" for name, chosen in groups.items())],
        [[name, *(share(float(values[chosen].mean())) for chosen in groups.values())] for name, values in rows.items()],
    )


def gains(data: PreparedData, cases: Cases, rows: Mapping[str, NDArray[np.float64]]) -> str:
    """One sentence: what the targets' own heads are ahead by, for each type."""
    ahead = rows[OWN] - rows[WITHOUT]
    found = []
    for name, chosen in _groups(data, cases).items():
        interval = bootstrap_interval(ahead[chosen], clusters=cases.user_indices[chosen])
        found.append(f"{name} {signed(interval.mean)} [{signed(interval.low)}, {signed(interval.high)}]")
    return f"Each by its own head, ahead of a model that does not read types: {', '.join(found)}."


def _groups(data: PreparedData, cases: Cases) -> dict[str, NDArray[np.bool_]]:
    types = target_types(cases)
    groups = {name: types == declared.index for name, declared in data.event_types.items() if declared.index in types}
    return {**groups, "all": np.ones(len(types), dtype=np.bool_)}


def _trained(data: PreparedData, config: TrainingConfig, output: Path, progress: TrainingProgress) -> FusedModel:
    label = f"{data.name}, {'heads' if config.event_types else 'without'}: epoch"
    return load_run(train_once(data, config, output, label=label, progress=progress)).model


def _ndcg(model: FusedModel, data: PreparedData, cases: Cases, target_type: int = 0) -> NDArray[np.float64]:
    return evaluate_at_10(ModelScorer(model, target_type), data, cases, with_coverage=False).values(METRIC)


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
        cases = cases_to_rank(data)
        rows = measure_heads(data, cases, config, output, ProgressBar)
    table = heads_table(data, cases, rows)
    command = "python -m scripts.benchmark event-types" + (f" --data data/{data.name}" if options.data else "")
    settings = "".join(f" --set {assignment}" for assignment in options.set)
    what = "one event a user" if data.split == "leave-one-out" else f"at most {LATER_CASES:,} of those after the time"
    explanation = (
        f"Test events ({what}) by their type; NDCG@10. {gains(data, cases, rows)} Intervals are 95 % paired bootstraps "
        "over users."
    )
    text = f"## {data.name}\n\n    {command}{settings}\n\n{machine()}.\n\n{table}\n\n{explanation}"
    write_section(options.page, f"event types of {data.name}", text if options.data else f"{text} {GENERATED}")
    print(table)
    print(options.page)
