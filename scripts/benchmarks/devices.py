"""Exact ranking without HTTP on every device that this onnxruntime offers, and whether they give the same lists."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort

from app.artifacts.manifest import GRAPH_FILE
from app.ranking.exact import PROVIDERS, Device, ExactRanker
from app.ranking.ranker import ItemSequence
from scripts.benchmarks.pages import machine, markdown_table, write_section
from scripts.benchmarks.serving.simulated import MAX_LENGTH, simulated_graph, simulated_tables
from scripts.training.graph import random_history

BATCHES = (1, 8, 32, 128)
BEST = 10
HISTORY_LENGTH = 50
ROUNDS = 30
SLOWEST_S = 1.0
"""What takes longer is measured in fewer rounds."""


def devices() -> list[Device]:
    available = ort.get_available_providers()
    return [device for device, provider in PROVIDERS.items() if provider in available]


def ranking_rows(num_items: int, chosen: Sequence[Device], *, rounds: int) -> list[list[str]]:
    """A row for each device: how many of the best ten are those of the first device, and the median milliseconds of a
    run over each number of histories, what is on its way to the device included. Each run begins at another history."""
    rng = np.random.default_rng(0)
    graph, content = simulated_graph()
    tables = simulated_tables(num_items)
    expected: dict[int, list[set[int]]] = {}
    rows = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / GRAPH_FILE
        path.write_bytes(content)
        histories = [random_history(rng, num_items, HISTORY_LENGTH) for _ in range(2 * max(BATCHES))]
        for device in chosen:
            ranker = ExactRanker(
                path, inputs=graph.inputs, num_items=num_items, max_length=MAX_LENGTH, tables=tables, device=device
            )
            cells, kept = [], []
            for batch in BATCHES:
                found = [set(ranking.item_indices.tolist()) for ranking in ranker.rank(histories[:batch], BEST)]
                kept += [len(mine & its) for mine, its in zip(found, expected.setdefault(batch, found), strict=True)]
                cells.append(f"{1000 * _median_seconds(ranker, histories, batch, rounds):.2f}")
            rows.append([f"{num_items:,} items, {device}", f"{np.mean(kept) / BEST:.2%}", *cells])
    return rows


def _median_seconds(ranker: ExactRanker, histories: Sequence[ItemSequence], batch: int, rounds: int) -> float:
    seconds: list[float] = []
    while len(seconds) < rounds and (len(seconds) < 3 or sum(seconds) < SLOWEST_S):
        first = len(seconds) % (len(histories) - batch)
        start = time.perf_counter()
        ranker.rank(histories[first : first + batch], BEST)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("devices", help="exact ranking on the processor and on a GPU, without HTTP")
    parser.add_argument("--items", type=int, nargs="+", default=[12_000, 100_000, 1_000_000], metavar="N",
                        help="sizes of catalogues (default %(default)s)")  # fmt: skip
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/serving.md"),
                        help="whose section is written (default %(default)s)")  # fmt: skip
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    chosen = devices()
    rows = [row for num_items in options.items for row in ranking_rows(num_items, chosen, rounds=ROUNDS)]
    head = ["exact ranking, no HTTP", f"best ten as {chosen[0]}", *(f"ms, {batch} at once" for batch in BATCHES)]
    table = markdown_table(head, rows)
    what = (
        f"{machine()}, onnxruntime {ort.__version__}; one thread, histories of {HISTORY_LENGTH} events, medians of "
        f"{ROUNDS} runs (fewer where they took more than {SLOWEST_S:g} s)."
    )
    write_section(options.page, "devices", f"    python -m scripts.benchmark devices\n\n{what}\n\n{table}")
    print(table, end="\n\n")
    print(options.page)
