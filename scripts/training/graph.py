"""The model as an ONNX graph, and the proof that the graph ranks as the model does.

Shapes: B batch, L length, D embedding, V catalogue with padding (num_items + 1, column = item index).
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.artifacts.manifest import Graph, GraphInput
from app.ranking.exact import ExactRanker
from app.ranking.ranker import ItemSequence
from scripts.training.fusion import FusedModel, RuleTensors
from scripts.training.model import Context
from scripts.training.reranker import CANDIDATES
from scripts.training.scorer import model_inputs

OPSET = 20
PARITY_TOLERANCE = 1e-4
"""Largest difference between a score of the graph and of the model on the machine that exports, per unit of the largest
score (at least 1)."""

RANDOM_EVENT_TYPES = 3


class ExportError(Exception):
    """The exported graph does not do what the model does; nothing was written."""


class RankingGraph(nn.Module):
    """What becomes `model.onnx`: see `app.artifacts.manifest.Graph` for names, types and order."""

    def __init__(self, model: FusedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        items: Tensor,
        k: Tensor,
        adjust: Tensor,
        item_vectors: Tensor,
        rule_items: Tensor | None = None,
        rule_weights: Tensor | None = None,
        item_statistics: Tensor | None = None,
        timestamps_ms: Tensor | None = None,
        event_types: Tensor | None = None,
        target_type: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        context = Context(timestamps_ms, event_types, target_type)
        states_BD = self.model.states(items, item_vectors, context)
        rules = (
            None
            if rule_items is None or rule_weights is None
            else RuleTensors(rule_items, rule_weights, item_statistics)
        )
        scores_BV = self.model.fused_scores(states_BD, items, item_vectors, rules)
        # Not int(…): the exporter would try to look at the value.
        num_ranks = cast(int, k[0].item())
        # What the exporter must know of a size that it cannot see.
        torch._check(num_ranks >= 1)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch._check(num_ranks <= scores_BV.shape[1])  # type: ignore[no-untyped-call]  # as above
        top = torch.topk(scores_BV + adjust, num_ranks, dim=1)
        return top.indices, top.values, states_BD


def graph_of(model: FusedModel) -> Graph:
    """The inputs and outputs that a model's graph has."""
    rules: tuple[GraphInput, ...] = ("rule_items", "rule_weights") if model.rules is not None else ()
    statistics: tuple[GraphInput, ...] = ("item_statistics",) if model.reranker is not None else ()
    return Graph(inputs=("items", "k", "adjust", "item_vectors", *rules, *statistics, *model.config.context_inputs))


def tables_of(model: FusedModel) -> dict[str, NDArray[Any]]:
    """What the graph reads as tables: see `app.artifacts.manifest.TABLE_FILES`."""
    tables = {"item_vectors": model.item_vectors().detach().float().cpu().numpy()}
    if model.rules is not None:
        tables |= {
            "rule_items": model.rules.items_VN.cpu().numpy(),
            "rule_weights": model.rules.weights_VN.cpu().numpy(),
        }
    if model.reranker is not None:
        tables["item_statistics"] = model.statistics_VS.cpu().numpy()
    return tables


