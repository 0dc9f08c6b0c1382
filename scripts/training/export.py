"""From a finished run to a version folder: the graph, the proof that it ranks as the model does, the manifest.

Shapes: B batch, V catalogue with padding (num_items + 1, column = item index).
"""

import dataclasses
import os
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from app.artifacts.manifest import (
    ATTRIBUTE_VALUES_FILE,
    ATTRIBUTE_VECTORS_FILE,
    ATTRIBUTES_FILE,
    FORMAT_VERSION,
    GRAPH_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    POPULARITY_FILE,
    TABLE_FILES,
    VOCABULARY_FILE,
    Calibration,
    Manifest,
    Metrics,
    ReferenceCase,
    sha256,
)
from app.artifacts.registry import load_model
from app.artifacts.vocabulary import ItemAttributes, ItemVocabulary
from app.ranking.exact import ExactRanker
from app.ranking.index import ItemIndex
from scripts.training.attributes import learn_attribute_values
from scripts.training.evaluation import Scorer
from scripts.training.fitting import inner_hold_out
from scripts.training.fusion import FusedModel
from scripts.training.graph import (
    ExportError,
    check_parity,
    export_graph,
    graph_of,
    random_history,
    ranker_of,
    score_all_positions,
    tables_of,
)
from scripts.training.quantization import quantize_graph
from scripts.training.run_folder import (
    BEST_FILE,
    EVALUATION_FILE,
    REPORT_FILE,
    Run,
    RunError,
    load_run,
)
from scripts.training.scorer import RankerScorer
from scripts.training.smaller import AS_TRAINED, Smaller, histories_to_prune_by, judge, pruned

SCORE_TOLERANCE = 1e-3
"""How far a score of a reference case may be off wherever it is replayed: other processors add in another order."""
INT8_TOLERANCE = 0.03
"""The same of a graph with 8-bit weights, per unit of the largest score: kernels of other processors round activations
elsewhere."""
REFERENCE_TOP = 10
INDEXED_ITEMS = 200_000
"""From so many items on an artifact brings an index: scoring all of them takes twice as long there as finding
candidates, see docs/benchmarks/serving.md."""


