"""The exported graph ranks as the model does: every length, many batch sizes, ties, hidden items, nobody's history."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.ranking.exact import ExactRanker
from app.ranking.ranker import Ranking
from scripts.training.attributes import shared_attributes
from scripts.training.fusion import FusedModel
from scripts.training.graph import (
    ExportError,
    check_parity,
    export_graph,
    graph_of,
    random_history,
    score_all_positions,
    tables_of,
)
from scripts.training.model import SequenceModel
from scripts.training.model_config import ModelConfig

NUM_ITEMS, MAX_LENGTH = 40, 16
VARIANTS: list[dict[str, Any]] = [{}, {"temporal": "conv"}, {"temporal": "gru"}, {"attributes": "embedding"}]
VARIANTS += [{"temporal": "conv", "kernel_sizes": (2, 7)}]
VARIANTS += [{"layer": "ligr", "expansion": 2}]
VARIANTS += [{"position_bias": True, "position_embedding": False}, {"position_bias": True, "time_bias": True}]
VARIANTS += [{"time_bias": True, "temporal": "conv", "layer": "ligr"}, {"event_types": True}]
VARIANTS += [{"event_types": True, "time_bias": True, "temporal": "conv"}]


def model_with_ties(variant: dict[str, Any]) -> FusedModel:
    """Items 21…40 have the vectors of items 1…20, so every score occurs twice."""
    torch.manual_seed(1)
    config = ModelConfig(
        num_items=NUM_ITEMS, max_length=MAX_LENGTH, **{"dim": 16, "num_blocks": 2, "kernel_sizes": (3,), **variant}
    )
    attributes = shared_attributes([{"colour": item % 4, "shape": item % 5} for item in range(NUM_ITEMS)])
    model = SequenceModel(config, attributes if "attributes" in variant else None).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        model.item_embedding.weight[0] = 0
        model.item_embedding.weight[21:] = model.item_embedding.weight[1:21]
    return FusedModel(model, None, 0)


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FusedModel, Path]:
    model = model_with_ties(request.param)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_graph(model, path)
    return model, path


def test_graph_equals_model_at_every_length_and_batch_size(exported: tuple[FusedModel, Path]) -> None:
    model, path = exported
    inputs, tables = graph_of(model).inputs, tables_of(model)
    ranker = ExactRanker(path, inputs=inputs, num_items=NUM_ITEMS, max_length=MAX_LENGTH, tables=tables)
    rng = np.random.default_rng(0)
    num_ties = 0
    for longest in range(1, MAX_LENGTH + 1):
        for size in (1, 2, 3, 5, 8, 13, 21, 32):
            lengths = [longest, *rng.integers(0, longest + 1, size - 1).tolist()]
            histories = [random_history(rng, NUM_ITEMS, length) for length in lengths]
            k = int(rng.integers(1, NUM_ITEMS + 1))
            adjust = np.zeros((size, NUM_ITEMS + 1), dtype=np.float32)
            adjust[:, rng.integers(1, NUM_ITEMS + 1, 3)] = -np.inf
            scores = score_all_positions(model, histories) + adjust
            for expected, ranking in zip(scores, ranker.rank(histories, k, adjust), strict=True):
                num_eligible = int(np.isfinite(expected).sum())
                best = np.argsort(-expected, kind="stable")[: min(k, num_eligible)]
                np.testing.assert_allclose(ranking.scores, expected[best], atol=2e-5)
                assert_same_order(ranking, best, expected)
                num_ties += int(np.sum(np.diff(ranking.scores) == 0))
    assert num_ties > 300


def assert_same_order(ranking: Ranking, best: np.ndarray, expected: np.ndarray) -> None:
    """Item by item, save that two scores which rounding alone tells apart may change places; of the scores as they came
    out, equal ones go by index."""
    np.testing.assert_allclose(expected[ranking.item_indices], expected[best], atol=2e-5)
    assert np.lexsort((ranking.item_indices, -ranking.scores)).tolist() == list(range(len(best)))


def test_parity_check_refuses_a_graph_of_other_weights(exported: tuple[FusedModel, Path]) -> None:
    model, path = exported
    assert check_parity(model, path, batch_sizes=(1, 3)) < 1e-4
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.attention.norm.bias[0].add_(0.5)
    with pytest.raises(ExportError, match=r"a score of the graph is .* off"):
        check_parity(other, path, batch_sizes=(1,))
