"""Artifacts of any size without training: what serving costs depends on the shapes, and on how vectors and rules lie.

Item vectors lie in clusters of some 200, popular clusters larger and popular items longer; the state of a history lies
near its newest item, as that of a trained model does. Half of the rules name items of the same cluster, half what is
popular. The graph is that of a real fused model, whose tables the simulated ones take the place of.

Shapes: V catalogue with padding, D embedding, N rules an item.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.artifacts.manifest import (
    ATTRIBUTES_FILE,
    DEFAULT_EVENT_TYPES,
    FORMAT_VERSION,
    GRAPH_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    POPULARITY_FILE,
    TABLE_FILES,
    VOCABULARY_FILE,
    Graph,
    Manifest,
    ReferenceCase,
    sha256,
)
from app.artifacts.registry import CURRENT_FILE
from app.artifacts.vocabulary import ItemAttributes, ItemVocabulary
from app.ranking.exact import ExactRanker
from app.ranking.index import ItemIndex
from scripts.training.export import INDEXED_ITEMS
from scripts.training.fusion import FusedModel
from scripts.training.graph import export_graph, graph_of, random_history
from scripts.training.model import SequenceModel
from scripts.training.model_config import ModelConfig
from scripts.training.rules import RuleTable
from scripts.training.run_folder import write_atomically

DIM = 64
MAX_LENGTH = 200
FOLLOWERS = 20
ITEMS_PER_CLUSTER = 200
SPREAD = 0.6
"""Length of what an item differs by from the centre of its cluster, which has length 1."""
SHARE_OF_RULES = 0.3
LOGIT_SCALE = 4.0
BRANCHES = 0.1
"""Weight of what attention and feed-forward layers add to the newest item's own vector."""
NUM_CATEGORIES = 100
CHUNK = 1_000_000
MODEL_ITEMS = 1000
"""Items of the model whose graph is taken; the graph does not know the size of its tables."""


def item_id(item_index: int) -> str:
    return f"item-{item_index:08}"


def simulated_model(max_length: int, *, num_items: int = MODEL_ITEMS, seed: int = 0) -> FusedModel:
    """Untrained: the state of a history is `LOGIT_SCALE` times the direction of its newest item, roughly."""
    torch.manual_seed(seed)
    attention = SequenceModel(ModelConfig(num_items=num_items, max_length=max_length, dim=DIM, head="none"))
    tables = simulated_tables(num_items, seed=seed)
    with torch.no_grad():
        attention.item_embedding.weight.copy_(torch.from_numpy(tables["item_vectors"]))
        for name, weight in attention.named_parameters():
            if "blocks" in name and weight.dim() == 2:
                weight.mul_(BRANCHES**0.5)  # two matrices lie behind one another in each branch
        attention.norm.weight.fill_(LOGIT_SCALE / DIM**0.5)
    return FusedModel(attention.eval(), RuleTable(tables["rule_items"], tables["rule_weights"]), SHARE_OF_RULES).eval()