def reference_cases(model: FusedModel, scorer: Scorer | None = None) -> tuple[ReferenceCase, ...]:
    """Synthetic histories of typical and extreme lengths with the ranking that torch computes for them, or `scorer`,
    where the graph differs from the model on purpose."""
    rng = np.random.default_rng(1)
    num_items, max_length = model.config.num_items, model.max_length
    lengths = sorted({0, 1, 2, max_length // 2, max_length})
    histories = [random_history(rng, num_items, length) for length in lengths]
    scores_BV = score_all_positions(model, histories) if scorer is None else scorer(histories)
    cases = []
    for history, scores_V in zip(histories, scores_BV, strict=True):
        best = np.argsort(-scores_V, kind="stable")[: min(REFERENCE_TOP, num_items)]
        cases.append(
            ReferenceCase(
                items=tuple(history.items),
                timestamps_ms=tuple(history.timestamps_ms),
                event_types=tuple(history.event_types),
                target_type=history.target_type,
                item_indices=tuple(best.tolist()),
                scores=tuple(scores_V[best].tolist()),
            )
        )
    return tuple(cases)


def export_run(run: Run, artifacts: Path, *, now: datetime | None = None, smaller: Smaller = AS_TRAINED) -> Path:
    """Write a run's model as a new version folder under `artifacts`, whole or not at all, and return it.

    Raises:
        ExportError: the graph does not rank as the model does, or a smaller one loses more accuracy than is allowed.
        RunError: the run's evaluation is older than its weights.
        ArtifactError: the finished folder cannot be loaded as the service would load it.
    """
    now = now or datetime.now(UTC)
    metrics = _metrics(run)
    artifacts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=artifacts, prefix=".export-") as workshop:
        unnamed = Path(workshop) / "version"
        unnamed.mkdir()
        run, ranker, facts = _write_graph(run, unnamed / GRAPH_FILE, smaller, Path(workshop) / "judged.onnx")
        scorer = RankerScorer(ranker) if smaller.quantize == "int8" else None
        _write_tables(run.model, unnamed)
        _write_index(run.model, unnamed)
        _write_catalogue(run, unnamed)
        for source, name in ((EVALUATION_FILE, "report.json"), (REPORT_FILE, "report.html")):
            if metrics is not None and (run.folder / source).is_file():
                shutil.copyfile(run.folder / source, unnamed / name)
        files = {path.name: sha256(path) for path in sorted(unnamed.iterdir())}
        version = f"{now.astimezone(UTC):%Y%m%dT%H%M%S}-{files[GRAPH_FILE][:8]}"
        folder = unnamed.rename(unnamed.with_name(version))
        cases = reference_cases(run.model, scorer)
        manifest = _manifest(run, version, now, metrics, files, cases, facts)
        if smaller.quantize == "int8":
            largest = max(abs(score) for case in cases for score in case.scores)
            manifest = manifest.model_copy(update={"score_tolerance": INT8_TOLERANCE * max(1.0, largest)})
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


def _write_graph(run: Run, path: Path, smaller: Smaller, judged: Path) -> tuple[Run, ExactRanker, dict[str, Any]]:
    """The run with the model that the graph is of, the graph as the service ranks with it, what the manifest keeps.

    A refitted model knows the validation cases and would be judged too well by them. So its smaller graph is held to
    `max_drop` like any other, but the figures are those of the run's best weights made smaller the same way (`judged`).
    """
    made, ranker = _make_smaller(run, path, smaller)
    if not smaller.is_asked_for:
        return made, ranker, {}
    facts = judge(run, ranker, smaller)
    if run.refit:
        measured = load_run(run.folder)
        facts = judge(measured, _make_smaller(measured, judged, smaller)[1], smaller)
    return made, ranker, {"smaller": facts}


def _make_smaller(run: Run, path: Path, smaller: Smaller) -> tuple[Run, ExactRanker]:
    if smaller.prune:
        run = dataclasses.replace(run, model=pruned(run.model, smaller.prune, histories_to_prune_by(run.data)))
    export_graph(run.model, path)
    check_parity(run.model, path)
    if smaller.quantize == "int8":
        quantize_graph(path)
    return run, ranker_of(run.model, path)


def _write_tables(model: FusedModel, folder: Path) -> None:
    for name, table in tables_of(model).items():
        np.save(folder / TABLE_FILES[name], table, allow_pickle=False)
    vectors_AD = model.attention.attribute_vectors()
    if vectors_AD is not None:
        np.save(folder / ATTRIBUTE_VECTORS_FILE, vectors_AD.detach().float().cpu().numpy(), allow_pickle=False)


def _write_index(model: FusedModel, folder: Path) -> None:
    if model.config.num_items >= INDEXED_ITEMS:
        ItemIndex.build(tables_of(model)["item_vectors"]).write(folder / INDEX_FILE)


def _write_catalogue(run: Run, folder: Path) -> None:
    data = run.data
    ItemVocabulary(data.item_ids).write(folder / VOCABULARY_FILE)
    ItemAttributes.write(folder / ATTRIBUTES_FILE, data.attributes)
    if run.model.attention.attribute_vectors() is not None:
        values = learn_attribute_values(data.attributes)
        (folder / ATTRIBUTE_VALUES_FILE).write_bytes(orjson.dumps(values.labels))
    learnt_from = data.everything if run.refit else data.train
    np.save(folder / POPULARITY_FILE, learnt_from.item_counts(data.num_items), allow_pickle=False)


def _manifest(
    run: Run,
    version: str,
    now: datetime,
    metrics: Metrics | None,
    files: dict[str, str],
    cases: tuple[ReferenceCase, ...],
    facts: dict[str, Any],
) -> Manifest:
    data = run.data
    return Manifest(
        format_version=FORMAT_VERSION,
        model_version=version,
        created_at=now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        git_commit=_git_commit(),
        num_items=data.num_items,
        max_length=run.model.max_length,
        attention_length=run.model.config.max_length,
        graph=graph_of(run.model),
        event_types=data.event_types,
        target_event_types=_target_event_types(run),
        exclude_seen=data.exclude_seen,
        time_use="intervals" if "timestamps_ms" in run.model.config.context_inputs else "none",
        popularity_discount=run.popularity_discount,
        calibration=_calibration(run),
        model=dataclasses.asdict(run.model.config),
        preprocessing={
            "name": data.name,
            "split": data.split,
            "split_times_ms": dict(data.split_times_ms),
            "cleaning": data.cleaning,
            "config": data.config,
        },
        training={
            **dataclasses.asdict(run.config.training),
            "num_epochs": run.num_epochs,
            "share_of_rules": run.model.share,
            "returns": run.model.returns,
            **facts,
        },
        refit=run.refit,
        data_fingerprint=data.fingerprint,
        metrics=metrics,
        reference_cases=cases,
        score_tolerance=SCORE_TOLERANCE,
        files=files,
    )


def _target_event_types(run: Run) -> tuple[str, ...]:
    """Those that the model has a head for: the types of the events that it has learnt from."""
    if not run.model.config.event_types:
        return ()
    inner = inner_hold_out(run.data, run.config.training)
    learnt_from = run.data.everything if run.refit else inner.left if inner else run.data.train
    taught = set(np.unique(learnt_from.event_types).tolist())
    return tuple(name for name, declared in run.data.event_types.items() if declared.index in taught - {0})


def _metrics(run: Run) -> Metrics | None:
    """What evaluate measured with the run's best weights, None when it was not run."""
    path = run.folder / EVALUATION_FILE
    if not path.is_file():
        return None
    if path.stat().st_mtime_ns < (run.folder / BEST_FILE).stat().st_mtime_ns:
        raise RunError(f"{path} is older than {BEST_FILE}; run python -m scripts.evaluate again")
    values: dict[str, Any] = orjson.loads(path.read_bytes())
    return Metrics(protocol=values["protocol"], model=values["model"], baselines=values["baselines"])


def _calibration(run: Run) -> Calibration | None:
    """What evaluate fitted with the run's best weights; a refit or a smaller graph takes it over, like the metrics."""
    path = run.folder / EVALUATION_FILE
    found = orjson.loads(path.read_bytes()).get("calibration") if path.is_file() else None
    return None if found is None else Calibration(**{name: found[name] for name in Calibration.model_fields})


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
