"""Structured pruning: feed-forward layers of a trained model lose the units that vary least, and stay dense.

Shapes: B batch, L length, T positions that hold an item, W width of a feed-forward layer, D embedding.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.ranking.ranker import ItemSequence
from scripts.training.blocks import FeedForward
from scripts.training.model import SequenceModel
from scripts.training.scorer import model_inputs


def prune(model: SequenceModel, share: float, histories: Sequence[ItemSequence]) -> SequenceModel:
    """A copy whose feed-forward layers lack `share` of their units, at most all but one.

    A unit counts for what its activation's standard deviation over the histories adds to the layer's output (times the
    norm of its outgoing weights). What is removed goes on as its mean, in the bias of the layer after it, so units that
    never change cost nothing. The configuration still tells the width before.
    """
    smaller = copy.deepcopy(model).eval()
    layers = [module for module in smaller.modules() if isinstance(module, FeedForward)]
    activations = _activations(smaller, layers, histories)
    for layer, activations_TW in zip(layers, activations, strict=True):
        _narrow(layer, activations_TW, share)
    return smaller


def _activations(
    model: SequenceModel, layers: Sequence[FeedForward], histories: Sequence[ItemSequence]
) -> list[Tensor]:
    """(T, W) of each layer: what its second matrix reads, where there are items."""
    items_BL, context = model_inputs(model, histories)
    seen: list[Tensor] = []
    hooks = [
        layer.narrow.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0][items_BL != 0]))
        for layer in layers
    ]
    try:
        with torch.inference_mode():
            model(items_BL, model.item_vectors(), context)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _narrow(layer: FeedForward, activations_TW: Tensor, share: float) -> None:
    width = layer.narrow.in_features
    num_kept = max(1, round(width * (1 - share)))
    with torch.no_grad():
        weight_W = activations_TW.std(dim=0, correction=0) * layer.narrow.weight.norm(dim=0)
        kept = weight_W.topk(num_kept).indices.sort().values
        is_removed_W = torch.ones(width, dtype=torch.bool)
        is_removed_W[kept] = False
        mean_W = activations_TW.mean(dim=0) * is_removed_W
        narrow = nn.Linear(num_kept, layer.narrow.out_features)
        narrow.weight.copy_(layer.narrow.weight[:, kept])
        narrow.bias.copy_(layer.narrow.bias + layer.narrow.weight @ mean_W)
        # Of a gated layer the gates come first, the values after them.
        rows = torch.cat([kept, kept + width]) if layer.gated else kept
        wide = nn.Linear(layer.wide.in_features, len(rows))
        wide.weight.copy_(layer.wide.weight[rows])
        wide.bias.copy_(layer.wide.bias[rows])
    layer.wide, layer.narrow = wide, narrow
