"""Accuracy of the automatic recipe over several seeds, beside baselines and what others published on the same files."""

import argparse
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks.experiments import (
    PUBLISHED_SETS,
    Evaluated,
    Measured,
    TrainingProgress,
    benchmark_data,
    leave_one_out,
    measure_baselines,
    measure_seeds,
    trained_on,
)
from scripts.benchmarks.pages import markdown_table, share, signed, write_section
from scripts.train import ProgressBar
from scripts.training.config import parse_assignments
from scripts.training.evaluation import POPULARITY_SHARES, Interval, bootstrap_interval, hit_rate, ndcg
from scripts.training.interactions import PreparedData
from scripts.training.plots import scorer_label
from scripts.training.recipe import choose_recipe, count

PUBLISHED_FILE = Path(__file__).with_name("published.toml")
HEADLINES: dict[str, Callable[..., Any]] = {"hit_rate@10": hit_rate, "ndcg@10": ndcg}


@dataclass(frozen=True, eq=False)
class SetAccuracy:
    """One data set: the same recipe with several seeds, and the baselines, which need none."""

    name: str
    num_users: int
    num_items: int
    num_cases: int
    runs: Sequence[Measured]
    baselines: Mapping[str, Evaluated]

    def of_seeds(self, metric: str) -> list[float]:
        """`metric` of the test part, or the NDCG@10 of the popularity group of that name, seed by seed."""
        return [
            test.by_popularity[metric] if metric in test.by_popularity else test.metrics[metric]
            for test in (run.evaluated["test"] for run in self.runs)
        ]

    @property
    def best_baseline(self) -> str:
        """By NDCG@10."""
        return max(self.baselines, key=lambda name: self.baselines[name].metrics["ndcg@10"])

    def lead(self, metric: str) -> Interval:
        """Mean over the seeds minus the best baseline, paired by case."""
        of_case = HEADLINES[metric]
        ours = np.mean([of_case(run.evaluated["test"].ranks, 10) for run in self.runs], axis=0)
        return bootstrap_interval(ours - of_case(self.baselines[self.best_baseline].ranks, 10))


def measure_set(
    data: PreparedData,
    output: Path,
    *,
    num_seeds: int,
    changes: Mapping[str, Any],
    progress: TrainingProgress,
) -> SetAccuracy:
    """Train the automatic recipe with the seeds 1…num_seeds; what an earlier call finished is not trained again."""
    config = choose_recipe(count(data))[0].with_values(changes)
    cases = {"validation": data.cases("validation"), "test": data.cases("test")}
    runs = measure_seeds(data, config, output, num_seeds=num_seeds, cases=cases, progress=progress)
    baselines = measure_baselines(data, output, cases=cases)
    return SetAccuracy(
        name=data.name,
        num_users=data.num_users,
        num_items=data.num_items,
        num_cases=len(cases["test"]),
        runs=runs,
        baselines={name: parts["test"] for name, parts in baselines.items()},
    )


def set_table(found: SetAccuracy) -> str:
    """Markdown: the seeds' mean ± standard deviation (one seed has none), every baseline, the lead over the best of
    them."""
    groups = list(POPULARITY_SHARES)
    columns = ["hit_rate@10", "ndcg@10", "coverage@10", *groups]
    label = "one seed" if len(found.runs) == 1 else f"{len(found.runs)} seeds"
    rows = [[f"**Segue**, {label}", *(_mean_and_deviation(found.of_seeds(column)) for column in columns)]]
    for name, result in found.baselines.items():
        values = [result.metrics[column] for column in columns[:3]] + [result.by_popularity[group] for group in groups]
        rows.append([scorer_label(name), *map(share, values)])
    head = [
        f"{found.name}: {found.num_users:,} users, {found.num_items:,} items, {found.num_cases:,} cases",
        "HR@10",
        "NDCG@10",
        "coverage@10",
        *(f"NDCG@10 {group}" for group in groups),
    ]
    leads = {name: found.lead(metric) for name, metric in (("HR@10", "hit_rate@10"), ("NDCG@10", "ndcg@10"))}
    shown = " and ".join(
        f"{name} {signed(lead.mean)} [{signed(lead.low)}, {signed(lead.high)}]" for name, lead in leads.items()
    )
    epochs = "/".join(str(run.num_epochs) for run in found.runs)
    minutes = "/".join(f"{run.seconds / 60:.0f}" for run in found.runs)
    return (
        f"{markdown_table(head, rows)}\n\n"
        f"Segue minus {scorer_label(found.best_baseline).lower()}, the best baseline: {shown}. "
        f"{epochs} epochs in {minutes} minutes of training."
    )


