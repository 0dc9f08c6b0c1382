"""Which version is live: checked, compared with the one before, written in one step.

CURRENT    one line, the live version
HISTORY    one line per promotion: time (RFC 3339, UTC) and version
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.artifacts.manifest import Manifest, read_manifest
from app.artifacts.registry import CURRENT_FILE, LiveModel, load_model, read_current
from app.ranking.ranker import ItemSequence
from scripts.training.evaluation import EvaluationResult, evaluate, paired_bootstrap_interval
from scripts.training.interactions import PreparedData
from scripts.training.run_folder import WATCHED_METRIC, write_atomically

HISTORY_FILE = "HISTORY"


class PromotionRefused(Exception):
    """The live version stays; the message says why and what would help."""


@dataclass(frozen=True)
class Promotion:
    """What was promoted over what, and on which grounds."""

    version: str
    previous: str | None
    grounds: str


@dataclass(frozen=True)
class Measured:
    """One version's metric on the split; with a `result` where its graph was evaluated just now."""

    value: float
    result: EvaluationResult | None


class GraphScorer:
    """An artifact's graph behind `evaluation.Scorer`, for data with item indices of their own.

    Items are matched by id. What the artifact does not know is left out of the histories and scored −inf.
    """

    def __init__(self, model: LiveModel, item_ids: Sequence[str]) -> None:
        self._ranker = model.ranker
        self._num_columns = len(item_ids) + 1
        self._to_graph = np.zeros(self._num_columns, dtype=np.int64)
        self._to_data = np.zeros(len(model.vocabulary) + 1, dtype=np.int64)
        for index, item_id in enumerate(item_ids, start=1):
            graph_index = model.vocabulary.index_of(item_id)
            if graph_index is not None:
                self._to_graph[index] = graph_index
                self._to_data[graph_index] = index

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        rankings = self._ranker.rank([self._known(history) for history in histories], self._ranker.num_items)
        scores_BV = np.full((len(histories), self._num_columns), -np.inf, dtype=np.float32)
        for scores_V, ranking in zip(scores_BV, rankings, strict=True):
            scores_V[self._to_data[ranking.item_indices]] = ranking.scores
        scores_BV[:, 0] = -np.inf
        return scores_BV

    def _known(self, history: ItemSequence) -> ItemSequence:
        items = self._to_graph[np.asarray(history.items, dtype=np.int64)]
        known: list[int] = np.flatnonzero(items).tolist()
        return ItemSequence(
            [int(items[place]) for place in known],
            [history.timestamps_ms[place] for place in known],
            [history.event_types[place] for place in known],
        )


def promote(
    version: str,
    artifacts: Path,
    *,
    data: PreparedData | None = None,
    force: bool = False,
    now: datetime | None = None,
) -> Promotion:
    """Make `version` the live one if it is whole and, in NDCG@10 on one split, not worse than the live version.

    With `data`, both graphs are evaluated on its test cases now. Without, the figures recorded at export are
    compared, if both come from the same prepared data. A version that was live before is never refused for its
    figures; `force` skips the comparison as well.

    Raises:
        ArtifactError: the version is damaged, or `CURRENT` cannot be read.
        PromotionRefused: worse than the live version, or not comparable with it.
    """
    candidate = _load(artifacts, version)
    previous = read_current(artifacts)
    if force:
        grounds = "forced, not compared"
    elif previous is None:
        grounds = "the first version"
    elif previous == version:
        return Promotion(version, previous, "live already")
    elif version in promoted_versions(artifacts):
        grounds = "was live before"
    elif data is not None:
        grounds = _compare_now(candidate, _load(artifacts, previous), data)
    else:
        grounds = _compare_recorded(candidate.manifest, read_manifest(artifacts / previous))
    _make_current(version, previous, artifacts, now or datetime.now(UTC))
    return Promotion(version, previous, grounds)


def promoted_versions(artifacts: Path) -> list[str]:
    """All versions that were ever promoted, oldest first, one entry per promotion."""
    path = artifacts / HISTORY_FILE
    return [line.split()[-1] for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _compare_now(candidate: LiveModel, live: LiveModel, data: PreparedData) -> str:
    first, second = _measure(candidate, data), _measure(live, data)
    interval = ""
    if first.result is not None and second.result is not None:
        bounds = paired_bootstrap_interval(
            first.result, second.result, WATCHED_METRIC, clusters=data.cases("test").user_indices
        )
        interval = f", difference {bounds.mean:+.4f} (95 % interval {bounds.low:+.4f} … {bounds.high:+.4f})"
    return _verdict(
        candidate.version, first.value, live.version, second.value, f"on the test cases of {data.name}{interval}"
    )


def _measure(model: LiveModel, data: PreparedData) -> Measured:
    """The graph's NDCG@10 on the test cases; the recorded one where the weights have learnt from those very cases."""
    manifest = model.manifest
    if manifest.refit and manifest.data_fingerprint == data.fingerprint:
        if manifest.metrics is None:
            raise PromotionRefused(
                f"{model.version} was trained on the test cases of {data.name} (--refit) and carries no figures from "
                "before that; "
                "run python -m scripts.evaluate before export, or promote with --force"
            )
        return Measured(manifest.metrics.model[WATCHED_METRIC], None)
    result = evaluate(
        GraphScorer(model, data.item_ids),
        data.cases("test"),
        num_items=data.num_items,
        item_counts=data.train.item_counts(data.num_items),
        exclude_seen=data.exclude_seen,
        with_coverage=False,
    )
    return Measured(result.metrics[WATCHED_METRIC], result)


def _compare_recorded(candidate: Manifest, live: Manifest) -> str:
    pair = f"{candidate.model_version} cannot be compared with the live {live.model_version}"
    way_out = "give --data with prepared data to measure both on, or promote with --force"
    if candidate.metrics is None or live.metrics is None:
        lacking = candidate if candidate.metrics is None else live
        raise PromotionRefused(f"{pair}: {lacking.model_version} was exported without an evaluation; {way_out}")
    if candidate.data_fingerprint != live.data_fingerprint:
        raise PromotionRefused(f"{pair}: they were measured on different data; {way_out}")
    if candidate.metrics.protocol != live.metrics.protocol:
        raise PromotionRefused(f"{pair}: they were measured by different protocols; {way_out}")
    figures = candidate.metrics.model[WATCHED_METRIC], live.metrics.model[WATCHED_METRIC]
    return _verdict(
        candidate.model_version, figures[0], live.model_version, figures[1], "as recorded, on the same data"
    )


def _verdict(version: str, value: float, live: str, live_value: float, where: str) -> str:
    figures = f"{WATCHED_METRIC} {value:.4f}, the live {live} has {live_value:.4f}, {where}"
    if value < live_value:
        raise PromotionRefused(f"{version} is worse than the live version: {figures}; --force promotes it all the same")
    return figures


def _load(artifacts: Path, version: str) -> LiveModel:
    folder = artifacts / version
    return load_model(folder, history_cap=read_manifest(folder).max_length)


def _make_current(version: str, previous: str | None, artifacts: Path, now: datetime) -> None:
    # CURRENT first: a crash in between leaves a version that is live but not in HISTORY, which the next promotion adds.
    write_atomically(artifacts / CURRENT_FILE, f"{version}\n".encode())
    time = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    missing = [previous] if previous is not None and previous not in promoted_versions(artifacts) else []
    with (artifacts / HISTORY_FILE).open("a", encoding="utf-8") as file:
        file.writelines(f"{time} {name}\n" for name in [*missing, version])
        file.flush()
        os.fsync(file.fileno())
