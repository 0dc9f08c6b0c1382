"""What a model is trained on: the next item against the others, all of them or a sample.

Shapes: T targets (the positions of a batch that have a next item), D embedding, N negatives, V catalogue with
padding. Every loss is a mean over the T targets. The sampled losses (`sampled_softmax` beside those here) share one set
of negatives among all targets of a batch, which turns a gather of T × N embeddings into one matrix product; a negative
that is a position's own target is left out at that position. `items_VD` may be a part of the catalogue that holds all
that targets and negatives name, as long as they count its rows and row 0 is the padding.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from scripts.training.full_softmax import full_softmax, plausibility

Loss = Literal["cross_entropy", "sampled_softmax", "bce", "gbce"]


def cross_entropy(
    states_TD: Tensor,
    targets_T: Tensor,
    items_VD: Tensor,
    *,
    denoise: float = 0.0,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Softmax over the whole catalogue; row 0 of `items_VD`, the padding, takes no part.

    denoise: the mean is one weighted by `plausibility`.
    precision: of the matrix products on a CPU; a GPU goes by autocast.
    """
    if states_TD.device.type == "cpu":
        return full_softmax(states_TD, targets_T - 1, items_VD[1:], denoise=denoise, precision=precision)
    scores_TV = (states_TD @ items_VD[1:].T).float()
    return _softmax_of_scores(scores_TV, targets_T - 1, denoise=denoise)


def _softmax_of_scores(scores_TV: Tensor, targets_T: Tensor, *, denoise: float) -> Tensor:
    """`full_softmax` by torch's own operations, which a GPU has the memory for."""
    loss_T = F.cross_entropy(scores_TV, targets_T, reduction="none")
    weights_T = plausibility(-loss_T, denoise)
    return (weights_T * loss_T).sum() / weights_T.sum()


def gbce(
    states_TD: Tensor,
    targets_T: Tensor,
    items_VD: Tensor,
    negatives_N: Tensor,
    *,
    num_items: int,
    calibration: float,
) -> Tensor:
    """Generalised binary cross-entropy (Petrov & Macdonald, RecSys 2023): the target's probability is raised to the
    power β.

    β = α (t (1 − 1/α) + 1/α) with the sampling rate α = N / (num_items − 1) and the calibration t in 0…1: with t = 0
    β is 1, plain binary cross-entropy (the target is a yes, each negative a no); with t = 1 β is α, and scores are as
    calibrated as those of a softmax. Divided by N + 1.

    An item's probability is σ(score − ln N): a score of 0 means the share that one target has beside N negatives. The
    shift moves no rank; without it the first steps push all scores down together, and training stays there.
    """
    num_negatives = len(negatives_N)
    rate = min(num_negatives / max(num_items - 1, 1), 1.0)
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    positive_T, negative_TN = _scores(states_TD, targets_T, items_VD, negatives_N)
    prior = math.log(num_negatives)
    loss_T = -beta * F.logsigmoid(positive_T - prior) + F.softplus(negative_TN - prior).sum(dim=1)
    return loss_T.mean() / (num_negatives + 1)


def _scores(states_TD: Tensor, targets_T: Tensor, items_VD: Tensor, negatives_N: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the targets (T,) and of the negatives (T, N) in float32; −inf where a negative is the target itself."""
    positive_T = (states_TD * items_VD[targets_T]).sum(dim=1).float()
    negative_TN = (states_TD @ items_VD[negatives_N].T).float()
    return positive_T, negative_TN.masked_fill(targets_T[:, None] == negatives_N, -math.inf)
