"""What training makes small: the loss of one batch, with the negatives drawn.

Shapes: B batch, L length, T targets (the positions that have a next item), D embedding, N negatives, V catalogue with
padding, U the items that a batch names.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scripts.training.batches import Batch
from scripts.training.config import TrainingConfig
from scripts.training.full_softmax import fast_precision
from scripts.training.losses import cross_entropy, gbce
from scripts.training.model import Context, SequenceModel
from scripts.training.model_config import ContextInput
from scripts.training.negatives import NegativeSampler
from scripts.training.sampled_softmax import sampled_softmax

SHARE_OF_ANY = 0.5
"""Share of targets that teach the head of any type instead of that of their own: both see every item."""


class Objective:
    """The configured loss; called with a model and a batch it gives one number to descend."""

    def __init__(self, config: TrainingConfig, num_items: int, events: Tensor) -> None:
        """`events`: see `NegativeSampler`; they lie where the model does."""
        self._config = config
        self._num_items = num_items
        self._negatives = NegativeSampler(config.negatives, config.num_negatives, num_items, events)
        self._precision = {
            "auto": fast_precision(events.device),
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
        }[config.precision]

    def __call__(self, model: SequenceModel, batch: Batch, generator: torch.Generator) -> Tensor:
        """A mean over the targets of the batch; `generator`, of the model's device, draws the negatives."""
        items_BL = torch.from_numpy(batch.items_BL).to(generator.device)
        targets_BL = torch.from_numpy(batch.targets_BL).to(generator.device)
        context = _context(model, batch, generator)
        has_target_BL = targets_BL != 0
        targets_T = targets_BL[has_target_BL]
        if self._config.loss == "cross_entropy":
            vectors_VD = model.item_vectors()
            states_TD = model(items_BL, vectors_VD, context)[has_target_BL]
            return self._full_loss(states_TD, targets_T, vectors_VD)
        negatives_N = self._negatives.draw(targets_T, generator)
        # Only rows that this batch names are composed, and only they get gradients: a catalogue of a million items
        # costs no more than a small one.
        vectors_UD, read_BL, wanted_T, unwanted_N = _named(model, items_BL, targets_T, negatives_N)
        states_TD = model(read_BL, vectors_UD, context)[has_target_BL]
        return self._sampled_loss(states_TD, wanted_T, vectors_UD, unwanted_N, negatives_N)

    def _full_loss(self, states_TD: Tensor, targets_T: Tensor, vectors_VD: Tensor) -> Tensor:
        return cross_entropy(
            states_TD,
            targets_T,
            vectors_VD,
            denoise=self._config.denoise,
            precision=self._precision,
        )

    def _sampled_loss(
        self, states_TD: Tensor, wanted_T: Tensor, vectors_UD: Tensor, unwanted_N: Tensor, negatives_N: Tensor
    ) -> Tensor:
        """`wanted_T` and `unwanted_N` are rows of `vectors_UD`, `negatives_N` the item indices of the latter."""
        config = self._config
        if config.loss == "sampled_softmax":
            return sampled_softmax(
                states_TD,
                wanted_T,
                vectors_UD,
                unwanted_N,
                corrections_N=self._negatives.corrections(negatives_N) if config.logq_correction else None,
                denoise=config.denoise,
                precision=self._precision,
            )
        calibration = 0.0 if config.loss == "bce" else config.calibration
        return gbce(states_TD, wanted_T, vectors_UD, unwanted_N, num_items=self._num_items, calibration=calibration)


def _context(model: SequenceModel, batch: Batch, generator: torch.Generator) -> Context:
    """What the model reads besides items, and nothing else."""
    device = generator.device

    def values(name: ContextInput, values_BL: NDArray[np.int64]) -> Tensor | None:
        return torch.from_numpy(values_BL).to(device) if name in model.config.context_inputs else None

    target_types_BL = values("target_type", batch.target_types_BL)
    if target_types_BL is not None:
        is_any_BL = torch.rand(target_types_BL.shape, generator=generator, device=device) < SHARE_OF_ANY
        target_types_BL = target_types_BL.masked_fill(is_any_BL, 0)
    return Context(
        timestamps_ms_BL=values("timestamps_ms", batch.timestamps_ms_BL),
        event_types_BL=values("event_types", batch.event_types_BL),
        target_types=target_types_BL,
    )


def _named(
    model: SequenceModel, items_BL: Tensor, targets_T: Tensor, negatives_N: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A table (U, D) of the items that are named, row 0 the padding, and the three again as rows of it."""
    padding = items_BL.new_zeros(1)
    items_U, rows = torch.unique(torch.cat([padding, items_BL.flatten(), targets_T, negatives_N]), return_inverse=True)
    _, read, wanted_T, unwanted_N = rows.split([1, items_BL.numel(), len(targets_T), len(negatives_N)])
    return model.vectors_of(items_U), read.view_as(items_BL), wanted_T, unwanted_N
