"""What each part of the recipe is worth: one training per row, each row a change of the automatic recipe.

The page is written again after every row and holds all rows that are measured by then, so a table may grow over many
calls: --rows chooses what is trained in this one, --seeds how often. So all rows may stand there with one seed and the
finalists with three.
"""

import argparse
import itertools
import shlex
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks.accuracy import add_experiment_arguments
from scripts.benchmarks.experiments import (
    Measured,
    TrainingProgress,
    benchmark_data,
    kept_training,
    leave_one_out,
    measure_training,
    temporal_split,
    trained_on,
)
from scripts.benchmarks.noise import with_noise
from scripts.benchmarks.pages import markdown_table, share, signed, write_section
from scripts.train import ProgressBar
from scripts.training.config import ConfigError, TrainingConfig, parse_assignments
from scripts.training.evaluation import POPULARITY_SHARES, Interval, bootstrap_interval, ndcg
from scripts.training.interactions import Cases, PreparedData
from scripts.training.recipe import DataStatistics, choose_recipe, count

ROWS_FILE = Path(__file__).with_name("ablation.toml")
AUTOMATIC = "automatic recipe"
READING = (
    "One seed where a row names no number; ± is the standard deviation over seeds. The gain is that in NDCG@10 over "
    "the automatic recipe with the same seeds, with its 95 % interval, paired by case; *the same* is what the recipe "
    "chooses anyway, or what changed no rank."
)

READING_OF_TIME = "Cases are every event after the time, as in [accuracy](accuracy.md); intervals draw users."
SPLITS = {"leave-one-out": leave_one_out, "temporal": temporal_split}
NEEDS: dict[str, Callable[[DataStatistics], bool]] = {
    "clock": lambda statistics: statistics.has_clock,
    "attributes": lambda statistics: statistics.num_attribute_values > 0,
}
"""What a row may need → whether the data have it."""


@dataclass(frozen=True)
class Row:
    """One change of the automatic recipe.

    needs: one of `NEEDS`, or nothing: it is measured where the data have it.

    noise: share of random events put into the training part, where data are split leave-one-out.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    needs: str = ""
    noise: float = 0.0

    def fits(self, data: PreparedData, statistics: DataStatistics) -> bool:
        has_what_it_needs = not self.needs or NEEDS[self.needs](statistics)
        return has_what_it_needs and not (self.noise and data.split != "leave-one-out")


@dataclass(frozen=True, eq=False)
class RowResult:
    """A row on one set, with the seeds 1…n that are measured; at least one."""

    row: Row
    runs: Sequence[Measured]

    def mean(self, metric: str, cases: str = "test") -> float:
        """Over the seeds; a popularity group's name gives its NDCG@10."""
        found = [run.evaluated[cases] for run in self.runs]
        return float(np.mean([{**each.metrics, **each.by_popularity}[metric] for each in found]))

    def deviation(self, metric: str) -> float:
        """Standard deviation over the seeds, NaN of one."""
        values = [run.evaluated["test"].metrics[metric] for run in self.runs]
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    def gain(self, automatic: "RowResult", users: NDArray[np.int64] | None = None) -> Interval:
        """NDCG@10 on test minus that of the automatic recipe, paired by case and by the seeds that both have, which are
        averaged first; bootstrapped over `users`, int64 (num_cases,), where these have several cases."""
        both = zip(self.runs, automatic.runs, strict=False)
        gains = [np.subtract(*(ndcg(run.evaluated["test"].ranks, 10) for run in pair)) for pair in both]
        return bootstrap_interval(np.mean(gains, axis=0), clusters=users)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, after the automatic recipe itself.

        [[row]]
        name = "gBCE"
        part = "loss"                      # rows of one part stand together
        values = { loss = "gbce" }         # as --set takes them
        needs = "attributes"               # only where several items share one; or "clock"
        noise = 0.1                        # random events added to the training part

    Raises:
        ConfigError: no TOML, an unknown key or need, or two rows of one name.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["row"]
        rows = [Row(**table) for table in tables]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} holds no rows of an ablation: {error}") from error
    names = [row.name for row in rows]
    if len(set(names)) != len(names) or AUTOMATIC in names:
        raise ConfigError(f"{path}: every row needs a name of its own, and {AUTOMATIC!r} is the first row's")
    if unknown := {row.needs for row in rows if row.needs} - NEEDS.keys():
        raise ConfigError(f"{path}: a row needs {' or '.join(NEEDS)}, found {', '.join(map(repr, unknown))}")
    return [Row(AUTOMATIC), *rows]


