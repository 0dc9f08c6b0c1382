"""Softmax over each target and negatives that all targets share, in chunks that stay in the cache: see `full_softmax`.

Shapes: T targets, C targets of one chunk, D embedding, N negatives, U rows of the table that the targets and negatives
name.
"""

import math
from typing import Any

import torch
from torch import Tensor

from scripts.training.full_softmax import ROWS_PER_CHUNK, plausibility


def sampled_softmax(
    states_TD: Tensor,
    targets_T: Tensor,
    items_UD: Tensor,
    negatives_N: Tensor,
    *,
    corrections_N: Tensor | None = None,
    denoise: float = 0.0,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Mean over the targets of −log softmax(own score, scores of the negatives)[own].

    A negative that is a position's own target is left out at that position. `targets_T` and `negatives_N` are rows of
    `items_UD`.

    corrections_N: added to the scores of the negatives: −log of how often each was expected to be drawn makes the sum
        over the sample an unbiased estimate of that over the catalogue (Bengio & Senécal, 2008).
    denoise: the mean is one weighted by `plausibility`, of the probability among the negatives.
    precision: of the matrix products.
    """
    if corrections_N is None:
        corrections_N = items_UD.new_zeros(len(negatives_N))
    loss: Tensor = _SampledSoftmax.apply(  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        states_TD, targets_T, items_UD, negatives_N, corrections_N, denoise, precision
    )
    return loss


class _SampledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states_TD: Tensor,
        targets_T: Tensor,
        items_UD: Tensor,
        negatives_N: Tensor,
        corrections_N: Tensor,
        denoise: float,
        precision: torch.dtype,
    ) -> Tensor:
        states_TD, items_UD = states_TD.detach().float(), items_UD.detach().float()
        own_TD, negatives_ND = items_UD[targets_T], items_UD[negatives_N]
        fast_TD, fast_ND = states_TD.to(precision), negatives_ND.to(precision)
        # The target's own score in full precision: a rounding error there is an error of the loss itself.
        own_T = (states_TD * own_TD).sum(dim=1)
        is_negative_U = torch.zeros(len(items_UD), dtype=torch.bool, device=items_UD.device)
        is_negative_U[negatives_N] = True
        collides_T = is_negative_U[targets_T]
        grad_own_T = torch.empty_like(own_T)
        grad_states_TD = torch.empty_like(states_TD)
        grad_negatives_ND = torch.zeros_like(negatives_ND)
        total, total_weight = states_TD.new_zeros(()), states_TD.new_zeros(())
        rows_per_chunk = ROWS_PER_CHUNK if states_TD.device.type == "cpu" else len(states_TD)
        for start in range(0, len(states_TD), rows_per_chunk):
            rows = slice(start, start + rows_per_chunk)
            scores_CN = (fast_TD[rows] @ fast_ND.T).float().add_(corrections_N)
            # Few targets are among the negatives: only those are compared one by one.
            colliding = collides_T[rows].nonzero()[:, 0]
            which, negative = (targets_T[rows][colliding, None] == negatives_N).nonzero(as_tuple=True)
            scores_CN[colliding[which], negative] = -math.inf
            normaliser_C = torch.logaddexp(scores_CN.logsumexp(dim=1), own_T[rows])
            loss_C = normaliser_C - own_T[rows]
            weight_C = plausibility(-loss_C, denoise)
            grad_own_T[rows] = ((-loss_C).exp_() - 1) * weight_C
            total += weight_C @ loss_C
            total_weight += weight_C.sum()
            # From here on the scores are their own gradient: the softmax.
            fast_CN = scores_CN.sub_(normaliser_C[:, None]).exp_().to(precision)
            grad_states_TD[rows] = (fast_CN @ fast_ND) * weight_C[:, None]
            grad_negatives_ND += fast_CN.T @ (fast_TD[rows] * weight_C[:, None]).to(precision)
        grad_states_TD.addcmul_(grad_own_T[:, None], own_TD)
        grad_items_UD = torch.zeros_like(items_UD)
        grad_items_UD.index_add_(0, negatives_N, grad_negatives_ND)
        grad_items_UD.index_add_(0, targets_T, grad_own_T[:, None] * states_TD)
        ctx.save_for_backward(grad_states_TD, grad_items_UD, total_weight)
        return total / total_weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_states_TD, grad_items_UD, total_weight = ctx.saved_tensors
        scale = grad / total_weight
        return grad_states_TD * scale, None, grad_items_UD * scale, None, None, None, None
