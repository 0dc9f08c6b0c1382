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
    denoise: float = 0.0,
    precision: torch.dtype,
) -> Tensor:
    """Mean over the targets of −log softmax(states · itemsᵀ)[target]; `targets_T` count from 0.

    denoise: the mean is one weighted by `plausibility`.
    """
    loss: Tensor = _FullSoftmax.apply(states_TD, targets_T, items_VD, denoise, precision)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
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
        denoise: float,
        precision: torch.dtype,
    ) -> Tensor:
        states_TD, items_VD = states_TD.detach().float(), items_VD.detach().float()
        fast_TD, fast_VD = states_TD.to(precision), items_VD.to(precision)
        # The target's own score in full precision: a rounding error there is an error of the loss itself.
        target_TD = items_VD[targets_T]
        target_T = (states_TD * target_TD).sum(dim=1)
        weight_T = torch.empty_like(target_T)
        grad_states_TD = torch.empty_like(states_TD)
        grad_items_VD = torch.zeros_like(items_VD)
        total = states_TD.new_zeros(())
        # One buffer for all chunks: fresh memory of this size costs as much as the exponentials.
        buffer_CV = states_TD.new_empty(min(ROWS_PER_CHUNK, len(states_TD)), len(items_VD))
        for start in range(0, len(states_TD), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            scores_CV = _product(fast_TD[rows], fast_VD.T, out=buffer_CV[: len(states_TD) - start])
            highest_C1 = scores_CV.amax(dim=1, keepdim=True)
            # From here on e^(score − highest): the softmax, but for the sum that divides it.
            sum_C1 = scores_CV.sub_(highest_C1).exp_().sum(dim=1, keepdim=True)
            normaliser_C = (sum_C1.log() + highest_C1)[:, 0]
            loss_C = normaliser_C - target_T[rows]
            weight_C = weight_T[rows] = plausibility(-loss_C, denoise)
            total += weight_C @ loss_C
            fast_CV = scores_CV.to(precision)
            share_C1 = weight_C[:, None] / sum_C1
            grad_states_TD[rows] = (fast_CV @ fast_VD) * share_C1
            grad_items_VD += fast_CV.T @ (states_TD[rows] * share_C1).to(precision)
        grad_states_TD -= target_TD * weight_T[:, None]
        grad_items_VD.index_add_(0, targets_T, states_TD * weight_T[:, None], alpha=-1)
        total_weight = weight_T.sum()
        ctx.save_for_backward(grad_states_TD, grad_items_VD, total_weight)
        return total / total_weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_states_TD, grad_items_VD, total_weight = ctx.saved_tensors
        scale = grad / total_weight
        return grad_states_TD * scale, None, grad_items_VD * scale, None, None


def _product(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
    """The matrix product in float32, written to `out`, whatever it was multiplied in."""
    return torch.mm(left, right, out=out) if left.dtype == out.dtype else out.copy_(left @ right)


def fast_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # torch.cpu.get_capabilities is younger than the oldest torch that we run with.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    has_hardware = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return torch.bfloat16 if has_hardware else torch.float32