def configurations(rows: Sequence[Row], data: PreparedData, changes: Mapping[str, Any]) -> dict[str, TrainingConfig]:
    """Name of each row that fits the set → its configuration; `changes` are of all rows and give way to its own.

    Raises:
        ConfigError: names the row whose values do not fit, before anything is trained.
    """
    statistics = count(data)
    automatic, _ = choose_recipe(statistics)
    found = {}
    for row in rows:
        if not row.fits(data, statistics):
            continue
        try:
            found[row.name] = automatic.with_values({**changes, **row.values})
        except ConfigError as error:
            raise ConfigError(f"row {row.name!r}: {error}") from error
    return found


def choose_rows(rows: Sequence[Row], chosen: Sequence[str]) -> list[Row]:
    """The automatic recipe and the rows whose name or part is in `chosen`, all of them where that is empty.

    Raises:
        ConfigError: something chosen is neither.
    """
    known = {row.name for row in rows} | {row.part for row in rows}
    unknown = [each for each in chosen if each not in known]
    if unknown:
        parts = ", ".join(dict.fromkeys(row.part for row in rows if row.part))
        raise ConfigError(f"no row and no part is named {', '.join(map(repr, unknown))}; the parts are {parts}")
    return [row for row in rows if not chosen or row.name in (AUTOMATIC, *chosen) or row.part in chosen]


def measure_rows(
    data: PreparedData,
    rows: Sequence[Row],
    output: Path,
    *,
    chosen: Collection[Row],
    num_seeds: int,
    configs: Mapping[str, TrainingConfig],
    progress: TrainingProgress,
) -> Iterator[list[RowResult]]:
    """Trains the chosen rows that fit the set (those of `configs`, see `configurations`) with the seeds 1…num_seeds, in
    order, and after each yields what is measured so far, in the order of `rows`; what an earlier call finished, chosen
    or not and with however many seeds, is not trained again."""
    cases = {"validation": data.cases("validation"), "test": data.cases("test")}
    found: dict[str, RowResult] = {}
    todo = []
    for row in (row for row in rows if row.name in configs):
        learn_from = None
        if row.noise:
            learn_from = with_noise(data, row.noise, output / "data" / f"{data.name}-noise-{row.noise:g}")
        runs = _kept_runs(data, configs[row.name], output, cases, learn_from)
        if runs:
            found[row.name] = RowResult(row, runs)
        if len(runs) < num_seeds and row in chosen:
            todo.append((row, learn_from))
    for number, (row, learn_from) in enumerate(todo, 1):
        label = f"{data.name}, row {number} of {len(todo)}, {row.name}: epoch"
        seeds = [configs[row.name].with_values({"seed": seed}) for seed in range(1, num_seeds + 1)]
        runs = [
            measure_training(data, config, output, label=label, cases=cases, progress=progress, learn_from=learn_from)
            for config in seeds
        ]
        found[row.name] = RowResult(row, runs)
        yield [found[row.name] for row in rows if row.name in found]
    if not todo:
        yield [found[row.name] for row in rows if row.name in found]


def _kept_runs(
    data: PreparedData,
    config: TrainingConfig,
    output: Path,
    cases: Mapping[str, Cases],
    learn_from: PreparedData | None,
) -> list[Measured]:
    """Of the seeds 1, 2, … up to the first that is not measured."""
    runs: list[Measured] = []
    while True:
        seeded = config.with_values({"seed": len(runs) + 1})
        kept = kept_training(data, seeded, output, cases=cases, learn_from=learn_from)
        if kept is None:
            return runs
        runs.append(kept)


def commands(results: Sequence[RowResult], rows: Sequence[Row], words: str) -> list[str]:
    """What a table comes from: its rows with the fewest seeds, some with more. `rows` are all that the set trains
    beside the recipe: those that repeat it stand in the table anyway."""
    shown = []
    for number in sorted({len(result.runs) for result in results}):
        selected = _selection({result.row.name for result in results if len(result.runs) >= number}, rows)
        words_of_rows = f" --rows {shlex.join(selected)}" if selected else ""
        shown.append(f"python -m scripts.benchmark ablation {words} --seeds {number}{words_of_rows}")
    return shown


