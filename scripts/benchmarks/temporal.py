"""The automatic recipe on a global-temporal split: nobody's future is known, and the bar is a lead over baselines.

The headline is *every* event after the time, with the history as it had grown by earlier times. That is what a service
meets between two trainings, and there are thousands of them; each user's *first* event is reported beside it, of which
MovieLens has some dozen, too few to tell a lead of a tenth from none. Intervals draw users, not cases. Where seen items
are eligible, cases whose target the user had met before are told apart from the others.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks.accuracy import HEADLINES, add_experiment_arguments
from scripts.benchmarks.experiments import (
    Evaluated,
    Measured,
    TrainingProgress,
    benchmark_data,
    measure_baselines,
    measure_seeds,
    temporal_split,
    trained_on,
)
from scripts.benchmarks.pages import markdown_table, share, signed, write_section
from scripts.train import ProgressBar
from scripts.training.config import parse_assignments
from scripts.training.evaluation import Interval, bootstrap_interval, repeat_groups
from scripts.training.interactions import CASES_OF_A_PART, PreparedData
from scripts.training.plots import scorer_label
from scripts.training.recipe import choose_recipe, count

DEFAULT_SETS = ("ml-100k", "ml-latest-small", "completejourney")
BAR = 0.10
"""The lead in NDCG@10 over the best baseline that is asked for, as a share of the baseline."""

READING = (
    "Prepared with `--split temporal`: trained on the first 80 % of the events, validated on the next tenth, tested on "
    f"the last. HR@10 / NDCG@10. *Every*, the headline: every event after the time (at most {CASES_OF_A_PART:,}, "
    "drawn), its history all that the user did at earlier times. *First*: each user's first event after the time. "
    "Intervals are 95 % paired bootstraps over users. Repeats are cases whose target is in the history, told apart "
    "where seen items are eligible."
)


@dataclass(frozen=True, eq=False)
class TemporalResult:
    """One kind of cases on one set. `users` and `is_repeat` are of each case; `is_repeat` tells of the target."""

    data_name: str
    kind: str
    users: NDArray[np.int64]
    is_repeat: NDArray[np.bool_]
    exclude_seen: bool
    runs: Sequence[Evaluated]
    baselines: Mapping[str, Evaluated]

    def values(self, metric: str, name: str | None = None) -> NDArray[np.float64]:
        """Of each case, of a baseline, or by default of the model: the mean over its seeds."""
        scorers = self.runs if name is None else [self.baselines[name]]
        return np.asarray(np.mean([HEADLINES[metric](each.ranks, 10) for each in scorers], axis=0), np.float64)

    def deviation(self, metric: str) -> float:
        """Of the seeds' means; 0 of one seed."""
        means = [HEADLINES[metric](each.ranks, 10).mean() for each in self.runs]
        return float(np.std(means, ddof=1)) if len(means) > 1 else 0.0

    @property
    def best_baseline(self) -> str:
        """By NDCG@10 on these cases."""
        return max(self.baselines, key=lambda name: float(self.values("ndcg@10", name).mean()))

    @property
    def lead(self) -> Interval:
        """In NDCG@10 over the best baseline, paired by case, bootstrapped over users."""
        return bootstrap_interval(
            self.values("ndcg@10") - self.values("ndcg@10", self.best_baseline), clusters=self.users
        )

    @property
    def relative_lead(self) -> float:
        """Of NDCG@10, as a share of the best baseline's; infinite where that has none."""
        base = float(self.values("ndcg@10", self.best_baseline).mean())
        return self.lead.mean / base if base else float("inf")


def measure_temporal(
    data: PreparedData,
    output: Path,
    *,
    num_seeds: int,
    changes: Mapping[str, Any],
    progress: TrainingProgress,
) -> tuple[list[TemporalResult], list[Measured]]:
    """Results for every event, which are the headline, and for first ones, and the trainings behind both."""
    config = choose_recipe(count(data))[0].with_values(changes)
    cases = {"every": data.cases("test"), "first": data.first_cases("test")}
    runs = measure_seeds(data, config, output, num_seeds=num_seeds, cases=cases, progress=progress)
    baselines = measure_baselines(data, output, cases=cases)
    results = [
        TemporalResult(
            data_name=data.name,
            kind=kind,
            users=each.user_indices,
            is_repeat=repeat_groups(each)["repeats"],
            exclude_seen=data.exclude_seen,
            runs=[run.evaluated[kind] for run in runs],
            baselines={name: found[kind] for name, found in baselines.items()},
        )
        for kind, each in cases.items()
    ]
    return results, runs


def temporal_table(results: Sequence[TemporalResult]) -> str:
    """Markdown: the model and every baseline; where repeats are possible, apart for repeats and for new items."""
    parts: list[tuple[str, TemporalResult, NDArray[np.bool_]]] = []
    for result in results:
        everything = np.ones(len(result.users), np.bool_)
        parts.append((result.kind, result, everything))
        if not result.exclude_seen:
            parts += [
                (f"{result.kind}, repeats", result, result.is_repeat),
                (f"{result.kind}, new items", result, ~result.is_repeat),
            ]
    parts = [part for part in parts if part[2].any()]
    head = [results[0].data_name, *(f"{label}: {chosen.sum():,} cases" for label, _, chosen in parts)]
    names: list[str | None] = [None, *results[0].baselines]
    rows = []
    for name in names:
        cells = [
            " / ".join(share(float(result.values(metric, name)[chosen].mean())) for metric in HEADLINES)
            for _, result, chosen in parts
        ]
        label = f"**Segue**, seeds: {len(results[0].runs)}" if name is None else scorer_label(name)
        rows.append([label, *([f"**{cell}**" for cell in cells] if name is None else cells)])
    return markdown_table(head, rows)


def verdicts(results: Sequence[TemporalResult]) -> str:
    """Markdown: one line for each kind of case, against the bar."""
    lines = []
    for result in results:
        lead, relative = result.lead, result.relative_lead
        deviation = share(result.deviation("ndcg@10"))
        seeds = f"Standard deviation over seeds {deviation}." if len(result.runs) > 1 else "One seed."
        lines.append(
            f"- {result.kind} ({len(result.users):,} cases of {len(np.unique(result.users)):,} users): NDCG@10 "
            f"{signed(lead.mean)} [{signed(lead.low)}, {signed(lead.high)}] over {scorer_label(result.best_baseline)}, "
            f"{relative:+.1%}; the bar of +{BAR:.0%} is {'reached' if relative >= BAR else 'missed'}. {seeds}"
        )
    return "\n".join(lines)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("temporal", help="the automatic recipe on a global-temporal split")
    add_experiment_arguments(parser, Path("docs/benchmarks/accuracy.md"), DEFAULT_SETS)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="1…N (default %(default)s)")
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    changes = parse_assignments(options.set)
    settings = "".join(f" --set {assignment}" for assignment in options.set)
    for name in options.sets:
        data = benchmark_data(name, options.data_folder, options.output, temporal_split(name))
        results, runs = measure_temporal(
            data, options.output, num_seeds=options.seeds, changes=changes, progress=ProgressBar
        )
        epochs = "/".join(str(run.num_epochs) for run in runs)
        found = f"{temporal_table(results)}\n\n{verdicts(results)}\n- {epochs} epochs"
        print(found, end="\n\n")
        command = f"python -m scripts.benchmark temporal --data-folder DATA --sets {name} --seeds {options.seeds}"
        head = f"## {name}: global-temporal split\n\n    {command}{settings}\n\n{trained_on(runs)}. {READING}"
        write_section(options.page, f"temporal split of {name}", f"{head}\n\n{found}")
    print(options.page)