def simulated_tables(num_items: int, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """`item_vectors` float32 (V, D), `rule_items` int32 (V, N), `rule_weights` float32 (V, N); item 1 is the most
    popular."""
    rng = np.random.default_rng(seed)
    num_clusters = max(1, num_items // ITEMS_PER_CLUSTER)
    centres_CD = rng.normal(size=(num_clusters, DIM)).astype(np.float32)
    centres_CD /= np.linalg.norm(centres_CD, axis=1, keepdims=True)
    cluster_V = (num_clusters * rng.random(num_items + 1) ** 2).astype(np.int64)
    vectors_VD = rng.standard_normal((num_items + 1, DIM), dtype=np.float32) * np.float32(SPREAD / DIM**0.5)
    for first in range(0, num_items + 1, CHUNK):  # at ten million items a second array of this size is much
        vectors_VD[first : first + CHUNK] += centres_CD[cluster_V[first : first + CHUNK]]
    popularity_V = (np.arange(num_items + 1) + 10.0) ** -0.3
    vectors_VD *= (1 + 0.5 * popularity_V / popularity_V[0])[:, None].astype(np.float32)
    vectors_VD[0] = 0

    members = np.argsort(cluster_V[1:], kind="stable") + 1
    sizes_C = np.bincount(cluster_V[1:], minlength=num_clusters)
    first_C = np.cumsum(sizes_C) - sizes_C
    half = (num_items + 1, FOLLOWERS // 2)
    place = (rng.random(half) * np.maximum(sizes_C, 1)[cluster_V][:, None]).astype(np.int64)
    near = members[np.minimum(first_C[cluster_V][:, None] + place, num_items - 1)]
    popular = np.minimum((num_items + 1) ** rng.random(half), num_items).astype(np.int64)
    rule_items_VN = np.concatenate([near, popular], axis=1).astype(np.int32)
    rule_weights_VN = np.sort(rng.random((num_items + 1, FOLLOWERS), dtype=np.float32), axis=1)[:, ::-1].copy()
    rule_items_VN[0], rule_weights_VN[0] = 0, 0
    return {"item_vectors": vectors_VD, "rule_items": rule_items_VN, "rule_weights": rule_weights_VN}


def promote(artifacts: Path, version: str) -> None:
    write_atomically(artifacts / CURRENT_FILE, f"{version}\n".encode())


def write_simulated_artifact(artifacts: Path, num_items: int, *, version: str) -> Path:
    """Write a version and return its folder. Every item has a `category`, one of a hundred."""
    folder = artifacts / version
    folder.mkdir(parents=True)
    graph, content = simulated_graph()
    (folder / GRAPH_FILE).write_bytes(content)
    tables = simulated_tables(num_items)
    for name, table in tables.items():
        np.save(folder / TABLE_FILES[name], table, allow_pickle=False)
    if num_items >= INDEXED_ITEMS:
        ItemIndex.build(tables["item_vectors"]).write(folder / INDEX_FILE)
    ItemVocabulary([item_id(index) for index in range(1, num_items + 1)]).write(folder / VOCABULARY_FILE)
    ItemAttributes.write(folder / ATTRIBUTES_FILE, _attributes(num_items))
    popularity_V = (1e6 / (np.arange(num_items + 1) + 1)).astype(np.int64)
    np.save(folder / POPULARITY_FILE, popularity_V, allow_pickle=False)
    ranker = ExactRanker(
        folder / GRAPH_FILE, inputs=graph.inputs, num_items=num_items, max_length=MAX_LENGTH, tables=tables
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model_version=version,
        created_at="2026-01-01T00:00:00Z",
        git_commit=None,
        num_items=num_items,
        max_length=MAX_LENGTH,
        graph=graph,
        event_types=DEFAULT_EVENT_TYPES,
        exclude_seen=True,
        time_use="none",
        model={},
        preprocessing={},
        training={},
        refit=False,
        data_fingerprint="0" * 64,
        metrics=None,
        reference_cases=_reference_cases(ranker, num_items),
        score_tolerance=1e-3,
        files={path.name: sha256(path) for path in folder.iterdir()},
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json())
    return folder


@cache
def simulated_graph() -> tuple[Graph, bytes]:
    """The same for every size, made once."""
    model = simulated_model(MAX_LENGTH)
    with TemporaryDirectory() as folder:
        export_graph(model, Path(folder) / GRAPH_FILE)
        return graph_of(model), (Path(folder) / GRAPH_FILE).read_bytes()


def _attributes(num_items: int) -> Iterator[dict[str, str]]:
    for index in range(1, num_items + 1):
        yield {"category": f"category {index % NUM_CATEGORIES}"}


def _reference_cases(ranker: ExactRanker, num_items: int) -> tuple[ReferenceCase, ...]:
    """What the graph itself gives: these artifacts have no other model to be held against."""
    rng = np.random.default_rng(1)
    histories = [random_history(rng, num_items, length) for length in (1, 20, MAX_LENGTH)]
    return tuple(
        ReferenceCase(
            items=tuple(history.items),
            timestamps_ms=tuple(history.timestamps_ms),
            event_types=tuple(history.event_types),
            item_indices=tuple(ranking.item_indices.tolist()),
            scores=tuple(ranking.scores.tolist()),
        )
        for history, ranking in zip(histories, ranker.rank(histories, 10), strict=True)
    )
