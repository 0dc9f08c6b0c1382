"""Pruning takes away what adds nothing first, and leaves its mean."""

import numpy as np
import pytest
import torch

from app.ranking.ranker import ItemSequence
from scripts.training.blocks import FeedForward, Layer
from scripts.training.model import SequenceModel
from scripts.training.model_config import ModelConfig
from scripts.training.pruning import prune
from scripts.training.scorer import ModelScorer

HISTORIES = [
    ItemSequence([1, 2, 3], [0, 0, 0], [1, 1, 1]),
    ItemSequence([4], [0], [1]),
    ItemSequence([5, 1], [0, 0], [1, 1]),
]


def model_of(layer: Layer) -> SequenceModel:
    torch.manual_seed(0)
    return SequenceModel(ModelConfig(num_items=6, max_length=4, dim=8, num_blocks=2, layer=layer, dropout=0.0)).eval()


def layers_of(model: SequenceModel) -> list[FeedForward]:
    return [module for module in model.modules() if isinstance(module, FeedForward)]


@pytest.mark.parametrize("layer", ["prenorm", "ligr"])
def test_units_that_never_change_can_go_without_a_trace(layer: Layer) -> None:
    """Every other unit reads nothing but its own bias, so it gives one number for any input."""
    model = model_of(layer)
    for feed_forward in layers_of(model):
        width = feed_forward.narrow.in_features
        with torch.no_grad():
            feed_forward.wide.weight[0::2] = 0
            feed_forward.wide.bias.normal_()
        assert width == 32
    smaller = prune(model, 0.5, HISTORIES)
    for feed_forward in layers_of(smaller):
        assert feed_forward.narrow.in_features == 16
        assert feed_forward.wide.out_features == (32 if layer == "ligr" else 16)
    histories = [ItemSequence([6, 2, 2, 1], [0] * 4, [1] * 4), *HISTORIES]
    np.testing.assert_allclose(ModelScorer(smaller)(histories), ModelScorer(model)(histories), rtol=1e-4, atol=1e-5)


def test_what_matters_most_is_kept() -> None:
    """The outgoing weights of three units are a thousand times those of the others."""
    model = model_of("prenorm")
    with torch.no_grad():
        for feed_forward in layers_of(model):
            feed_forward.narrow.weight[:, [3, 7, 20]] *= 1000
    smaller = prune(model, 29 / 32, HISTORIES)
    for before, after in zip(layers_of(model), layers_of(smaller), strict=True):
        assert torch.equal(after.narrow.weight, before.narrow.weight[:, [3, 7, 20]])
        assert torch.equal(after.wide.weight, before.wide.weight[[3, 7, 20]])


def test_the_model_that_is_given_stays_as_it_is() -> None:
    model = model_of("prenorm")
    before = ModelScorer(model)(HISTORIES)
    prune(model, 0.9, HISTORIES)
    assert np.array_equal(ModelScorer(model)(HISTORIES), before)
