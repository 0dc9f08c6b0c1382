"""From a finished run to a version folder: the graph, the proof that it ranks as the model does, the manifest.

Shapes: B batch, L length, D embedding, K ranks asked for, V catalogue with padding (num_items + 1, column = item
index).
"""

import dataclasses
import logging
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.artifacts.manifest import (
    ATTRIBUTES_FILE,
    FORMAT_VERSION,
    GRAPH_FILE,
    MANIFEST_FILE,
    POPULARITY_FILE,
    VOCABULARY_FILE,
    Graph,
    Manifest,
    Metrics,
    ReferenceCase,
    sha256,
)
from app.artifacts.registry import load_model
from app.artifacts.vocabulary import ItemAttributes, ItemVocabulary
from app.ranking.exact import ExactRanker
from app.ranking.ranker import ItemSequence
from scripts.training.model import SequenceModel
from scripts.training.run_folder import (
    BEST_FILE,
    EVALUATION_FILE,
    REPORT_FILE,
    Run,
    RunError,
    pad_items,
)

GRAPH = Graph(inputs=("items", "k", "adjust"))
OPSET = 20
INLINE_WEIGHTS_LIMIT = 2**30
"""Bytes of weights that `model.onnx` holds itself (the format stops at 2 GiB); more go to a file beside it."""
PARITY_TOLERANCE = 1e-4
"""Largest difference between a score of the graph and of the model on the machine that exports, per unit of the largest
score (at least 1)."""
SCORE_TOLERANCE = 1e-3
"""The same for a reference case wherever the artifact is loaded: another processor adds in another order."""
REFERENCE_TOP = 10


class ExportError(Exception):
    """The exported graph does not do what the model does; nothing was written."""


