"""What training costs as data grow: seconds an epoch and peak memory against users, length of sequences and items.

From one base point, one size at a time takes other values; every point is `scripts.train` in a process of its own on
generated walks, two epochs of sampled softmax, of which the second is timed. The peak is that of the whole process:
loading, training, validation and the checkpoint.

python -m scripts.benchmarks.training_cost FOLDER USERS LENGTH ITEMS writes the data of one point.
"""

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.processes import measured

AXES = {"users": "users", "length": "steps a user", "items": "items"}
"""Sizes and what they are counted in."""
HELD_OUT = 2
PREDICTABILITY = 0.5
SETTINGS = {
    "dim": 64,
    "temporal": "conv",
    "loss": "sampled_softmax",
    "num_negatives": 1024,
    "negatives": "uniform",
    "logq_correction": "false",
    "position_bias": "false",
    "attention_dropout": 0.0,
    "batch_tokens": 4096,
    "max_epochs": 2,
    "validation_cases": 100,
    "followers": 0,
    "members": 1,
    "rerank": "false",
    "device": "cpu",
}
"""Of every point, also what the recipe chooses by size; rules, which cost seconds, are left out."""


@dataclass(frozen=True)
class Point:
    """Users with `length` steps from item to item each, to learn from, over a catalogue of `items`."""

    users: int
    length: int
    items: int


@dataclass(frozen=True)
class Cost:
    point: Point
    seconds: float
    peak_bytes: int


def points(base: Point, axis: str, values: Sequence[int]) -> list[Point]:
    """
    >>> points(Point(10, 5, 100), "length", [5, 20])
    [Point(users=10, length=5, items=100), Point(users=10, length=20, items=100)]
    """
    return [dataclasses.replace(base, **{axis: value}) for value in values]


