"""Ten million items in one process, without HTTP: what the index finds, what ranking costs, and what memory holds."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from app.artifacts.vocabulary import ItemVocabulary
from app.ranking.approximate import ApproximateRanker
from app.ranking.exact import ExactRanker
from app.ranking.index import ItemIndex
from app.ranking.ranker import ItemSequence, Ranker
from scripts.benchmarks.serving.load import Load
from scripts.benchmarks.serving.rows import EVENTS_PER_USER, Bench, Row, timed
from scripts.benchmarks.serving.simulated import MAX_LENGTH, item_id, simulated_graph, simulated_tables
from scripts.training.graph import random_history

HUGE = 10_000_000
NUM_LISTS = 4096
"""Fewer than an export would make: to compare ten million vectors with its 12,649 centres would take three times as
long."""
PROBES = (8, 16, 32, 64)
NUM_HISTORIES = 200
NUM_COMPARED = 50
"""Of these histories as many are ranked exactly too, for the recall."""


def huge_catalogue(bench: Bench) -> Iterator[Row]:
    """Tables and index lie in files and are mapped, as the service would."""
    del bench
    with TemporaryDirectory() as place:
        folder = Path(place)
        for name, table in simulated_tables(HUGE).items():
            np.save(folder / f"{name}.npy", table, allow_pickle=False)
        tables = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
        ItemIndex.build(tables["item_vectors"], num_lists=NUM_LISTS).write(folder / "index")
        graph, content = simulated_graph()
        (folder / "model.onnx").write_bytes(content)
        exact = ExactRanker(
            folder / "model.onnx", inputs=graph.inputs, num_items=HUGE, max_length=MAX_LENGTH, tables=tables
        )
        index = ItemIndex.read(folder / "index")
        rng = np.random.default_rng(11)
        histories = [random_history(rng, HUGE, EVENTS_PER_USER) for _ in range(NUM_HISTORIES)]
        rankers = [ApproximateRanker(exact, index, probes=probes) for probes in PROBES]
        loads = [_ranked(ranker, histories) for ranker in rankers]
        memory = _memory()
        best = [set(exact.rank([history], 10)[0].item_indices.tolist()) for history in histories[:NUM_COMPARED]]
        for probes, ranker, load in zip(PROBES, rankers, loads, strict=True):
            found = [set(ranker.rank([history], 10)[0].item_indices.tolist()) for history in histories[:NUM_COMPARED]]
            recall = sum(len(one & other) for one, other in zip(best, found, strict=True)) / (10 * NUM_COMPARED)
            work = f"approximate ranking, {HUGE:,} items, {probes} of {NUM_LISTS:,} lists read, no HTTP"
            yield Row(work, "p99 < 15 ms at recall@10 ≥ 0.98", load, f"recall@10 {recall:.3f}")
        yield Row("exact ranking, no HTTP", "", _ranked(exact, histories[:NUM_COMPARED]))
        files = sum(path.stat().st_size for path in folder.iterdir())
        before = _memory()[0]
        vocabulary = ItemVocabulary([item_id(index) for index in range(1, HUGE + 1)])
        ids = _memory()[0] - before
        del vocabulary
    own, mapped = (f"{part / 1e9:.2f} GB" for part in memory)
    also = f"{own} of its own and {mapped} of mapped files, which are {files / 1e9:.2f} GB"
    yield Row("memory after the approximate rankings", "< 4 GB with HTTP", None, also)
    yield Row("the ids, which a service holds besides", "", None, f"{ids / 1e9:.2f} GB")


def _ranked(ranker: Ranker, histories: Sequence[ItemSequence]) -> Load:
    return timed(lambda place: ranker.rank([histories[place]], 10), len(histories))


def _memory() -> tuple[int, int]:
    """Resident bytes of this process that are its own, and those of files."""
    status = Path("/proc/self/status").read_text()
    own, of_files = (int(value) for value in re.findall(r"^Rss(?:Anon|File):\s*(\d+)", status, re.MULTILINE))
    return own * 1024, of_files * 1024
