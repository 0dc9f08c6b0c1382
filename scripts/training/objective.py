"""What training makes small: the loss of one batch, with the negatives drawn and whatever is learnt beside it.

Shapes: B batch, L length, T targets (the positions that have a next item), D embedding, N negatives, V catalogue with
padding, U the items that a batch names.
"""

from functools import partial

import torch
from torch import Tensor

from scripts.training.batches import Batch
from scripts.training.config import TrainingConfig
from scripts.training.full_softmax import fast_precision
from scripts.training.losses import (
    SampledLoss,
    attribute_softmax,
    binary_cross_entropy,
    cross_entropy,
    gbce,
    sample_negatives,
    sampled_softmax,
)
from scripts.training.model import SequenceModel

LARGEST_SOFTMAX_OF_VALUES = 4096
"""Attribute values that the auxiliary softmax is taken over; of more, those of the batch's own targets."""


class Objective:
    """The configured loss; called with a model and a batch it gives one number to descend."""

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._precision = {
            "auto": fast_precision(),
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
        }[config.precision]

    def __call__(self, model: SequenceModel, batch: Batch, generator: torch.Generator) -> Tensor:
        """A mean over the targets of the batch; `generator`, of the model's device, draws the negatives."""
        items_BL = torch.from_numpy(batch.items_BL).to(generator.device)
        targets_BL = torch.from_numpy(batch.targets_BL).to(generator.device)
        has_target_BL = targets_BL != 0
        targets_T = targets_BL[has_target_BL]
        if self._config.loss == "cross_entropy":
            item_vectors_VD = model.item_vectors()
            states_TD = model(items_BL, item_vectors_VD)[has_target_BL]
            loss = cross_entropy(states_TD, targets_T, item_vectors_VD, precision=self._precision)
        else:
            num_items = model.config.num_items
            negatives_N = sample_negatives(num_items, self._config.num_negatives, generator)
            # Only rows that this batch names are composed, and only they get gradients: a catalogue of a million
            # items costs no more than a small one.
            padding = items_BL.new_zeros(1)
            named = torch.cat([padding, items_BL.flatten(), targets_T, negatives_N])
            items_U, places = torch.unique(named, return_inverse=True)
            _, items, targets, negatives = places.split([1, items_BL.numel(), len(targets_T), len(negatives_N)])
            item_vectors_UD = model.vectors_of(items_U)
            states_TD = model(items.view_as(items_BL), item_vectors_UD)[has_target_BL]
            loss = self._sampled(num_items)(states_TD, targets, item_vectors_UD, negatives)
        if model.attribute_head is not None and self._config.auxiliary_weight > 0:
            loss = loss + self._config.auxiliary_weight * _attribute_loss(model, states_TD, targets_T)
        return loss

    def _sampled(self, num_items: int) -> SampledLoss:
        if self._config.loss == "sampled_softmax":
            return sampled_softmax
        if self._config.loss == "bce":
            return partial(binary_cross_entropy, num_items=num_items)
        return partial(gbce, num_items=num_items, calibration=self._config.calibration)


def _attribute_loss(model: SequenceModel, states_TD: Tensor, targets_T: Tensor) -> Tensor:
    """How badly the states tell the attributes of the items that follow."""
    attributes = model.attributes
    assert attributes is not None and model.attribute_head is not None  # noqa: S101, PT018 - the one makes the other
    items_U, places_T = torch.unique(targets_T, return_inverse=True)
    shares_TD = attributes(items_U)[places_T]
    vectors_AD = attributes.vectors.weight
    if len(vectors_AD) > LARGEST_SOFTMAX_OF_VALUES:
        _, values_E = attributes.pairs(items_U)
        vectors_AD = vectors_AD[torch.unique(values_E)]
    roots_T = attributes.counts(targets_T).sqrt()
    return attribute_softmax(model.attribute_head(states_TD), shares_TD, roots_T, vectors_AD)
