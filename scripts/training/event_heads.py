"""Actions told apart: one head for each type of event over a body that all of them share.

Shapes: B batch, L length, D embedding.
"""

import torch
from torch import Tensor, nn

NUM_EVENT_TYPES = 256
"""Indices that the event-type map may give: one byte."""


class TargetHead(nn.Module):
    """What a state has to become to predict events of one type: a gate and a shift per dimension and type over a body
    that all types share (FiLM, Perez et al., 2018). All begin as the same head; 0 stands for any type."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(NUM_EVENT_TYPES, dim))
        self.shift = nn.Parameter(torch.zeros(NUM_EVENT_TYPES, dim))

    def forward(self, x_BLD: Tensor, target_types: Tensor | None) -> Tensor:
        """`target_types` (B,) or (B, L); None: any."""
        if target_types is None:
            target_types = torch.zeros(x_BLD.shape[0], dtype=torch.int64, device=x_BLD.device)
        if target_types.ndim == 1:
            target_types = target_types[:, None]
        return x_BLD * (1 + self.gate[target_types]) + self.shift[target_types]
