"""Cross-entropy over the whole catalogue without ever holding its scores: what full softmax costs on a CPU is memory
traffic, so loss and gradient of a few hundred targets are finished while their scores are still in the cache.

With `precision=torch.bfloat16` the three matrix products take bfloat16 where exponentials and sums stay float32; a
processor with the instructions (AVX512-BF16, AMX) does them several times faster, and the gradient is off by 0.3 %.

Shapes: T targets, C targets of one chunk, D embedding, V items (no padding row).
"""

from typing import Any

import torch
from torch import Tensor

ROWS_PER_CHUNK = 256
LOWEST_LOGARITHM = -80.0
"""exp of it is still a float32: a batch whose every target is implausible still weighs something."""


def full_softmax(
    states_TD: Tensor,
    targets_T: Tensor,
    items_VD: Tensor,
    *,
    label_smoothing: float = 0.0,
    denoise: float = 0.0,
    precision: torch.dtype,
) -> Tensor:
    """Mean over the targets of −log softmax(states · itemsᵀ)[target]; `targets_T` count from 0.

    label_smoothing: this share of the target's probability is spread evenly over all V items.
    denoise: the mean is one weighted by `plausibility`.
    """
    loss: Tensor = _FullSoftmax.apply(states_TD, targets_T, items_VD, label_smoothing, denoise, precision)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return loss


def plausibility(logarithms_T: Tensor, denoise: float) -> Tensor:
    """(T,): how much a target that the model gives the probability p counts: p^denoise, a constant to the gradient.

    Reweighted cross-entropy (Wang et al., "Denoising Implicit Feedback for Recommendation", WSDM 2021): events that
    came about by chance stay hard to predict, so a model that learns from all alike learns mostly from them.
    `logarithms_T` are ln p.
    """
    return (logarithms_T.detach().clamp(min=LOWEST_LOGARITHM) * denoise).exp()


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states_TD: Tensor,
        targets_T: Tensor,
        items_VD: Tensor,
        smoothing: float,
        denoise: float,
        precision: torch.dtype,
    ) -> Tensor:
        states_TD, items_VD = states_TD.detach().float(), items_VD.detach().float()
        fast_TD, fast_VD = states_TD.to(precision), items_VD.to(precision)
        # The target's own score in full precision: a rounding error there is an error of the loss itself.
        target_T = (states_TD * items_VD[targets_T]).sum(dim=1)
        grad_states_TD = torch.empty_like(states_TD)
        grad_items_VD = torch.zeros_like(items_VD)
        total, total_weight = states_TD.new_zeros(()), states_TD.new_zeros(())
        for start in range(0, len(states_TD), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            scores_CV = (fast_TD[rows] @ fast_VD.T).float()
            normaliser_C1 = scores_CV.logsumexp(dim=1, keepdim=True)
            loss_C = normaliser_C1[:, 0] - (1 - smoothing) * target_T[rows]
            if smoothing:
                loss_C -= smoothing * scores_CV.mean(dim=1)
            weight_C = plausibility(target_T[rows] - normaliser_C1[:, 0], denoise)
            total += weight_C @ loss_C
            total_weight += weight_C.sum()
            # From here on the scores become their own gradient: softmax − wanted distribution.
            scores_CV.sub_(normaliser_C1).exp_()
            if smoothing:
                scores_CV.sub_(smoothing / scores_CV.shape[1])
            places_C1 = targets_T[rows, None]
            scores_CV.scatter_add_(1, places_C1, scores_CV.new_full(places_C1.shape, smoothing - 1))
            fast_CV = scores_CV.to(precision)
            grad_states_TD[rows] = (fast_CV @ fast_VD) * weight_C[:, None]
            grad_items_VD += fast_CV.T @ (fast_TD[rows] * weight_C[:, None]).to(precision)
        ctx.save_for_backward(grad_states_TD, grad_items_VD, total_weight)
        return total / total_weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_states_TD, grad_items_VD, total_weight = ctx.saved_tensors
        scale = grad / total_weight
        return grad_states_TD * scale, None, grad_items_VD * scale, None, None, None


def fast_precision() -> torch.dtype:
    """bfloat16 where this processor multiplies it in hardware, float32 elsewhere."""
    # torch.cpu.get_capabilities is younger than the oldest torch that we run with.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    has_hardware = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return torch.bfloat16 if has_hardware else torch.float32