class RankingGraph(nn.Module):
    """What becomes `model.onnx`: see `app.artifacts.manifest.Graph` for names, types and order."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor, k: Tensor, adjust: Tensor) -> tuple[Tensor, Tensor]:
        scores_BV = self.model.scores(self.model.last_state(items)) + adjust
        # Not int(…): the exporter would try to look at the value.
        num_ranks = cast(int, k[0].item())
        # What the exporter must know of a size that it cannot see.
        torch._check(num_ranks >= 1)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch._check(num_ranks <= scores_BV.shape[1])  # type: ignore[no-untyped-call]  # as above
        top = torch.topk(scores_BV, num_ranks, dim=1)
        return top.indices, top.values


def export_graph(model: SequenceModel, path: Path) -> None:
    """Write the ONNX graph of a model: any batch size, any length up to `max_length`, any k up to num_items."""
    graph = RankingGraph(model).eval()
    # Two unequal rows, one of them padded: an example of size 1 would be taken for a constant.
    items_BL = torch.tensor([[1, 1], [1, 0]])
    example = (items_BL, torch.tensor([1]), torch.zeros(2, model.config.num_items + 1))
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    with _quiet_exporter():
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(GRAPH.inputs),
            output_names=list(GRAPH.outputs),
            dynamic_shapes={"items": {0: batch, 1: length}, "k": None, "adjust": {0: batch}},
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    for node in program.model.graph.all_nodes():
        # Stack traces of this machine, several times the size of a small model.
        node.metadata_props.clear()
        node.doc_string = None
    num_bytes = sum(value.numel() * value.element_size() for value in model.parameters())
    program.save(str(path), external_data=num_bytes > INLINE_WEIGHTS_LIMIT)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns about itself: axes that it merges, calls that a later torch drops, packages that it does not
    need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_parity(model: SequenceModel, path: Path, *, batch_sizes: Sequence[int] = (1, 2, 7, 32)) -> float:
    """Rank random histories with the graph and with the model; returns the largest difference of a score.

    Every batch mixes lengths, from a history without items to one longer than the model reads, and hides some items.

    Raises:
        ExportError: a score differs by more than `PARITY_TOLERANCE`, or the order is not by falling score and rising
        index.
    """
    num_items, max_length = model.config.num_items, model.config.max_length
    ranker = ExactRanker(path, inputs=GRAPH.inputs, num_items=num_items, max_length=max_length)
    rng = np.random.default_rng(0)
    lengths = sorted({0, 1, 2, 3, 5, max_length // 2, max_length - 1, max_length})
    worst = 0.0
    for size in batch_sizes:
        for longest in lengths:
            histories = [
                random_history(rng, num_items, longest if row == 0 else int(rng.integers(0, longest + 1)))
                for row in range(size)
            ]
            adjust_BV = rng.normal(size=(size, num_items + 1)).astype(np.float32)
            adjust_BV[rng.random(adjust_BV.shape) < 0.1] = -np.inf
            adjust_BV[:, 1] = 0  # at least one item is eligible
            expected_BV = score_all_positions(model, histories) + adjust_BV
            for expected_V, ranking in zip(expected_BV, ranker.rank(histories, num_items, adjust_BV), strict=True):
                found_V = np.full(num_items + 1, -np.inf, dtype=np.float32)
                found_V[ranking.item_indices] = ranking.scores
                order = np.lexsort((ranking.item_indices, -ranking.scores))
                is_eligible = np.isfinite(expected_V)
                if not np.array_equal(is_eligible, np.isfinite(found_V)):
                    raise ExportError(f"batch of {size}, length {longest}: the graph hides other items than the model")
                if not np.array_equal(order, np.arange(len(order))):
                    raise ExportError(f"batch of {size}, length {longest}: ranks are not by score and item index")
                scale = max(1.0, float(np.abs(expected_V[is_eligible]).max()))
                difference = float(np.abs(found_V[is_eligible] - expected_V[is_eligible]).max())
                if not difference <= PARITY_TOLERANCE * scale:
                    raise ExportError(
                        f"batch of {size}, length {longest}: a score of the graph is {difference:.2e} off, "
                        f"at most {PARITY_TOLERANCE * scale:.2e} is allowed"
                    )
                worst = max(worst, difference)
    return worst


def score_all_positions(model: SequenceModel, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
    """float32 (B, V) the way training computes it: every position through every layer, then the newest one picked."""
    items_BL = pad_items([history.items for history in histories], model.config.max_length)
    newest_B = (items_BL != 0).sum(dim=1).sub(1).clamp(min=0)
    with torch.inference_mode():
        states_BLD = model.eval()(items_BL)
        scores: NDArray[np.float32] = model.scores(states_BLD[torch.arange(len(newest_B)), newest_B]).numpy()
    return scores


def random_history(rng: np.random.Generator, num_items: int, length: int) -> ItemSequence:
    """A history that belongs to no user: uniform items, one a minute, all of event type 1."""
    items = rng.integers(1, num_items + 1, length).tolist()
    return ItemSequence(items, [1_700_000_000_000 + 60_000 * step for step in range(length)], [1] * length)


def reference_cases(model: SequenceModel) -> tuple[ReferenceCase, ...]:
    """Synthetic histories of typical and extreme lengths with the ranking that torch computes for them."""
    rng = np.random.default_rng(1)
    num_items, max_length = model.config.num_items, model.config.max_length
    lengths = sorted({0, 1, 2, max_length // 2, max_length})
    histories = [random_history(rng, num_items, length) for length in lengths]
    scores_BV = score_all_positions(model, histories)
    cases = []
    for history, scores_V in zip(histories, scores_BV, strict=True):
        best = np.argsort(-scores_V, kind="stable")[: min(REFERENCE_TOP, num_items)]
        cases.append(
            ReferenceCase(
                items=tuple(history.items),
                timestamps_ms=tuple(history.timestamps_ms),
                event_types=tuple(history.event_types),
                item_indices=tuple(best.tolist()),
                scores=tuple(scores_V[best].tolist()),
            )
        )
    return tuple(cases)


def export_run(run: Run, artifacts: Path, *, now: datetime | None = None) -> Path:
    """Write a run's model as a new version folder under `artifacts`, whole or not at all, and return it.

    Raises:
        ExportError: the graph does not rank as the model does.
        RunError: the run's evaluation is older than its weights.
        ArtifactError: the finished folder cannot be loaded as the service would load it.
    """
    now = now or datetime.now(UTC)
    metrics = _metrics(run)
    artifacts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=artifacts, prefix=".export-") as workshop:
        unnamed = Path(workshop) / "version"
        unnamed.mkdir()
        export_graph(run.model, unnamed / GRAPH_FILE)
        check_parity(run.model, unnamed / GRAPH_FILE)
        _write_catalogue(run, unnamed)
        for source, name in ((EVALUATION_FILE, "report.json"), (REPORT_FILE, "report.html")):
            if metrics is not None and (run.folder / source).is_file():
                shutil.copyfile(run.folder / source, unnamed / name)
        files = {path.name: sha256(path) for path in sorted(unnamed.iterdir())}
        version = f"{now.astimezone(UTC):%Y%m%dT%H%M%S}-{files[GRAPH_FILE][:8]}"
        folder = unnamed.rename(unnamed.with_name(version))
        manifest = _manifest(run, version, now, metrics, files)
        (folder / MANIFEST_FILE).write_bytes(
            orjson.dumps(manifest.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n"
        )
        load_model(folder, history_cap=manifest.max_length)
        for path in folder.iterdir():
            _sync(path)
        finished = artifacts / version
        if finished.exists():
            raise ExportError(f"{finished} exists already; a version never changes")
        folder.rename(finished)
        _sync(artifacts)
    return finished


def _write_catalogue(run: Run, folder: Path) -> None:
    data = run.data
    ItemVocabulary(data.item_ids).write(folder / VOCABULARY_FILE)
    ItemAttributes.write(folder / ATTRIBUTES_FILE, data.attributes)
    learnt_from = data.everything if run.refit else data.train
    np.save(folder / POPULARITY_FILE, learnt_from.item_counts(data.num_items), allow_pickle=False)


def _manifest(run: Run, version: str, now: datetime, metrics: Metrics | None, files: dict[str, str]) -> Manifest:
    data = run.data
    return Manifest(
        format_version=FORMAT_VERSION,
        model_version=version,
        created_at=now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        git_commit=_git_commit(),
        num_items=data.num_items,
        max_length=run.model.config.max_length,
        graph=GRAPH,
        event_types=data.event_types,
        exclude_seen=data.exclude_seen,
        time_use="none",
        model=dataclasses.asdict(run.model.config),
        preprocessing={
            "name": data.name,
            "split": data.split,
            "split_times_ms": dict(data.split_times_ms),
            "cleaning": data.cleaning,
            "config": data.config,
        },
        training={**dataclasses.asdict(run.config.training), "num_epochs": run.num_epochs},
        refit=run.refit,
        data_fingerprint=data.fingerprint,
        metrics=metrics,
        reference_cases=reference_cases(run.model),
        score_tolerance=SCORE_TOLERANCE,
        files=files,
    )


def _metrics(run: Run) -> Metrics | None:
    """What evaluate measured with the run's best weights, None when it was not run."""
    path = run.folder / EVALUATION_FILE
    if not path.is_file():
        return None
    if path.stat().st_mtime_ns < (run.folder / BEST_FILE).stat().st_mtime_ns:
        raise RunError(f"{path} is older than {BEST_FILE}; run python -m scripts.evaluate again")
    values: dict[str, Any] = orjson.loads(path.read_bytes())
    return Metrics(protocol=values["protocol"], model=values["model"], baselines=values["baselines"])


def _git_commit() -> str | None:
    """The commit of the code that exports, None outside a repository or without git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
