"""The chunked full softmax against torch's own cross-entropy over scores that are all held at once."""

import torch
from torch.nn import functional as F

from scripts.training.full_softmax import ROWS_PER_CHUNK, full_softmax

NUM_TARGETS = 2 * ROWS_PER_CHUNK + 7


def both(precision: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """[loss, gradient of the states, gradient of the items] of ours and of torch's."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(NUM_TARGETS, 16, generator=generator)
    items = torch.randn(301, 16, generator=generator) / 2
    targets = torch.randint(0, 301, (NUM_TARGETS,), generator=generator)
    results = []
    for ours in (True, False):
        leaves = [states.clone().requires_grad_(), items.clone().requires_grad_()]
        loss = (
            full_softmax(leaves[0], targets, leaves[1], precision=precision)
            if ours
            else F.cross_entropy(leaves[0] @ leaves[1].T, targets)
        )
        (3 * loss).backward()
        results.append([loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    return results[0], results[1]


def test_float32_gives_the_loss_and_the_gradient_of_torch() -> None:
    for found, expected in zip(*both(torch.float32), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_off_by_less_than_a_percent() -> None:
    for found, expected in zip(*both(torch.bfloat16), strict=True):
        assert (found - expected).norm() < 0.01 * expected.norm()