def measure_point(point: Point, folder: Path) -> Cost:
    """`folder` is emptied before and after.

    Raises:
        ProcessFailed: see `measured`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    data, run = folder / "data", folder / "run"
    sizes = [str(point.users), str(point.length), str(point.items)]
    # A process of its own as well: the peak of this one would be taken for that of its children.
    measured([sys.executable, "-m", __spec__.name, str(data), *sizes])
    words = [f"{key}={value}" for key, value in {**SETTINGS, "max_length": point.length}.items()]
    settings = [word for setting in words for word in ("--set", setting)]
    command = ["--data", str(data), "--output", str(run), "--tracker", "none", *settings]
    cost = measured([sys.executable, "-m", "scripts.train", *command])
    seconds = json.loads((run / "history.jsonl").read_text().splitlines()[-1])["seconds"]
    shutil.rmtree(folder)
    return Cost(point, seconds, cost.peak_bytes)


def _write(folder: Path, users: int, length: int, items: int) -> None:
    # Only here: the parent, whose peak the child's begins with, stays small.
    from scripts.training.synthetic import markov_sequences, write_sequences

    events = length + 1 + HELD_OUT
    walks = markov_sequences(num_users=users, num_items=items, length=events, predictability=PREDICTABILITY, seed=1)
    write_sequences(folder, walks, name="walks", num_items=items)


def slopes(axis: str, costs: Sequence[Cost]) -> str:
    """What one more costs, by the straight line of least squares, and how fast the whole grows.

    >>> base = Point(10, 5, 100)
    >>> grown = [Cost(point, point.users / 100, point.users * 1000) for point in points(base, "users", [1000, 3000])]
    >>> slopes("users", grown)
    '1,000 users more: 10.0 s an epoch, 1 MB; seconds grow as users^1.00'
    """
    import numpy as np

    unit = {"users": 1000, "length": 10, "items": 10_000}[axis]
    sizes = np.array([getattr(cost.point, axis) for cost in costs], float)
    seconds = np.array([cost.seconds for cost in costs])
    slope, _ = np.polyfit(sizes, seconds, 1)
    memory, _ = np.polyfit(sizes, [cost.peak_bytes for cost in costs], 1)
    power, _ = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return (
        f"{unit:,} {AXES[axis]} more: {unit * slope:.1f} s an epoch, {unit * memory / 1e6:.0f} MB; "
        f"seconds grow as {axis}^{power:.2f}"
    )


def draw(found: dict[str, list[Cost]], path: Path) -> None:
    """One column per axis: seconds an epoch above, peak memory below."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    rows = figure.subplots(2, len(found), sharey="row", squeeze=False)
    for column, (axis, costs) in enumerate(found.items()):
        sizes = [getattr(cost.point, axis) for cost in costs]
        for place, values, label in (
            (0, [cost.seconds for cost in costs], "seconds an epoch"),
            (1, [cost.peak_bytes / 1e9 for cost in costs], "peak memory, GB"),
        ):
            ax = rows[place][column]
            ax.plot(sizes, values, "o-", color="#2a6f97")
            ax.set_xscale("log")
            ax.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30)
            ax.minorticks_off()
            ax.grid(alpha=0.3)
            if column == 0:
                ax.set_ylabel(label)
        rows[1][column].set_xlabel(AXES[axis])
    for row in rows:
        row[0].set_ylim(bottom=0)  # of the whole row; earlier it would be the end of fitting to what is drawn later
    path.parent.mkdir(parents=True, exist_ok=True)
    # Text as text, and the same file for the same figures.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "training cost"}):
        figure.savefig(path, metadata={"Date": None})


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("training-cost", help="time and memory against users, length and catalogue")
    parser.add_argument("--users", type=int, nargs="+", default=[2000, 4000, 8000, 16000], metavar="N",
                        help="the first is the base (default %(default)s)")  # fmt: skip
    parser.add_argument("--length", type=int, nargs="+", default=[50, 25, 100, 200], metavar="N",
                        help="steps a user, the first is the base (default %(default)s)")  # fmt: skip
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 300_000, 1_000_000], metavar="N",
                        help="the first is the base (default %(default)s)")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("runs/training-cost"), metavar="FOLDER",
                        help="for the data and the run of a point (default %(default)s)")  # fmt: skip
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/training-cost.md"),
                        help="whose section is written, the plot beside it (default %(default)s)")  # fmt: skip
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    values = {axis: list(getattr(options, axis)) for axis in AXES}
    base = Point(**{axis: values[axis][0] for axis in AXES})
    kept: dict[Point, Cost] = {}
    found: dict[str, list[Cost]] = {}
    for axis in AXES:
        for point in points(base, axis, values[axis]):
            if point not in kept:
                kept[point] = measure_point(point, options.output)
            print(f"{point}: {kept[point].seconds:.1f} s, {kept[point].peak_bytes / 1e9:.2f} GB", flush=True)
        found[axis] = [kept[point] for point in points(base, axis, sorted(values[axis]))]
    # After the measurements: it loads PyTorch.
    from scripts.benchmarks.pages import machine, markdown_table, write_section

    parts = []
    for axis, costs in found.items():
        rows = [
            [f"{getattr(cost.point, axis):,}", f"{cost.seconds:.1f}", f"{cost.peak_bytes / 1e9:.2f}"] for cost in costs
        ]
        others = ", ".join(f"{getattr(base, other):,} {unit}" for other, unit in AXES.items() if other != axis)
        parts += [markdown_table([f"{AXES[axis]} ({others})", "seconds an epoch", "peak GB"], rows)]
        if len(costs) > 1:
            parts.append(slopes(axis, costs) + ".")
    plot = options.page.with_suffix(".svg")
    draw(found, plot)
    words = " ".join(f"--{axis} {' '.join(map(str, values[axis]))}" for axis in AXES)
    settings = ", ".join(f"`{key}={value}`" for key, value in SETTINGS.items())
    head = f"    python -m scripts.benchmark training-cost {words}\n\n{machine()}. Every point: {settings}."
    text = "\n\n".join([head, f"![seconds and memory against each size]({plot.name})", *parts])
    write_section(options.page, "training cost", text)
    print(options.page)


if __name__ == "__main__":
    _write(Path(sys.argv[1]), *map(int, sys.argv[2:]))