def _selection(names: Set[str], rows: Sequence[Row]) -> list[str]:
    """The shortest --rows for these names: whole parts by their own; nothing where all rows are meant."""
    if names >= {row.name for row in rows}:
        return []
    chosen: list[str] = []
    for part, of_part in itertools.groupby(rows, key=lambda row: row.part):
        every = [row.name for row in of_part]
        found = [name for name in every if name in names]
        chosen += [part] if part and found == every else found
    return chosen or [AUTOMATIC]


def ablation_table(results: Sequence[RowResult], data_name: str, users: NDArray[np.int64] | None = None) -> str:
    """Markdown: a row each, the gain over the first in NDCG@10 with its 95 % interval, `users` as in `gain`."""
    automatic = results[0]
    head = [
        data_name, "validation NDCG@10", "HR@10", "NDCG@10", "gain", "coverage@10",
        *(f"NDCG@10 {group}" for group in POPULARITY_SHARES), "epochs", "seconds",
    ]  # fmt: skip
    rows = []
    part = ""
    for result in results:
        if result.row.part != part:
            part = result.row.part
            rows.append([f"*{part}*", *[""] * (len(head) - 1)])
        shown = "" if result is automatic else _shown_gain(result.gain(automatic, users))
        has_several = len(result.runs) > 1
        spread = f" ± {share(result.deviation('ndcg@10'))}" if has_several else ""
        rows.append(
            [
                f"{result.row.name}, {len(result.runs)} seeds" if has_several else result.row.name,
                share(result.mean("ndcg@10", "validation")),
                share(result.mean("hit_rate@10")),
                share(result.mean("ndcg@10")) + spread,
                shown,
                share(result.mean("coverage@10")),
                *(share(result.mean(group)) for group in POPULARITY_SHARES),
                "/".join(str(run.num_epochs) for run in result.runs),
                "/".join(f"{run.seconds:.0f}" for run in result.runs),
            ]
        )
    return markdown_table(head, rows)


def _shown_gain(gain: Interval) -> str:
    is_same = gain.low == gain.mean == gain.high == 0
    return "the same" if is_same else f"{signed(gain.mean)} [{signed(gain.low)}, {signed(gain.high)}]"


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("ablation", help="one training per change of the automatic recipe")
    add_experiment_arguments(parser, Path("docs/benchmarks/ablation.md"), ("beauty", "ml-1m"))
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="names or parts (default: all)")
    parser.add_argument("--rows-file", type=Path, default=ROWS_FILE, metavar="FILE",
                        help="TOML (default: the rows we keep)")  # fmt: skip
    parser.add_argument("--split", choices=list(SPLITS), default="leave-one-out", help="default %(default)s")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="of each chosen row (default %(default)s)")
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    rows = read_rows(options.rows_file)
    chosen = choose_rows(rows, options.rows)
    changes = parse_assignments(options.set)
    split = SPLITS[options.split]
    sets = {name: benchmark_data(name, options.data_folder, options.output, split(name)) for name in options.sets}
    # A row that does not fit is refused before hours of training.
    fitting = {name: configurations(rows, data, changes) for name, data in sets.items()}
    settings = "".join(f" --set {assignment}" for assignment in options.set)
    rows_option = "" if options.rows_file == ROWS_FILE else f" --rows-file {options.rows_file.name}"
    split_option = "" if options.split == "leave-one-out" else f" --split {options.split}"
    for name, data in sets.items():
        words = f"--data-folder DATA --sets {name}{split_option}{rows_option}{settings}"
        configs = fitting[name]
        trained = [
            row for row in rows if row.name in configs and (row.noise or configs[row.name] != configs[AUTOMATIC])
        ]
        users = data.cases("test").user_indices
        table = ""
        for results in measure_rows(
            data,
            rows,
            options.output,
            chosen=chosen,
            num_seeds=options.seeds,
            configs=configs,
            progress=ProgressBar,
        ):
            table = ablation_table(results, data.name, users)
            head = "\n".join(f"    {command}" for command in commands(results, trained, words))
            changed = f", trained with {', '.join(f'`{each}`' for each in options.set)}" if options.set else ""
            where = trained_on(run for result in results for run in result.runs)
            reading = f"{READING} {READING_OF_TIME}" if data.split == "temporal" else READING
            section = f"## {data.name}{changed}\n\n{head}\n\n{where}. {reading}\n\n{table}"
            write_section(options.page, f"{options.rows_file.stem} on {data.name}{settings}", section)
        print(table, end="\n\n")
    print(options.page)