def _mean_and_deviation(values: Sequence[float]) -> str:
    mean = f"**{share(float(np.mean(values)))}**"
    return f"{mean} ± {share(float(np.std(values, ddof=1)))}" if len(values) > 1 else mean


def published_table(found: SetAccuracy, path: Path = PUBLISHED_FILE) -> str:
    """Markdown: what others published on this set, Segue last; empty where nothing is known."""
    published = tomllib.loads(path.read_text(encoding="utf-8"))
    rows, some_near = [], False
    for method in published["method"]:
        if found.name in method:
            is_near = found.name in method.get("near", [])
            some_near |= is_near
            rows.append([method["name"], ("near " if is_near else "") + " / ".join(map(share, method[found.name]))])
    if not rows:
        return ""
    ours = " / ".join(share(float(np.mean(found.of_seeds(metric)))) for metric in HEADLINES)
    rows.append(["**Segue**, chosen by itself", f"**{ours}**"])
    table = markdown_table(["HR@10 / NDCG@10 published on this file", found.name], rows)
    near = "Near: their file differs in the order of equal timestamps or in the items it keeps. " if some_near else ""
    return f"{table}\n\n{near}Sources, on GitHub: {', '.join(published['sources'])}."


def section(found: SetAccuracy, command: str) -> str:
    parts = [
        f"## {found.name}: leave-one-out",
        f"    {command}",
        f"{trained_on(found.runs)}. Intervals are 95 % paired bootstraps over cases of the seeds' mean; ± is the "
        "standard deviation over seeds. Head, middle and tail: targets among the items that hold the first half, the "
        "next three tenths and the rest of the training events.",
        set_table(found),
        published_table(found),
    ]
    return "\n\n".join(part for part in parts if part)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("accuracy", help="the automatic recipe over several seeds, beside published figures")
    add_experiment_arguments(parser, Path("docs/benchmarks/accuracy.md"), PUBLISHED_SETS)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="1…N (default %(default)s)")
    parser.set_defaults(run=_main)


def add_data_arguments(parser: argparse.ArgumentParser, page: Path, sets: Sequence[str]) -> None:
    """What every benchmark over named data sets understands; `sets` are the default."""
    parser.add_argument("--data-folder", type=Path, default=Path("data"), metavar="DATA",
                        help="holds NAME/interactions.parquet (default %(default)s)")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), metavar="FOLDER",
                        help="keeps every training, to go on from (default %(default)s)")  # fmt: skip
    parser.add_argument("--page", type=Path, default=page, help="whose section is written (default %(default)s)")
    parser.add_argument("--sets", nargs="+", default=list(sets), metavar="NAME",
                        help="folders in DATA, or public sets (default %(default)s)")  # fmt: skip


def add_experiment_arguments(parser: argparse.ArgumentParser, page: Path, sets: Sequence[str]) -> None:
    """What every benchmark that trains understands; `sets` are the default."""
    add_data_arguments(parser, page, sets)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of every training")


def _main(options: argparse.Namespace) -> None:
    changes = parse_assignments(options.set)
    settings = "".join(f" --set {assignment}" for assignment in options.set)
    for name in options.sets:
        data = benchmark_data(name, options.data_folder, options.output, leave_one_out(name))
        found = measure_set(data, options.output, num_seeds=options.seeds, changes=changes, progress=ProgressBar)
        print(set_table(found), end="\n\n")
        command = f"python -m scripts.benchmark accuracy --data-folder DATA --sets {name} --seeds {options.seeds}"
        write_section(options.page, f"accuracy on {name}", section(found, f"{command}{settings}"))
    print(options.page)