def export_graph(model: FusedModel, path: Path) -> None:
    """Write the ONNX graph of a model: any batch size, any length up to `max_length`, any k up to the number of items,
    tables with any number of rows from as many as the model has."""
    graph = RankingGraph(model).eval()
    inputs = graph_of(model).inputs
    # Two unequal rows, one of them padded: an example of size 1 would be taken for a constant.
    items_BL = torch.tensor([[1, 1], [1, 0]])
    tables = {name: torch.from_numpy(table) for name, table in tables_of(model).items()}
    example = {
        "items": items_BL,
        "k": torch.tensor([1]),
        "adjust": torch.zeros(2, model.config.num_items + 1),
        **tables,
        # Tensors of their own: the exporter takes one that comes twice for one input.
        "timestamps_ms": items_BL.clone(),
        "event_types": items_BL.clone(),
        "target_type": items_BL[:, 0],
    }
    batch, length, rows = torch.export.Dim("batch"), torch.export.Dim("length"), torch.export.Dim("rows")
    shapes: dict[str, Any] = {"items": {0: batch, 1: length}, "k": None, "adjust": {0: batch, 1: rows}}
    # Rules and statistics may have fewer rows: none for items that were appended to the vectors.
    shapes |= {name: {0: rows if name == "item_vectors" else torch.export.Dim("rule_rows")} for name in tables}
    shapes |= {"timestamps_ms": shapes["items"], "event_types": shapes["items"], "target_type": {0: batch}}
    with _quiet_exporter():
        program = torch.onnx.export(
            graph,
            kwargs={name: example[name] for name in inputs},
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(graph_of(model).outputs),
            dynamic_shapes={name: shapes[name] for name in inputs},
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    for node in program.model.graph.all_nodes():
        # Stack traces of this machine, several times the size of a small model.
        node.metadata_props.clear()
        node.doc_string = None
    program.save(str(path))


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


def ranker_of(model: FusedModel, path: Path) -> ExactRanker:
    """What the service would rank with: the graph that was made of a model, with the model's tables."""
    return ExactRanker(
        path,
        inputs=graph_of(model).inputs,
        num_items=model.config.num_items,
        max_length=model.max_length,
        tables=tables_of(model),
    )


def check_parity(model: FusedModel, path: Path, *, batch_sizes: Sequence[int] = (1, 2, 7, 32)) -> float:
    """Rank random histories with the graph and with the model; returns the largest difference of a score.

    Every batch mixes lengths, from a history without items to one longer than the model reads, and hides some items.
    A history for which rounding decides what is re-ranked may have other scores: see `_settled_items`.

    Raises:
        ExportError: a score differs by more than `PARITY_TOLERANCE`, or the order is not by falling score and rising
        index.
    """
    num_items, max_length = model.config.num_items, model.max_length
    ranker = ranker_of(model, path)
    rng = np.random.default_rng(0)
    read = model.config.max_length  # by attention, which may be less
    lengths = sorted({0, 1, 2, 3, 5, read // 2, read - 1, read, max_length})
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
            rankings = ranker.rank(histories, num_items, adjust_BV)
            for history, expected_V, ranking in zip(histories, expected_BV, rankings, strict=True):
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
                if not difference <= PARITY_TOLERANCE * scale and model.reranker is not None:
                    compared = is_eligible & _settled_items(model, history, PARITY_TOLERANCE * scale)
                    difference = float(np.abs(found_V[compared] - expected_V[compared]).max(initial=0))
                if not difference <= PARITY_TOLERANCE * scale:
                    raise ExportError(
                        f"batch of {size}, length {longest}: a score of the graph is {difference:.2e} off, "
                        f"at most {PARITY_TOLERANCE * scale:.2e} is allowed"
                    )
                worst = max(worst, difference)
    return worst


def _settled_items(model: FusedModel, history: ItemSequence, tolerance: float) -> NDArray[np.bool_]:
    """bool (V,): the items whose score a re-ranking model gives for certain and not as rounding decides.

    All of them, unless the last candidate of the re-ranker and the best item that is none are as good as equal in the
    mixture: either may then be the candidate, and what one is moved by moves all other candidates a little.
    """
    mixed_V = score_all_positions(model.parts()["without_reranker"], [history])[0]
    if model.reranker is not None and model.reranker.excludes_seen:
        mixed_V[history.items] = -np.inf
    falling_V = -np.sort(-mixed_V[np.isfinite(mixed_V)])
    if len(falling_V) <= CANDIDATES or falling_V[CANDIDATES - 1] - falling_V[CANDIDATES] > tolerance:
        return np.ones(len(mixed_V), np.bool_)
    settled_V: NDArray[np.bool_] = mixed_V < falling_V[CANDIDATES - 1] - tolerance
    return settled_V


def score_all_positions(model: FusedModel, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
    """float32 (B, V) the way training computes it: every position through every layer, then the newest one picked."""
    with torch.inference_mode():
        items_BL, context = model_inputs(model, histories)
        scores: NDArray[np.float32] = model.next_scores_of_full_pass(items_BL, model.item_vectors(), context).numpy()
    return scores


def random_history(rng: np.random.Generator, num_items: int, length: int) -> ItemSequence:
    """A history that belongs to no user: uniform items and event types, from a second to years apart."""
    gaps_ms = 1000 * (10 ** rng.uniform(0, 8, length)).astype(np.int64)
    return ItemSequence(
        items=rng.integers(1, num_items + 1, length).tolist(),
        timestamps_ms=(1_700_000_000_000 - gaps_ms[::-1].cumsum()[::-1]).tolist(),
        event_types=rng.integers(1, RANDOM_EVENT_TYPES + 1, length).tolist(),
        target_type=int(rng.integers(0, RANDOM_EVENT_TYPES + 1)),
    )
